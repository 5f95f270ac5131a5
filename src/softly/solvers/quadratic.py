"""Minimise a quadratic with an L1 penalty, when all of it is known from products but blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softly.kernels import threads
from softly.objective import Objective
from softly.solvers.preconditioners import Inverse, solver_of

Array = NDArray[Any]
_Block = tuple[NDArray[np.intp], Array]  # variables and their matrix

_BYTES = 1 << 26  # of all blocks together
_MOST_DENSE, _MOST_SPARSE = 1024, 256  # variables in a block
_MOST_SWEEPS = 20
_SWEPT = 0.01  # of the first sweep's largest decrease: where sweeps end
_SETTLED = 0.01  # of the variables: if no more changed their sign, the signs are nearly found
_ALL_THE_WAY = 0.6  # of the curvature, which the slope has to reach (from 0.5 up it pays)
_MOST_PRODUCTS = 60
_MOST_STOPS = 4
_BY_CLASS = 4  # times the entries of a sparse matrix, at most, are worth a way of their own


def subgradient(x: Array, slope: Array, l1: Array) -> Array:
    """The least subgradient of something with this slope and ``sum(l1 * |x|)``."""
    at_zero = slope - np.clip(slope, -l1, l1)
    least: Array = np.where(x != 0, slope + l1 * np.sign(x), at_zero)
    return least


@dataclass(frozen=True)
class Blocks:
    """The Hessian's blocks on the diagonal, all filled up to one size.

    Attributes
    ----------
    variables : ndarray of int, shape (blocks, size)
        Which variables are in a block; their number where there are no more.
    matrices : ndarray, shape (size, blocks, size)
        Row j of each block's matrix.
    """

    variables: NDArray[np.intp]
    matrices: Array

    def descend(self, x: Array, slope: Array, l1: Array) -> Array:
        """Where coordinate descent comes to from x, each block as if it were alone.

        All blocks move their j-th variables at once.
        """
        at = self.variables.T
        y, to, bound = (np.append(a, 0.0)[at] for a in (x, slope, l1))
        curvature = np.ascontiguousarray(np.einsum("jbj->jb", self.matrices))
        bound = bound / curvature
        to = np.ascontiguousarray(to.T)  # (blocks, size): one row moves at a time
        first = 0.0
        for _ in range(_MOST_SWEEPS):
            largest = 0.0
            for j, row in enumerate(self.matrices):
                free = y[j] - to[:, j] / curvature[j]
                new = free - np.minimum(np.maximum(free, -bound[j]), bound[j])
                step = new - y[j]
                if step.any():
                    y[j] = new
                    to += step[:, None] * row
                    largest = max(largest, float((step * step * curvature[j]).max()))
            first = first or largest
            if largest <= _SWEPT * first:
                break
        found = np.append(x, 0.0)
        found[at] = y
        return found[:-1]

    def inverse(self, free: NDArray[np.bool_]) -> Inverse:
        """The inverses of the blocks' parts among the free variables."""
        parts = []
        for b, variables in enumerate(self.variables):
            inside = np.append(free, False)[variables]
            if inside.any():
                matrix = self.matrices[inside, b][:, inside]
                parts.append((variables[inside], solver_of(matrix)))

        def solve(g: Array) -> Array:
            found = np.zeros_like(g)
            for variables, of_part in parts:
                found[variables] = of_part(g[variables])
            return found

        return solve


@dataclass(frozen=True)
class _Class:
    """The variables of a class, and their features."""

    x: Callable[[], Any]  # (N, features), as columns where it is sparse
    variables: NDArray[np.intp]  # of the features
    intercept: NDArray[np.intp]  # its number, or nothing


class Model:
    """The Hessian over the parameters in a mask, at the point that was last asked for."""

    def __init__(self, objective: Objective, mask: NDArray[np.bool_]) -> None:
        self.objective = objective
        self._mask = mask
        self.size = int(mask.sum())
        number = np.zeros(mask.shape, np.intp)
        number[mask] = np.arange(self.size)
        d, X = objective.n_features, objective.features
        self._dense = isinstance(X, np.ndarray)
        columns = X if self._dense else X.tocsc()
        self._classes = []
        self._entries = 0
        for c in range(len(mask)):
            features = np.flatnonzero(mask[c, :d])
            if self._dense:
                x = partial(columns.take, features, axis=1)  # a copy, when it is needed
            else:
                x = partial(_same, columns[:, features])
                self._entries += x().nnz
            self._classes.append(_Class(x, number[c, features], number[c, d:]))

    def product(self, step: Array) -> Array:
        """The Hessian times a step."""
        o = self.objective
        all_entries = len(self._mask) * (0 if self._dense else o.features.nnz)
        if o.probabilities is None or _BY_CLASS * self._entries >= all_entries:
            full = np.zeros(self._mask.shape)
            full[self._mask] = step
            return o.curvature_along(full)[self._mask]
        return self._product_by_class(step)

    def _product_by_class(self, step: Array) -> Array:
        """The same for few entries of a sparse matrix: no class reads the others' features."""
        o = self.objective
        assert o.probabilities is not None
        k = len(self._classes)
        p = o.probabilities[:, -k:]
        scores, found = np.empty(p.shape[::-1], p.dtype), np.empty(self.size)
        small = step.astype(p.dtype)

        # No threads: they would wait for one another's Python between such short products.
        for c, of in enumerate(self._classes):
            scores[c] = of.x() @ small[of.variables] + small[of.intercept].sum()
        scores -= np.einsum("nc,cn->n", p, scores)
        if o.weight is not None:
            scores *= o.weight
        for c, of in enumerate(self._classes):
            slope = scores[c] * p[:, c]
            found[of.variables] = (of.x().T @ slope) / o.total_weight
            found[of.variables] += o.l2 * step[of.variables]
            found[of.intercept] = slope.sum(dtype=np.float64) / o.total_weight
        return found

    def blocks(self) -> Blocks:
        """Those of each class; of many variables, those of much curvature together."""
        p = self.objective.probabilities
        assert p is not None
        p = p[:, -len(self._classes) :]
        curvature = p * (1 - p)
        if self.objective.weight is not None:
            curvature *= self.objective.weight[:, None]
        found: list[list[_Block]] = [[] for _ in self._classes]

        def of_class(c: int) -> None:
            found[c] = self._blocks_of(self._classes[c], curvature[:, c])

        threads.run([partial(of_class, c) for c in range(len(found))])
        return _filled([block for of in found for block in of], self.size)

    def _blocks_of(self, of: _Class, curvature: Array) -> list[_Block]:
        most = _MOST_DENSE if self._dense else _MOST_SPARSE
        most = min(most, max(1, _BYTES // (8 * self.size)))
        x, variables = of.x(), of.variables
        if len(variables) > most:
            squares = x * x if self._dense else x.power(2)
            order = np.argsort(-(squares.T @ curvature), kind="stable")
            x, variables = x[:, order], variables[order]
        starts = range(0, max(len(variables), 1), most)
        return [
            self._block(
                x[:, i : i + most],
                variables[i : i + most],
                of.intercept if i == 0 else of.intercept[:0],
                curvature,
            )
            for i in starts
            if len(variables) + len(of.intercept)
        ]

    def _block(self, x: Any, variables: Array, intercept: Array, curvature: Array) -> _Block:
        o, n = self.objective, len(variables)
        weighted = x * curvature[:, None] if self._dense else x.multiply(curvature[:, None]).tocsc()
        matrix = np.zeros((n + len(intercept),) * 2)
        product = x.T @ weighted
        matrix[:n, :n] = product if self._dense else product.toarray()
        matrix[n:, :n] = weighted.sum(axis=0, dtype=np.float64)
        matrix[:n, n:] = matrix[n:, :n].T
        matrix[n:, n:] = curvature.sum(dtype=np.float64)
        matrix /= o.total_weight
        matrix[np.arange(n), np.arange(n)] += o.l2
        return np.append(variables, intercept), matrix


def _same(x: Any) -> Any:
    return x


def _filled(found: list[_Block], n: int) -> Blocks:
    size = max(len(at) for at, _ in found)
    variables = np.full((len(found), size), n)
    matrices = np.zeros((size, len(found), size))
    for b, (at, matrix) in enumerate(found):
        variables[b, : len(at)] = at
        matrices[: len(at), b, : len(at)] = matrix
    diagonal = np.einsum("jbj->jb", matrices)  # a view
    diagonal[:] = np.maximum(diagonal, max(float(diagonal.max()) * 1e-12, 1e-300))
    return Blocks(variables, matrices)


def minimise(
    product: Callable[[Array], Array],
    blocks: Blocks,
    x: Array,
    slope: Array,
    l1: Array,
    leave: float,
) -> tuple[Array, int]:
    """Minimise ``slope @ (y - x) + (y - x) @ H @ (y - x) / 2 + sum(l1 * |y|)`` over y, from y = x.

    Ends where the largest entry of the least subgradient is `leave` of that at the start. The
    blocks find out the signs; when few change any more, conjugate gradients go on with these signs,
    preconditioned by the blocks.
    """
    at = _Quadratic(product, l1, x, slope)
    patience, waited = 1, 0  # of descents by blocks, before the signs are held
    goal = leave * at.violated()
    while at.products < _MOST_PRODUCTS and at.violated() > goal:
        before = np.sign(at.x)
        if not at.go_towards(blocks.descend(at.x, at.slope, l1)):
            break
        changed = np.count_nonzero(np.sign(at.x) != before)
        waited += 1
        if waited >= patience and changed <= _SETTLED * len(x) and at.violated() > goal:
            patience, waited = (1 if at.keep_signs(blocks, 0.3 * goal) else 4 * patience), 0
    return at.x, at.products


class _Quadratic:
    """A point on its way down."""

    def __init__(
        self, product: Callable[[Array], Array], l1: Array, x: Array, slope: Array
    ) -> None:
        self.x, self.slope, self.products = x, slope, 0
        self._product, self._l1 = product, l1

    def product(self, step: Array) -> Array:
        self.products += 1
        return self._product(step)

    def violated(self) -> float:
        return float(np.abs(subgradient(self.x, self.slope, self._l1)).max(initial=0.0))

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

        If that is too far, to the first variable that comes to 0, a few times; then False.
        """
        for _ in range(_MOST_STOPS):
            x = self.x
            to, curved = self._conjugate_gradients(blocks, goal)
            passes = (x != 0) & (x * to <= 0) & (self._l1 > 0)
            if not passes.any():
                self.x, self.slope = to, self.slope + curved
                return True
            if self._goes_all_the_way(np.where(passes, 0, to)):
                return True
            share = np.full(len(x), np.inf)  # of the way, where each is 0
            share[passes] = x[passes] / (x[passes] - to[passes])
            nearest = float(share.min())
            self.x = np.where(share == nearest, 0, x + nearest * (to - x))
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
        free = (self.x != 0) | (self._l1 == 0)
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
