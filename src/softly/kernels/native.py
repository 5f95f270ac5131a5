"""The compiled kernels, rows split over threads.

Arrays are of float16, float32, float64, or uint16, which stands for the bits of bfloat16; they
have any strides, and ``out`` may be an input. ``axes`` are those whose entries make a row,
``temperature`` is a number or an array of one for each row in the type computed in, ``where``
booleans broadcast to the scores' shape, or None.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softly.kernels import _native, threads
from softly.kernels.terms import Terms

Array = NDArray[Any]
Axes = tuple[int, ...]
Temperature = float | Array
_LANES = 8  # doubles side by side in the sums of sparse rows
level: str = _native.use(os.environ.get("SOFTLY_CPU", ""))
name = f"native, x86-64-{level}" if level != "base" else "native"


def softmax(
    x: Array, out: Array, axes: Axes, temperature: Temperature, where: Array | None
) -> None:
    """p = exp(d) / sum exp(d), d = (z - max z) / T."""
    _along(_native.softmax, x, (x, out, axes, temperature, where), axes)


def log_softmax(
    x: Array, out: Array, axes: Axes, temperature: Temperature, where: Array | None
) -> None:
    """log p = d - log sum exp(d)."""
    _along(_native.log_softmax, x, (x, out, axes, temperature, where), axes)


def logsumexp(
    x: Array, out: Array, axes: Axes, temperature: Temperature, where: Array | None
) -> None:
    """log sum exp(z / T), into one number a row."""
    _along(_native.logsumexp, x, (x, out, axes, temperature, where), axes)


def softmax_inverse(
    p: Array, out: Array, axes: Axes, temperature: Temperature, where: Array | None
) -> None:
    """T (log p - mean log p), the mean over p > 0."""
    _along(_native.softmax_inverse, p, (p, out, axes, temperature, where), axes)


def softmax_vjp(
    p: Array, g: Array, out: Array, axes: Axes, temperature: Temperature, where: Array | None
) -> None:
    """p (g - sum p g) / T."""
    _along(_native.softmax_vjp, p, (p, g, out, axes, temperature, where), axes)


def log_softmax_vjp(
    log_p: Array, g: Array, out: Array, axes: Axes, temperature: Temperature, where: Array | None
) -> None:
    """(g - p sum g) / T."""
    _along(_native.log_softmax_vjp, log_p, (log_p, g, out, axes, temperature, where), axes)


# The whole call in the compiled module for a small, plain array; None sends it the usual way.
quick_softmax = _native.quick_softmax
quick_log_softmax = _native.quick_log_softmax


def sigmoid(x: Array, out: Array) -> None:
    """1 / (1 + exp(-x))."""
    threads.over_rows(lambda a, b: _native.sigmoid(x, out, a, b), x.size, x.nbytes)


def log_sigmoid(x: Array, out: Array) -> None:
    """min(x, 0) - log(1 + exp(-|x|))."""
    threads.over_rows(lambda a, b: _native.log_sigmoid(x, out, a, b), x.size, x.nbytes)


def cross_entropy(logits: Array, axis: int, terms: Terms, loss: Array, grad: Array | None) -> None:
    """The loss of each row, and scale times its gradient."""
    t = terms
    arguments = (
        *(logits, (axis,), loss, grad, t.index, t.share, t.soft, t.ignore_index, t.class_weight),
        *(t.scale, t.smoothing, t.z_loss, t.cap or 0.0, t.focal, t.temperature, t.where),
    )
    _along(_native.cross_entropy, logits, arguments, (axis,))


def linear_loss(
    x: Any,
    weights: Array,
    target: Array,
    weight: Array | None,
    start: int,
    stop: int,
    probabilities: Array | None,
) -> tuple[float, Array]:
    """The sum of the rows' weighted losses and its gradient (K, D + 1), on this thread."""
    total = _sums(x, weights)
    arguments = (_features(x), weights, target, weight, total, probabilities, start, stop)
    return _native.linear_loss(*arguments), _by_class(x, weights, total)


def linear_curvature(
    x: Any,
    weights: Array | None,
    direction: Array,
    weight: Array | None,
    start: int,
    stop: int,
    probabilities: Array | None,
) -> Array:
    """The Hessian's product with a direction, (K, D + 1), on this thread."""
    total = _sums(x, direction)
    arguments = (_features(x), weights, direction, probabilities, weight, total, start, stop)
    _native.linear_curvature(*arguments)
    return _by_class(x, direction, total)


def width(n_classes: int) -> int:
    """What classes are padded to beside sparse features."""
    return -(-n_classes // _LANES) * _LANES


def linear_slopes(
    x: Any,
    weights: Array,
    n_classes: int,
    target: Array,
    weight: Array | None,
    start: int,
    stop: int,
    slopes: Array,
    probabilities: Array | None,
) -> float:
    """The sum of sparse rows' weighted losses, on this thread; writes their slopes by scores.

    Weights (D + 1, W) and slopes (N, W) have W = `width` (K) columns.
    """
    arguments = (_features(x), weights, target, weight, slopes, probabilities, start, stop)
    loss: float = _native.linear_loss(*arguments, n_classes)
    return loss


def linear_slopes_along(
    x: Any,
    direction: Array,
    n_classes: int,
    weight: Array | None,
    start: int,
    stop: int,
    slopes: Array,
    probabilities: Array,
) -> None:
    """How sparse rows' slopes by scores change along a direction, on this thread."""
    arguments = (_features(x), None, direction, probabilities, weight, slopes, start, stop)
    _native.linear_curvature(*arguments, n_classes)


def linear_gather(
    columns: Any, slopes: Array, start: int, stop: int, scale: float, total: Array
) -> None:
    """Adds to features start to stop of a total (D + 1, K) what their rows' slopes sum up to.

    `columns` is a CSC matrix (N, D); the last feature, D, is 1 in all rows.
    """
    _native.linear_gather(_features(columns), slopes, total, start, stop, scale)


def block_grams(x: Any, place: Array, intercept: int, weight: Array, grams: Array) -> None:
    """The Gram matrices of blocks of sparse features, into zeros, on this thread.

    `grams` are (blocks, size, size); feature d is `place[d]` % size in block `place[d]` // size,
    and in none where that is below 0, and the intercept likewise. Rows have float64 weights.
    """
    _native.block_grams(_features(x), place, intercept, weight, grams)


def descend(
    matrix: Array,
    l1: Array,
    low: Array,
    high: Array,
    most_sweeps: int,
    swept: float,
    y: Array,
    slope: Array,
) -> None:
    """Coordinate descent on a quadratic with sum(l1 |y|), in place, from where it has a slope.

    From `low` to `high`; until a sweep's largest gain is the part `swept` of the first sweep's.
    """
    _native.descend(matrix, l1, low, high, most_sweeps, swept, y, slope)


def _features(x: Any) -> Any:
    return x if isinstance(x, np.ndarray) else (x.data, x.indices, x.indptr)


def _sums(x: Any, weights: Array) -> Array:
    rows, classes = weights.shape
    if isinstance(x, np.ndarray):
        return np.zeros((classes, rows))
    return np.zeros((rows, -(-classes // _LANES) * _LANES))


def _by_class(x: Any, weights: Array, total: Array) -> Array:
    return total if isinstance(x, np.ndarray) else total.T[: weights.shape[1]]


def survey(index: Array, classes: int, ignore_index: int | None) -> tuple[int, int | None]:
    """How many targets count, and the position of the first that is no class."""
    # One thread: 8 bytes a row are done before a second one has woken.
    counted, first = _native.survey(index, classes, ignore_index, 0, -1)
    return counted, first if first < index.size else None


def first_unsound(soft: Array, axis: int, scale: Temperature, tolerance: float) -> int | None:
    """The first row of soft targets that are no probabilities."""
    bad = []

    def look(start: int, stop: int) -> None:
        first = _native.check_soft(soft, (axis,), scale, tolerance, start, stop)
        if first < stop:
            bad.append(first)

    rows = soft.size // soft.shape[axis]
    threads.over_rows(look, rows, soft.nbytes)
    return min(bad, default=None)


def total(x: Array) -> float:
    """The sum of contiguous numbers of a type computed in, always in the same order."""
    return _native.total(x)


def _along(kernel: Callable[..., None], x: Array, arguments: tuple[Any, ...], axes: Axes) -> None:
    if x.nbytes < threads.LITTLE:
        kernel(*arguments, 0, -1)
        return
    rows = x.size // math.prod(x.shape[a] for a in axes)
    threads.over_rows(lambda a, b: kernel(*arguments, a, b), rows, x.nbytes)
