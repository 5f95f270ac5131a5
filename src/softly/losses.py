"""The loss that trains a softmax classifier: value and gradient in one pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan
from operator import index
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from softly import arrays
from softly.arrays import Array
from softly.kernels import chosen as kernels
from softly.kernels import memory
from softly.kernels.terms import Terms

Reduction = Literal["mean", "sum", "none"]
Empty = Literal["nan", "zero"]


def cross_entropy(
    logits: Any,
    target: Any,
    *,
    axis: int = -1,
    class_weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    logit_cap: float | None = None,
    temperature: Any = 1.0,
    where: Any = None,
    focal: float = 0.0,
    reduction: Reduction = "mean",
    empty: Empty = "nan",
    return_grad: bool = False,
    grad_out: Any = None,
) -> Any:
    r"""How badly scores predict the classes that came: minus the log of their probability.

    .. math:: \ell = \log \sum_j \exp(z_j) - z_t, \qquad
              \partial \ell / \partial z = \mathrm{softmax}(z) - \mathrm{onehot}(t)

    and with all options, :math:`a_j` being how much class j is wanted,

    .. math:: \ell = \sum_j a_j (1 - p_j)^\gamma (-\log p_j) + \lambda \log^2 \sum_j \exp(z_j)

    where z are the scores after `logit_cap`, `where` and `temperature`, and p their softmax.

    Parameters
    ----------
    logits : array_like, shape (..., K)
        Scores of K classes along `axis`.
    target : array_like
        One of: integers of shape (...), the class of each row, 0 to K - 1; floats of the shape
        of `logits`, the probability of each class; or a pair ``(indices, probabilities)`` of
        shape (..., m) each, the only classes of a row that have any.
    axis : int
        The axis of the classes.
    class_weight : array_like, shape (K,), optional
        Weight of each class.
    sample_weight : array_like, shape (...), optional
        Weight of each row. A row of weight 0 counts for nothing, even if it holds NaN.
    ignore_index : int
        Rows with this integer as their target count for nothing.
    label_smoothing : float
        How much of the target, 0 to 1, is spread evenly over the allowed classes.
    z_loss : float
        :math:`\lambda`, which keeps the log of the sum of exponentials near 0.
    logit_cap : float, optional
        Scores are bent to lie between plus and minus this: ``cap * tanh(z / cap)``.
    temperature : float or array_like
        Scores are divided by it, as in `softmax`; a number or one for each row.
    where : array_like of bool, optional
        The classes allowed, broadcastable to `logits`. The others have probability 0.
    focal : float
        :math:`\gamma`, which takes weight from what is already predicted well.
    reduction : {"mean", "sum", "none"}
        The mean is the weighted one: divided by the sum of the weights (of rows, and for
        integer targets of their classes), as in PyTorch.
    empty : {"nan", "zero"}
        The mean when no row counts.
    return_grad : bool
        Also return the gradient of the value with respect to the logits
        (with ``"none"``: of the sum of the values).
    grad_out : array, optional
        Where to write the gradient: of the shape and dtype of `logits`, `logits` itself or
        memory of its own. Implies `return_grad`.

    Returns
    -------
    value : float, or array of shape (...) with ``reduction="none"``
    grad : array of the shape, dtype and library of `logits`
        Only with ``return_grad=True``.

    Raises
    ------
    ValueError
        If shapes do not match, a target is no class or no distribution, an option is out of
        its range, a weight is negative or not finite, or `grad_out` does not fit.
    TypeError
        If `target` holds neither integers nor floats, or `logits` no real numbers.

    References
    ----------
    Szegedy et al., "Rethinking the Inception architecture", 2016, section 7 (label smoothing);
    Lin et al., "Focal loss for dense object detection", 2017, equation 4; Chowdhery et al.,
    "PaLM", 2022, section 5 (z-loss); Gemma Team, "Gemma 2", 2024, section 2 (logit cap).

    Examples
    --------
    >>> import softly
    >>> value, grad = softly.cross_entropy([[2.0, 1.0, 0.1]], [0], return_grad=True)
    >>> round(value, 4), grad.round(3)
    (0.417, array([[-0.341,  0.242,  0.099]]))
    >>> round(softly.cross_entropy([[2.0, 1.0, 0.1]], [[0.8, 0.1, 0.1]]), 4)  # soft targets
    0.707
    """
    options: dict[str, Any] = {
        "class_weight": class_weight,
        "sample_weight": sample_weight,
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "z_loss": z_loss,
        "logit_cap": logit_cap,
        "temperature": temperature,
        "where": where,
        "focal": focal,
        "reduction": reduction,
        "empty": empty,
    }
    return_grad = return_grad or grad_out is not None
    if arrays.is_foreign(logits):
        from softly.foreign_losses import cross_entropy as computed

        return computed(logits, target, axis, options, return_grad, grad_out)
    values, leave = arrays.enter(logits, "logits")
    if values.ndim == 0:
        raise ValueError("logits is a number, but it needs an axis of classes")
    (at,) = arrays.axes_of(values, index(axis), "logits")
    asked = prepare(values.shape, at, values.dtype, target, **options)
    grad = None
    if grad_out is not None:
        grad = arrays.buffer_of(
            *(grad_out, values.shape, values.dtype, logits),
            *({"logits": values}, asked.inputs(), "grad_out"),
        )
    elif return_grad:
        grad = memory.empty_like(values)
    loss = np.empty(asked.n_rows, arrays.computed(values.dtype))
    kernels.cross_entropy(values, at, asked.terms, loss, grad)
    value = asked.value(loss)
    if reduction == "none":
        value = arrays.narrowed(value, values.dtype).reshape(asked.shape)
        value = value[()] if leave is None else leave(value)
    if grad is None:
        return value
    return value, grad_out if grad_out is not None else grad if leave is None else leave(grad)


@dataclass(frozen=True)
class Asked:
    """A loss asked for: its options checked, and its sums known."""

    shape: tuple[int, ...]  # of the rows
    terms: Terms
    weight: NDArray[np.float64] | None  # of each row; None: 1
    over: float  # what the sum of the losses is divided by
    reduction: Reduction
    empty: Empty

    @property
    def n_rows(self) -> int:
        return int(np.prod(self.shape))

    def inputs(self) -> dict[str, Any]:
        """What a gradient must not be written over."""
        t = self.terms
        named = {"target": t.soft if t.index is None else t.index, "where": t.where}
        return named | {"temperature": t.temperature, "class_weight": t.class_weight}

    def of_rows(self, rows: slice | NDArray[Any]) -> Terms:
        """The terms of some of the rows of an (N, K) matrix."""
        names = ("index", "share", "soft", "scale", "temperature", "where")
        parts = {name: getattr(self.terms, name) for name in names}
        each: dict[str, Any] = {k: v[rows] for k, v in parts.items() if isinstance(v, np.ndarray)}
        return replace(self.terms, **each)

    def counted(self) -> NDArray[np.bool_] | None:
        """Which rows count; None: all."""
        t = self.terms
        counts = None if self.weight is None else self.weight != 0
        if self.weight is None and t.ignore_index is not None and t.index is not None:
            counts = t.index[:, 0] != t.ignore_index
        return counts

    def value(self, loss: Array) -> Any:
        """The losses of all rows, reduced."""
        weighted = loss if self.weight is None else loss * self.weight
        if self.reduction == "none":
            return weighted
        if self.over == 0:
            return nan if self.empty == "nan" else 0.0
        total = kernels.total(loss) if self.weight is None else float(weighted.sum())
        return total / self.over


def prepare(
    shape: tuple[int, ...],
    axis: int,
    dtype: np.dtype[Any],
    target: Any,
    *,
    class_weight: Any,
    sample_weight: Any,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    logit_cap: float | None,
    temperature: Any,
    where: Any,
    focal: float,
    reduction: Reduction,
    empty: Empty,
) -> Asked:
    """Check what is asked of logits of this shape and type, and put it in the kernels' terms."""
    check_options(label_smoothing, z_loss, logit_cap, focal, reduction, empty)
    if not isinstance(ignore_index, int | np.integer):
        raise TypeError(f"ignore_index is {ignore_index!r}, but an integer is needed")
    working = arrays.computed(dtype)
    rows = arrays.rows_shape(shape, (axis,))
    n_rows, classes = int(np.prod(rows)), shape[axis]
    by_class = (
        None if class_weight is None else arrays.weights(class_weight, (classes,), "class_weight")
    )
    by_row = (
        None
        if sample_weight is None
        else arrays.weights(sample_weight, rows, "sample_weight").reshape(-1)
    )
    terms = Terms(
        class_weight=None if by_class is None else by_class.astype(working),
        smoothing=float(label_smoothing),
        z_loss=float(z_loss),
        cap=None if logit_cap is None else float(logit_cap),
        temperature=arrays.temperature_of(temperature, shape, (axis,), dtype),
        where=arrays.mask_of(where, shape),
        focal=float(focal),
    )
    terms, counted = _with_target(terms, target, rows, shape, axis, working, ignore_index, by_row)
    over_z = over = float(counted)  # without weights, each row that counts is 1
    hard = None if terms.ignore_index is None or terms.index is None else terms.index[:, 0]
    if by_row is not None or (hard is not None and by_class is not None):
        if by_row is None:
            by_row = np.ones(n_rows)
        if hard is not None:
            by_row = np.where(hard == terms.ignore_index, 0.0, by_row)
        over_z = over = float(by_row.sum())
        if hard is not None and by_class is not None:
            over = float((by_row * by_class[np.where(by_row == 0, 0, hard)]).sum())
    if reduction != "mean":
        over = over_z = 1.0
    # The mean of the z-loss is over rows, whatever their classes weigh.
    spread = over / over_z if over_z else 1.0
    scale = 0.0 if over == 0 else 1 / over
    terms = replace(
        terms,
        z_loss=terms.z_loss * spread,
        scale=scale if by_row is None else (by_row * scale).astype(working),
    )
    return Asked(rows, terms, by_row, over, reduction, empty)


def check_options(
    label_smoothing: float,
    z_loss: float,
    logit_cap: float | None,
    focal: float,
    reduction: str,
    empty: str,
) -> None:
    """Numbers in their ranges, words among those known."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is {reduction!r}, but 'mean', 'sum' or 'none' is needed")
    if empty not in ("nan", "zero"):
        raise ValueError(f"empty is {empty!r}, but 'nan' or 'zero' is needed")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}, but it must lie in [0, 1]")
    for name, value in (("z_loss", z_loss), ("focal", focal)):
        if not 0 <= value < np.inf:
            raise ValueError(f"{name} is {value}, but it must be finite and not negative")
    if logit_cap is not None and not 0 < logit_cap < np.inf:
        raise ValueError(f"logit_cap is {logit_cap}, but it must be positive and finite")


def _with_target(
    terms: Terms,
    target: Any,
    rows: tuple[int, ...],
    shape: tuple[int, ...],
    axis: int,
    working: np.dtype[Any],
    ignore_index: int,
    by_row: NDArray[np.float64] | None,
) -> tuple[Terms, int]:
    """The terms with what is wanted, and how many rows count."""
    n_rows, classes = int(np.prod(rows)), shape[axis]
    if is_sparse(target, len(rows)):
        index, share = _sparse(target, rows, shape, classes, working, by_row)
        return replace(terms, index=index, share=share), n_rows
    soft, _ = (target, None) if arrays.is_tensor(target) else (np.asarray(target), None)
    if str(soft.dtype).removeprefix("torch.") in ("float16", "bfloat16", "float32", "float64"):
        values = arrays.enter(soft, "target")[0]
        if values.shape != shape:
            raise ValueError(
                f"target has shape {values.shape}, but soft targets need the logits' shape {shape}"
            )
        _check_soft(values, axis, by_row)
        return replace(terms, soft=values), n_rows
    hard = _hard(arrays.integers(soft, "target"), rows, shape)
    least, most = np.iinfo(hard.dtype).min, np.iinfo(hard.dtype).max
    occurs = least <= ignore_index <= most
    counted, bad = kernels.survey(hard, classes, ignore_index if occurs else None)
    if bad is not None:
        _raise_no_class("target", hard, rows, bad, classes)
    # -1, which is no class, for one that the type of the target cannot hold
    ignored = ignore_index if occurs else -1
    return replace(terms, index=hard[:, None], ignore_index=ignored), counted


def is_sparse(target: Any, dimensions: int) -> bool:
    """A pair of arrays with one dimension more than the rows."""
    return isinstance(target, tuple) and len(target) == 2 and np.ndim(target[0]) == dimensions + 1


def _hard(classes: Array, rows: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    if classes.shape != rows:
        raise ValueError(
            f"logits have shape {shape} and target {classes.shape}, but the target needs shape "
            f"{rows}, the logits' without their axis of classes (or floats of the logits' shape)"
        )
    return np.ascontiguousarray(classes, classes.dtype.newbyteorder("=")).reshape(-1)


def _raise_no_class(name: str, index: Array, rows: tuple[int, ...], bad: int, classes: int) -> None:
    at = ", ".join(map(str, np.unravel_index(bad, rows)))
    named = f"{name}[{at}]" if rows else name
    raise ValueError(
        f"{named} is {index[bad]}, but the logits have {classes} classes (0..{classes - 1})"
    )


def _sparse(
    target: tuple[Any, Any],
    rows: tuple[int, ...],
    shape: tuple[int, ...],
    classes: int,
    working: np.dtype[Any],
    by_row: NDArray[np.float64] | None,
) -> tuple[Array, Array]:
    index = arrays.integers(target[0], "target[0], the indices,")
    given = arrays.enter(target[1], "target[1]")[0]
    if index.shape != given.shape or index.shape[:-1] != rows:
        raise ValueError(
            f"target holds indices of shape {index.shape} and probabilities of {given.shape}, but "
            f"for logits of shape {shape} both need shape {rows} and one axis more"
        )
    m = index.shape[-1]
    index = np.ascontiguousarray(index, index.dtype.newbyteorder("="))
    counts = np.ones(rows, bool) if by_row is None else (by_row != 0).reshape(rows)
    if by_row is None:
        _, bad = kernels.survey(index.reshape(-1), classes, None)
    else:
        wrong = np.flatnonzero(((index < 0) | (index >= classes)) & counts[..., None])
        bad = int(wrong[0]) if len(wrong) else None
    if bad is not None:
        _raise_no_class("target[0]", index.reshape(-1), index.shape, bad, classes)
    share = arrays.widened(given)
    _check_shares(share, counts, _tolerance(given.dtype))
    # Rows that do not count may name anything.
    if by_row is not None:
        index = np.where(counts[..., None], index, 0)
    return index.reshape(-1, m), np.ascontiguousarray(share.reshape(-1, m), working)


def _check_shares(share: Array, counts: NDArray[np.bool_], tolerance: float) -> None:
    """Each a probability, and of each row that counts not more than the whole."""
    # A product, since NumPy's sums of short rows are slow.
    total = share.astype(np.float64, copy=False) @ np.ones(share.shape[-1])
    if share.size and share.min() >= 0 and total.max() <= 1 + tolerance:
        return
    negative = np.argwhere(~((share >= 0) & (share < np.inf)) & counts[..., None])
    if len(negative):
        at = negative[0].tolist()
        raise ValueError(
            f"target[1]{at} is {share[tuple(at)]}, but probabilities must not be negative"
        )
    above = np.argwhere((total > 1 + tolerance) & counts)
    if len(above):
        at = above[0].tolist()
        raise ValueError(
            f"target[1]{at} sums to {total[tuple(at)]:.6g}, but probabilities sum to 1 at most"
        )


def _check_soft(soft: Array, axis: int, by_row: NDArray[np.float64] | None) -> None:
    counts: float | Array = 1.0
    if by_row is not None:
        counts = (by_row != 0).astype(arrays.computed(soft.dtype))
    bad = kernels.first_unsound(soft, axis, counts, _tolerance(soft.dtype))
    if bad is None:
        return
    rows = arrays.rows_shape(soft.shape, (axis,))
    at = np.unravel_index(bad, rows)
    row = arrays.widened(np.moveaxis(soft, axis, -1)[at])
    where = f"target[{', '.join(map(str, at))}]"
    wrong = row[~((row >= 0) & (row < np.inf))]
    if len(wrong):
        raise ValueError(f"{where} holds {wrong[0]}, but probabilities must not be negative")
    raise ValueError(
        f"{where} sums to {row.sum(dtype=np.float64):.6g}, but the probabilities of soft targets "
        "must sum to 1"
    )


def _tolerance(dtype: np.dtype[Any]) -> float:
    """How far a sum of probabilities may be from 1."""
    return 1e-2 if dtype.itemsize == 2 else 1e-3
