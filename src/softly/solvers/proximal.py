"""Penalties that make coefficients exactly 0: Newton's method with an L1 penalty."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softly.certificate import elastic_net_gap
from softly.kernels.blas import one_blas_thread
from softly.objective import Objective
from softly.solvers.quadratic import Blocks, Model, Terms, minimise, subgradient
from softly.solvers.result import Pass, Result

Array = NDArray[Any]
Mask = NDArray[np.bool_]
OnPass = Callable[[Pass], None] | None

_COMES_DOWN = 0.5  # to some such part of what it was, the penalty
_FEWEST, _GROWTH = 500, 3  # entries of a working set, and times those that are not 0
_LEAVE = 0.3  # of the subgradient, by a step's quadratic
_INSIDE = 0.3  # of what features outside violate, may be violated inside
_SAFETY = 0.5  # of the tolerance, which a working set is to reach
_MOST_FEATURES = 0.7  # of all, that are worth a copy
_FEW_PRODUCTS = 12  # by which a step's quadratic is minimised, if its blocks are good
_DENSE_ROWS, _SPARSE_ROWS = 1 << 13, 1 << 17  # that blocks are made from
_MANY_PRODUCTS, _MORE, _SAMPLE_BYTES = 30, 4, 1 << 24  # then of so many times the rows, or all
_REACH = 8.0  # by which one parameter may change a score in one step
_LEAST_SIZE = 1e-300  # of a feature's numbers: a division by it is finite
_ENOUGH = 1e-4  # of the decrease that the slope promises (Armijo)
_SHORTEST = 1e-10
_RAREST = 1e-12  # frequency of a class that its first intercept stands for


def proximal_newton(
    objective: Objective,
    start: Array,
    *,
    tol: float,
    max_iter: int,
    on_pass: OnPass = None,
) -> Result:
    """Minimise until the objective is proven to be within `tol` of its minimum, as a part of it.

    Each step minimises the penalty with a quadratic model of the rest (Lee, Sun and Saunders, 2014)
    over a working set: the coefficients that are not 0, and those whose slope the penalty does not
    hold at 0. All others stay at 0 and their features are not read, until the next look at all of
    them, which is also what the proof is taken from. From zero, the penalty comes down by halves
    (Friedman, Hastie and Tibshirani, 2010), so that no working set is much larger than it has to
    be, and every model is made near its minimum.
    """
    with one_blas_thread:  # its own threads wait for each other at every small product
        return _Fit(objective, start, tol, on_pass).run(max_iter)


@dataclass
class _Point:
    """Parameters, and what is known there. The value is without the L1 penalty."""

    objective: Objective
    parameters: Array
    value: float
    gradient: Array

    @classmethod
    def look(cls, objective: Objective, parameters: Array) -> _Point:
        return cls(objective, parameters, *objective.value_and_gradient(parameters))

    def penalised(self, l1: float) -> float:
        coefficients = self.parameters[:, : self.objective.n_features]
        return self.value + l1 * float(np.abs(coefficients).sum())

    def gap(self) -> float:
        o = self.objective
        means = o.class_means if o.fit_intercept else None
        return elastic_net_gap(self.parameters, self.value, self.gradient, o.l1, o.l2, means)

    def relative_gap(self) -> float:
        return self.gap() / self.penalised(self.objective.l1)


class _Fit:
    """All features: which of them the next steps may move, and what is proven."""

    def __init__(self, objective: Objective, start: Array, tol: float, on_pass: OnPass) -> None:
        self.objective = objective
        self.steps = 0
        self._tol = tol
        self._on_pass = on_pass
        self._read = 0.0  # of rows, but by the objective itself
        self._bound = -np.inf  # no objective is lower
        self._rows = _DENSE_ROWS if isinstance(objective.features, np.ndarray) else _SPARSE_ROWS
        self.point = _Point.look(objective, _first(objective, start))
        self._l1 = float(self._slopes()[self._coefficients() == 0].max(initial=0.0))
        self._comes_down = _even_part(objective.l1, self._l1)
        self._reach = _REACH / np.maximum(objective.feature_sizes, _LEAST_SIZE)
        if objective.fit_intercept:
            self._reach = np.append(self._reach, _REACH)
        self._tell(self.point, 0.0)

    def run(self, max_iter: int) -> Result:
        while True:
            if self._l1 <= self.objective.l1 and self._prove() <= self._tol:
                break
            self._l1 = max(self.objective.l1, self._comes_down * self._l1)
            if self.steps >= max_iter or not self._advance(self._l1, max_iter):
                break
        gap = self._prove()
        return Result(
            parameters=self.point.parameters,
            objective=self.point.penalised(self.objective.l1),
            n_iter=self.steps,
            n_passes=self._read + self.objective.n_passes,
            gap=gap,
            converged=gap <= self._tol,
            message=_message(self.steps, gap, self._tol, max_iter),
            solver="proximal-newton",
        )

    def _slopes(self) -> Array:
        return np.abs(self.point.gradient[:, : self.objective.n_features])

    def _coefficients(self) -> Array:
        return self.point.parameters[:, : self.objective.n_features]

    def _prove(self) -> float:
        """How far the objective can be above its minimum, by the best bound so far."""
        value, gap = self.point.penalised(self.objective.l1), self.point.gap()
        self._bound = max(self._bound, value - gap)
        return min(gap, value - self._bound) / value if gap else 0.0

    def _tell(self, point: _Point, read: float, columns: Any = slice(None)) -> None:
        if self._on_pass is not None:
            value = point.penalised(self.objective.l1)
            number = self._read + read + self.objective.n_passes
            parameters = self._whole(point.parameters, columns)
            self._on_pass(Pass(number, value, (value - self._bound) / value, parameters))

    def _whole(self, parameters: Array, columns: Any) -> Array:
        """Those of all features, of which these columns may not be 0."""
        whole = np.zeros(self.objective.shape)
        whole[:, columns] = parameters
        return whole

    def _advance(self, l1: float, max_iter: int) -> bool:
        """Steps on a working set, then a look at all features; False if there is no way down."""
        whole, d = self.objective, self.objective.n_features
        slopes, used = self._slopes(), self._coefficients() != 0
        working = _largest(np.where(used, np.inf, slopes), l1, used.sum())
        violated = float((slopes[working & ~used] - l1).max(initial=0.0))
        features = np.flatnonzero(working.any(axis=0))
        if len(features) > _MOST_FEATURES * d:
            features = np.arange(d)
        columns = np.append(features, d) if whole.fit_intercept else features
        mask = np.ones((len(working), len(columns)), bool)
        mask[:, : len(features)] = working[:, features]
        everything = len(features) == d
        if everything:
            part, share, point = whole, 0.0, self.point
        else:
            part = whole.columns(features)
            share = _size(part) / max(_size(whole), 1)
            point = _Point.look(part, self.point.parameters[:, columns])
        steps = _Steps(point, mask, l1, self._reach[columns], self._rows)
        before = self.steps
        while self.steps < max_iter and steps.one():
            self.steps += 1
            self._tell(steps.point, share * part.n_passes, columns)
            if l1 > whole.l1 or steps.violated() <= _INSIDE * violated:
                break
            if steps.point.relative_gap() <= _SAFETY * self._tol:
                break
        self._read += share * (part.n_passes + steps.sampled)
        self._rows = steps.rows
        whole.precise |= part.precise
        if everything:
            self.point = steps.point
        else:
            self.point = _Point.look(whole, self._whole(steps.point.parameters, columns))
        self._tell(self.point, 0.0)
        return self.steps > before


class _Steps:
    """Steps over the parameters in a mask."""

    def __init__(self, point: _Point, mask: Mask, l1: float, reach: Array, rows: int) -> None:
        self.point = point
        self.sampled = 0.0  # passes over all rows that those over samples make
        self.rows = rows  # that blocks are made from, at most
        self._mask = mask
        penalties = np.zeros(mask.shape)
        penalties[:, : point.objective.n_features] = l1
        self._l1 = penalties[mask]
        self._reach = np.broadcast_to(reach, mask.shape)[mask]
        self._penalty = l1
        self._blocks: Blocks | None = None
        self._products = 0  # by the last step
        self._model = Model(point.objective, mask)
        self._is_one = self._model.is_one_block(point.objective, self._model.size)
        self._sample = self._sampled()

    def violated(self) -> float:
        """The largest entry of the least subgradient."""
        return self._violated(self.point)

    def one(self) -> bool:
        """One step down; False if there is no further."""
        point, mask = self.point, self._mask
        x, slope = point.parameters[mask], self._model.slope(point.gradient)
        blocks = self._current_blocks()
        terms = Terms(self._l1, x - self._reach, x + self._reach)
        to, self._products = minimise(self._model.product, blocks, x, slope, terms, _LEAVE)
        if self._products > _MANY_PRODUCTS and self._is_one:
            self.rows = min(_MORE * self.rows, point.objective.n_rows)
            self._sample = self._sampled()
        step = self._model.step(to - x)
        if len(mask) > 1:
            d = point.objective.n_features
            step[:, d:] -= step[:, d:].mean(axis=0)  # which changes no probability
        promised = float(slope @ (to - x) + self._l1 @ (np.abs(to) - np.abs(x)))
        found = self._search(step, promised) if promised < 0 else None
        if found is None:
            return self._more_precisely()
        self.point = found
        return True

    def _current_blocks(self) -> Blocks:
        """Those of an earlier point, while they serve well."""
        if self._blocks is None or self._products > _FEW_PRODUCTS:
            rows = self._sample.objective
            if self._sample is not self._model:
                rows.value_and_gradient(self.point.parameters)
            if self._sample is not self._model or rows.probabilities is None:
                self.sampled += rows.n_rows / self.point.objective.n_rows
            self._blocks = self._sample.blocks(self.point.parameters)
        return self._blocks

    def _sampled(self) -> Model:
        """Of as many rows as the blocks gain by; or of all, if it is not worth a copy."""
        o, n, most = self.point.objective, self.point.objective.n_rows, self.rows
        if n <= most and (self._is_one or o.probabilities is not None):
            return self._model
        if self._is_one and most * o.feature_bytes > _SAMPLE_BYTES * n:
            return self._model
        used = np.arange(n) if o.weight is None else np.flatnonzero(o.weight)
        step = max(1.0, len(used) / most)
        some = o.sample(used[(np.arange(int(len(used) / step)) * step).astype(np.intp)])
        return Model(some, self._mask, o)

    def _search(self, step: Array, promised: float) -> _Point | None:
        """How far to go: all the way, or back by halves."""
        point, before, length = self.point, self.point.penalised(self._penalty), 1.0
        while length > _SHORTEST:
            parameters = point.parameters + length * step
            found = _Point.look(point.objective, parameters)
            after = found.penalised(self._penalty)
            if after <= before + _ENOUGH * length * promised:
                return found
            if abs(after - before) <= self._rounding(before):
                # Values cannot tell any more, but slopes may.
                return found if self._violated(found) < self._violated(point) else None
            length /= 2
        return None

    def _more_precisely(self) -> bool:
        """Look again in float64, if this was float32; False if there is nothing more precise."""
        o = self.point.objective
        done = o.precise or o.dtype == np.float64
        o.precise = True
        self.point = _Point.look(o, self.point.parameters)
        return not done

    def _rounding(self, value: float) -> float:
        """How far values may differ by rounding alone."""
        o = self.point.objective
        return 64 * float(np.finfo(np.float64 if o.precise else o.dtype).eps) * value

    def _violated(self, point: _Point) -> float:
        least = subgradient(point.parameters[self._mask], point.gradient[self._mask], self._l1)
        return float(np.abs(least).max(initial=0.0))


def _even_part(goal: float, start: float) -> float:
    """By what to multiply again and again to come from a start down to a goal, and no further."""
    if start <= goal:
        return 1.0
    times = max(1, round(math.log(goal / start) / math.log(_COMES_DOWN)))
    return float((goal / start) ** (1 / times)) * (1 - 1e-12)


def _largest(size: Array, above: float, used: int) -> Mask:
    """Those above a size; of many, the largest."""
    most = max(_FEWEST, _GROWTH * int(used))
    if np.count_nonzero(size > above) > most:
        above = float(np.partition(size, -most - 1, axis=None)[-most - 1])
    return size > above


def _first(objective: Objective, start: Array) -> Array:
    """The start; if that is 0, with the intercepts that are best where all coefficients are 0."""
    parameters = start.astype(np.float64)
    if objective.fit_intercept and not start.any():
        b = np.log(np.maximum(objective.class_means.frequency, _RAREST))
        parameters[:, -1] = b - b.mean() if len(start) > 1 else b[1] - b[0]
    return parameters


def _size(objective: Objective) -> int:
    X = objective.features
    return int(X.size if isinstance(X, np.ndarray) else X.nnz)


def _message(steps: int, gap: float, tol: float, max_iter: int) -> str:
    after = f"{steps} iteration" + "s" * (steps != 1)
    proven = f"the objective is proven to be within {gap:.2g} of itself from its minimum"
    if gap <= tol:
        return f"{proven}, after {after}"
    return (
        f"the fit stopped after {after}, above tol={tol:g}: {proven}. Raise max_iter (now "
        f"{max_iter}), or ask for more penalty by a smaller C"
    )
