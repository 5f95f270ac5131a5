"""The regularised loss of a linear softmax classifier and its gradient, over row blocks.

No more than a block of scores is ever held. Rows are cut into stripes and stripes into blocks
by N, D and K alone; stripes may run on several threads, and their sums are added in one order,
so that the value and the gradient have the same bits on any number of threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from softly.certificate import ClassMeans, duality_gap
from softly.kernels import chosen as kernels
from softly.kernels import threads
from softly.kernels.blas import one_blas_thread
from softly.kernels.terms import Terms

Array = NDArray[Any]

_BLOCK_BYTES = 1 << 20  # of features: what a core's own cache holds beside the scores
_SCORE_BYTES = 1 << 18
_STRIPE_BYTES = 1 << 26  # of gradients, one for each stripe
_MOST_STRIPES = 32


@dataclass(frozen=True)
class Block:
    """Some rows: their features, classes and weights."""

    features: Any
    target: NDArray[np.int64]
    weight: Array | None


class Objective:
    r"""Mean loss and L2 penalty: scikit-learn's objective divided by ``C`` times the weights' sum.

    .. math:: F(W, b) = \frac{1}{S} \sum_i s_i \, \mathrm{CE}(W x_i + b, y_i)
                        + \frac{\lambda}{2} \|W\|^2

    with S the sum of the weights and the intercept not penalised.

    Parameters
    ----------
    X : ndarray or CSR matrix, shape (N, D), float32 or float64
    target : ndarray of int64, shape (N,)
        Classes 0 to K - 1.
    n_classes : int
        K. For two classes the scores of the first are held at 0, as scikit-learn does.
    weight : ndarray of float64, shape (N,), or None
        Rows of weight 0 count for nothing.
    l2 : float
        The penalty, lambda = 1 / (C S).
    fit_intercept : bool
        Whether there is a b.
    """

    def __init__(
        self,
        X: Any,
        target: NDArray[np.int64],
        n_classes: int,
        *,
        weight: NDArray[np.float64] | None,
        l2: float,
        fit_intercept: bool,
    ) -> None:
        self.n_classes = n_classes
        self.l2 = l2
        self.fit_intercept = fit_intercept
        self.dtype = X.dtype
        self.n_features = X.shape[1]
        self.total_weight = float(len(target) if weight is None else weight.sum())
        self.n_passes = 0
        self._stripes = list(_stripes(X, target, weight, n_classes))

    @property
    def shape(self) -> tuple[int, int]:
        """Of the parameters: a row for each class (one for two classes), b in the last column."""
        n_rows = 1 if self.n_classes == 2 else self.n_classes
        return n_rows, self.n_features + int(self.fit_intercept)

    def value_and_gradient(self, parameters: Array) -> tuple[float, Array]:
        """F and its gradient, float64, at parameters of `shape`: one pass over the data."""
        sums = self._of_stripes(_sum_of_blocks, parameters)
        value, gradient = sums[0]
        for more, slope in sums[1:]:
            value += more
            gradient += slope
        gradient = gradient[-len(parameters) :]
        value /= self.total_weight
        gradient /= self.total_weight
        coefficients = parameters[:, : self.n_features]
        value += 0.5 * self.l2 * float(np.vdot(coefficients, coefficients))
        gradient[:, : self.n_features] += self.l2 * coefficients
        return value, gradient[:, : self.shape[1]]

    def intercept_hessian(self, parameters: Array) -> Array:
        """Second derivatives of F by the intercepts, the mean of diag(p) - p p': one pass."""
        total: Array = sum(self._of_stripes(_covariance_of_blocks, parameters))
        rows = len(parameters)
        mean: Array = total[-rows:, -rows:] / self.total_weight
        return mean

    def _of_stripes(self, work: Callable[..., Any], parameters: Array) -> list[Any]:
        """work(blocks, weights of (D, K), bias of (1, K)) of every stripe, in order."""
        every = parameters
        if self.n_classes == 2:
            every = np.vstack([np.zeros_like(parameters), parameters])
        weights = np.ascontiguousarray(every[:, : self.n_features].T, dtype=self.dtype)
        bias = every[:, self.n_features :].T.astype(self.dtype)
        found: list[Any] = [None] * len(self._stripes)

        def one(i: int) -> None:
            found[i] = work(self._stripes[i], weights, bias)

        with one_blas_thread:
            threads.run([partial(one, i) for i in range(len(found))])
        self.n_passes += 1
        return found

    def relative_gap(self, parameters: Array, value: float, gradient: Array) -> float:
        """A proven bound on how far F is above its minimum, as a part of F."""
        means = self._class_means if self.fit_intercept and self.l2 else None
        gap = duality_gap(parameters, value, gradient, self.l2, means)
        return gap / value if 0 < gap < np.inf else gap

    @cached_property
    def _class_means(self) -> ClassMeans:
        frequency = np.zeros(self.n_classes)
        features = np.zeros((self.n_classes, self.n_features))
        for block in itertools.chain(*self._stripes):
            n = len(block.target)
            weight = np.ones(n) if block.weight is None else block.weight.astype(float)
            rows = sp.csr_array(
                (weight, block.target[:, 0], np.arange(n + 1)), shape=(n, self.n_classes)
            )
            frequency += rows.sum(axis=0)
            features += rows.T @ block.features
        self.n_passes += 1
        return ClassMeans(frequency / self.total_weight, features / self.total_weight)


def _sum_of_blocks(blocks: list[Block], weights: Array, bias: Array) -> tuple[float, Array]:
    """The sum of weighted losses, and its gradient of shape (K, D + 1)."""
    n_features, n_classes = weights.shape
    value = 0.0
    gradient = np.zeros((n_classes, n_features + 1))
    for block in blocks:
        scores = _scores(block, weights, bias)
        loss = np.empty(len(scores), scores.dtype)
        weight = 1.0 if block.weight is None else block.weight
        kernels.cross_entropy(scores, 1, Terms(index=block.target, scale=weight), loss, scores)
        value += float(
            loss.sum(dtype=np.float64) if block.weight is None else np.vdot(block.weight, loss)
        )
        if sp.issparse(block.features):
            gradient[:, :-1] += (block.features.T @ scores).T
        else:
            gradient[:, :-1] += scores.T @ block.features
        gradient[:, -1] += scores.sum(axis=0, dtype=np.float64)
    return value, gradient


def _covariance_of_blocks(blocks: list[Block], weights: Array, bias: Array) -> Array:
    """The weighted sum of diag(p) - p p'."""
    total = np.zeros((weights.shape[1], weights.shape[1]))
    for block in blocks:
        p = _scores(block, weights, bias)
        kernels.softmax(p, p, (1,), 1.0, None)
        weighted = p if block.weight is None else p * block.weight[:, None]
        total -= weighted.T @ p
        total[np.diag_indices_from(total)] += weighted.sum(axis=0, dtype=np.float64)
    return total


def _scores(block: Block, weights: Array, bias: Array) -> Array:
    scores: Array = block.features @ weights
    scores += bias if bias.size else 0
    return scores


def _stripes(
    X: Any, target: NDArray[np.int64], weight: NDArray[np.float64] | None, n_classes: int
) -> Iterator[list[Block]]:
    n, d = X.shape
    if weight is not None:
        weight = weight.astype(X.dtype)
    itemsize = X.dtype.itemsize
    rows = max(1, _SCORE_BYTES // (itemsize * n_classes))
    if not sp.issparse(X):
        rows = max(1, min(rows, _BLOCK_BYTES // (itemsize * d)))
    count = max(1, min(_MOST_STRIPES, _STRIPE_BYTES // (8 * n_classes * (d + 1)), -(-n // rows)))

    def block(start: int, stop: int) -> Block:
        part = None if weight is None else weight[start:stop]
        return Block(_rows(X, start, stop), target[start:stop, None], part)

    for first, last in itertools.pairwise(np.linspace(0, n, count + 1).astype(int)):
        yield [block(a, min(a + rows, last)) for a in range(first, last, rows)]


def _rows(X: Any, start: int, stop: int) -> Any:
    """Rows of X without a copy; slicing a CSR matrix would copy its entries."""
    if not sp.issparse(X):
        return X[start:stop]
    first, last = X.indptr[start], X.indptr[stop]
    parts = (X.data[first:last], X.indices[first:last], X.indptr[start : stop + 1] - first)
    return sp.csr_array(parts, shape=(stop - start, X.shape[1]), copy=False)
