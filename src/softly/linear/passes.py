"""One pass over the rows of a linear layer: losses, and what they add to the gradients."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softly import arrays
from softly.arrays import Array
from softly.kernels import blas, memory, threads
from softly.kernels import chosen as kernels
from softly.kernels.terms import Terms
from softly.linear.layer import Batch, Layer, LinearGradients, Rows
from softly.linear.layout import PIECES, Costs, blocks
from softly.losses import Asked

# Blocks of the products, measured: see docs/notes/functions.md.
_GRADIENT_CLASSES = 2048
_GRADIENT_ROWS = 512
_GRADIENT_DEPTH = 512
_ROUNDED = 1 << 15  # numbers rounded at a time
_ROUNDING = 24  # bytes that takes for each, on the way


class Room:
    """What a thread has for itself."""

    def __init__(self, product: int, weight: int, dtype: np.dtype[Any]) -> None:
        self._product, self._weight = np.empty(product, dtype), np.empty(weight, dtype)

    def product(self, *shape: int) -> Array:
        return self._product[: shape[0] * shape[1]].reshape(shape)

    def weight(self, *shape: int) -> Array:
        return self._weight[: shape[0] * shape[1]].reshape(shape)


class Pass:
    """Once through the rows: their scores, their losses, and what they add to the gradients."""

    def __init__(self, layer: Layer, asked: Asked, budget: int, return_grad: bool) -> None:
        self.layer, self.return_grad = layer, return_grad
        terms, working = asked.terms, layer.working
        self.soft, self.where = (None if x is None else Batch(x) for x in (terms.soft, terms.where))
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

    def _costs(self) -> Costs:
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
        return Costs(
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
            Room(at.product, weights, working) for _ in range(min(at.rooms, threads.count()))
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
            for start, stop in blocks(self.n_counted, max(at.tile, at.rows)):
                x = self._features(start, stop)
                for a, b in blocks(stop - start, at.rows):
                    self._work(x, a, b, self._rows(start + a, start + b))

    def _rows(self, start: int, stop: int) -> Rows:
        return slice(start, stop) if self.numbers is None else self.numbers[start:stop]

    def _features(self, start: int, stop: int) -> Array:
        """The features of a run of rows that count, as BLAS wants them."""
        if not self.copies:
            return self.layer.features[slice(start, stop)]
        x = self.x[: stop - start]
        for a, b in blocks(len(x), self.at.tile):
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
            for a, b in blocks(len(dx), max(1, _ROUNDED // max(self.layer.depth, 1))):
                some = (
                    slice(rows.start + a, rows.start + b) if isinstance(rows, slice) else rows[a:b]
                )
                self.d_features[some] = arrays.narrowed(dx[a:b], self.d_features.dtype)

    def _score(self, x: Array, first: int, last: int, scores: Array) -> None:
        """Tile by tile of x, of which rows beyond first and last are left out in the end."""

        def work(block: tuple[int, int], tile: tuple[int, int], room: Room) -> None:
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

        parts = blocks(self.layer.n_classes, self.at.classes)
        tiles = [(a, b) for a, b in blocks(len(x), self.at.tile) if b > first and a < last]
        _each([partial(work, *which) for which in product(parts, tiles)], self.rooms)

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

        def into_features(rows: tuple[int, int], columns: tuple[int, int], room: Room) -> None:
            out = dx[slice(*rows), slice(*columns)]
            for a, b in blocks(k, self.at.classes if self.widens else k):
                w = self._weight(slice(a, b), slice(*columns), room)
                blas.multiply(grad[slice(*rows), a:b], w, out, add=a > 0)

        def into_weight(block: tuple[int, int], _: Room) -> None:
            g, out = grad[:, slice(*block)], self.d_weight[slice(*block)]
            blas.multiply(g.T, x, out, add=self.begun)
            if self.d_bias is not None:
                self.d_bias[slice(*block)] += g.sum(axis=0)

        by_rows = blocks(len(x), max(self.at.tile, _GRADIENT_ROWS))
        by_depth = blocks(depth, _GRADIENT_DEPTH)
        pieces = max(64, min(_GRADIENT_CLASSES, -(-k // PIECES)))
        _each(
            [partial(into_features, *which) for which in product(by_rows, by_depth)]
            + [partial(into_weight, block) for block in blocks(k, pieces)],
            self.rooms,
        )
        self.begun = True

    def _weight(self, classes: slice, columns: slice, room: Room) -> Array:
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
            for a, b in blocks(len(d_weight), max(1, _ROUNDED // max(layer.depth, 1))):
                d_weight[a:b] = arrays.narrowed(self.d_weight[a:b], d_weight.dtype)
        d_features = self.d_features.reshape(*layer.lead, layer.depth)
        d_bias = None
        if self.d_bias is not None and layer.bias is not None:
            d_bias = layer.left("bias", arrays.narrowed(self.d_bias, layer.bias.dtype))
        return LinearGradients(
            layer.left("features", d_features), layer.left("weight", d_weight), d_bias
        )


def _widen(x: Array, out: Array) -> None:
    """The numbers of x in the type computed in, without any memory on the way."""
    if x.dtype != arrays.BFLOAT16:
        np.copyto(out, x)
    elif out.dtype == arrays.FLOAT32:
        np.left_shift(x, 16, out=out.view(np.uint32), dtype=np.uint32)
    else:
        np.copyto(out, arrays.widened(x))


def _each(tasks: Sequence[Callable[[Room], None]], rooms: list[Room]) -> None:
    """Run every task in one of the rooms, each used by one thread at a time."""
    waiting = deque(tasks)

    def work(room: Room) -> None:
        while True:
            try:
                task = waiting.popleft()
            except IndexError:
                return
            task(room)

    threads.run([partial(work, room) for room in rooms])
