"""The regularised loss of a linear softmax classifier, its gradient and its curvature.

Rows are cut into stripes by N, D and K alone; stripes may run on several threads, and their sums
are added in one order, so that all values have the same bits on any number of threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from softly.certificate import ClassMeans, duality_gap
from softly.kernels import chosen as kernels
from softly.kernels import threads
from softly.kernels.blas import one_blas_thread

Array = NDArray[Any]

_STRIPE_BYTES = 1 << 18  # of features, at least
_SUM_BYTES = 1 << 25  # of the stripes' gradients together
_FEWEST_STRIPES, _MOST_STRIPES = 4, 32
_KEPT_BYTES = 1 << 24  # of probabilities
_MEAN_ROWS = 1 << 10
_ROWS_A_CLASS = 4  # of a stripe: fewer are not worth adding up its gradient
_PRECISE_BYTES = 1 << 20  # of features made float64 at once


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

    Attributes
    ----------
    n_passes : float
        How often the rows were read.
    probabilities : ndarray of shape (N, K), or None
        At the last point asked for; None where they would take more than 16 MiB.
    precise : bool
        Whether values and gradients of float32 features are worked on in float64.
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
    ) -> None:
        self.n_classes = n_classes
        self.l2 = l2
        self.l1 = l1
        self.fit_intercept = fit_intercept
        self.n_rows, self.n_features = X.shape
        self.dtype = X.dtype
        self.total_weight = float(self.n_rows if weight is None else weight.sum())
        self.n_passes = 0.0
        self.precise = False
        self.features = X
        self.feature_count = X.size if isinstance(X, np.ndarray) else X.nnz
        self.feature_bytes = self.feature_count * X.dtype.itemsize
        self.target = target if target.ndim == 1 else target.astype(X.dtype, copy=False)
        self.weight = None if weight is None else weight.astype(X.dtype)
        self._weight = weight
        self._stripes = _stripes(X, n_classes, self.feature_bytes)
        self._at: Array | None = None  # weights of the last point
        kept = self.n_rows * n_classes * X.dtype.itemsize <= _KEPT_BYTES
        self.probabilities = np.empty((self.n_rows, n_classes), X.dtype) if kept else None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the parameters: a row for each class (one for two classes), b in the last column."""
        n_rows = 1 if self.n_classes == 2 else self.n_classes
        return n_rows, self.n_features + int(self.fit_intercept)

    def value_and_gradient(self, parameters: Array) -> tuple[float, Array]:
        """F and its gradient, float64, at parameters of `shape`: one pass over the data."""
        weights = self._by_feature(parameters)
        self._at = weights.astype(self.dtype, copy=False)
        work = self._precise_loss if self.precise else self._loss
        found = self._of_stripes(partial(work, weights))
        value = sum(loss for loss, _ in found) / self.total_weight
        coefficients = parameters[:, : self.n_features]
        value += 0.5 * self.l2 * dot(coefficients, coefficients)
        return value, self._mean([slope for _, slope in found], parameters)

    def curvature_along(self, direction: Array) -> Array:
        """The Hessian, at the last point asked for, times a direction: one pass over the data."""
        along = self._by_feature(direction)
        return self._mean(self._of_stripes(partial(self._curvature, along)), direction)

    def sample(self, rows: NDArray[np.intp] | slice) -> Objective:
        """The same ``C`` for some of the rows; a slice of dense features is not copied."""
        weight = None if self._weight is None else np.ascontiguousarray(self._weight[rows])
        target = np.ascontiguousarray(self.target[rows])
        total = float(len(target) if weight is None else weight.sum())
        return Objective(
            self.features[rows],
            target,
            self.n_classes,
            weight=weight,
            l2=self.l2 * self.total_weight / total,
            l1=self.l1 * self.total_weight / total,
            fit_intercept=self.fit_intercept,
        )

    def columns(self, which: NDArray[np.intp]) -> Objective:
        """The same with some of the features: those of the others have coefficients of 0."""
        of_some = Objective(
            np.ascontiguousarray(self.features[:, which])
            if isinstance(self.features, np.ndarray)
            else self.features[:, which],
            self.target,
            self.n_classes,
            weight=self._weight,
            l2=self.l2,
            l1=self.l1,
            fit_intercept=self.fit_intercept,
        )
        of_some.precise = self.precise
        if self.fit_intercept:
            means = self.class_means
            of_some.class_means = ClassMeans(means.frequency, means.features[:, which])
        return of_some

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
        return np.array(parameters, order="C" if isinstance(self.features, np.ndarray) else "F")

    def _by_feature(self, parameters: Array) -> Array:
        """(D + 1, K), as the kernels want weights."""
        dtype = np.float64 if self.precise else self.dtype
        weights = np.zeros((self.n_features + 1, self.n_classes), dtype)
        weights[: self.shape[1], -len(parameters) :] = parameters.T
        return weights

    def _mean(self, sums: list[Array], parameters: Array) -> Array:
        """The mean of the stripes' sums, and the penalty's part."""
        mean = self.laid_out(np.empty(self.shape))

        def add(start: int, stop: int) -> None:
            part = mean[:, start:stop]
            parts = [each[-len(parameters) :, start:stop] for each in sums]
            np.copyto(part, parts[0])
            for more in parts[1:]:
                part += more
            part /= self.total_weight
            features = slice(start, min(stop, self.n_features))
            coefficients = parameters[:, features]
            part[:, : coefficients.shape[1]] += self.l2 * coefficients

        threads.over_rows(add, self.shape[1], mean.nbytes * len(sums))
        return mean

    def _loss(self, weights: Array, start: int, stop: int) -> tuple[float, Array]:
        found: tuple[float, Array] = kernels.linear_loss(
            *(self.features, weights, self.target, self.weight, start, stop, self.probabilities)
        )
        return found

    def _precise_loss(self, weights: Array, start: int, stop: int) -> tuple[float, Array]:
        value, gradient = 0.0, np.zeros(weights.shape[::-1])
        step = max(1, _PRECISE_BYTES // (8 * max(self.n_features, self.n_classes)))
        for a in range(start, stop, step):
            b = min(a + step, stop)
            target = self.target[a:b]
            p = None if self.probabilities is None else np.empty((b - a, self.n_classes))
            loss, slope = kernels.linear_loss(
                self.features[a:b].astype(np.float64),
                weights,
                target if target.ndim == 1 else target.astype(np.float64),
                None if self._weight is None else self._weight[a:b],
                *(0, b - a, p),
            )
            value += loss
            gradient += slope
            if self.probabilities is not None:
                self.probabilities[a:b] = p
        return value, gradient

    def _curvature(self, along: Array, start: int, stop: int) -> Array:
        along = along.astype(self.dtype, copy=False)
        product: Array = kernels.linear_curvature(
            *(self.features, self._at, along, self.weight, start, stop, self.probabilities)
        )
        return product

    def _of_stripes(self, work: Callable[[int, int], Any]) -> list[Any]:
        found: list[Any] = [None] * len(self._stripes)

        def one(i: int) -> None:
            found[i] = work(*self._stripes[i])

        with one_blas_thread:
            threads.run([partial(one, i) for i in range(len(found))])
        self.n_passes += 1
        return found

    @cached_property
    def feature_means(self) -> Array:
        """The weighted means of dense features, in their type."""
        weight = np.ones(self.n_rows) if self._weight is None else self._weight
        sums = np.zeros(self.n_features)
        for start in range(0, self.n_rows, _MEAN_ROWS):
            some = slice(start, start + _MEAN_ROWS)
            sums += weight[some].astype(self.dtype) @ self.features[some]
        means: Array = (sums / self.total_weight).astype(self.dtype)
        return means

    @cached_property
    def class_means(self) -> ClassMeans:
        """What each class holds of the weight and of the features: one pass over the data."""
        parts = self._of_stripes(self._class_sums)
        frequency = sum(of for of, _ in parts) / self.total_weight
        features = sum(of for _, of in parts) / self.total_weight
        return ClassMeans(frequency, features)

    def _class_sums(self, start: int, stop: int) -> tuple[Array, Array]:
        frequency = np.zeros(self.n_classes)
        features = np.zeros((self.n_classes, self.n_features))
        step = max(1, int(_PRECISE_BYTES // (8 * self.feature_count / self.n_rows + 1)))
        for a in range(start, stop, step):
            some = slice(a, min(a + step, stop))
            target = self._weighted_targets(some)
            frequency += np.asarray(target.sum(axis=0))
            part = target.T @ self.features[some]
            features += part.toarray() if sp.issparse(part) else part
        return frequency, features

    def _weighted_targets(self, some: slice) -> Any:
        n = len(self.target[some])
        weight = np.ones(n) if self._weight is None else self._weight[some]
        if self.target.ndim == 1:
            at = (weight, self.target[some], np.arange(n + 1))
            return sp.csr_array(at, shape=(n, self.n_classes))
        return self.target[some] * weight[:, None]


def dot(a: Array, b: Array) -> float:
    """The sum of products of parameters, in whatever order of memory without a copy."""
    return float(np.einsum("kd,kd->", a, b))


def _stripes(X: Any, n_classes: int, size: int) -> list[tuple[int, int]]:
    n, d = X.shape
    fit = max(_FEWEST_STRIPES, _SUM_BYTES // (8 * n_classes * (d + 1)))
    count = min(_MOST_STRIPES, fit, size // _STRIPE_BYTES)
    count = max(1, min(count, n // (_ROWS_A_CLASS * n_classes)))
    return list(itertools.pairwise(np.linspace(0, n, count + 1).astype(int).tolist()))
