"""Maps from logits to calibrated logits, and the fits that find them.

A map is found from logits whose classes are known, and keeps what is certain: an impossible class
(logit minus infinity) stays impossible. Rows are read in blocks; sums are in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import scipy.linalg
import scipy.special
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from softly.functions import log_sigmoid, log_softmax
from softly.kernels import threads
from softly.objective import Objective, dot, most_rows_kept
from softly.solvers.conjugate import conjugate_gradients
from softly.solvers.preconditioners import Inverse, diagonal_of, hessian_matrix
from softly.targets import of_target

Array = NDArray[Any]
Point = tuple[Any, ...]  # value, gradient, and what else a step there needs

_HOTTEST = 1e-4  # a scale, as a part of that of logits whose spread is 1
_COLDEST = 1e9  # a scale
_LEAP = 8.0  # times: the most that a scale changes in a step
_HALVINGS = 40
_IMPOSSIBLE = 1000.0  # temperatures below the best logit: e to the minus that is 0 in float64
_BLOCK = 1 << 15  # numbers of a block of rows, which stay in the cache
_FEWEST = 256  # rows of a block
_STRIPES = 16  # of blocks, that threads share
_MOST_STEPS = 60
_NEAR = 1e-8  # of the loss: what a last step may still change; far less is left
_CLOSE = 1e-3  # of a scale: as long may a last step be that is bent
_LAST = 1e-6  # of a scale: so long may a last step be, or its bend; far less is left
_MANY, _ONE_IN = 1 << 11, 8  # rows from which on some of them, one in so many, say where to start
_LEAVE = 0.003  # of the residual
_ENOUGH, _SHORTEST = 1e-4, 1e-10
_MOST_WHOLE = 600  # parameters, whose Hessian is made
_MOST_ODDS = 40.0  # 1 - p is less than the rounding of p
_MOST_OF = 0.5  # of the rows' weight


@dataclass(frozen=True)
class Affine:
    r"""``W (z / T - mean) + b``: of a row's logits, less their mean, which says nothing.

    Attributes
    ----------
    temperature : float
        T, above 0.
    weight : ndarray, shape (), (K,) or (K, K)
        W: 1 for none; a factor for each class; or all of them for each.
    bias : ndarray, shape () or (K,)
    """

    temperature: float
    weight: Array
    bias: Array

    keeps_order = property(lambda self: self.weight.ndim == 0)

    def __call__(self, logits: Array) -> Array:
        """Calibrated logits, shape (N, K), float64."""
        scaled: Array = logits / np.float64(self.temperature)
        if self.weight.ndim == 0:
            return scaled
        z, possible = centred(scaled)
        moved: Array = z @ self.weight.T if self.weight.ndim == 2 else z * self.weight
        moved += self.bias
        np.copyto(moved, scaled, where=~possible | np.isposinf(scaled))
        return moved

    def matrix(self, n_classes: int) -> Array:
        """All of it but the bias as one matrix, (K, K), of logits as they are."""
        if self.weight.ndim == 0:
            return np.eye(n_classes) / self.temperature
        weight = np.diag(self.weight) if self.weight.ndim == 1 else self.weight
        whole: Array = (weight - weight.mean(axis=1, keepdims=True)) / self.temperature
        return whole


IDENTITY = Affine(1.0, np.ones(()), np.zeros(()))


@dataclass(frozen=True)
class Monotone:
    """One rising function of all probabilities, which are then brought back to the sum 1.

    Attributes
    ----------
    knots, values : ndarray, shape (M,)
        Log-odds, and what they become: on lines between, and no further beyond the ends.
    """

    knots: Array
    values: Array

    keeps_order = True

    def __call__(self, logits: Array) -> Array:
        """Logarithms of what probabilities become, shape (N, K), float64."""
        x = _log_odds(logits)
        logs: Array = log_sigmoid(np.interp(x, self.knots, self.values))
        np.copyto(logs, -np.inf, where=x < -_IMPOSSIBLE)
        return logs


def _log_odds(logits: Array) -> Array:
    """Of each class against all others, within what float64 can tell."""
    log_p = log_softmax(logits.astype(np.float64, copy=False), axis=1)
    with np.errstate(divide="ignore"):
        odds: Array = log_p - np.log(-np.expm1(log_p))
    return np.minimum(odds, _MOST_ODDS)


Scaling = Affine | Monotone


def centred(z: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Logits by temperature, less the mean of a row's possible classes; and which these are.

    A class is impossible whose logit is so far below the best one that its probability is 0.
    """
    top = z.max(axis=1, keepdims=True)
    possible = z >= top - _IMPOSSIBLE
    if possible.all() and np.isfinite(top).all():
        return z - z.mean(axis=1, keepdims=True), possible
    possible &= np.isfinite(z)
    z = np.where(possible, z, 0.0)
    mean = z.sum(axis=1, keepdims=True) / np.maximum(possible.sum(axis=1, keepdims=True), 1)
    return np.where(possible, z - mean, 0.0), possible


def usable(logits: Array, target: Array) -> NDArray[np.bool_]:
    """The rows that a fit can learn from: infinities do not decide their loss."""
    own = of_target(logits, target)
    sound: NDArray[np.bool_] = np.isfinite(own) & ~np.isposinf(logits.max(axis=1))
    return sound


def fit_temperature(logits: Array, target: Array, weight: Array) -> Affine:
    r"""One temperature for all: that of the least log loss.

    The loss is convex in the scale :math:`\beta = 1/T`: its slope, the sum of
    :math:`E_p[z] - z_y`, comes to 0 by Newton's method between bounds that close in on it.

    Where every row is right, the loss falls for ever. Then T is where the mean loss is
    :math:`1 / (N + 2)`, as much as so many rows without a mistake tell (Laplace's rule of
    succession), if that is below 1, and else 1. Where the logits are worse than nothing, T is so
    large that all classes are alike; where they are all the same, T is 1.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", 2017.
    """
    at = _best_scale(logits, target, weight)
    return Affine(1 / at, np.ones(()), np.zeros(()))


def _best_scale(logits: Array, target: Array, weight: Array) -> float:
    best = logits.max(axis=1)
    behind = (best - of_target(logits, target)).astype(np.float64)
    if not weight @ behind > 0:
        return _supported_scale(logits, target, weight)
    return _least_scale(logits, best, behind, weight)


def _least_scale(logits: Array, best: Array, behind: Array, weight: Array) -> float:
    """The scale of the least loss, where true classes are `behind` the best ones.

    Newton's method, bent as the curvature changes from point to point (Halley's), so that two
    passes are enough from where some of the rows have their minimum.
    """
    rows = logits, best, behind, weight
    low, high, at, before = 0.0, np.inf, 1.0, (np.nan, np.nan)
    some = slice(None, None, _ONE_IN)
    if len(logits) > _MANY and weight[some] @ behind[some] > 0:
        at = _least_scale(*(each[some] for each in rows))
    for _ in range(_MOST_STEPS):
        slope, curvature = _along_scale(*rows, at)
        low, high = (low, at) if slope > 0 else (at, high)
        to = at - slope / curvature if curvature > 0 else np.inf
        if abs(to - at) <= _CLOSE * at:
            turn = (curvature - before[1]) / (at - before[0])
            bent = at - slope / (curvature - turn * slope / curvature / 2)
            if abs(to - at) <= _LAST * at or abs(bent - to) <= _LAST * at:
                return float(to if np.isnan(bent) else bent)
        if not max(low, at / _LEAP) < to < min(high, _LEAP * at):
            if not low and (hottest := _hottest_scale(*rows)):
                return hottest
            to = _LEAP * at if np.isinf(high) else at / _LEAP if not low else np.sqrt(low * high)
        before, at = (at, curvature), float(to)
    return at


def _hottest_scale(logits: Array, best: Array, behind: Array, weight: Array) -> float | None:
    """Where the loss does not fall from the scale 0 on: one at which all classes are alike."""
    slope, curvature = _along_scale(logits, best, behind, weight, 0.0)
    if slope < 0:
        return None
    return _HOTTEST / float(np.sqrt(curvature / weight.sum())) if curvature > 0 else 1.0


def _supported_scale(logits: Array, target: Array, weight: Array) -> float:
    """Where nothing is wrong: the scale, 1 or above, at which the loss is what N rows may claim.

    Above that of ties, which no scale takes away.
    """
    ties = (logits == logits.max(axis=1, keepdims=True)).sum(axis=1)
    claim = float(np.average(np.log(ties), weights=weight)) + 1 / (weight.sum() + 2)
    low = high = 1.0
    while _loss_at(logits, target, weight, high) > claim and high < _COLDEST:
        low, high = high, _LEAP * high
    for _ in range(_HALVINGS if high > 1 else 0):
        middle = np.sqrt(low * high)
        wants_more = _loss_at(logits, target, weight, middle) > claim
        low, high = (middle, high) if wants_more else (low, middle)
    return float(low)


def _loss_at(logits: Array, target: Array, weight: Array, scale: float) -> float:
    log_p = log_softmax(logits.astype(np.float64, copy=False), axis=1, temperature=1 / scale)
    return -float(np.average(of_target(log_p, target), weights=weight))


def _along_scale(
    logits: Array, best: Array, behind: Array, weight: Array, scale: float
) -> tuple[float, float]:
    """Slope and curvature of the summed loss of softmax(scale z), by the scale."""

    def work(some: slice) -> tuple[Any, ...]:
        z, s = np.subtract(logits[some], best[some, None], dtype=np.float64), weight[some]
        e = z * scale if scale else np.where(z > -np.inf, 0.0, z)
        np.exp(e, out=e)  # of which the largest is 1: nothing overflows
        if z.sum() == -np.inf:
            z[e == 0] = 0  # which minus infinity times 0 is not
        total = np.vecdot(e, ones)
        mean = np.vecdot(e, z) / total
        e *= z
        bend = np.vecdot(e, z) / total - mean**2
        return float(s @ (mean + behind[some])), float(s @ bend)

    ones = np.ones(logits.shape[1])
    slope, curvature = _summed(logits, work)
    return slope, curvature


def fit_vector(logits: Array, target: Array, weight: Array) -> Affine:
    r"""A factor and a bias for each class, drawn towards those of the best temperature.

    Least, over v and b, of the mean log loss of ``v z + b`` for centred z at their best
    temperature, and :math:`\frac{K}{N} (|v - 1|^2 + |b|^2)`. Newton's method: there are 2 K
    numbers.

    References
    ----------
    Berta, Holzmueller, Jordan and Bach, "Structured matrix scaling for multi-class calibration",
    2025.
    """
    first, k = fit_temperature(logits, target, weight), logits.shape[1]
    centre = np.concatenate([np.ones(k), np.zeros(k)])

    def look(x: Array) -> Point:
        value, gradient, hessian = _along_vector(logits, first.temperature, target, weight, x)
        away = x - centre
        hessian[np.diag_indices(2 * k)] += 2 * k
        return value + k * float(away @ away), gradient + 2 * k * away, hessian

    def step(x: Array, at: Point) -> Array:
        newton: Array = -scipy.linalg.cho_solve(scipy.linalg.cho_factor(at[2]), at[1])
        return newton

    x = _newton(centre, look(centre), look, step)
    return Affine(first.temperature, x[:k], x[k:])


def _newton(
    x: Array,
    at: Point,
    look: Callable[[Array], Point],
    step_from: Callable[[Array, Point], Array],
) -> Array:
    """Steps down, each of them halved until it keeps its promise, until none promises anything."""
    for _ in range(_MOST_STEPS):
        step = step_from(x, at)
        slope, length = float(np.vdot(at[1], step)), 1.0
        if -slope <= _NEAR * abs(at[0]):
            return x + step  # what it changes is below what values can tell
        while (found := look(x + length * step))[0] > at[0] + _ENOUGH * length * slope:
            length /= 2
            if length < _SHORTEST:
                return x
        x, at = x + length * step, found
    return x


def _along_vector(
    logits: Array, temperature: float, target: Array, weight: Array, x: Array
) -> tuple[float, Array, Array]:
    """Summed loss, gradient and Hessian by the factors and biases."""
    k = logits.shape[1]

    def work(some: slice) -> tuple[Any, ...]:
        s, y = weight[some], target[some]
        z, possible = centred(logits[some] / np.float64(temperature))
        log_p = log_softmax(np.where(possible, z * x[:k] + x[k:], -np.inf), axis=1)
        p = np.exp(log_p)
        both = np.concatenate([p * z, p], axis=1)
        both *= np.sqrt(s)[:, None]
        p *= s[:, None]
        pz = p * z
        sums = np.stack([(pz * z).sum(axis=0), pz.sum(axis=0), p.sum(axis=0)])
        wanted = np.stack([np.bincount(y, s * own, k) for own in (of_target(z, y), 1.0)])
        return -float(s @ of_target(log_p, y)), sums[1:] - wanted, sums, both.T @ both

    value, gradient, sums, product = _summed(logits, work)
    hessian = -product
    parts, own = hessian.reshape(2, k, 2, k), np.arange(k)
    for i, j in np.ndindex(2, 2):  # factors, then biases
        parts[i, own, j, own] += sums[i + j]
    return value, gradient.ravel(), hessian


def fit_matrix(logits: Array, target: Array, weight: Array) -> Affine:
    r"""All logits for each class: what is off the diagonal is held K - 1 times as strongly.

    Least, over W and b, of the mean log loss of ``W z + b`` for centred z at their best
    temperature, and :math:`\frac{K}{N} (|\mathrm{diag}(W) - 1|^2 + |b|^2)
    + \frac{K (K - 1)}{N} |\mathrm{off}(W)|^2`, as `fit_vector`'s source has it. For two classes
    that is `fit_vector`: centred logits are each other's negatives.
    """
    k = logits.shape[1]
    first = fit_temperature(logits, target, weight)
    z, possible = centred(logits / np.float64(first.temperature))
    whole = possible.all(axis=1)  # impossible classes have no place in a matrix
    if k == 2 or weight @ whole < _MOST_OF * weight.sum():
        return fit_vector(logits, target, weight)
    objective = Objective(
        *(np.ascontiguousarray(z[whole]), target[whole], k),
        weight=weight[whole],
        l2=0.0,
        fit_intercept=True,
    )
    pull = np.full((k, k + 1), 2.0 * k * (k - 1))
    pull[np.arange(k), np.arange(k)] = pull[:, k] = 2.0 * k
    centre = np.concatenate([np.eye(k), np.zeros((k, 1))], axis=1)
    found = _pulled(objective, centre, pull)
    return Affine(first.temperature, found[:, :k], found[:, k])


def _pulled(objective: Objective, centre: Array, pull: Array) -> Array:
    """Least of the summed loss and half of pull times the squares of what is off the centre.

    Newton's method. Vectors are one row to conjugate gradients, which would take away what is the
    same for all classes: here that is not nothing, since their pulls differ.
    """
    objective.work_roughly()
    objective.precise = True  # but for products: a direction need not be exact
    strength, shape = objective.total_weight, centre.shape
    sample = objective
    if objective.probabilities is None:
        step_over = -(-objective.n_rows // most_rows_kept(objective))
        sample = objective.sample(slice(None, None, step_over))
    sample.feature_means = np.zeros(shape[1] - 1)  # as they are

    def look(x: Array) -> Point:
        value, gradient = objective.value_and_gradient(x)
        away = x - centre
        pulled = pull * away
        return strength * value + dot(away, pulled) / 2, strength * gradient + pulled

    def product(row: Array) -> Array:
        along = row.reshape(shape)
        product: Array = strength * objective.curvature_along(along) + pull * along
        return product.reshape(1, -1)

    if sample is not objective:
        sample.value_and_gradient(centre)
    start = look(centre)
    inverse = _inverse(sample, strength, pull)

    def step(x: Array, at: Point) -> Array:
        g = at[1].reshape(1, -1)
        found = conjugate_gradients(product, g, inverse(g), inverse, _LEAVE)
        return found.direction.reshape(shape)

    return _newton(centre, start, look, step)


def _inverse(sample: Objective, strength: float, pull: Array) -> Inverse:
    """Near the Hessian's: that of some rows, whole where there are few parameters."""
    if pull.size > _MOST_WHOLE:
        own = (strength * diagonal_of(sample) + pull).reshape(1, -1)
        return lambda g: g / own
    hessian = strength * hessian_matrix(sample) + np.diag(pull.ravel())
    factor = scipy.linalg.cho_factor(hessian)
    return lambda g: scipy.linalg.cho_solve(factor, g.ravel()).reshape(1, -1)


def fit_isotonic(logits: Array, target: Array, weight: Array) -> Monotone:
    """One rising function of the probabilities of all classes, from how often each was right.

    The isotonic regression of truth (0 or 1) on the probabilities of all classes together, which
    keeps their order in every row; between the middles of its steps it goes on lines. Each step
    counts one row more, half of it right (Jeffreys's prior): none becomes 0 or 1.

    References
    ----------
    Zhang, Kailkhura and Han, "Mix-n-Match: ensemble and compositional methods for uncertainty
    calibration in deep learning", 2020; Oron and Flournoy, "Centered isotonic regression", 2017.
    """
    odds = _log_odds(logits)
    own = of_target(odds, target)
    possible, sound = odds >= -_IMPOSSIBLE, own >= -_IMPOSSIBLE
    x, each = odds[possible], np.broadcast_to(weight[:, None], odds.shape)[possible]
    # What lies between two log-odds of true classes is never right, and falls to the lower one:
    # only those need to be sorted.
    edges = np.unique(own[sound])
    place, count = np.searchsorted(edges, x, side="right"), len(edges) + 1
    right = np.bincount(np.searchsorted(edges, own[sound], "right"), weight[sound], count)
    mass, total = np.bincount(place, each, count), np.bincount(place, each * x, count)
    there = mass > 0
    steps = _Steps(mass[there], right[there], total[there])
    steps = steps.merged(steps.right / steps.mass)
    while (np.diff(steps.values) < 0).any():
        steps = steps.merged(steps.values)
    return Monotone(steps.odds / steps.mass, scipy.special.logit(steps.values))


@dataclass(frozen=True)
class _Steps:
    """Neighbours taken together: their mass, what of it is right, its log-odds added up."""

    mass: Array
    right: Array
    odds: Array

    @property
    def values(self) -> Array:
        """The share that is right, with one row more, half of it right."""
        values: Array = (self.right + 0.5) / (self.mass + 1)
        return values

    def merged(self, value: Array) -> _Steps:
        """With those taken together whose values fall."""
        starts = isotonic_regression(value, weights=self.mass).blocks[:-1]
        return _Steps(*(np.add.reduceat(x, starts) for x in vars(self).values()))


Fit = Callable[[Array, Array, Array], Scaling]

# From simple to rich.
METHODS: dict[str, Fit] = {
    "identity": lambda logits, target, weight: IDENTITY,
    "temperature": fit_temperature,
    "isotonic": fit_isotonic,
    "vector": fit_vector,
    "matrix": fit_matrix,
}
LINEAR = ["identity", "temperature", "vector", "matrix"]  # those that a layer can take in


def _summed(logits: Array, work: Callable[[slice], tuple[Any, ...]]) -> tuple[Any, ...]:
    """What work makes of blocks of rows, added up in an order that no thread changes."""
    step = max(_FEWEST, _BLOCK // logits.shape[1])
    starts = range(0, len(logits), step)
    count = min(_STRIPES, len(starts))

    def stripe(i: int) -> tuple[Any, ...]:
        some = starts[i * len(starts) // count : (i + 1) * len(starts) // count]
        return _added(work(slice(start, start + step)) for start in some)

    return _added(threads.each(stripe, range(count)))


def _added(parts: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    return reduce(lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)), parts)
