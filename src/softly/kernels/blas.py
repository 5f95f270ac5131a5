"""BLAS on one thread: ours take the rows, so that its sums have one order.

Its own threads also spin for a while after each product, on processors that others need.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import threadpoolctl


class _OneBlasThread:
    """A context in which BLAS takes one thread.

    The limit is the process's: the first of several users at once sets it, the last lifts it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._limit = _blas().limit(limits=1)
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._limit.restore_original_limits()


@cache
def _blas() -> Any:
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


one_blas_thread = _OneBlasThread()
