"""How the rows of an objective are gone over, whatever lies behind their features.

Rows, and columns, are cut by N, D and K alone; the pieces may run on several threads, and what they
add up is added in one order, so that all values have the same bits on any number of threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from softly.certificate import ClassMeans
from softly.kernels import chosen as kernels
from softly.kernels import threads
from softly.kernels.blas import one_blas_thread

Array = NDArray[Any]

_STRIPE_BYTES = 1 << 18  # of features, at least
_SUM_BYTES = 1 << 25  # of the stripes' gradients together
_FEWEST_STRIPES, _MOST_STRIPES = 4, 32
_ROWS_A_CLASS = 4  # of a stripe: fewer are not worth adding up its gradient
_BLOCK_BYTES = 1 << 20  # of features in float64, at once
_COLUMN_BYTES = 1 << 25  # of a copy of sparse features
_PIECES = 16


@dataclass(frozen=True)
class Rows:
    """What is known of each row.

    Attributes
    ----------
    features : ndarray or CSR matrix, shape (N, D)
    target : ndarray, shape (N,) of int64 or (N, K)
    n_classes : int
    weight : ndarray of float64, shape (N,), or None
    by_column : CSC matrix or None
        Sparse features, if that is known.
    """

    features: Any
    target: Array
    n_classes: int
    weight: NDArray[np.float64] | None
    by_column: Any = None

    @cached_property
    def total_weight(self) -> float:
        return float(len(self.target) if self.weight is None else self.weight.sum())

    def target_as(self, dtype: Any, some: slice = slice(None)) -> Array:
        """Targets in the type of a pass; numbers of classes as they are."""
        target = self.target[some]
        return target if target.ndim == 1 else target.astype(dtype, copy=False)

    def weight_as(self, dtype: Any) -> Array | None:
        return self.weight if dtype == np.float64 else self._short_weight

    @cached_property
    def _short_weight(self) -> Array | None:
        return None if self.weight is None else self.weight.astype(np.float32)


class Stripes:
    """Passes that read every row once: each stripe of rows has sums of its own."""

    def __init__(self, rows: Rows) -> None:
        self.is_by_feature = sp.issparse(rows.features)  # which way sums lie in memory
        self._rows = rows
        self._stripes = _stripes(rows.features, rows.n_classes)
        self._at: Array | None = None  # weights of the last point

    def loss(
        self, parameters: Array, mean: Array, probabilities: Array | None, dtype: Any
    ) -> float:
        """The mean loss; adds its gradient to `mean`, and keeps each row's probabilities."""
        rows = self._rows
        self._at = weights = self._by_feature(parameters, dtype)
        weight = rows.weight_as(dtype)

        def work(start: int, stop: int) -> tuple[float, Array]:
            # Of these rows alone, so that little is held in two types.
            some = slice(start, stop)
            kept = None if probabilities is None else probabilities[some]
            p = None if kept is None else _of_type(kept, dtype)
            found: tuple[float, Array] = kernels.linear_loss(
                *(_rows_of(rows.features, start, stop), weights, rows.target_as(dtype, some)),
                *(None if weight is None else weight[some], 0, stop - start, p),
            )
            if p is not kept:
                kept[:] = p  # type: ignore[index]
            return found

        found = self._of_stripes(work)
        self._add_up([slope for _, slope in found], mean)
        return float(sum(loss for loss, _ in found)) / rows.total_weight

    def curvature(
        self, direction: Array, mean: Array, probabilities: Array | None, dtype: Any
    ) -> None:
        """Adds the mean loss's Hessian, at the last point, times a direction."""
        rows, along = self._rows, self._by_feature(direction, dtype)
        at = None if self._at is None else self._at.astype(dtype, copy=False)
        weight = rows.weight_as(dtype)

        def work(start: int, stop: int) -> Array:
            product: Array = kernels.linear_curvature(
                *(rows.features, at, along, weight, start, stop, probabilities)
            )
            return product

        self._add_up(self._of_stripes(work), mean)

    def scores(self, features: Array) -> Array:
        """Of dense rows at the last point, in their type: (N, K)."""
        assert self._at is not None
        at = self._at.astype(features.dtype, copy=False)
        scores: Array = features @ at[:-1] + at[-1]
        return scores

    def class_means(self) -> ClassMeans:
        parts = self._of_stripes(self._class_sums)
        total = self._rows.total_weight
        return ClassMeans(sum(of for of, _ in parts) / total, sum(of for _, of in parts) / total)

    def square_sums(self, slopes: Array) -> Array:
        """Sums of each row's slopes (N, K) times the squares of its features: (K, D)."""

        def work(start: int, stop: int) -> Array:
            x = _rows_of(self._rows.features, start, stop)
            squares = x * x if isinstance(x, np.ndarray) else x.multiply(x)
            sums: Array = slopes[start:stop].T @ squares
            return sums

        whole: Array = sum(self._of_stripes(work))
        return whole

    def features_of(self, which: NDArray[np.intp]) -> tuple[Any, None]:
        """Some of the columns, as the features are."""
        some = self._rows.features[:, which]
        return np.ascontiguousarray(some) if isinstance(some, np.ndarray) else some, None

    def _by_feature(self, parameters: Array, dtype: Any) -> Array:
        """(D + 1, K), as the kernels want weights."""
        rows = self._rows
        weights = np.zeros((rows.features.shape[1] + 1, rows.n_classes), dtype)
        weights[: parameters.shape[1], -len(parameters) :] = parameters.T
        return weights

    def _of_stripes(self, work: Callable[[int, int], Any]) -> list[Any]:
        return _in_pieces(work, self._stripes)

    def _add_up(self, sums: list[Array], mean: Array) -> None:
        total_weight = self._rows.total_weight

        def add(start: int, stop: int) -> None:
            parts = [each[-len(mean) :, start:stop] for each in sums]
            part = parts[0].copy()
            for more in parts[1:]:
                part += more
            part /= total_weight
            mean[:, start:stop] += part

        threads.over_rows(add, mean.shape[1], mean.nbytes)

    def _class_sums(self, start: int, stop: int) -> tuple[Array, Array]:
        X, k = self._rows.features, self._rows.n_classes
        count = X.size if isinstance(X, np.ndarray) else X.nnz
        frequency, features = np.zeros(k), np.zeros((k, X.shape[1]))
        step = max(1, int(_BLOCK_BYTES // (8 * count / X.shape[0] + 1)))
        for a in range(start, stop, step):
            some = slice(a, min(a + step, stop))
            target = _weighted_targets(self._rows, some)
            frequency += np.asarray(target.sum(axis=0))
            part = target.T @ X[some]
            features += part.toarray() if sp.issparse(part) else part
        return frequency, features


class Columns:
    """Passes over sparse rows that hold them a second time, by columns.

    Rows make their slopes, what each score adds to the loss; then every feature gathers those of
    the rows that have it. Nothing is scattered, and no piece has sums of its own.
    """

    is_by_feature = True

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._columns = rows.features.tocsc() if rows.by_column is None else rows.by_column
        n, d = rows.features.shape
        self._width = kernels.width(rows.n_classes)
        dtype = rows.features.dtype
        self._weights = _aligned_zeros((d + 1, self._width), dtype)
        self._slopes = _aligned_zeros((n, self._width), dtype)
        self._row_pieces = _pieces(rows.features.indptr)
        self._column_pieces = _pieces(self._columns.indptr)

    @staticmethod
    def suit(rows: Rows) -> bool:
        """Whether a copy of the features is small enough."""
        X = rows.features
        if not sp.issparse(X):
            return False
        return bool(X.nnz * (X.dtype.itemsize + X.indices.itemsize) <= _COLUMN_BYTES)

    def loss(
        self, parameters: Array, mean: Array, probabilities: Array | None, dtype: Any
    ) -> float:
        """The mean loss; adds its gradient to `mean`, and keeps each row's probabilities."""
        assert probabilities is not None
        rows = self._rows
        weights, slopes, p = self._weights, self._slopes, _of_type(probabilities, dtype)
        if p is not probabilities:
            weights, slopes = (_aligned_zeros(a.shape, dtype) for a in (weights, slopes))
        self._pack(parameters, weights)
        target, weight = rows.target_as(dtype), rows.weight_as(dtype)

        def work(start: int, stop: int) -> float:
            loss: float = kernels.linear_slopes(
                *(rows.features, weights, rows.n_classes, target, weight, start, stop, slopes, p)
            )
            return loss

        losses = _in_pieces(work, self._row_pieces)
        if p is not probabilities:
            probabilities[:] = p
        self._gather(slopes, mean)
        return float(sum(losses)) / rows.total_weight

    def curvature(
        self, direction: Array, mean: Array, probabilities: Array | None, dtype: Any
    ) -> None:
        """Adds the mean loss's Hessian, at the last point, times a direction."""
        rows, slopes = self._rows, self._slopes
        self._pack(direction, self._weights)
        weight = rows.weight_as(dtype)

        def work(start: int, stop: int) -> None:
            kernels.linear_slopes_along(
                *(rows.features, self._weights, rows.n_classes, weight, start, stop),
                *(slopes, probabilities),
            )

        _in_pieces(work, self._row_pieces)
        self._gather(slopes, mean)

    def scores(self, features: Array) -> Array:
        raise NotImplementedError("the probabilities are kept")

    def class_means(self) -> ClassMeans:
        rows = self._rows
        each = 1.0 if rows.weight is None else rows.weight
        slopes = _aligned_zeros(self._slopes.shape, np.float64)
        if rows.target.ndim == 1:
            slopes[np.arange(len(slopes)), rows.target] = each
        else:
            slopes[:, : rows.n_classes] = rows.target * np.reshape(each, (-1, 1))
        mean = np.zeros((rows.features.shape[1] + 1, rows.n_classes)).T
        self._gather(slopes, mean)
        return ClassMeans(mean[:, -1] / mean[:, -1].sum(), mean[:, :-1])

    def square_sums(self, slopes: Array) -> Array:
        """Sums of each row's slopes (N, K) times the squares of its features: (K, D)."""
        k = slopes.shape[1]
        padded = _aligned_zeros((len(slopes), kernels.width(k)), slopes.dtype)
        padded[:, :k] = slopes
        c = self._columns
        squares = sp.csc_array((c.data * c.data, c.indices, c.indptr), shape=c.shape)
        sums: Array = np.zeros((squares.shape[1] + 1, k))
        self._gather_into(sums, squares, padded, 1.0)
        return sums[:-1].T

    def features_of(self, which: NDArray[np.intp]) -> tuple[Any, Any]:
        """Some of the columns: rows and columns."""
        some = self._columns[:, which]
        return some.tocsr(), some

    def _pack(self, parameters: Array, weights: Array) -> None:
        """By feature, as the kernels want them; the classes padded."""
        last = self._rows.n_classes

        def copy(start: int, stop: int) -> None:
            weights[start:stop, last - len(parameters) : last] = parameters.T[start:stop]

        threads.over_rows(copy, parameters.shape[1], parameters.nbytes)

    def _gather(self, slopes: Array, mean: Array) -> None:
        k, total = self._rows.n_classes, mean.T
        direct = total.flags.c_contiguous and total.shape == (len(self._weights), k)
        if not direct:
            total = np.zeros((len(self._weights), k), mean.dtype)
        self._gather_into(total, self._columns, slopes, 1 / self._rows.total_weight)
        if not direct:
            mean += total.T[-len(mean) :, : mean.shape[1]]

    def _gather_into(self, total: Array, columns: Any, slopes: Array, scale: float) -> None:
        def work(start: int, stop: int) -> None:
            kernels.linear_gather(columns, slopes, start, stop, scale, total)

        count = len(total) - 1
        _in_pieces(work, [*self._column_pieces, (count, count + 1)])  # the last: the intercepts


def over(rows: Rows, keeps: bool) -> Stripes | Columns:
    """The passes that suit the features, and whether a number for each row and class is kept."""
    return Columns(rows) if keeps and Columns.suit(rows) else Stripes(rows)


def _rows_of(X: Any, start: int, stop: int) -> Any:
    """Some of the rows, whose numbers stay where they are."""
    if isinstance(X, np.ndarray):
        return X[start:stop]
    first, last = X.indptr[start], X.indptr[stop]
    parts = X.data[first:last], X.indices[first:last], X.indptr[start : stop + 1] - first
    return sp.csr_matrix(parts, shape=(stop - start, X.shape[1]), copy=False)


def _of_type(array: Array, dtype: Any) -> Array:
    """The array, or room for as many numbers of another type."""
    return array if array.dtype == dtype else np.empty(array.shape, dtype)


def _aligned_zeros(shape: tuple[int, ...], dtype: Any) -> Array:
    """Zeros that begin on a line of memory, so that a row of them lies in as few as may be."""
    size = shape[0] * shape[1] * np.dtype(dtype).itemsize
    room = np.zeros(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    zeros: Array = room[start : start + size].view(dtype).reshape(shape)
    return zeros


def _in_pieces(work: Callable[[int, int], Any], pieces: list[tuple[int, int]]) -> list[Any]:
    with one_blas_thread:
        return threads.each(lambda piece: work(*piece), pieces)


def _pieces(starts: Array) -> list[tuple[int, int]]:
    """Rows (or columns) cut where each piece has as many entries as the others."""
    count, entries = len(starts) - 1, int(starts[-1])
    pieces = min(_PIECES, max(1, entries // _STRIPE_BYTES * 8))
    inner = np.searchsorted(starts, np.linspace(0, entries, pieces + 1)[1:-1])
    edges = np.unique([0, *np.minimum(inner, count), count])
    return list(itertools.pairwise(edges.tolist()))


def _stripes(X: Any, n_classes: int) -> list[tuple[int, int]]:
    n, d = X.shape
    size = (X.size if isinstance(X, np.ndarray) else X.nnz) * X.dtype.itemsize
    fit = max(_FEWEST_STRIPES, _SUM_BYTES // (8 * n_classes * (d + 1)))
    count = min(_MOST_STRIPES, fit, size // _STRIPE_BYTES)
    count = max(1, min(count, n // (_ROWS_A_CLASS * n_classes)))
    return list(itertools.pairwise(np.linspace(0, n, count + 1).astype(int).tolist()))


def _weighted_targets(rows: Rows, some: slice) -> Any:
    target = rows.target[some]
    weight = np.ones(len(target)) if rows.weight is None else rows.weight[some]
    if target.ndim == 1:
        at = (weight, target, np.arange(len(target) + 1))
        return sp.csr_array(at, shape=(len(target), rows.n_classes))
    shares: Array = target * weight[:, None]
    return shares
