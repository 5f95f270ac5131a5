"""The loss that trains a softmax classifier: value and gradient in one pass."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softly import arrays
from softly.kernels import chosen as kernels
from softly.kernels import memory

Array = NDArray[Any]
Reduction = Literal["mean", "sum", "none"]


@overload
def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    return_grad: Literal[False] = False,
) -> Any: ...
@overload
def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    return_grad: Literal[True],
) -> tuple[Any, Array]: ...
def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: Reduction = "mean",
    return_grad: bool = False,
) -> Any:
    r"""How badly scores predict the classes that came: minus the log of their probability.

    .. math:: \ell = \log \sum_j \exp(z_j) - z_t, \qquad
              \partial \ell / \partial z = \mathrm{softmax}(z) - \mathrm{onehot}(t)

    Parameters
    ----------
    logits : array_like, shape (..., K)
        Scores of K classes along the last axis.
    target : array_like of int, shape (...)
        The class of each row, 0 to K - 1.
    sample_weight : array_like, shape (...), optional
        Weight of each row. A row of weight 0 counts for nothing, even if it holds NaN.
    reduction : {"mean", "sum", "none"}
        The mean is the weighted one: divided by the sum of the weights, as in PyTorch.
    return_grad : bool
        Also return the gradient of the value with respect to the logits
        (with ``"none"``: of the sum of the values).

    Returns
    -------
    value : float, or ndarray of shape (...) with ``reduction="none"``
    grad : ndarray of shape (..., K), dtype of `logits`
        Only with ``return_grad=True``.

    Raises
    ------
    ValueError
        If shapes do not match, a target is no class, a weight is negative or not finite,
        or `reduction` is unknown.
    TypeError
        If `target` does not hold integers or `logits` no real numbers.

    Examples
    --------
    >>> import softly
    >>> value, grad = softly.cross_entropy([[2.0, 1.0, 0.1]], [0], return_grad=True)
    >>> round(value, 4), grad.round(3)
    (0.417, array([[-0.341,  0.242,  0.099]]))
    """
    values, dtype = arrays.floating(logits, "logits")
    classes = arrays.integers(target, "target")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is {reduction!r}, but 'mean', 'sum' or 'none' is needed")
    if values.ndim == 0 or classes.shape != values.shape[:-1]:
        raise ValueError(
            f"logits have shape {values.shape} and target {classes.shape}, but the target needs "
            "the shape of the logits without their last axis, the classes"
        )
    flat = _checked_targets(classes, values.shape[-1])
    weight = (
        None
        if sample_weight is None
        else arrays.weights(sample_weight, classes.shape, "sample_weight").reshape(-1)
    )
    rows = np.ascontiguousarray(values).reshape(-1, values.shape[-1])
    counted = float(len(rows) if weight is None else weight.sum())
    over = counted if reduction == "mean" else 1.0
    loss = np.empty(len(rows), rows.dtype)
    grad = memory.empty(rows.shape, rows.dtype) if return_grad else None
    scale = _scale(weight, over, rows)
    kernels.cross_entropy(rows, flat, scale, loss, grad)
    value = _reduce(loss, weight, over, reduction)
    if reduction == "none":
        value = value.astype(dtype, copy=False).reshape(classes.shape)[()]
    if grad is None:
        return value
    return value, grad.astype(dtype, copy=False).reshape(values.shape)


def _checked_targets(classes: NDArray[np.integer], k: int) -> NDArray[np.int64]:
    """The targets as a contiguous int64 vector, every one of them a class."""
    wrong = (classes < 0) | (classes >= k)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"target[{at}] is {classes.flat[at]}, but the logits have {k} classes (0..{k - 1})"
        )
    return np.ascontiguousarray(classes, dtype=np.int64).reshape(-1)


def _scale(weight: NDArray[np.float64] | None, over: float, rows: Array) -> Array | None:
    """What each row's gradient is multiplied by; None for 1 everywhere."""
    if weight is None and over == 1:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        each = (np.ones(len(rows)) if weight is None else weight) / over
    return each.astype(rows.dtype)


def _reduce(
    loss: Array, weight: NDArray[np.float64] | None, over: float, reduction: Reduction
) -> Any:
    weighted = loss if weight is None else loss * weight
    if reduction == "none":
        return weighted
    total = float(weighted.sum(dtype=np.float64))
    return total / over if over else float("nan")
