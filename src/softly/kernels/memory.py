"""Room for large results, on the pages of earlier ones.

A fresh large array costs more than a softmax: the system hands out its pages one by one and
zeroes each. So the pages of a large result that nobody holds any more are kept for the next
one. They are marked as free: while nobody uses them the system takes them back when it needs
memory.
"""

from __future__ import annotations

import mmap
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_LARGE = 1 << 25  # bytes; smaller pieces malloc itself keeps
_MOST_KEPT = 2  # pieces
_CAN_KEEP = hasattr(mmap, "MADV_FREE") and hasattr(mmap, "MADV_HUGEPAGE")

_kept: deque[mmap.mmap] = deque()


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """As numpy.empty."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size < _LARGE or not _CAN_KEEP:
        return np.empty(shape, dtype)
    return np.asarray(_Pages(_take(size), shape, dtype))


def empty_like(x: NDArray[Any]) -> NDArray[Any]:
    """As numpy.empty_like: the dimensions lie in memory in the order that those of x do."""
    if x.nbytes < _LARGE:
        return np.empty_like(x)
    order = sorted(range(x.ndim), key=lambda d: -abs(x.strides[d]))
    answer = empty(tuple(x.shape[d] for d in order), x.dtype)
    return answer.transpose(np.argsort(order))


class _Pages:
    """What an array's memory is, for as long as the array or a view of it lives."""

    def __init__(self, pages: mmap.mmap, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._pages = pages
        # By its address: with a buffer here, arrays would hold the buffer and let go of us.
        address = np.frombuffer(pages, np.uint8).ctypes.data
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (address, False),
        }

    def __del__(self) -> None:
        try:
            self._pages.madvise(mmap.MADV_FREE)
            _kept.append(self._pages)
            while len(_kept) > _MOST_KEPT:
                _kept.popleft()
        except (OSError, ValueError, TypeError, AttributeError):
            pass  # an interpreter on its way out: the pages go with it


def _take(size: int) -> mmap.mmap:
    for _ in range(len(_kept)):
        try:
            pages = _kept.popleft()
        except IndexError:  # another thread took it
            break
        if size <= len(pages) <= 2 * size:
            return pages
        _kept.append(pages)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(mmap.MADV_HUGEPAGE)
    return pages
