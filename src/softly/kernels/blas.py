"""Matrix products in the BLAS that NumPy has, and BLAS on one thread.

Ours take the rows, so that its sums have one order. Its own threads also spin for a while after
each product, on processors that others need.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

Array = NDArray[Any]
_Gemm = Callable[..., None]

_ROOM = 1 << 18  # numbers
_ROW_MAJOR, _AS_IT_IS, _TRANSPOSED, _NEITHER = 101, 111, 112, 0


class _OneBlasThread:
    """A context in which BLAS takes one thread.

    The limit is the process's: the first of several users at once sets it, the last lifts it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: list[int] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._before = [library.num_threads for library in _blas().lib_controllers]
                _set_threads([1] * len(self._before))
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                _set_threads(self._before)


def _set_threads(counts: list[int]) -> None:
    for library, count in zip(_blas().lib_controllers, counts, strict=True):
        _threads_setter(library)(count)


@cache
def _threads_setter(library: Any) -> Callable[[int], None]:
    """OpenBLAS's own: threadpoolctl lets one thread of a process set it, and others in vain."""
    for prefix, suffix in itertools.product(("scipy_", ""), ("64_", "_64", "")):
        name = f"{prefix}openblas_set_num_threads{suffix}"
        if library.internal_api == "openblas" and hasattr(library.dynlib, name):
            return getattr(library.dynlib, name)  # type: ignore[no-any-return]
    return library.set_num_threads  # type: ignore[no-any-return]


@cache
def _blas() -> Any:
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


one_blas_thread = _OneBlasThread()


def multiply(a: Array, b: Array, out: Array, *, add: bool = False) -> None:
    """``out = a @ b``, or ``out += a @ b`` with `add`; all three `ready`, of one float type.

    Where BLAS itself cannot be called, sums pass through `room` bytes of memory.
    """
    gemm = _gemm(out.dtype.char)
    if gemm is not None and a.shape[1]:
        kinds, steps = zip(_layout(a), _layout(b), strict=True)
        at = [x.ctypes.data for x in (a, b, out)]
        gemm(
            *(_ROW_MAJOR, *kinds, *out.shape, a.shape[1], 1.0, at[0], steps[0], at[1], steps[1]),
            *(float(add), at[2], _layout(out)[1]),
        )
    elif add:
        rows = max(1, _ROOM // max(out.shape[1], 1))
        for start in range(0, len(out), rows):
            some = slice(start, start + rows)
            out[some] += np.matmul(a[some], b)
    else:
        np.matmul(a, b, out=out)


def room(columns: int, item: int) -> int:
    """The bytes that a sum of products takes on the way, by its columns and a number's bytes."""
    return 0 if _gemm("f") and _gemm("d") else max(_ROOM, columns) * item


def ready(x: Array) -> bool:
    """Whether BLAS can read a matrix where it lies."""
    return (
        x.flags.aligned and x.dtype.char in "fd" and x.dtype.isnative and _layout(x)[0] != _NEITHER
    )


def _layout(x: Array) -> tuple[int, int]:
    """Which way a matrix lies, and how far apart its rows (or columns) are."""
    (rows, columns), item = x.shape, x.itemsize
    down, across = x.strides
    if (columns <= 1 or across == item) and (rows <= 1 or _fits(down, columns, item)):
        return _AS_IT_IS, down // item if rows > 1 else max(columns, 1)
    if (rows <= 1 or down == item) and (columns <= 1 or _fits(across, rows, item)):
        return _TRANSPOSED, across // item if columns > 1 else max(rows, 1)
    return _NEITHER, 0


def _fits(stride: int, entries: int, item: int) -> bool:
    return stride % item == 0 and stride >= max(entries, 1) * item


@cache
def _gemm(kind: str) -> _Gemm | None:
    """The matrix product of the library that NumPy multiplies with; None where it is not found."""
    letter, number = {"f": ("s", ctypes.c_float), "d": ("d", ctypes.c_double)}[kind]
    for library, name, integer in _candidates(letter):
        gemm: Any = getattr(library, name, None)
        if gemm is None:
            continue
        sizes, matrix = [integer] * 3, [ctypes.c_void_p, integer]
        gemm.argtypes = [*[ctypes.c_int] * 3, *sizes, number, *matrix, *matrix, number, *matrix]
        gemm.restype = None
        return gemm  # type: ignore[no-any-return]
    return None


def _candidates(letter: str) -> Iterator[tuple[ctypes.CDLL, str, type]]:
    """Loaded libraries, NumPy's own first, with the names that tell how wide an integer is."""
    found = [x for x in _blas().info() if x["internal_api"] in ("openblas", "mkl")]
    for each in sorted(found, key=lambda x: "numpy" not in x["filepath"]):
        library = ctypes.CDLL(each["filepath"])
        for prefix in ("scipy_cblas", "cblas"):
            yield library, f"{prefix}_{letter}gemm64_", ctypes.c_int64
        yield library, f"scipy_cblas_{letter}gemm", ctypes.c_int
        if not _wide_integers(library):
            yield library, f"cblas_{letter}gemm", ctypes.c_int


def _wide_integers(library: ctypes.CDLL) -> bool:
    """Whether OpenBLAS was built with 64-bit integers under the names of 32-bit ones."""
    if not hasattr(library, "openblas_get_config"):
        return False
    library.openblas_get_config.restype = ctypes.c_char_p
    return b"USE64BITINT" in library.openblas_get_config()
