"""cross_entropy of a linear layer, without ever holding all its scores.

Scores of N rows and K classes may be far larger than what they are made of. So some rows are
scored at a time, turned into their gradient in place, and taken up by the gradients of features
and weights. How the work is cut depends on shapes and the budget alone; pieces run on several
threads, each piece's BLAS on one, so that threads change no bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softly import arrays
from softly.arrays import Array, Leave
from softly.kernels import blas, memory, threads
from softly.kernels import chosen as kernels
from softly.kernels.terms import Terms
from softly.losses import Asked, Empty, Reduction, prepare

Rows = slice | NDArray[np.int64]
_Block = tuple[int, int]

_BUDGET = 64 * 2**20
_TILE = 120  # rows of a product: weights are packed for BLAS once a tile
_CLASSES = 512  # of a product's block: it stays in the cache while its scores are put in place
_GRADIENT_CLASSES = 2048
_FEATURES = 256
_WIDENED = 1 << 18  # numbers of a block of weights that are not in the type computed in
_ROUNDED = 1 << 15  # numbers that are rounded at a time
_ROUNDING_BYTES = 24  # what that takes for each, on the way


class LinearGradients(NamedTuple):
    """Of the value, each of the shape, type and library of what it belongs to."""

    features: Any
    weight: Any
    bias: Any  # None where there is none


def linear_cross_entropy(
    features: Any,
    weight: Any,
    target: Any,
    bias: Any = None,
    *,
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
    memory_budget: int = _BUDGET,
    return_grad: bool = False,
) -> Any:
    r"""The `cross_entropy` of ``features @ weight.T + bias``, which is never held as a whole.

    .. math:: z = W x + b, \qquad
              \frac{\partial \ell}{\partial x} = W^T \frac{\partial \ell}{\partial z}, \quad
              \frac{\partial \ell}{\partial W} = \sum_x \frac{\partial \ell}{\partial z} x^T, \quad
              \frac{\partial \ell}{\partial b} = \sum_x \frac{\partial \ell}{\partial z}

    Parameters
    ----------
    features : array_like, shape (..., D)
        What the layer is given, a row for each prediction.
    weight : array_like, shape (K, D)
        A row for each class. Half types are worked on in float32 a block at a time; integers
        are made float64 as a whole.
    target : array_like
        As in `cross_entropy`: integers of shape (...), floats of shape (..., K), or a pair
        ``(indices, probabilities)`` of shape (..., m) each.
    bias : array_like, shape (K,), optional
        Added to the scores.
    class_weight, sample_weight, ignore_index, label_smoothing, z_loss, logit_cap, temperature, \
where, focal, reduction, empty
        As in `cross_entropy`. Rows that are ignored or of weight 0 take part in no product.
    memory_budget : int
        Bytes that may be allocated beyond the gradients. More of it makes the products more
        efficient, up to some 500 rows of scores, and lets more threads take part; with less
        than 120 rows of scores, scores are computed more than once. The sums behind gradients
        of half types count: each takes 4 bytes until it is rounded.
    return_grad : bool
        Also return the gradients of the value (with ``"none"``: of the sum of the values).

    Returns
    -------
    value : float, or array of shape (...) with ``reduction="none"``
        Whatever the budget and the number of threads, the scores have the same bits.
    gradients : LinearGradients
        ``features``, ``weight`` and ``bias`` (None without a bias). Only with
        ``return_grad=True``.

    Raises
    ------
    ValueError
        If shapes do not match, `memory_budget` does not suffice for one row, or an option is
        not as `cross_entropy` needs it.
    TypeError
        If an array holds no real numbers, or is of a library other than NumPy and PyTorch
        (on the CPU).

    References
    ----------
    Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", 2024, for never
    holding all the scores.

    Examples
    --------
    >>> import numpy as np
    >>> import softly
    >>> features, weight = np.eye(3), np.array([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0]])
    >>> value, gradients = softly.linear_losses.linear_cross_entropy(
    ...     features, weight, [0, 1, 1], return_grad=True
    ... )
    >>> round(value, 4)
    0.3157
    >>> gradients.weight.round(3)
    array([[-0.04 ,  0.04 ,  0.167],
           [ 0.04 , -0.04 , -0.167]])
    """
    layer = _Layer.of(features, weight, bias)
    asked = prepare(
        (*layer.lead, layer.n_classes),
        len(layer.lead),
        layer.dtype,
        target,
        class_weight=class_weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        logit_cap=logit_cap,
        temperature=temperature,
        where=where,
        focal=focal,
        reduction=reduction,
        empty=empty,
    )
    one_pass = _Pass(layer, asked, memory_budget, return_grad)
    one_pass.run()
    value = asked.value(one_pass.loss)
    if reduction == "none":
        value = layer.left("features", arrays.narrowed(value, layer.dtype).reshape(layer.lead))
        value = value[()] if isinstance(value, np.ndarray) else value
    return (value, one_pass.gradients()) if return_grad else value


@dataclass(frozen=True)
class _Layer:
    """Features, weight and bias as they came in."""

    lead: tuple[int, ...]  # shape of the rows
    features: _Batch
    weight: Array
    bias: Array | None
    leave: dict[str, Leave | None]
    working: np.dtype[Any]  # the type computed in

    @classmethod
    def of(cls, features: Any, weight: Any, bias: Any) -> _Layer:
        given = {"features": features, "weight": weight}
        if bias is not None:
            given["bias"] = bias
        for name, x in given.items():
            if arrays.is_foreign(x):
                raise TypeError(
                    f"{name} is a {type(x).__module__}.{type(x).__name__}, but this loss is for "
                    "arrays of NumPy and PyTorch on the CPU: use cross_entropy(features @ weight.T)"
                )
            if arrays.is_tensor(x) != arrays.is_tensor(features):
                raise TypeError(
                    f"features is a {type(features).__name__} and {name} a {type(x).__name__}, "
                    "but all need to be of one library"
                )
        entered = {name: arrays.enter(x, name) for name, x in given.items()}
        x, w = entered["features"][0], entered["weight"][0]
        b = entered["bias"][0] if "bias" in entered else None
        if w.ndim != 2 or x.ndim == 0 or x.shape[-1] != w.shape[1] or w.shape[0] == 0:
            raise ValueError(
                f"features have shape {x.shape} and weight {w.shape}, but they need (..., D) and "
                "(K, D), K being at least one class"
            )
        if b is not None and b.shape != w.shape[:1]:
            raise ValueError(
                f"bias has shape {b.shape}, but weight of shape {w.shape} needs one of "
                f"{w.shape[:1]}, a number for each class"
            )
        types = {arrays.computed(x.dtype), arrays.computed(w.dtype)}
        working = arrays.FLOAT64 if arrays.FLOAT64 in types else arrays.FLOAT32
        leave = {name: way for name, (_, way) in entered.items()}
        return cls(x.shape[:-1], _Batch(x), w, b, leave, working)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The scores' type, as the answers show it."""
        one_type = self.features.dtype == self.weight.dtype
        return self.weight.dtype if one_type else self.working

    @property
    def n_classes(self) -> int:
        return self.weight.shape[0]

    @property
    def depth(self) -> int:
        return self.weight.shape[1]

    def left(self, name: str, answer: Array) -> Any:
        """An answer of the type and library of the array of this name."""
        leave = self.leave[name]
        return answer if leave is None else leave(answer)


class _Batch:
    """The rows of an array that has any number of axes before its last.

    Where those cannot be seen as one axis, rows are gathered by their numbers.
    """

    def __init__(self, array: Array) -> None:
        *lead, columns = array.shape
        self.lead, self.columns, self.dtype = tuple(lead), columns, array.dtype
        steps = [(n, s) for n, s in zip(lead, array.strides[:-1], strict=True) if n != 1]
        self.is_matrix = all(s == n * t for (_, s), (n, t) in pairwise(steps))
        self.is_one_row = array.size > 0 and all(s == 0 for _, s in steps)
        if self.is_one_row:
            self._array = array[(0,) * len(lead)]
        elif self.is_matrix:
            self._array = array.reshape(int(np.prod(lead)), columns)
        else:
            self._array = array

    def __getitem__(self, rows: Rows) -> Array:
        if self.is_one_row:
            n = len(rows) if isinstance(rows, np.ndarray) else rows.stop - rows.start
            return np.broadcast_to(self._array, (n, self.columns))
        if self.is_matrix:
            return self._array[rows]
        return self._array[np.unravel_index(rows, self.lead)]

    @property
    def gathered_bytes(self) -> int:
        """What a row costs when it is picked by its number."""
        return 0 if self.is_one_row else self.columns * self.dtype.itemsize


@dataclass(frozen=True)
class _Layout:
    """How much is worked on at once. No budget changes tile and classes, nor therefore a score."""

    tile: int  # rows of each product that gives scores
    rows: int  # whose scores are held: whole tiles, or a part of one
    classes: int  # of a product's block of weights
    rooms: int  # threads at once that have room of their own

    @property
    def group(self) -> int:
        """Rows whose features are at hand."""
        return max(self.tile, self.rows)


@dataclass(frozen=True)
class _Costs:
    """The bytes that a pass takes beyond inputs and gradients."""

    held: int  # numbers for each row and class, all the time
    sums: int  # of a weight's gradient that is rounded in the end
    row: int  # for each row whose scores are held
    tile_row: int  # for each row of a tile
    tile_class: int  # for each class of a block, in each room
    item: int  # of a number

    def room(self, tile: int, classes: int) -> int:
        return classes * (self.tile_class + tile * self.item)

    def least(self, tile: int, classes: int) -> int:
        """For one row."""
        return self.held + self.sums + tile * self.tile_row + self.room(tile, classes) + self.row

    def layout(self, n_rows: int, n_classes: int, budget: int) -> _Layout:
        """What fits into the budget."""
        classes = min(n_classes, max(_LEAST_CLASSES, _ROOM // max(self.tile_class, 1), 1))
        usual = max(_BUDGET, 2 * self.held) + self.sums
        tiles = (*range(_TILE, 8, -8), 8, 4, 2)
        tile = next((t for t in tiles if self._fitting(t, classes, usual)[0] >= t), 1)
        tile = min(tile, max(n_rows, 1))
        least = self.least(tile, classes)
        if budget < least:
            raise ValueError(
                f"memory_budget is {budget} bytes, but at least {least} bytes are needed: "
                f"{self.row} for the scores of one row of {n_classes} classes, and the rest for "
                "a block of a product"
                + (" and the sums behind a gradient of a half type" if self.sums else "")
            )
        rows, rooms = self._fitting(tile, classes, budget)
        rows = min(rows, max(n_rows, 1))
        return _Layout(tile, rows // tile * tile if rows > tile else rows, classes, rooms)

    def _fitting(self, tile: int, classes: int, budget: int) -> tuple[int, int]:
        """How many rows, and how many rooms."""
        left = budget - self.least(tile, classes)
        room = self.room(tile, classes)
        more = max(left, 0) // _ROOMS_SHARE // room
        return 1 + (left - more * room) // self.row, 1 + more


class _Pass:
    """Once through the rows: their scores, their losses, and what they add to the gradients."""

    def __init__(self, layer: _Layer, asked: Asked, budget: int, return_grad: bool) -> None:
        self.layer, self.asked, self.return_grad = layer, asked, return_grad
        counts = asked.counted()
        self.counts = None if counts is None or counts.all() else counts
        terms = asked.terms
        self.soft, self.where = (
            None if x is None else _Batch(x) for x in (terms.soft, terms.where)
        )
        self.asked_of_rows = replace(asked, terms=replace(terms, soft=None, where=None))
        batches = [x for x in (layer.features, self.soft, self.where) if x is not None]
        # Rows that cannot be had as a slice are picked by their numbers.
        self.picks = self.counts is not None or not all(x.sliceable for x in batches)
        weighted = terms.share is not None or (
            terms.class_weight is not None and not terms.class_weight.all()
        )
        self.may_want_nothing = weighted and terms.z_loss == 0
        working = layer.working
        self.copies = (
            self.picks
            or self.may_want_nothing
            or layer.features.dtype != working
            or not blas.ready(layer.features[0:1])
        )
        self.widens = layer.weight.dtype != working or not blas.ready(layer.weight)
        n_rows = asked.n_rows if self.counts is None else int(self.counts.sum())
        self.n_counted = n_rows
        self.at = self._costs().layout(n_rows, layer.n_classes, int(budget))
