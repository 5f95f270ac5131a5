"""The kernels where nothing is compiled: `reference` over blocks of rows, in NumPy.

The signatures are those of `native`. Arrays are of float16, float32, float64, or uint16, which
stands for the bits of bfloat16; each answer is rounded to the type of `out` once, from the type
computed in. `out` may be an input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softly.kernels import reference
from softly.kernels.terms import Terms

Array = NDArray[Any]
Axes = tuple[int, ...]
Temperature = float | Array
name = "reference"

_BLOCK = 1 << 16  # entries; what is computed on the way stays in cache

# Overflow to infinity, underflow to zero and NaN are answers here, not accidents.
_quietly = np.errstate(all="ignore")


def softmax(
    x: Array, out: Array, axes: Axes, temperature: Temperature, where: Array | None
) -> None:
    _over_axes(reference.softmax, [x], out, axes, temperature, where)


def log_softmax(
    x: Array, out: Array, axes: Axes, temperature: Temperature, where: Array | None
) -> None:
    _over_axes(reference.log_softmax, [x], out, axes, temperature, where)


def logsumexp(
    x: Array, out: Array, axes: Axes, temperature: Temperature, where: Array | None
) -> None:
    _over_rows(reference.logsumexp, [x], out, axes, temperature, where)


def softmax_inverse(
    p: Array, out: Array, axes: Axes, temperature: Temperature, where: Array | None
) -> None:
    _over_axes(reference.softmax_inverse, [p], out, axes, temperature, where)


def softmax_vjp(
    p: Array, g: Array, out: Array, axes: Axes, temperature: Temperature, where: Array | None
) -> None:
    _over_axes(reference.softmax_vjp, [p, g], out, axes, temperature, where)


def log_softmax_vjp(
    log_p: Array, g: Array, out: Array, axes: Axes, temperature: Temperature, where: Array | None
) -> None:
    _over_axes(reference.log_softmax_vjp, [log_p, g], out, axes, temperature, where)


def quick_softmax(x: Any, axis: Any, out: Any) -> None:
    """There is no quicker way here."""


quick_log_softmax = quick_softmax


@_quietly
def sigmoid(x: Array, out: Array) -> None:
    for block in _blocks(x):
        out[block] = _rounded(reference.sigmoid(_floats(x[block])), out.dtype)


@_quietly
def log_sigmoid(x: Array, out: Array) -> None:
    for block in _blocks(x):
        out[block] = _rounded(reference.log_sigmoid(_floats(x[block])), out.dtype)


@_quietly
def cross_entropy(logits: Array, axis: int, terms: Terms, loss: Array, grad: Array | None) -> None:
    rows, soft, where = (_rows(array, (axis,)) for array in (logits, terms.soft, terms.where))
    slopes = _rows(grad, (axis,))
    for block in _blocks(rows):
        part = replace(
            terms,
            index=_part(terms.index, block),
            share=_part(terms.share, block),
            soft=None if soft is None else _floats(soft[block]),
            scale=_part(terms.scale, block),
            temperature=_part(terms.temperature, block),
            where=_part(where, block),
        )
        value, slope = reference.cross_entropy(_floats(rows[block]), -1, part, grad is not None)
        loss[block] = _rounded(value, loss.dtype)
        if slope is not None:
            slopes[block] = _rounded(slope, slopes.dtype)
    if grad is not None:
        _put_back(slopes, grad, (axis,))


def _over_axes(
    primitive: Callable[..., Array],
    inputs: list[Array],
    out: Array,
    axes: Axes,
    temperature: Temperature,
    where: Array | None,
) -> None:
    answers = _rows(out, axes)
    _over_rows(primitive, inputs, answers, axes, temperature, where)
    _put_back(answers, out, axes)


@_quietly
def _over_rows(
    primitive: Callable[..., Array],
    inputs: list[Array],
    answers: Array,
    axes: Axes,
    temperature: Temperature,
    where: Array | None,
) -> None:
    sources, allowed = [_rows(array, axes) for array in inputs], _rows(where, axes)
    for block in _blocks(sources[0]):
        answers[block] = _rounded(
            primitive(
                *(_floats(source[block]) for source in sources),
                axis=1,
                temperature=_column(_part(temperature, block)),
                where=_part(allowed, block),
            ),
            answers.dtype,
        )


def _rows(array: Any, axes: Axes) -> Any:
    """The entries along the axes as the rows of a matrix: a view where there is one."""
    if array is None:
        return None
    moved = _moved(array, axes)
    split = array.ndim - len(axes)
    return moved.reshape(math.prod(moved.shape[:split]), math.prod(moved.shape[split:]))


def _put_back(rows: Array, out: Array, axes: Axes) -> None:
    """Write rows into the array that they were taken of, unless they are a view of it."""
    if not np.may_share_memory(rows, out):
        moved = _moved(out, axes)
        moved[...] = rows.reshape(moved.shape)


def _moved(array: Array, axes: Axes) -> Array:
    return np.moveaxis(array, axes, range(-len(axes), 0))


def _blocks(rows: Array) -> Iterator[slice]:
    """Rows that together hold some _BLOCK entries."""
    count = max(1, _BLOCK // math.prod(rows.shape[1:]))
    return (slice(i, i + count) for i in range(0, len(rows), count))


def _part(rows: Any, block: slice) -> Any:
    """What belongs to a block; what is the same for all rows stays."""
    return rows[block] if isinstance(rows, np.ndarray) and rows.ndim else rows


def _column(rows: Any) -> Any:
    return rows[:, None] if isinstance(rows, np.ndarray) and rows.ndim else rows


def _floats(array: Array) -> Array:
    """The numbers in a type to compute in, contiguous, so that every layout has the same sums."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    if array.dtype == np.float16:
        return array.astype(np.float32, order="C")
    return np.ascontiguousarray(array)


def _rounded(numbers: Array, dtype: np.dtype[Any]) -> Array:
    """As `dtype`, to the nearest, ties to even; bfloat16 is the upper half of a float32."""
    if dtype != np.uint16:
        return numbers.astype(dtype, copy=False)
    bits = numbers.astype(np.float32).view(np.uint32)
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(numbers), bits >> 16 | 0x40, nearest).astype(np.uint16)


def linear_loss(
    x: Any,
    weights: Array,
    target: Array,
    weight: Array | None,
    start: int,
    stop: int,
    probabilities: Array | None,
) -> tuple[float, Array]:
    """The sum of the rows' weighted losses and its gradient (K, D + 1)."""
    value, gradient = 0.0, np.zeros(weights.shape[::-1])
    for rows in _rows_of_layer(x, weights, start, stop):
        loss, slope = _slopes(
            *(x[rows], weights, target[rows], None if weight is None else weight[rows]),
            None if probabilities is None else probabilities[rows],
        )
        value += loss
        _add_gradient(x[rows], slope, gradient)
    return value, gradient


def linear_curvature(
    x: Any,
    weights: Array | None,
    direction: Array,
    weight: Array | None,
    start: int,
    stop: int,
    probabilities: Array | None,
) -> Array:
    """The Hessian's product with a direction, (K, D + 1), at probabilities or weights."""
    product = np.zeros(direction.shape[::-1])
    for rows in _rows_of_layer(x, direction, start, stop):
        if probabilities is not None:
            p = probabilities[rows]
        else:
            assert weights is not None
            p = x[rows].astype(weights.dtype, copy=False) @ weights[:-1] + weights[-1]
            softmax(p, p, (1,), 1.0, None)
        some = None if weight is None else weight[rows]
        _add_gradient(x[rows], _slopes_along(x[rows], direction, some, p), product)
    return product


def width(n_classes: int) -> int:
    """What classes are padded to beside sparse features: nothing here needs it."""
    return n_classes


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
    """The sum of sparse rows' weighted losses; writes their slopes by scores."""
    value = 0.0
    for rows in _rows_of_layer(x, weights, start, stop):
        loss, slopes[rows, :n_classes] = _slopes(
            x[rows],
            weights[:, :n_classes],
            target[rows],
            None if weight is None else weight[rows],
            None if probabilities is None else probabilities[rows],
        )
        value += loss
    return value


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
    """How sparse rows' slopes by scores change along a direction."""
    for rows in _rows_of_layer(x, direction, start, stop):
        slopes[rows, :n_classes] = _slopes_along(
            x[rows],
            direction[:, :n_classes],
            None if weight is None else weight[rows],
            probabilities[rows],
        )


def linear_gather(
    columns: Any, slopes: Array, start: int, stop: int, scale: float, total: Array
) -> None:
    """Adds to features start to stop of a total (D + 1, K) what their rows' slopes sum up to."""
    d, k = columns.shape[1], total.shape[1]
    found = columns[:, start : min(stop, d)].T @ slopes[:, :k].astype(np.float64)
    total[start : min(stop, d)] += scale * found
    if stop > d:
        total[d] += scale * slopes[:, :k].sum(axis=0, dtype=np.float64)


def block_grams(x: Any, place: Array, intercept: int, weight: Array, grams: Array) -> None:
    """The Gram matrices of blocks of sparse features, each row weighted, into zeros."""
    count, size, _ = grams.shape
    for b in range(count):
        inside = np.flatnonzero(place // size == b)
        at, part = place[inside] - b * size, x[:, inside].astype(np.float64)
        weighted = part.multiply(weight[:, None]).tocsc()
        grams[b][np.ix_(at, at)] += (part.T @ weighted).toarray()
        if intercept // size == b:
            sums, mine = np.asarray(weighted.sum(axis=0)).ravel(), intercept - b * size
            grams[b][mine, at] += sums
            grams[b][at, mine] += sums
            grams[b][mine, mine] += weight.sum()


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
    """Coordinate descent on a quadratic with sum(l1 |y|), in place, from where it has a slope."""
    first = 0.0
    for sweep in range(most_sweeps):
        largest = 0.0
        for j, row in enumerate(matrix):
            free, bound = y[j] - slope[j] / row[j], l1[j] / row[j]
            best = free - min(max(free, -bound), bound)
            step = min(max(best, low[j]), high[j]) - y[j]
            if step:
                y[j] += step
                slope += step * row
                largest = max(largest, step * step * row[j])
        first = largest if sweep == 0 else first
        if largest <= swept * first:
            break


def _slopes(
    x: Any, weights: Array, target: Array, weight: Array | None, probabilities: Array | None
) -> tuple[float, Array]:
    """The sum of weighted losses, and what each score adds to it."""
    scores = x.astype(weights.dtype, copy=False) @ weights[:-1] + weights[-1]
    index, soft = (target[:, None], None) if target.ndim == 1 else (None, target)
    scale = 1.0 if weight is None else weight
    slope, loss = np.empty_like(scores), np.empty(len(scores), scores.dtype)
    cross_entropy(scores, 1, Terms(index=index, soft=soft, scale=scale), loss, slope)
    if probabilities is not None:
        softmax(scores, probabilities, (1,), 1.0, None)
    return float(np.vdot(np.broadcast_to(scale, loss.shape), loss.astype(np.float64))), slope


def _slopes_along(x: Any, direction: Array, weight: Array | None, p: Array) -> Array:
    slope: Array = x.astype(direction.dtype, copy=False) @ direction[:-1] + direction[-1]
    softmax_vjp(p, slope, slope, (1,), 1.0, None)
    return slope if weight is None else slope * weight[:, None]


def _rows_of_layer(x: Any, weights: Array, start: int, stop: int) -> Iterator[slice]:
    count = max(1, _BLOCK // max(weights.shape))
    return (slice(i, min(i + count, stop)) for i in range(start, stop, count))


def _add_gradient(x: Any, slope: Array, gradient: Array) -> None:
    gradient[:, :-1] += (x.T @ slope).T
    gradient[:, -1] += slope.sum(axis=0, dtype=np.float64)


def survey(index: Array, classes: int, ignore_index: int | None) -> tuple[int, int | None]:
    """How many targets count, and the position of the first that is no class."""
    counts = np.ones(index.shape, bool) if ignore_index is None else index != ignore_index
    bad = np.flatnonzero(counts & ((index < 0) | (index >= classes)))
    return int(counts.sum()), int(bad[0]) if len(bad) else None


@_quietly
def first_unsound(soft: Array, axis: int, scale: Temperature, tolerance: float) -> int | None:
    """The first row of soft targets that are no probabilities."""
    rows = _floats(_rows(soft, (axis,)))
    sound = (abs(rows.sum(axis=1, dtype=np.float64) - 1) <= tolerance) & (rows >= 0).all(axis=1)
    bad = np.flatnonzero(~(sound | np.broadcast_to(np.equal(scale, 0), sound.shape)))
    return int(bad[0]) if len(bad) else None


def total(x: Array) -> float:
    """The sum of numbers, always in the same order."""
    return float(x.sum(dtype=np.float64))
