"""cross_entropy of a linear layer, without ever holding all its scores.

Scores of N rows and K classes may be far larger than what they are made of. So some rows are
scored at a time, turned into their gradient in place, and taken up by the gradients of features
and weights. How the work is cut depends on shapes and the budget alone; pieces run on several
threads, each piece's BLAS on one, so that threads change no bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softly import arrays
from softly.arrays import Array, Leave
from softly.kernels import blas, memory, threads
from softly.kernels import chosen as kernels
from softly.kernels.terms import Terms
from softly.losses import Asked, Empty, Reduction, prepare

Rows = slice | NDArray[np.intp]

_BUDGET = 64 * 2**20
# Blocks of the products, measured: see docs/notes/functions.md.
_MOST_ROWS = 512
_FEW_ROWS = 240  # with fewer, BLAS is faster where the scores lie class by class
_MOST_CLASSES, _MOST_OF_FEW_ROWS, _LEAST_CLASSES = 2048, 512, 64
_LEAST_PRODUCT = 1 << 16  # numbers, where there are few classes
_GRADIENT_CLASSES = 2048
_GRADIENT_ROWS = 512
_GRADIENT_DEPTH = 512
_PIECES = 16  # of the classes, for threads
_MOST_TILES = 16
_ROOMS_SHARE = 32  # of the budget, for rooms beyond the first
_ANY_NUMBER = 1 << 20
_WIDENED = 1 << 18  # numbers of a block of weights that are not as BLAS wants them
_ROUNDED = 1 << 15  # numbers rounded at a time
_ROUNDING = 24  # bytes that takes for each, on the way


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
    >>> value, gradients = softly.linear_cross_entropy(
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
    once = _Pass(layer, asked, int(memory_budget), return_grad)
    once.run()
    value = asked.value(once.loss)
    if reduction == "none":
        losses = arrays.narrowed(value, layer.dtype).reshape(layer.lead)
        value = layer.left("features", losses)
        value = value[()] if isinstance(value, np.ndarray) else value
    return (value, once.gradients()) if return_grad else value


@dataclass(frozen=True)
class _Layer:
    """Features, weight and bias as they came in."""

    features: _Batch
    weight: Array
    bias: Array | None
    leave: dict[str, Leave | None]

    @classmethod
    def of(cls, features: Any, weight: Any, bias: Any) -> _Layer:
        given = {"features": features, "weight": weight}
        if bias is not None:
            given["bias"] = bias
        for name, x in given.items():
            if arrays.is_foreign(x):
                raise TypeError(
                    f"{name} is a {type(x).__module__}.{type(x).__name__}, but the product is "
                    "taken of arrays of NumPy or PyTorch on the CPU; cross_entropy takes any"
                )
            if arrays.is_tensor(x) != arrays.is_tensor(features):
                raise TypeError(
                    f"features is a {type(features).__name__} and {name} a {type(x).__name__}, "
                    "but all arrays of a call need one library"
                )
        entered = {name: arrays.enter(x, name) for name, x in given.items()}
        x, w = entered["features"][0], entered["weight"][0]
        b = entered["bias"][0] if "bias" in entered else None
        if w.ndim != 2 or x.ndim == 0 or x.shape[-1] != w.shape[1] or w.shape[0] == 0:
            raise ValueError(
                f"features have shape {x.shape} and weight {w.shape}, but they need (..., D) and "
                "(K, D), with at least one class"
            )
        if b is not None and b.shape != w.shape[:1]:
            raise ValueError(
                f"bias has shape {b.shape}, but for weight of shape {w.shape} it needs "
                f"{w.shape[:1]}, a number for each class"
            )
        return cls(_Batch(x), w, b, {name: leave for name, (_, leave) in entered.items()})

    @property
    def lead(self) -> tuple[int, ...]:
        return self.features.lead

    @property
    def n_classes(self) -> int:
        return int(self.weight.shape[0])

    @property
    def depth(self) -> int:
        return int(self.weight.shape[1])

    @property
    def working(self) -> np.dtype[Any]:
        """The type computed in."""
        types = {arrays.computed(x.dtype) for x in (self.features, self.weight)}
        return arrays.FLOAT64 if arrays.FLOAT64 in types else arrays.FLOAT32

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the scores, had they been asked for."""
        same = self.features.dtype == self.weight.dtype
        return self.weight.dtype if same else self.working

    def left(self, name: str, answer: Array) -> Any:
        """An answer of the type and library of the array of this name."""
        leave = self.leave[name]
        return answer if leave is None else leave(answer)


class _Batch:
    """The rows of an array, whatever number of axes it has before its last."""

    def __init__(self, array: Array) -> None:
        *lead, columns = array.shape
        self.lead, self.dtype = tuple(lead), array.dtype
        self.row_bytes = columns * array.itemsize
        steps = [(n, s) for n, s in zip(lead, array.strides[:-1], strict=True) if n != 1]
        as_one = all(s == n * t for (_, s), (n, t) in pairwise(steps))
        self._array = array
        self.matrix = array.reshape(int(np.prod(lead)), columns) if as_one else None

    def __getitem__(self, rows: Rows) -> Array:
        if isinstance(rows, slice):
            assert self.matrix is not None
            return self.matrix[rows]
        if self.matrix is None:
            return self._array[np.unravel_index(rows, self.lead)]
        return self.matrix[: len(rows)] if self.matrix.strides[0] == 0 else self.matrix[rows]


@dataclass(frozen=True)
class _Layout:
    """How much is worked on at once. No budget changes tile and classes, nor so any score."""

    tile: int  # rows of each product that gives scores
    classes: int  # of each of these products
    rows: int  # whose scores are held: whole tiles, or a part of one
    stripe: int  # classes whose gradients are summed in one pass over the rows
    rooms: int  # threads that have room of their own
    product: int  # numbers of a product in each room
    least: int  # bytes for one row

    @property
    def by_class(self) -> bool:
        """Whether products lie class by class, until they are put in place."""
        return self.tile < _FEW_ROWS


@dataclass(frozen=True)
class _Costs:
    """The bytes that a pass takes beyond inputs and gradients."""

    held: int  # numbers of each row and of each class
    sums_class: int  # of each class of a weight's gradient that is rounded in the end
    row: int  # of each row whose scores are held
    tile_row: int  # of each row of a tile
    room: int  # in each room
    room_class: int  # of each class of a product, in each room
    item: int  # a number

    def layout(self, n_rows: int, n_classes: int, budget: int) -> _Layout:
        """What fits into the budget."""
        # The tile is one that fits into the usual budget, whatever the budget is.
        usual = max(_BUDGET, 2 * self.held)
        tile = max(1, min(n_rows, max(_MOST_ROWS, _LEAST_PRODUCT // n_classes)))
        while tile > 1 and self._fitting(tile, n_classes, usual).rows < tile:
            tile -= max(1, tile // 64)
        tile = max(1, -(-n_rows // max(1, -(-n_rows // tile))))  # no small one at the end
        at = self._fitting(tile, n_classes, budget)
        if budget < at.least:
            raise ValueError(
                f"memory_budget is {budget} bytes, but at least {at.least} bytes are needed: "
                f"{self.row} for one row of {n_classes} scores, and the rest for a block of a "
                "product and some numbers of every row and class"
            )
        rows = max(1, min(at.rows, n_rows, _MOST_TILES * tile))
        return replace(at, rows=rows if rows < tile else rows // tile * tile)

    def _fitting(self, tile: int, n_classes: int, budget: int) -> _Layout:
        by_class = tile < _FEW_ROWS
        widest = _WIDENED * self.item // self.room_class if self.room_class else _MOST_CLASSES
        most = min(
            _MOST_OF_FEW_ROWS if by_class else _MOST_CLASSES, widest, -(-n_classes // _PIECES)
        )
        classes = min(n_classes, max(_LEAST_CLASSES, -(-most // 64) * 64))
        stripe = min(n_classes, _LEAST_CLASSES) if self.sums_class else n_classes
        # Products lie apart where they are transposed, or are of rows whose scores are not held.
        for apart in (tile * classes,) if by_class else (0, tile * classes):
            room = self.room + classes * self.room_class + apart * self.item
            least = self.held + stripe * self.sums_class + tile * self.tile_row + room + self.row
            left = budget - least
            more = max(left, 0) // _ROOMS_SHARE // room if room else _ANY_NUMBER
            wider = max(left, 0) // 2 // (64 * self.sums_class) * 64 if self.sums_class else 0
            wider = min(wider, n_classes - stripe)
            rows = 1 + (left - more * room - wider * self.sums_class) // self.row
            if rows >= tile:
                break
        return _Layout(tile, classes, rows, stripe + wider, 1 + more, apart, least)


class _Room:
    """What a thread has for itself."""

    def __init__(self, product: int, weight: int, dtype: np.dtype[Any]) -> None:
        self._product, self._weight = np.empty(product, dtype), np.empty(weight, dtype)

    def product(self, *shape: int) -> Array:
        return self._product[: shape[0] * shape[1]].reshape(shape)

    def weight(self, *shape: int) -> Array:
        return self._weight[: shape[0] * shape[1]].reshape(shape)


class _Pass:
    """Once through the rows: their scores, their losses, and what they add to the gradients."""

    def __init__(self, layer: _Layer, asked: Asked, budget: int, return_grad: bool) -> None:
        self.layer, self.return_grad = layer, return_grad
        terms, working = asked.terms, layer.working
        self.soft, self.where = (
            None if x is None else _Batch(x) for x in (terms.soft, terms.where)
        )
        self.asked = replace(asked, terms=replace(terms, soft=None, where=None))
        self.numbers = self._numbers()
        weighs = terms.class_weight is not None and not terms.class_weight.all()
        self.may_want_nothing = terms.z_loss == 0 and (weighs or terms.share is not None)
        given = layer.features.matrix
        self.copies = (
            self.numbers is not None
            or self.may_want_nothing
            or (given is None or given.dtype != working or not blas.ready(given))
        )
        self.widens = layer.weight.dtype != working or not blas.ready(layer.weight)
        self.n_counted = asked.n_rows if self.numbers is None else len(self.numbers)
        self.at = self._costs().layout(self.n_counted, layer.n_classes, budget)
        self._allocate()

    def _numbers(self) -> NDArray[np.intp] | None:
        """The rows that count, where they are not all or cannot be had as slices."""
        counts = self.asked.counted()
        if counts is not None and not counts.all():
            return np.flatnonzero(counts)
        batches = (self.layer.features, self.soft, self.where)
        if all(x is None or x.matrix is not None for x in batches):
            return None
        return np.arange(self.asked.n_rows)

    def _costs(self) -> _Costs:
        layer, asked, item = self.layer, self.asked, self.layer.working.itemsize
        listed = [x for x in (asked.terms.index, asked.terms.share) if x is not None]
        # Of a row: weight, number, whether it counts; loss, scale, temperature. Of a class:
        # weight, bias, gradient.
        held = sum(x.nbytes for x in listed) + asked.n_rows * (17 + 3 * item)
        held += layer.n_classes * 3 * item
        row = layer.n_classes * item + item
        if self.numbers is not None:
            row += sum(x.nbytes for x in listed) // max(asked.n_rows, 1) + 2 * item
            row += sum(x.row_bytes for x in (self.soft, self.where) if x is not None)
        if {layer.features.dtype, layer.weight.dtype} != {layer.working}:
            held += _ROUNDING * max(_ROUNDED, layer.depth)
        copied = 2 * layer.depth * item if self.copies else 0
        return _Costs(
            held=held,
            sums_class=layer.depth * item if layer.weight.dtype != layer.working else 0,
            row=row + copied,
            tile_row=copied,
            room=blas.room(layer.depth, item),
            room_class=layer.depth * item if self.widens else 0,
            item=item,
        )

    def _allocate(self) -> None:
        layer, at, working, n_rows = self.layer, self.at, self.layer.working, self.asked.n_rows
        k, depth = layer.n_classes, layer.depth
        self.loss = np.zeros(n_rows, working)
        self.bias = None if layer.bias is None else arrays.widened(layer.bias).astype(working)
        self.scores = np.empty((at.rows, k), working)
        group = max(at.tile, at.rows) if self.copies else 0
        self.x = np.empty((group, depth), working)
        weights = at.classes * depth if self.widens else 0
        self.rooms = [
            _Room(at.product, weights, working) for _ in range(min(at.rooms, threads.count()))
        ]
        self.begun = False
        if not self.return_grad:
            return
        # The features' gradient is written where it belongs, unless it is rounded or scattered.
        self.in_place = self.numbers is None and layer.features.dtype == working
        self.dx = np.empty((0 if self.in_place else at.rows, depth), working)
        self.d_features = memory.empty((n_rows, depth), layer.features.dtype)
        if self.numbers is not None:
            self.d_features[...] = 0
        self.d_weight = memory.empty((k, depth), working)
        self.d_bias = None if layer.bias is None else np.zeros(k, working)

    def run(self) -> None:
        at = self.at
        with blas.one_blas_thread:
            for start, stop in _blocks(self.n_counted, max(at.tile, at.rows)):
                x = self._features(start, stop)
                for a, b in _blocks(stop - start, at.rows):
                    self._work(x, a, b, self._rows(start + a, start + b))

    def _rows(self, start: int, stop: int) -> Rows:
        return slice(start, stop) if self.numbers is None else self.numbers[start:stop]

    def _features(self, start: int, stop: int) -> Array:
        """The features of a run of rows that count, as BLAS wants them."""
        if not self.copies:
            return self.layer.features[slice(start, stop)]
        x = self.x[: stop - start]
        for a, b in _blocks(len(x), self.at.tile):
            _widen(self.layer.features[self._rows(start + a, start + b)], x[a:b])
        return x

    def _work(self, x: Array, first: int, last: int, rows: Rows) -> None:
        """The rows of x from first to last, which are these of all rows."""
        scores = self.scores[: last - first]
        self._score(x, first, last, scores)
        loss = np.empty(len(scores), scores.dtype)
        self._lose(rows, scores, loss)
        self.loss[rows] = loss
        if not self.return_grad:
            return
        x = x[first:last]
        if self.may_want_nothing:
            for i in np.flatnonzero(loss == 0):
                if not scores[i].any():
                    x[i] = 0  # whatever it holds
        dx = self.d_features[rows] if self.in_place else self.dx[: len(x)]
        self._differentiate(x, scores, dx)
        if not self.in_place:
            for a, b in _blocks(len(dx), max(1, _ROUNDED // max(self.layer.depth, 1))):
                some = (
                    slice(rows.start + a, rows.start + b) if isinstance(rows, slice) else rows[a:b]
                )
                self.d_features[some] = arrays.narrowed(dx[a:b], self.d_features.dtype)

    def _score(self, x: Array, first: int, last: int, scores: Array) -> None:
        """Tile by tile of x, of which rows beyond first and last are left out in the end."""

        def work(block: tuple[int, int], tile: tuple[int, int], room: _Room) -> None:
            (a, b), (start, stop) = block, tile
            some, weight = x[start:stop], self._weight(slice(a, b), slice(None), room)
            i, j = max(start, first), min(stop, last)
            out = scores[i - first : j - first, a:b]
            in_place = not self.at.by_class and len(out) == len(some)
            if self.at.by_class:
                z = room.product(b - a, len(some))
                blas.multiply(weight, some.T, z)
                z = z.T
            else:
                z = out if in_place else room.product(len(some), b - a)
                blas.multiply(some, weight.T, z)
            z = z[i - start : j - start]
            if self.bias is not None:
                np.add(z, self.bias[a:b], out=out)
            elif not in_place:
                np.copyto(out, z)

        blocks = _blocks(self.layer.n_classes, self.at.classes)
        tiles = [(a, b) for a, b in _blocks(len(x), self.at.tile) if b > first and a < last]
        _each([partial(work, *which) for which in product(blocks, tiles)], self.rooms)

    def _lose(self, rows: Rows, scores: Array, loss: Array) -> None:
        """The rows' losses; their gradient takes the place of the scores."""
        terms: Terms = replace(
            self.asked.of_rows(rows),
            soft=None if self.soft is None else self.soft[rows],
            where=None if self.where is None else self.where[rows],
        )
        kernels.cross_entropy(scores, 1, terms, loss, scores if self.return_grad else None)

    def _differentiate(self, x: Array, grad: Array, dx: Array) -> None:
        """What rows of features x, and the gradient of their scores, make of all gradients."""
        k, depth = self.layer.weight.shape

        def into_features(rows: tuple[int, int], columns: tuple[int, int], room: _Room) -> None:
            out = dx[slice(*rows), slice(*columns)]
            for a, b in _blocks(k, self.at.classes if self.widens else k):
                w = self._weight(slice(a, b), slice(*columns), room)
                blas.multiply(grad[slice(*rows), a:b], w, out, add=a > 0)

        def into_weight(block: tuple[int, int], _: _Room) -> None:
            g, out = grad[:, slice(*block)], self.d_weight[slice(*block)]
            blas.multiply(g.T, x, out, add=self.begun)
            if self.d_bias is not None:
                self.d_bias[slice(*block)] += g.sum(axis=0)

        by_rows = _blocks(len(x), max(self.at.tile, _GRADIENT_ROWS))
        by_depth = _blocks(depth, _GRADIENT_DEPTH)
        pieces = max(64, min(_GRADIENT_CLASSES, -(-k // _PIECES)))
        _each(
            [partial(into_features, *which) for which in product(by_rows, by_depth)]
            + [partial(into_weight, block) for block in _blocks(k, pieces)],
            self.rooms,
        )
        self.begun = True

    def _weight(self, classes: slice, columns: slice, room: _Room) -> Array:
        """A block of the weights, as BLAS wants it."""
        block = self.layer.weight[classes, columns]
        if not self.widens:
            return block
        out = room.weight(*block.shape)
        _widen(block, out)
        return out

    def gradients(self) -> LinearGradients:
        layer = self.layer
        if not self.begun:
            self.d_weight[...] = 0
        d_weight = self.d_weight
        if layer.weight.dtype != d_weight.dtype:
            d_weight = memory.empty(d_weight.shape, layer.weight.dtype)
            for a, b in _blocks(len(d_weight), max(1, _ROUNDED // max(layer.depth, 1))):
                d_weight[a:b] = arrays.narrowed(self.d_weight[a:b], d_weight.dtype)
        d_features = self.d_features.reshape(*layer.lead, layer.depth)
        d_bias = None
        if self.d_bias is not None and layer.bias is not None:
            d_bias = layer.left("bias", arrays.narrowed(self.d_bias, layer.bias.dtype))
        return LinearGradients(
            layer.left("features", d_features), layer.left("weight", d_weight), d_bias
        )


def _blocks(n: int, step: int) -> list[tuple[int, int]]:
    return [(a, min(a + step, n)) for a in range(0, n, step)]


def _widen(x: Array, out: Array) -> None:
    """The numbers of x in the type computed in, without any memory on the way."""
    if x.dtype != arrays.BFLOAT16:
        np.copyto(out, x)
    elif out.dtype == arrays.FLOAT32:
        np.left_shift(x, 16, out=out.view(np.uint32), dtype=np.uint32)
    else:
        np.copyto(out, arrays.widened(x))


def _each(tasks: Sequence[Callable[[_Room], None]], rooms: list[_Room]) -> None:
    """Run every task in one of the rooms, each used by one thread at a time."""
    waiting = deque(tasks)

    def work(room: _Room) -> None:
        while True:
            try:
                task = waiting.popleft()
            except IndexError:
                return
            task(room)

    threads.run([partial(work, room) for room in rooms])
