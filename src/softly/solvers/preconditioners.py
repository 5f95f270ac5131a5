"""What makes conjugate gradients fast: an inverse that is near the Hessian's and cheap to apply.

Each is made from the rows of an objective, at the point that was last asked for. Their Hessian is
the mean of s (diag(p) - p p') x x', Kronecker's product, and the penalty.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from softly.kernels import threads
from softly.objective import Objective

Array = NDArray[Any]
Inverse = Callable[[Array], Array]

_BLOCK, _BLOCK_NUMBERS = 1024, 1 << 18  # rows, and what is held of them, beside the sums
_WIDE, _PAIR_NUMBERS = 64, 1 << 15  # features; of products of two of them
_MOST_STRIPES, _STRIPE_BYTES = 8, 1 << 24
_PRODUCT = 0.3  # what a multiplication in a large product costs beside one in a pass
_SMALL = 300  # parameters, whose Hessian is always worth its making
_BYTES = 1 << 24  # of the largest inverse that is held


@dataclass(frozen=True)
class Preconditioner:
    """How to make one.

    Attributes
    ----------
    name : str
    make : callable
        From an objective.
    rows : int
        Of which it is made.
    cost : float
        Of making it, in multiplications.
    learns : bool
        Whether products with earlier Hessians make it better: where what it leaves out changes less
        from point to point than it misses.
    follows_penalty : bool
        Whether an inverse that was made has the penalty that its objective has when it is applied.
    """

    name: str
    make: Callable[[Objective], Inverse]
    rows: int
    cost: float
    learns: bool = False
    follows_penalty: bool = False


def choose(objective: Objective, rows: int, most_rows: int) -> list[Preconditioner]:
    """What is worth its making beside passes over the rows, from `rows`; then what may become so.

    Some `most_rows` can be copied; or all are taken, where they lie.
    """
    k, d = objective.shape
    a_pass = cost_of_pass(objective)
    ladder = [Preconditioner("diagonal", diagonal, rows, 6 * a_pass * rows / objective.n_rows)]
    if not isinstance(objective.features, np.ndarray):
        return ladder
    by_factors = _PRODUCT * rows * d**2 + 30 * d**3
    by_class = _PRODUCT * rows * k * d**2 + k * d**3
    whole, room = _cost_of_hessian(objective, rows), (k * d) ** 2
    factors = partial(Preconditioner, learns=True, follows_penalty=True)
    first = 0
    for made, numbers, most_passes in (
        (factors("Kronecker factors", kronecker, rows, by_factors), 0, 60),
        (Preconditioner("Hessian of each class", blocks, rows, by_class), k * d**2, 4),
        (Preconditioner("Hessian", hessian, rows, whole), room, np.inf if k * d <= _SMALL else 8),
    ):
        if 8 * numbers <= _BYTES:
            ladder.append(made)
            first = len(ladder) - 1 if made.cost <= most_passes * a_pass else first
    if 8 * room <= _BYTES:
        n = objective.n_rows if objective.probabilities is not None else most_rows
        for more in (most_rows, n):
            if more >= 2 * ladder[-1].rows:
                cost = _cost_of_hessian(objective, more)
                ladder.append(Preconditioner("Hessian", hessian, more, cost))
    return ladder[first:]


def _cost_of_hessian(objective: Objective, rows: int) -> float:
    k, d = objective.shape
    return _PRODUCT * rows * (k * d) ** 2 + (k * d) ** 3 / 3


def cost_of_pass(objective: Objective) -> float:
    """Multiplications in a value with its gradient, or in a product with the Hessian."""
    return 2.0 * objective.feature_count * objective.shape[0]


def hessian(objective: Objective) -> Inverse:
    """The inverse of the Hessian itself."""
    return _for_centred(objective, solver_of_hessian(hessian_matrix(objective), objective.shape))


def solver_of_hessian(matrix: Array, shape: tuple[int, ...]) -> Inverse:
    """Solves with a Hessian by parameters of a shape; the matrix is changed."""
    k, d = shape
    if k > 1:  # a constant for all classes changes no probability
        shift = matrix.trace() / (k * k * d)
        matrix.reshape(k, d, k, d)[:, np.arange(d), :, np.arange(d)] += shift
    solve = solver_of(matrix)

    def solver(g: Array) -> Array:
        solution: Array = solve(g.ravel()).reshape(shape)
        return solution

    return solver


def hessian_matrix(objective: Objective, dtype: np.dtype[Any] | None = None) -> Array:
    """The Hessian by `centred` parameters, class by class and feature by feature.

    Products are made in `dtype`, that of the features where it is None.
    """
    k, d = objective.shape

    def add(x: Array, p: Array, weight: Array, total: Array, own: Array) -> None:
        outer = (p[:, :, None] * x[:, None, :]).reshape(len(x), -1)
        weighted = outer * weight
        total -= weighted.T @ outer
        for j in range(k):
            own[j] += weighted[:, j * d : (j + 1) * d].T @ x

    total, own = sums_of_rows(objective, add, (k * d, k * d), (k, d, d), dtype=dtype)
    for j in range(k):
        total[j * d : (j + 1) * d, j * d : (j + 1) * d] += own[j]
    total /= objective.total_weight
    total[np.diag_indices(k * d)] += np.tile(penalties(objective), k)
    return total


def blocks(objective: Objective) -> Inverse:
    """The inverses of each class's own part."""
    k, d = objective.shape

    def add(x: Array, p: Array, weight: Array, own: Array) -> None:
        curvature = weight * p * (1 - p)
        if d > _WIDE:
            for j in range(k):
                own[j] += (x * curvature[:, j, None]).T @ x
            return
        step = max(1, _PAIR_NUMBERS // d**2)
        for start in range(0, len(x), step):  # one larger product for many small ones
            part = x[start : start + step]
            pairs = (part[:, :, None] * part[:, None, :]).reshape(len(part), -1)
            own += (curvature[start : start + step].T @ pairs).reshape(k, d, d)

    (own,) = sums_of_rows(objective, add, (k, d, d))
    own /= objective.total_weight
    own[:, np.arange(d), np.arange(d)] += penalties(objective)
    inverses = _inverses(own)
    return _for_centred(objective, lambda g: np.matmul(inverses, g[:, :, None])[:, :, 0])


def kronecker(objective: Objective) -> Inverse:
    """The mean covariance of the classes times that of the features, as if they were independent.

    As K-FAC does (Martens and Grosse, 2015); the penalty is added in the factors' eigenvectors.
    """
    (k, d), dtype = objective.shape, objective.dtype

    def add(x: Array, p: Array, weight: Array, classes: Array, features: Array) -> None:
        weighted = weight * p
        classes += np.diag(weighted.sum(axis=0)) - weighted.T @ p
        curvature = weight - (weighted * p).sum(axis=1, keepdims=True)
        half = x * np.sqrt(np.maximum(curvature, 0))
        features += half.T @ half  # of one matrix with itself: half the work

    # What is only near the inverse needs no more digits than the features have.
    classes, features = sums_of_rows(objective, add, (k, k), (d, d), kept=dtype)
    values, vectors = np.linalg.eigh(classes.astype(np.float64) / objective.total_weight)
    features /= max(classes.trace(), np.finfo(dtype).tiny)
    # In place: D x D is the largest thing here.
    lengths, axes = scipy.linalg.eigh(features.T, driver="evd", overwrite_a=True)
    curvature = np.outer(np.maximum(values, 0), np.maximum(lengths, 0).astype(np.float64))
    floor = _floor(curvature, float(np.finfo(dtype).eps))
    vectors, axes = (x.astype(dtype) for x in (vectors, axes))

    def inverse(g: Array) -> Array:
        small = g.astype(dtype, copy=False)
        share = (1 / (curvature + max(objective.l2, floor))).astype(dtype)
        product: Array = vectors @ ((vectors.T @ small @ axes) * share) @ axes.T
        return product.astype(g.dtype, copy=False)

    return _for_centred(objective, inverse)


def diagonal(objective: Objective) -> Inverse:
    """The inverse of the Hessian's diagonal."""
    total = diagonal_of(objective)
    total = objective.laid_out(np.maximum(total, _floor(total, 1e-12)))
    found = np.minimum(1 / total, np.finfo(objective.dtype).max).astype(objective.dtype)
    return lambda g: g * found


def diagonal_of(objective: Objective) -> Array:
    """The Hessian's diagonal, of the objective's shape."""
    slope = row_curvature(objective)
    total = np.zeros(objective.shape)
    total[:, : objective.n_features] = objective.square_sums(slope)
    total[:, objective.n_features :] = slope.sum(axis=0, dtype=np.float64)[:, None]
    total /= objective.total_weight
    total += penalties(objective)
    return total


def row_curvature(objective: Objective) -> Array:
    """s p (1 - p) of each row and class: (N, K)."""
    p = objective.probabilities[:, -objective.shape[0] :]  # type: ignore[index]
    slope: Array = 1 - p
    slope *= p
    if objective.weight is not None:
        slope *= objective.weight[:, None]
    return slope


def sums_of_rows(
    objective: Objective,
    add: Callable[..., None],
    *shapes: tuple[int, ...],
    dtype: np.dtype[Any] | None = None,
    kept: Any = np.float64,
) -> list[Array]:
    """What add(x, p, weight, *sums) adds up over blocks of rows, in one order on any threads.

    x is centred, and has a 1 for the intercept; the weights are a column. Sums are `kept` as they
    are, or in float64.
    """
    k, n = objective.shape[0], objective.n_rows
    size = np.dtype(kept).itemsize * sum(math.prod(shape) for shape in shapes)
    count = max(1, min(_MOST_STRIPES, _STRIPE_BYTES // size, n // _BLOCK))
    count -= count % 2 if count > 1 else 0  # as many for each of two threads
    sums = [[np.zeros(shape, kept) for shape in shapes] for _ in range(count)]
    edges = np.linspace(0, n, count + 1).astype(int)
    widest = max(max(shape) for shape in (objective.shape, *shapes))
    step = max(1, min(_BLOCK, _BLOCK_NUMBERS // widest))
    means = objective.feature_means if objective.fit_intercept else np.zeros(0)

    def stripe(i: int) -> None:
        for start in range(edges[i], edges[i + 1], step):
            some = slice(start, min(start + step, edges[i + 1]))
            x = objective.features[some].astype(dtype or objective.dtype, copy=False)
            x = x if isinstance(x, np.ndarray) else x.toarray()
            p = objective.probabilities_of(some, x)[:, -k:]
            if objective.fit_intercept:
                ones = np.ones((len(x), 1), x.dtype)
                x = np.concatenate([x - means.astype(x.dtype), ones], axis=1)
            weight = np.ones(1, x.dtype) if objective.weight is None else objective.weight[some]
            add(x, p, weight[:, None], *sums[i])

    threads.run([partial(stripe, i) for i in range(count)])
    for more in sums[1:]:
        for total, part in zip(sums[0], more, strict=True):
            total += part
    return sums[0]


def penalties(objective: Objective) -> Array:
    """What the penalty adds to the Hessian's diagonal, the same for each class: shape (D,)."""
    of_each = np.full(objective.shape[1], objective.l2)
    of_each[objective.n_features :] = 0
    return of_each


def centred(objective: Objective, gradient: Array) -> Array:
    """The gradient by parameters of features less their means.

    Columns far from 0 are nearly the intercept's; their curvature is told apart only without it.
    """
    if not objective.fit_intercept:
        return gradient
    moved = gradient.copy()
    moved[:, :-1] -= gradient[:, -1:] * objective.feature_means
    return moved


def uncentre(objective: Objective, direction: Array) -> Array:
    """The same step by parameters of the features as they are; in place."""
    if objective.fit_intercept:
        direction[:, -1] -= direction[:, :-1] @ objective.feature_means
    return direction


def _for_centred(objective: Objective, inverse: Inverse) -> Inverse:
    """An inverse by centred parameters, for those of the features as they are."""
    if not objective.fit_intercept:
        return inverse

    def uncentred(g: Array) -> Array:
        return uncentre(objective, inverse(centred(objective, g)))

    return uncentred


def _floor(curvature: Array, share: float) -> float:
    """What keeps a division by curvature finite, also where there is none at all."""
    return max(share * float(curvature.max()), float(np.finfo(float).tiny))


def solver_of(matrix: Array) -> Inverse:
    """Solves with a matrix that would be positive definite but for rounding."""
    scaled, scale = _scaled(matrix)
    factor = _with_ridge(scaled, scipy.linalg.cho_factor)
    return lambda g: scale * scipy.linalg.cho_solve(factor, scale * g)


def _inverses(matrices: Array) -> Array:
    """Of many such matrices at once."""
    scaled, scale = _scaled(matrices)
    _with_ridge(scaled, np.linalg.cholesky)
    inverses: Array = np.linalg.inv(scaled)
    inverses *= scale[..., :, None]
    inverses *= scale[..., None, :]
    return inverses


def _scaled(matrices: Array) -> tuple[Array, Array]:
    """With ones on the diagonal, as far as there is curvature; and what that takes."""
    curvature = np.diagonal(matrices, axis1=-2, axis2=-1)
    scale = 1 / np.sqrt(np.maximum(curvature, _floor(curvature, 1e-14)))
    return matrices * scale[..., :, None] * scale[..., None, :], scale


def _with_ridge(scaled: Array, factor: Callable[[Array], Any]) -> Any:
    """Cholesky's factor, with as little added to the diagonal as lets there be one."""
    diagonal, ridge = np.arange(scaled.shape[-1]), 1e-6
    while True:
        scaled[..., diagonal, diagonal] += ridge
        try:
            return factor(scaled)
        except np.linalg.LinAlgError:
            ridge *= 10
