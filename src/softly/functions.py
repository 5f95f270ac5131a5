"""softmax and its family over NumPy arrays, with SciPy's signatures.

What they promise (range, sum, accuracy, order, infinities, same bits) is written in
docs/architecture.md and tested in tests/test_contract.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple
from numpy.typing import ArrayLike, NDArray

from softly import arrays
from softly.kernels import chosen as kernels
from softly.kernels import memory

Array = NDArray[Any]
Axis = int | tuple[int, ...] | None


def softmax(x: ArrayLike, axis: Axis = None) -> Array:
    r"""Turn scores into probabilities.

    .. math:: p_i = \exp(z_i) / \sum_j \exp(z_j)

    Parameters
    ----------
    x : array_like
        Scores (logits) of any real type. Integers are read as float64.
    axis : int, tuple of ints, or None
        The axis, or axes, whose entries share a probability of 1. None, as in SciPy,
        means all entries of the array; rows of classes want ``axis=-1``.

    Returns
    -------
    ndarray
        The shape and dtype of `x`. Every entry lies in [0, 1]; a greater score never
        has a smaller probability. Scores of ``-inf`` have probability 0, those of
        ``+inf`` share 1 among them; only ``-inf``, or a NaN, gives NaN.

    Raises
    ------
    TypeError
        If `x` is complex or holds no numbers.
    numpy.exceptions.AxisError
        If `axis` is out of range.
    ValueError
        If there is no entry to share the probability among.

    References
    ----------
    Bridle, "Probabilistic interpretation of feedforward classification network
    outputs", 1990, equation 4.

    Examples
    --------
    >>> import softly
    >>> softly.softmax([2.0, 1.0, 0.1]).round(3)
    array([0.659, 0.242, 0.099])
    """
    return _along_rows(kernels.softmax, x, axis)


def log_softmax(x: ArrayLike, axis: Axis = None) -> Array:
    r"""Logarithms of the probabilities, accurate where a probability is near 0 or 1.

    .. math:: \log p_i = z_i - \log \sum_j \exp(z_j)

    Parameters
    ----------
    x : array_like
        Scores (logits) of any real type. Integers are read as float64.
    axis : int, tuple of ints, or None
        As in `softmax`.

    Returns
    -------
    ndarray
        The shape and dtype of `x`, every entry at most 0.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As in `softmax`.

    Examples
    --------
    >>> import softly
    >>> softly.log_softmax([100.0, 0.0])
    array([-3.72007598e-44, -1.00000000e+02])
    """
    return _along_rows(kernels.log_softmax, x, axis)


def logsumexp(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Any:
    r"""The logarithm of a sum of exponentials, which neither overflows nor vanishes.

    .. math:: \log \sum_j \exp(z_j)

    Parameters
    ----------
    x : array_like
        Real numbers of any type. Integers are read as float64.
    axis : int, tuple of ints, or None
        The axis, or axes, summed over. None, as in SciPy, means all.
    keepdims : bool
        Keep the axes summed over, with length 1.

    Returns
    -------
    ndarray or scalar
        ``-inf`` where all entries are ``-inf``, ``inf`` where one is ``+inf``.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As in `softmax`.

    Examples
    --------
    >>> import softly
    >>> float(softly.logsumexp([1000.0, 1000.0]))
    1000.6931471805599
    """
    values, dtype = arrays.floating(x, "x")
    axes = _axes(values, axis)
    rows = _rows(values, axes)
    out = np.empty(len(rows), rows.dtype)
    kernels.logsumexp(rows, out)
    kept = tuple(1 if i in axes else n for i, n in enumerate(values.shape))
    left = tuple(n for i, n in enumerate(values.shape) if i not in axes)
    return out.astype(dtype, copy=False).reshape(kept if keepdims else left)[()]


def sigmoid(x: ArrayLike) -> Any:
    r"""The probability of "yes" for a score: softmax of two classes.

    .. math:: \sigma(x) = 1 / (1 + \exp(-x))

    Parameters
    ----------
    x : array_like
        Scores of any real type. Integers are read as float64.

    Returns
    -------
    ndarray or scalar
        The shape and dtype of `x`, every entry in [0, 1].

    Raises
    ------
    TypeError
        If `x` is complex or holds no numbers.

    Examples
    --------
    >>> import softly
    >>> softly.sigmoid([-1000.0, 0.0, 2.0]).round(3)
    array([0.   , 0.5  , 0.881])
    """
    return _elementwise(kernels.sigmoid, x, "x")


def log_sigmoid(x: ArrayLike) -> Any:
    r"""The logarithm of `sigmoid`, accurate at both ends.

    .. math:: \log \sigma(x) = \min(x, 0) - \log(1 + \exp(-|x|))

    Parameters
    ----------
    x : array_like
        Scores of any real type. Integers are read as float64.

    Returns
    -------
    ndarray or scalar
        The shape and dtype of `x`, every entry at most 0.

    Raises
    ------
    TypeError
        If `x` is complex or holds no numbers.

    Examples
    --------
    >>> import softly
    >>> softly.log_sigmoid([-1000.0, 0.0, 50.0])
    array([-1.00000000e+03, -6.93147181e-01, -1.92874985e-22])
    """
    return _elementwise(kernels.log_sigmoid, x, "x")


def logit(p: ArrayLike) -> Any:
    r"""The score whose `sigmoid` is a probability: the log of its odds.

    .. math:: \mathrm{logit}(p) = \log(p / (1 - p))

    Parameters
    ----------
    p : array_like
        Probabilities of any real type.

    Returns
    -------
    ndarray or scalar
        The shape and dtype of `p`: ``-inf`` at 0, ``inf`` at 1, NaN outside [0, 1].

    Raises
    ------
    TypeError
        If `p` is complex or holds no numbers.

    Examples
    --------
    >>> import softly
    >>> softly.logit([0.0, 0.5, 0.75])
    array([      -inf, 0.        , 1.09861229])
    """
    values, dtype = arrays.floating(p, "p")
    with np.errstate(all="ignore"):
        wide = values.astype(np.float64)
        # Near 1/2 both logarithms are near each other: there 2p - 1 is exact, and so is this.
        middle = 2 * np.arctanh(2 * wide - 1)
        outer = np.log(wide) - np.log1p(-wide)
        value = np.where(np.abs(wide - 0.5) < 0.25, middle, outer)
        return value.astype(values.dtype).astype(dtype)[()]


def _axes(values: Array, axis: Axis) -> tuple[int, ...]:
    axes = range(values.ndim) if axis is None else normalize_axis_tuple(axis, values.ndim, "axis")
    if any(values.shape[a] == 0 for a in axes):
        raise ValueError(
            f"x has shape {values.shape}: along axis {axis} there is no entry, "
            "but at least one class is needed"
        )
    return tuple(axes)


def _rows(values: Array, axes: tuple[int, ...]) -> Array:
    """The entries along `axes` as the rows of a contiguous matrix."""
    last = range(values.ndim - len(axes), values.ndim)
    moved = np.moveaxis(values, axes, last)
    k = int(np.prod([values.shape[a] for a in axes], dtype=np.intp))
    n = int(np.prod([m for i, m in enumerate(values.shape) if i not in axes], dtype=np.intp))
    return np.ascontiguousarray(moved.reshape(n, k))


def _along_rows(kernel: Callable[[Array, Array], None], x: ArrayLike, axis: Axis) -> Array:
    values, dtype = arrays.floating(x, "x")
    axes = _axes(values, axis)
    rows = _rows(values, axes)
    out = memory.empty(rows.shape, rows.dtype)
    kernel(rows, out)
    last = tuple(range(values.ndim - len(axes), values.ndim))
    shape = [n for i, n in enumerate(values.shape) if i not in axes]
    shape += [values.shape[a] for a in axes]
    return np.moveaxis(out.astype(dtype, copy=False).reshape(shape), last, axes)


def _elementwise(kernel: Callable[[Array, Array], None], x: ArrayLike, name: str) -> Any:
    values, dtype = arrays.floating(x, name)
    flat = np.ascontiguousarray(values).reshape(-1)
    out = memory.empty(flat.shape, flat.dtype)
    kernel(flat, out)
    return out.astype(dtype, copy=False).reshape(values.shape)[()]
