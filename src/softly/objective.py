"""The regularised loss of a linear softmax classifier, its gradient and its curvature."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from softly import passes
from softly.certificate import ClassMeans, duality_gap
from softly.functions import softmax
from softly.kernels import threads
from softly.passes import Rows

Array = NDArray[Any]

_KEPT_BYTES = 1 << 24  # of probabilities
_HELD_BYTES, _COPIES = 1 << 26, 8
_MEAN_ROWS = 1 << 10
_BLOCK = 1 << 15  # numbers that are in the cache
# Of features that may be rounded to float32: bytes of them all; their size, and how far their
# numbers are apart as a part of it.
_LITTLE, _LARGEST, _LEAST_SPREAD = 1 << 21, 1e15, 1e-4


class Objective:
    r"""Mean loss and L2 penalty: scikit-learn's objective divided by ``C`` times the weights' sum.

    .. math:: F(W, b) = \frac{1}{S} \sum_i s_i \, \mathrm{CE}(W x_i + b, y_i)
                        + \frac{\lambda}{2} \|W\|^2

    with S the sum of the weights and the intercept not penalised.

    Parameters
    ----------
    X : ndarray or CSR matrix, shape (N, D), float32 or float64
    target : ndarray
        Classes 0 to K - 1, int64 of shape (N,); or how much of each, shape (N, K), rows that sum
        to 1.
    n_classes : int
        K. For two classes the scores of the first are held at 0, as scikit-learn does.
    weight : ndarray of float64, shape (N,), or None
        Rows of weight 0 count for nothing.
    l2 : float
        The penalty, lambda; 1 / (C S) where there is no other.
    l1 : float
        What the sum of the coefficients' sizes is multiplied with, a penalty that solvers see to:
        it is no part of any value here.
    fit_intercept : bool
        Whether there is a b.
    by_column : CSC matrix, optional
        A sparse X, if that is known.

    Attributes
    ----------
    n_passes : float
        How often the rows were read.
    probabilities : ndarray of shape (N, K), or None
        At the last point asked for, of rows that have weight; None where they would take more than
        16 MiB.
    precise : bool
        Whether values and gradients are worked on in float64, whatever the features are.
    dtype : numpy.dtype
        What all else is worked on in: the features' type, unless another was asked for.
    """

    def __init__(
        self,
        X: Any,
        target: Array,
        n_classes: int,
        *,
        weight: NDArray[np.float64] | None,
        l2: float,
        l1: float = 0.0,
        fit_intercept: bool,
        by_column: Any = None,
    ) -> None:
        self.n_classes = n_classes
        self.l2 = l2
        self.l1 = l1
        self.fit_intercept = fit_intercept
        self.n_rows, self.n_features = X.shape
        self.n_passes = 0.0
        self.precise = False
        self.features = X
        self.feature_count = X.size if isinstance(X, np.ndarray) else X.nnz
        self.feature_bytes = self.feature_count * X.dtype.itemsize
        self.target = target if target.ndim == 1 else target.astype(X.dtype, copy=False)
        self._weight = weight
        self._rows = Rows(X, self.target, n_classes, weight, by_column)
        self.total_weight = self._rows.total_weight
        self._work_in(X.dtype)
        self._passes = passes.over(self._rows, self.probabilities is not None)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the parameters: a row for each class (one for two classes), b in the last column."""
        n_rows = 1 if self.n_classes == 2 else self.n_classes
        return n_rows, self.n_features + int(self.fit_intercept)

    @property
    def most_bytes(self) -> int:
        """What a fit holds beside the rows, at most.

        Probabilities, a sample and sums of stripes, some copies of the parameters, and for dense
        features a matrix of them.
        """
        k, d = self.shape
        of_features = 8 * d * d if isinstance(self.features, np.ndarray) else 0
        return _HELD_BYTES + _COPIES * 8 * k * d + of_features

    def work_roughly(self) -> None:
        """Work in float32 until `work_precisely`, as is enough far from the minimum.

        In float64 where the features are and float32 would not tell them apart.
        """
        self.precise = False
        if self._rough_type != self.dtype:
            self._work_in(self._rough_type)

    def work_precisely(self) -> None:
        """Values and gradients in float64, and all else in the features' type."""
        self.precise = True
        if self.dtype != self.features.dtype:
            self._work_in(self.features.dtype)

    def work_in_full(self) -> None:
        """All in float64, but that sparse features keep their type."""
        self.precise = True
        if not self.is_full:
            self._work_in(np.float64)

    def work_as(self, other: Objective) -> None:
        """As precisely as another objective, whose rows are some of these or more."""
        self.precise = other.precise
        if self.dtype != other.dtype:
            self._work_in(other.dtype)

    @property
    def is_rough(self) -> bool:
        """Whether values are rougher than float64."""
        return not self.precise and self.dtype == np.float32

    @property
    def is_full(self) -> bool:
        """Whether nothing can be worked on more precisely."""
        is_sparse = not isinstance(self.features, np.ndarray)
        return self.precise and (is_sparse or self.dtype == np.float64)

    @property
    def is_rounded(self) -> bool:
        """Whether values are not even of the features as they are."""
        return not self.precise and bool(self.dtype != self.features.dtype)

    def value_and_gradient(self, parameters: Array) -> tuple[float, Array]:
        """F and its gradient, float64, at parameters of `shape`: one pass over the data."""
        mean = self._of_penalty(parameters)
        dtype = np.float64 if self.precise else self.dtype
        value = self._passes.loss(parameters, mean, self.probabilities, dtype)
        self.n_passes += 1
        coefficients = parameters[:, : self.n_features]
        return value + 0.5 * self.l2 * dot(coefficients, coefficients), mean

    def curvature_along(self, direction: Array) -> Array:
        """The Hessian, at the last point asked for, times a direction: one pass over the data.

        In the type of the direction, float64 or that of the features.
        """
        mean = self._of_penalty(direction)
        self._passes.curvature(direction, mean, self.probabilities, self.dtype)
        self.n_passes += 1
        return mean

    def probabilities_of(self, rows: slice, features: Array) -> Array:
        """Of some rows at the last point asked for, in the type of these features of theirs."""
        if self.probabilities is not None:
            return self.probabilities[rows].astype(features.dtype, copy=False)
        p: Array = softmax(self._passes.scores(features), axis=1)
        return p

    def sample(self, rows: NDArray[np.intp] | slice) -> Objective:
        """The same ``C`` for some of the rows; a slice of dense features is not copied."""
        weight = None if self._weight is None else np.ascontiguousarray(self._weight[rows])
        target = np.ascontiguousarray(self.target[rows])
        total = float(len(target) if weight is None else weight.sum())
        features = self.features[rows]
        if not isinstance(rows, slice):  # a copy in any case
            features = features.astype(self.dtype, copy=False)
        sample = Objective(
            features,
            target,
            self.n_classes,
            weight=weight,
            l2=self.l2 * self.total_weight / total,
            l1=self.l1 * self.total_weight / total,
            fit_intercept=self.fit_intercept,
        )
        if sample.dtype != self.dtype:
            sample._work_in(self.dtype)
        return sample

    def columns(self, which: NDArray[np.intp]) -> Objective:
        """The same with some of the features: those of the others have coefficients of 0."""
        features, by_column = self._passes.features_of(which)
        of_some = Objective(
            features,
            self.target,
            self.n_classes,
            weight=self._weight,
            l2=self.l2,
            l1=self.l1,
            fit_intercept=self.fit_intercept,
            by_column=by_column,
        )
        of_some.precise = self.precise
        if isinstance(self.features, np.ndarray):
            of_some.feature_means = self.feature_means[which]
        if self.fit_intercept:
            means = self.class_means
            of_some.class_means = ClassMeans(means.frequency, means.features[:, which])
        return of_some

    def _work_in(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.weight = self._rows.weight_as(dtype)
        self.probabilities: Array | None = None  # before there are two
        shape, keeps = (self.n_rows, self.n_classes), self.n_rows <= most_rows_kept(self)
        if keeps:
            self.probabilities = np.empty(shape, dtype)

    @cached_property
    def _rough_type(self) -> np.dtype[Any]:
        """float32, if much is gained and each feature still tells the rows apart in it."""
        X = self.features
        own: np.dtype[Any] = X.dtype
        is_dense = isinstance(X, np.ndarray) and self.target.ndim == 1
        if not is_dense or own == np.float32 or self.feature_bytes < _LITTLE:
            return own
        self.n_passes += 1
        low, high = extremes(X)
        size = np.maximum(-low, high)
        is_constant, is_far = high == low, high - low < _LEAST_SPREAD * size
        is_sound = (size <= _LARGEST) & ((size >= 1 / _LARGEST) | (size == 0))
        return np.dtype(np.float32) if (is_sound & (is_constant | ~is_far)).all() else own

    def relative_gap(self, parameters: Array, value: float, gradient: Array) -> float:
        """A proven bound on how far F is above its minimum, as a part of F."""
        if not (self.fit_intercept and self.l2):
            gap = duality_gap(parameters, value, gradient, self.l2, None)
        else:
            gap = self._gap_of_live_classes(parameters, value, gradient)
        return gap / value if 0 < gap < np.inf else gap

    def _gap_of_live_classes(self, parameters: Array, value: float, gradient: Array) -> float:
        """The gap, where classes that no row has any of may do without a finite intercept.

        In the limit they have no probability. Taking away what they have of it costs a row
        -log(1 - p) <= 2 p, for p up to 1/2.
        """
        means = self.class_means
        live = means.frequency > 0
        if live.all():
            return duality_gap(parameters, value, gradient, self.l2, means)
        dead = float(gradient[~live, -1].sum())
        least = 1.0 if self._weight is None else float(self._weight[self._weight > 0].min())
        if dead * self.total_weight > least / 2:
            return np.inf
        means = ClassMeans(means.frequency[live], means.features[live])
        gap = duality_gap(parameters[live], value, gradient[live], self.l2, means)
        return gap + 2 * dead

    def laid_out(self, parameters: Array) -> Array:
        """In the order of memory that gradients have: feature by feature for sparse features."""
        return np.array(parameters, order=self._order)

    @property
    def _order(self) -> Literal["C", "F"]:
        return "F" if self._passes.is_by_feature else "C"

    def _of_penalty(self, parameters: Array) -> Array:
        """The penalty's part of a gradient, or of a product with the Hessian."""
        part = np.empty(self.shape, parameters.dtype, order=self._order)
        np.multiply(parameters, self.l2, out=part)
        part[:, self.n_features :] = 0
        return part

    @cached_property
    def feature_means(self) -> Array:
        """The weighted means of dense features, as sums in their type give them, in float64."""
        X = self.features
        weight = np.ones(self.n_rows) if self._weight is None else self._weight
        sums = np.zeros(self.n_features)
        for start in range(0, self.n_rows, _MEAN_ROWS):
            some = slice(start, start + _MEAN_ROWS)
            sums += weight[some].astype(X.dtype) @ X[some]
        means: Array = sums / self.total_weight
        return means

    @cached_property
    def feature_sizes(self) -> NDArray[np.float64]:
        """The largest of each feature's numbers; of dense ones, the furthest from its mean."""
        X = self.features
        if isinstance(X, np.ndarray):
            means = self.feature_means if self.fit_intercept else 0
            low, high = extremes(X)
            sizes = np.maximum(high - means, means - low)
        else:
            sizes = abs(X).max(axis=0).todense()
        return np.asarray(sizes, np.float64).ravel()

    @cached_property
    def class_means(self) -> ClassMeans:
        """What each class holds of the weight and of the features: one pass over the data."""
        self.n_passes += 1
        return self._passes.class_means()

    def square_sums(self, slopes: Array) -> Array:
        """Sums of each row's slopes (N, K) times the squares of its features: (K, D)."""
        return self._passes.square_sums(slopes)


def extremes(X: Array) -> tuple[Array, Array]:
    """The least and the largest number of each column."""
    step = max(1, _BLOCK // X.shape[1])

    def of_block(start: int) -> Array:
        some = X[start : start + step]
        return np.stack([some.min(axis=0), some.max(axis=0)])

    found = np.stack(threads.each(of_block, range(0, len(X), step)))
    return found[:, 0].min(axis=0), found[:, 1].max(axis=0)


def most_rows_kept(objective: Objective) -> int:
    """Of how many rows there is room for the probabilities."""
    row_bytes = objective.n_classes * objective.dtype.itemsize
    return max(1, _KEPT_BYTES // int(row_bytes))


def dot(a: Array, b: Array) -> float:
    """The sum of products of parameters, in whatever order of memory without a copy."""
    return float(np.einsum("kd,kd->", a, b))
