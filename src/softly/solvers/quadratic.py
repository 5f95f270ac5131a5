"""Minimise a quadratic with an L1 penalty, when all of it is known from products but blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softly.kernels import chosen as kernels
from softly.kernels import threads
from softly.objective import Objective
from softly.solvers.preconditioners import (
    Inverse,
    centred,
    penalties,
    row_curvature,
    solver_of,
    sums_of_rows,
    uncentre,
)

Array = NDArray[Any]

_BYTES = 1 << 26  # of all blocks together
_MOST_DENSE, _MOST_SPARSE = 1024, 256  # variables in a block
_FEW = 1400  # variables, which are one block for all classes if their features are dense
_SOME_ROWS = 1 << 10
_MOST_SWEEPS = 20
_SWEPT = 0.01  # of the first sweep's largest decrease: where sweeps end
_WORK_OF_ONE, _SWEPT_OF_ONE = 2e9, 1e-8  # where there is but one block: multiplications
_SETTLED = 0.01  # of the variables: if no more changed their sign, the signs are nearly found
_ALL_THE_WAY = 0.6  # of the curvature, which the slope has to reach (from 0.5 up it pays)
_MOST_PRODUCTS = 60
_MOST_STOPS = 4


def subgradient(x: Array, slope: Array, l1: Array) -> Array:
    """The least subgradient of something with this slope and ``sum(l1 * |x|)``."""
    at_zero = slope - np.clip(slope, -l1, l1)
    least: Array = np.where(x != 0, slope + l1 * np.sign(x), at_zero)
    return least


@dataclass(frozen=True)
class Terms:
    """What a quadratic has beside it: the penalty, ``sum(l1 * |y|)``, and how far y may go."""

    l1: Array
    low: Array
    high: Array

    def violated(self, y: Array, slope: Array) -> Array:
        """The least subgradient, but where it says to go on at the end of the way."""
        least = subgradient(y, slope, self.l1)
        held = ((y >= self.high) & (least < 0)) | ((y <= self.low) & (least > 0))
        found: Array = np.where(held, 0, least)
        return found

    def clip(self, y: Array) -> Array:
        found: Array = np.clip(y, self.low, self.high)
        return found


@dataclass(frozen=True)
class Block:
    """Some variables, and the Hessian's part that is theirs: (n,) and (n, n)."""

    variables: NDArray[np.intp]
    matrix: Array


@dataclass(frozen=True)
class Blocks:
    """The Hessian's blocks on the diagonal."""

    blocks: list[Block]

    def descend(self, x: Array, slope: Array, terms: Terms) -> Array:
        """Where coordinate descent comes to from x, each block as if it were alone."""
        found = x.copy()
        most, swept = _MOST_SWEEPS, _SWEPT
        if len(self.blocks) == 1:
            most, swept = max(most, int(_WORK_OF_ONE / len(x) ** 2)), _SWEPT_OF_ONE

        def one(block: Block) -> None:
            at = block.variables
            y, y_slope = x[at], slope[at]
            own = (terms.l1[at], terms.low[at], terms.high[at])
            kernels.descend(block.matrix, *own, most, swept, y, y_slope)
            found[at] = y

        threads.each(one, self.blocks)
        return found

    def inverse(self, free: NDArray[np.bool_]) -> Inverse:
        """The inverses of the blocks' parts among the free variables."""
        parts = []
        for block in self.blocks:
            inside = free[block.variables]
            if inside.any():
                matrix = block.matrix[inside][:, inside]
                parts.append((block.variables[inside], solver_of(matrix)))

        def solve(g: Array) -> Array:
            found = np.zeros_like(g)
            for variables, of_part in parts:
                found[variables] = of_part(g[variables])
            return found

        return solve


class Model:
    """The Hessian over the parameters in a mask, at the point that was last asked for.

    Dense features are taken less their means: their coefficients and the intercepts are then nearly
    independent, wherever the columns lie.

    Parameters
    ----------
    objective : Objective
    mask : ndarray of bool, of the objective's shape
    whole : Objective, optional
        What the objective is a sample of. A feature that its rows have not would seem to have no
        curvature, and its step would be endless.
    """

    def __init__(
        self, objective: Objective, mask: NDArray[np.bool_], whole: Objective | None = None
    ) -> None:
        self.objective = objective
        self._squares = None if whole is None else _mean_squares(whole)
        self._mask = mask
        self.size = int(mask.sum())
        self._number = np.zeros(mask.shape, np.intp)
        self._number[mask] = np.arange(self.size)
        self._is_dense = isinstance(objective.features, np.ndarray)
        if self._is_dense and whole is not None:
            objective.feature_means = whole.feature_means

    @staticmethod
    def is_one_block(objective: Objective, size: int) -> bool:
        """Whether so many variables are few enough for all that there is between them."""
        return isinstance(objective.features, np.ndarray) and size <= _FEW

    def slope(self, gradient: Array) -> Array:
        """Of the variables, from that of all parameters."""
        own = centred(self.objective, gradient) if self._is_dense else gradient
        slope: Array = own[self._mask]
        return slope

    def step(self, change: Array) -> Array:
        """Of all parameters, from that of the variables."""
        step = np.zeros(self._mask.shape)
        step[self._mask] = change
        return uncentre(self.objective, step) if self._is_dense else step

    def product(self, change: Array) -> Array:
        """The Hessian times a step."""
        return self.slope(self.objective.curvature_along(self.step(change)))

    def blocks(self, parameters: Array) -> Blocks:
        """All variables in one, if that is possible; or those of each class."""
        is_one = self.is_one_block(self.objective, self.size)
        found = [self._only_block(parameters)] if is_one else self._blocks_of_classes()
        if self._squares is not None:
            self._keep_curved(found)
        return Blocks(_without_flat_ones(found))

    def _keep_curved(self, found: list[Block]) -> None:
        """No less curvature than all rows would have if it were the same for each."""
        assert self._squares is not None
        o = self.objective
        curvature = row_curvature(o).sum(axis=0, dtype=np.float64) / o.total_weight
        every = np.zeros(self._mask.shape)
        every[:, : o.n_features] = np.outer(curvature, self._squares)
        least = every[self._mask]
        for block in found:
            diagonal = np.einsum("jj->j", block.matrix)  # a view
            np.maximum(diagonal, least[block.variables], out=diagonal)

    def _only_block(self, parameters: Array) -> Block:
        """s p (1 - p) x x' of each class, and - s p p' x x' of each two."""
        o = self.objective
        columns = [np.flatnonzero(of_class) for of_class in self._mask]
        ends = np.cumsum([len(some) for some in columns])

        def add(x: Array, p: Array, weight: Array, total: Array) -> None:
            root = np.sqrt(weight)
            parts = [x[:, some] * root for some in columns]
            shares = np.concatenate([part * p[:, [c]] for c, part in enumerate(parts)], axis=1)
            matrix = -(shares.T @ shares)
            for c, part in enumerate(parts):
                own = slice(ends[c] - part.shape[1], ends[c])
                matrix[own, own] = (part * (p * (1 - p))[:, [c]]).T @ part
            total += matrix

        (matrix,) = sums_of_rows(o, add, (self.size, self.size))
        matrix /= o.total_weight
        of_each = np.broadcast_to(penalties(o), self._mask.shape)
        matrix[np.diag_indices(self.size)] += of_each[self._mask]
        return Block(np.arange(self.size), matrix)

    def _blocks_of_classes(self) -> list[Block]:
        """Of many variables of a class, those of much curvature together."""
        o, d, curvature = self.objective, self.objective.n_features, row_curvature(self.objective)
        most = _MOST_DENSE if self._is_dense else _MOST_SPARSE
        most = min(most, max(1, _BYTES // (8 * self.size)))
        of_features = self._mask[:, :d]
        if of_features.sum(axis=1).max(initial=0) > most:
            order = np.argsort(-o.square_sums(curvature), axis=1, kind="stable")
        else:
            order = np.broadcast_to(np.arange(d), of_features.shape)
        make = self._dense_blocks if self._is_dense else self._sparse_blocks

        def of_class(c: int) -> list[Block]:
            features = order[c][of_features[c][order[c]]]
            return make(c, features, np.ascontiguousarray(curvature[:, c]), most)

        found = threads.each(of_class, range(len(self._mask)))
        return [block for of in found for block in of]

    def _sparse_blocks(self, c: int, features: Array, curvature: Array, most: int) -> list[Block]:
        """Of all blocks of a class at once: features stand in them one after the other."""
        o, n = self.objective, len(features)
        intercept = self._number[c, o.n_features :]
        size = min(most, n) + len(intercept)
        count = max(1, -(-n // most))
        if not size:
            return []
        rank = np.arange(n)
        place = np.full(o.n_features, -1)
        place[features] = rank // most * size + rank % most
        grams = np.zeros((count, size, size))
        kernels.block_grams(
            *(o.features, place, min(most, n) if len(intercept) else -1),
            *(curvature.astype(np.float64), grams),
        )
        grams /= o.total_weight
        found = []
        for b in range(count):
            some = features[b * most : (b + 1) * most]
            ends = len(some) + (len(intercept) if b == 0 else 0)
            matrix = np.ascontiguousarray(grams[b, :ends, :ends])
            found.append(self._block(c, some, matrix))
        return found

    def _dense_blocks(self, c: int, features: Array, curvature: Array, most: int) -> list[Block]:
        o, found = self.objective, []
        for start in range(0, max(len(features), 1), most):
            some = features[start : start + most]
            x = o.features[:, some]
            if o.fit_intercept:
                x = x - o.feature_means[some].astype(x.dtype)
                if start == 0:
                    x = np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=1)
            if x.shape[1]:
                matrix = (x.T @ (x * curvature[:, None])).astype(np.float64)
                found.append(self._block(c, some, matrix / o.total_weight))
        return found

    def _block(self, c: int, features: Array, matrix: Array) -> Block:
        """With the penalty; the intercept comes last, if it is in the matrix."""
        n = len(features)
        matrix[np.arange(n), np.arange(n)] += self.objective.l2
        intercept = self._number[c, self.objective.n_features :][: len(matrix) - n]
        return Block(np.append(self._number[c, features], intercept), matrix)


def _mean_squares(objective: Objective) -> Array:
    """Of the features, as a model takes them."""
    o, X = objective, objective.features
    weight = np.ones(o.n_rows, o.dtype) if o.weight is None else o.weight
    if not isinstance(X, np.ndarray):
        sums = o.square_sums(weight[:, None])[0]
    else:
        sums = np.zeros(o.n_features)
        for start in range(0, o.n_rows, _SOME_ROWS):
            x = X[start : start + _SOME_ROWS]
            x = x - o.feature_means.astype(x.dtype) if o.fit_intercept else x
            sums += weight[start : start + _SOME_ROWS] @ (x * x)
    squares: Array = sums / o.total_weight
    return squares


def _without_flat_ones(blocks: list[Block]) -> list[Block]:
    """No variable without any curvature: a division by it would be endless."""
    diagonals = [np.einsum("jj->j", block.matrix) for block in blocks]  # views
    largest = max((float(diagonal.max()) for diagonal in diagonals), default=0.0)
    for diagonal in diagonals:
        np.maximum(diagonal, max(largest * 1e-12, 1e-300), out=diagonal)
    return blocks


def minimise(
    product: Callable[[Array], Array],
    blocks: Blocks,
    x: Array,
    slope: Array,
    terms: Terms,
    leave: float,
) -> tuple[Array, int]:
    """Minimise ``slope @ (y - x) + (y - x) @ H @ (y - x) / 2 + sum(l1 * |y|)`` over y, from y = x.

    Ends where the largest entry of the least subgradient is `leave` of that at the start. The
    blocks find out the signs; when few change any more, conjugate gradients go on with these signs,
    preconditioned by the blocks.
    """
    at = _Quadratic(product, terms, x, slope)
    patience, waited = 1, 0  # of descents by blocks, before the signs are held
    goal = leave * at.violated()
    while at.products < _MOST_PRODUCTS and at.violated() > goal:
        before = np.sign(at.x)
        if not at.go_towards(blocks.descend(at.x, at.slope, terms)):
            break
        changed = np.count_nonzero(np.sign(at.x) != before)
        waited += 1
        if waited >= patience and changed <= _SETTLED * len(x) and at.violated() > goal:
            patience, waited = (1 if at.keep_signs(blocks, 0.3 * goal) else 4 * patience), 0
    return at.x, at.products


class _Quadratic:
    """A point on its way down."""

    def __init__(
        self, product: Callable[[Array], Array], terms: Terms, x: Array, slope: Array
    ) -> None:
        self.x, self.slope, self.products = x, slope, 0
        self._product, self._terms, self._l1 = product, terms, terms.l1

    def product(self, step: Array) -> Array:
        self.products += 1
        return self._product(step)

    def violated(self) -> float:
        return float(np.abs(self._terms.violated(self.x, self.slope)).max(initial=0.0))

    def go_towards(self, to: Array) -> bool:
        """As far as it surely pays; all the way, where variables are exactly 0, if that pays too.

        False if nothing does.
        """
        step = to - self.x
        decrease = self._decrease(to)
        if not decrease > 0:
            return False
        curved = self.product(step)
        curvature = float(step @ curved)
        length = 1.0 if _ALL_THE_WAY * curvature <= decrease else decrease / curvature
        self.x = to if length == 1 else self.x + length * step
        self.slope = self.slope + length * curved
        return True

    def keep_signs(self, blocks: Blocks, goal: float) -> bool:
        """To the minimum among these signs; what would change its sign on the way stays at 0.

        Or at the end of its way. If that is too far, to the first variable that comes there, a few
        times; then False.
        """
        for _ in range(_MOST_STOPS):
            x = self.x
            to, curved = self._conjugate_gradients(blocks, goal)
            changes = (x != 0) & (x * to <= 0) & (self._l1 > 0)
            ends = np.where(changes, 0, self._terms.clip(to))
            passes = ends != to
            if not passes.any():
                self.x, self.slope = to, self.slope + curved
                return True
            if self._goes_all_the_way(ends):
                return True
            share = np.full(len(x), np.inf)  # of the way, where each is at its end
            share[passes] = (ends - x)[passes] / (to - x)[passes]
            nearest = float(share.min())
            self.x = np.where(share == nearest, ends, x + nearest * (to - x))
            self.slope = self.slope + nearest * curved
        return False

    def _goes_all_the_way(self, to: Array) -> bool:
        step, decrease = to - self.x, self._decrease(to)
        if not decrease > 0:
            return False
        curved = self.product(step)
        if _ALL_THE_WAY * float(step @ curved) > decrease:
            return False
        self.x, self.slope = to, self.slope + curved
        return True

    def _decrease(self, to: Array) -> float:
        """What the slopes promise."""
        return -float(self.slope @ (to - self.x) + self._l1 @ (np.abs(to) - np.abs(self.x)))

    def _conjugate_gradients(self, blocks: Blocks, goal: float) -> tuple[Array, Array]:
        """The minimum, if all signs stayed, and the Hessian times the way there."""
        terms = self._terms
        free = ((self.x != 0) | (self._l1 == 0)) & (terms.low < self.x) & (self.x < terms.high)
        inverse = blocks.inverse(free)
        way, bent = np.zeros_like(self.x), np.zeros_like(self.x)
        left = np.where(free, subgradient(self.x, self.slope, self._l1), 0)
        image = inverse(left)
        along, size = -image, float(left @ image)
        while self.products < _MOST_PRODUCTS and np.abs(left).max() > goal:
            curved = self.product(along)
            curvature = float(along @ curved)
            if not curvature > 0:
                break
            length = size / curvature
            way += length * along
            bent += length * curved
            left += length * np.where(free, curved, 0)
            image = inverse(left)
            new = float(left @ image)
            along, size = (new / size) * along - image, new
        return self.x + way, bent
