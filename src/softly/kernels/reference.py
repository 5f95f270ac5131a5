"""Every primitive in a few lines of NumPy: the definition, and the fallback.

``rows`` is a C-contiguous (N, K) array of float32 or float64 with K >= 1;
results are written into arrays that the caller gives.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
name = "reference"

# Overflow to infinity, underflow to zero and NaN are answers here, not accidents.
_quietly = np.errstate(all="ignore")


@_quietly
def softmax(rows: Array, out: Array) -> None:
    """p = exp(z - max) / sum exp(z - max)."""
    _, ties, rest, exps = _reduce(rows)
    out[:] = exps / (ties + rest)


@_quietly
def log_softmax(rows: Array, out: Array) -> None:
    """log p = (z - max) - log sum exp(z - max)."""
    difference, ties, rest, _ = _reduce(rows)
    np.subtract(difference, np.log1p(ties - 1 + rest).astype(rows.dtype), out=out)


@_quietly
def logsumexp(rows: Array, out: Array) -> None:
    """log sum exp(z) = max + log sum exp(z - max)."""
    _, ties, rest, _ = _reduce(rows)
    top = rows.max(axis=1)
    value = top + np.log1p(ties - 1 + rest)[:, 0]
    out[:] = np.where(np.isinf(top), top, value)


@_quietly
def cross_entropy(
    rows: Array,
    target: NDArray[np.int64],
    scale: Array | None,
    loss: Array,
    grad: Array | None,
) -> None:
    """loss = logsumexp(z) - z[target]; grad = scale (softmax(z) - onehot(target)).

    A row of scale 0 gives exact zeros for both, whatever it holds; grad may be rows.
    """
    difference, ties, rest, exps = _reduce(rows)
    everyone = np.arange(len(rows))
    at_target = difference[everyone, target]
    ignored = np.zeros(len(rows), bool) if scale is None else scale == 0
    loss[:] = np.log1p(ties - 1 + rest)[:, 0] - at_target
    loss[ignored] = 0
    if grad is None:
        return
    # p - 1 for a target that alone is the greatest is minus the others, to full accuracy.
    p = exps / (ties + rest)
    others = (ties - 1 + rest) / (ties + rest)
    p[everyone, target] = np.where(at_target == 0, -others[:, 0], p[everyone, target] - 1)
    grad[:] = p if scale is None else p * scale[:, None]
    grad[ignored] = 0


@_quietly
def sigmoid(x: Array, out: Array) -> None:
    """1 / (1 + exp(-x)), by exp(-|x|), which cannot overflow."""
    e = np.exp(-np.abs(x)).astype(np.float64)
    out[:] = np.where(x < 0, e, 1) / (1 + e) + np.where(np.isnan(x), np.nan, 0)


@_quietly
def log_sigmoid(x: Array, out: Array) -> None:
    """min(x, 0) - log1p(exp(-|x|))."""
    out[:] = np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)).astype(np.float64))


def _reduce(rows: Array) -> tuple[Array, Array, Array, Array]:
    """z - max; how many scores equal the max; the sum of the other exponentials; all of them.

    The sum is split so that log(ties + rest) = log1p(ties - 1 + rest) keeps full
    relative accuracy where one class is nearly certain.
    """
    top = rows.max(axis=1, keepdims=True)
    difference = _settled(rows, top) - np.where(np.isfinite(top), top, rows.dtype.type(0))
    exps = np.exp(difference.astype(np.float64))
    greatest = difference == 0
    ties = greatest.sum(axis=1, keepdims=True, dtype=np.float64)
    rest = np.where(greatest, 0, exps).sum(axis=1, keepdims=True, dtype=np.longdouble)
    return difference, ties, rest.astype(np.float64), exps


def _settled(rows: Array, top: Array) -> Array:
    """Rows without a finite maximum, as the rows that give their limit.

    Entries at +inf share the whole: 0 there and -inf elsewhere. A row of only -inf, or with
    a NaN, has no answer.
    """
    limit = np.where(rows == np.inf, 0, -np.inf).astype(rows.dtype)
    limit[~(top[:, 0] > -np.inf)] = np.nan
    return np.where(np.isfinite(top), rows, limit)
