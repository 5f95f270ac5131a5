"""One pool of threads, shared by everything that splits rows.

Work is handed out in many small ranges, so that a slow core delays nobody; which thread
takes which range changes no bit of any result, since ranges share nothing.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

try:
    from softly.kernels._native import current_processor
except ImportError:  # nothing compiled, or a system that does not say
    current_processor = None  # type: ignore[assignment]

Item = TypeVar("Item")
Answer = TypeVar("Answer")

LITTLE = 1 << 18  # bytes that are not worth a second thread
_RANGES_A_THREAD = 4
_TILE = 16  # rows that the kernels work on at once
_MANY_WORKERS = 16  # where there are more, the system finds a processor that idles


class _Pool:
    """The threads beside the caller's own, started when first needed."""

    def __init__(self) -> None:
        self.count = _count()
        self._executor: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self.workers: list[int] = []  # as the system numbers them
        self._kept_off: tuple[int, int] | None = None

    def make_way(self) -> None:
        """Keep the workers off the caller's processor.

        The system likes to wake a thread on the processor of its waker. Ours does not wait but
        works on, so the woken one would start when all is done.
        """
        if current_processor is None or len(self.workers) > _MANY_WORKERS:
            return
        here = (current_processor(), len(self.workers))
        if here == self._kept_off:
            return
        self._kept_off = here
        others = os.sched_getaffinity(0) - {here[0]}
        for worker in self.workers:
            with suppress(OSError):  # it has ended, or no other processor is allowed
                os.sched_setaffinity(worker, others)

    def submit(self, work: Callable[[], None]) -> Future[None]:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(
                    max_workers=self.count - 1,
                    thread_name_prefix="softly",
                    initializer=_become_worker,
                    initargs=(self.workers,),
                )
        return self._executor.submit(work)


def _count() -> int:
    wanted = os.environ.get("SOFTLY_THREADS", "")
    if not wanted:
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity else os.cpu_count() or 1
    if not wanted.isdecimal() or int(wanted) < 1:
        raise ImportError(f"SOFTLY_THREADS is {wanted!r}: it must be a whole number from 1 up")
    return int(wanted)


_here = threading.local()


def _become_worker(workers: list[int]) -> None:
    _here.is_worker = True
    workers.append(threading.get_native_id())


_pool = _Pool()


def _after_fork() -> None:
    """A child has none of its parent's threads: it starts its own when it needs them."""
    global _pool
    _pool = _Pool()
    _here.is_worker = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def count() -> int:
    """How many threads work at once, the caller's among them."""
    return _pool.count


def run(tasks: list[Callable[[], None]]) -> None:
    """Run every task, on the caller's thread and the pool's, and wait for them all.

    Inside a worker the tasks run one after the other: a worker that waited for workers could
    wait for ever. When a task raises, those not yet begun are dropped.
    """
    helpers = 0 if getattr(_here, "is_worker", False) else min(_pool.count, len(tasks)) - 1
    waiting = deque(tasks)

    def work() -> None:
        try:
            while True:
                try:
                    task = waiting.popleft()
                except IndexError:
                    return
                task()
        except BaseException:
            waiting.clear()
            raise

    futures = []
    if helpers > 0:
        _pool.make_way()
    try:
        for _ in range(helpers):
            try:
                futures.append(_pool.submit(work))
            except RuntimeError:  # the interpreter is shutting down: no new threads
                break
        work()
    finally:
        for future in futures:
            future.exception()  # wait, so that nobody writes into arrays after we return
    for future in futures:
        future.result()


def each(work: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
    """What work makes of every item, in the order of the items, whoever made it when."""
    found: list[Any] = [None] * len(items)

    def one(i: int) -> None:
        found[i] = work(items[i])

    run([partial(one, i) for i in range(len(items))])
    return found


def over_rows(work: Callable[[int, int], None], rows: int, costs_bytes: int) -> None:
    """Call ``work(start, stop)`` over ranges that cover all rows; little work stays here."""
    if costs_bytes < LITTLE or count() == 1:
        work(0, rows)
        return
    step = -(-rows // (count() * _RANGES_A_THREAD))
    # Whole tiles of rows, unless that would leave a thread without work.
    step = -(-step // _TILE) * _TILE if step > _TILE // 2 else min(_TILE, -(-rows // count()))
    starts = range(0, rows, step)
    run([partial(work, start, min(start + step, rows)) for start in starts])
