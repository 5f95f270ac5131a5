"""Newton's method with conjugate gradients, on samples of the rows before it sees them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softly.kernels.blas import one_blas_thread
from softly.objective import Objective, dot
from softly.solvers import decrement
from softly.solvers.conjugate import OVERSTATED, Found, centred, conjugate_gradients
from softly.solvers.curvature import Curvature, spread
from softly.solvers.preconditioners import Preconditioner, choose
from softly.solvers.result import Pass, Result

Array = NDArray[Any]
OnPass = Callable[[Pass], None] | None

_SAMPLE_BYTES = 1 << 24
_FEWEST_ROWS = 1000
_NUMBERS_A_PARAMETER = 4
_GROWTH = 8  # a sample has so many times the rows of the one before
_MOST_FACTOR_ROWS = 1 << 14
_FACTOR_BYTES = 1 << 22  # of their probabilities
_ROUGHLY = 0.01  # where the solution on a sample is as good as a better one
_MOST_SAMPLE_STEPS = 25
_LOOSEST = 0.3  # how much of the gradient conjugate gradients may leave
_MOST_INTERCEPT_STEPS = 3
_SURELY = 0.1  # of the tolerance: as near as this by Newton's own measure
_SURE = 1e-4  # a mean loss, and so a mean of 1 - p: float32 tells that from 0 by three digits
_LEAST_TOL = 1e-9  # is reached where rounding hides any further progress
_MOST_BLIND_STEPS = 8
_POOR, _GOOD, _GROWS = 0.25, 0.75, 4.0  # parts of what a step promised; times its length
_MUCH = 1 << 21  # bytes of a vector
_ENOUGH = 1e-4  # of the decrease that the slope promises (Armijo)


def newton(
    objective: Objective,
    start: Array,
    *,
    tol: float,
    max_iter: int,
    proof: bool = True,
    on_pass: OnPass = None,
    curvature: Curvature | None = None,
) -> Result:
    """Minimise until the objective is proven to be within `tol` of its minimum, as a part of it.

    Without `proof`, until a step of Newton's method promises no more than that, and leaves little.

    Each step solves Newton's equations as far as it pays (Dembo and Steihaug, 1983), by conjugate
    gradients whose preconditioner is made from a sample of the rows. From zero, samples of growing
    size come first (Mokhtari and Ribeiro, 2016): far from the minimum a few rows show the way as
    well as all of them. Samples are weighted as the whole is by C, so that fewer rows have more
    penalty. What a fit under another penalty learnt of the `curvature` takes their place.
    """
    with one_blas_thread:  # its own threads wait for each other at every small product
        objective.work_roughly()
        parameters, read = objective.laid_out(centred(start)), 0.0
        if curvature is None or not objective.l2:
            curvature, parameters, read = _begin(objective, parameters, max_iter)
        else:
            curvature.go_on()
        descent = _Descent(objective, curvature, parameters, on_pass, read)
        converged = descent.run(tol, max_iter, proof)
        if objective.is_rounded:  # what is told of the end is of the features as they are
            descent.look_precisely()
            converged = descent.run(tol, max_iter, proof)
        gap = descent.gap()
        return Result(
            parameters=descent.parameters,
            objective=descent.value,
            n_iter=descent.steps,
            n_passes=descent.read(),
            gap=gap,
            converged=converged,
            message=_message(descent, gap, tol, max_iter, converged),
            solver=f"newton-cg, preconditioned by {curvature.name}",
            curvature=curvature if curvature.can_go_on else None,
        )


def _begin(
    objective: Objective, parameters: Array, max_iter: int
) -> tuple[Curvature, Array, float]:
    """A preconditioner, and where samples lead if nothing is known yet, in how many passes."""
    samples, read, factored = _samples(objective), 0.0, None
    n = len(samples[-1]) if samples else objective.n_rows
    ladder = choose(objective, min(n, _most_rows(objective)), n)
    is_warm = bool(parameters.any())
    for rows in samples[-1:] if is_warm else samples:
        sample = objective.sample(rows)
        factored = _some_rows(sample, ladder[0].rows)
        if not is_warm:
            parameters = _on_sample(sample, factored, ladder, parameters, max_iter)
            read += sample.n_passes * sample.n_rows / objective.n_rows
            sample.n_passes = 0.0  # or they would count again, if it is factored
        del sample  # before the next is made
    factored = factored or _some_rows(objective, ladder[0].rows)
    return Curvature(objective, factored, ladder), parameters, read


def _samples(objective: Objective) -> list[NDArray[np.intp]]:
    """Rows of samples that grow, each with a row from every stretch of the data."""
    used = None if objective.weight is None else np.flatnonzero(objective.weight)
    n = objective.n_rows if used is None else len(used)
    size = min(n // _GROWTH, int(_SAMPLE_BYTES * n / max(objective.feature_bytes, 1)))
    samples = []
    # A sample of less than its parameters would not be read much faster than they are.
    numbers, parameters = objective.feature_count / n, objective.n_classes * objective.n_features
    while size >= max(_FEWEST_ROWS, _NUMBERS_A_PARAMETER * parameters / max(numbers, 1)):
        rows = spread(n, size)
        samples.append(rows if used is None else used[rows])
        size //= _GROWTH
    return samples[::-1]


def _on_sample(
    sample: Objective,
    factored: Objective,
    ladder: list[Preconditioner],
    parameters: Array,
    max_iter: int,
) -> Array:
    """Down to where the sample's own choice of rows matters more than what is left."""
    descent = _Descent(sample, Curvature(sample, factored, ladder), parameters, None)
    while descent.steps < min(max_iter, _MOST_SAMPLE_STEPS):
        if not descent.step() or descent.promised <= _ROUGHLY * descent.value:
            break
    return descent.parameters


@dataclass
class _Step:
    length: float  # as a part of the direction
    parameters: Array
    value: float
    gradient: Array


class _Descent:
    """A point on its way down, and what is known there."""

    def __init__(
        self,
        objective: Objective,
        curvature: Curvature,
        parameters: Array,
        on_pass: OnPass,
        read: float = 0.0,
    ) -> None:
        self.objective = objective
        self._curvature = curvature
        self.parameters = parameters
        self.steps = 0
        self.promised = np.inf  # by how much the last step was to lower the value
        self.missed = np.inf  # and what it left: by how much there is to go, or more
        self._on_pass = on_pass
        self._read_before = read
        self._radius = np.inf  # how long a step is trusted to be, in the inverse's metric
        self._first_size = 0.0
        self._gap: float | None = None
        self._blind_steps = 0
        self.value, self.gradient = self._evaluate(parameters)

    def run(self, tol: float, max_iter: int, proof: bool) -> bool:
        """Steps until it is near enough, proven if asked; False if that was not reached."""
        while not self._is_near(tol):
            if not proof and self._ends(tol * self.value):
                return True
            if self.value < _SURE and not self.objective.is_full:
                self._in_full()
                continue
            if proof and self.promised <= _SURELY * tol * self.value and self.objective.is_rough:
                # What is left is to prove it, and float32 may hide that.
                self.look_precisely()
                continue
            if self._cheap_gap() <= tol and self._settle_intercepts(tol):
                return True
            if self.steps >= max_iter:
                return False
            if not self.step(tol, proof):
                was_last = not proof and self.promised <= tol * self.value
                return was_last or self._is_near(max(tol, _LEAST_TOL))
        return True

    def step(self, tol: float = 0.0, proof: bool = True) -> bool:
        """One step down; False if there is no further."""
        newton = self._direction(tol, proof)
        slope = dot(self.gradient, newton.direction)
        self.promised = np.inf if newton.is_cut else -slope / 2
        if not slope < 0:
            return self._in_full()
        found = self._search(newton.direction, slope)
        if found is None:
            return self._in_full()
        self.missed = newton.missed + abs(self.value - found.value - self.promised)
        self._trust(newton, found)
        self.parameters, self.value, self.gradient = found.parameters, found.value, found.gradient
        self.steps += 1
        self._gap = None
        return True

    def _ends(self, tol: float) -> bool:
        """Whether the last step was worth no more than that, and did not leave much either."""
        return self.promised <= tol and self.missed <= OVERSTATED * tol

    def gap(self) -> float:
        if self._gap is None:
            self._gap = self.objective.relative_gap(self.parameters, self.value, self.gradient)
        return self._gap

    def read(self) -> float:
        return self._read_before + self.objective.n_passes + self._curvature.read()

    def _is_near(self, tol: float) -> bool:
        if self._cheap_gap() <= tol and self.gap() <= tol:
            return True
        unpenalised = self.objective.l2 == 0
        if self.promised > tol * self.value:
            # Separated classes have no minimum without a penalty, but no loss is below 0.
            return unpenalised and self.value <= tol * np.log(self.objective.n_classes)
        if self.objective.is_rounded:
            return False  # it would have to be proven again
        if decrement.is_affordable(self.objective):
            gap = decrement.relative_gap(self.objective, self.value, self.gradient)
            self._gap = min(self.gap(), gap)
        return unpenalised or self.gap() <= tol

    def _cheap_gap(self) -> float:
        """The gap but for what the intercepts miss."""
        return self._gap_of_features(self.value, self.gradient)

    def _gap_of_features(self, value: float, gradient: Array) -> float:
        of_features = gradient[:, : self.objective.n_features]
        if self.objective.l2 == 0:
            return np.inf
        return dot(of_features, of_features) / (2 * self.objective.l2 * value)

    def _evaluate(self, parameters: Array) -> tuple[float, Array]:
        value, gradient = self.objective.value_and_gradient(parameters)
        if self._on_pass is not None:
            gap = self._gap_of_features(value, gradient)
            self._on_pass(Pass(self.read(), value, gap, parameters))
        return value, gradient

    def _direction(self, tol: float, proof: bool) -> Found:
        """Newton's, as nearly as it pays."""
        inverse = self._curvature.inverse(self.parameters)
        image = centred(inverse(self.gradient))
        size = float(np.sqrt(max(dot(self.gradient, image), np.finfo(float).tiny)))
        self._first_size = self._first_size or size
        leave = min(_LOOSEST, float(np.sqrt(size / self._first_size)))
        if 0 < tol < (gap := self._cheap_gap()) < np.inf:  # what is left must be proven too
            leave = max(leave, 0.3 * float(np.sqrt(tol / gap)))
        # Where there are millions of them, most of the time goes into the vectors.
        gradient, image = (self._small(vector) for vector in (self.gradient, image))
        found = conjugate_gradients(
            *(self._curvature.product, gradient, image, inverse, leave),
            enough=0.0 if proof else 0.5 * tol * self.value,
            radius=self._radius,
        )
        if found.direction.dtype == np.float64:
            return found
        return replace(found, direction=centred(found.direction.astype(np.float64)))

    def _small(self, vector: Array) -> Array:
        """In the features' type, if there is much of it: a direction need not be exact."""
        return vector if vector.nbytes < _MUCH else vector.astype(self.objective.dtype, copy=False)

    def _settle_intercepts(self, tol: float) -> bool:
        """Move the intercepts alone, while that helps the proof; True if it is within `tol`.

        Their part of it is of first order, so that they need to be nearer than the rest.
        """
        if not self.objective.fit_intercept:
            return False
        for _ in range(_MOST_INTERCEPT_STEPS):
            missed = self.gradient[:, -1]
            parameters = self.parameters.copy()
            curvature = self._curvature.of_intercepts(self.parameters)
            parameters[:, -1] -= centred(np.linalg.pinv(curvature) @ missed)
            value, gradient = self._evaluate(parameters)
            is_better = np.abs(gradient[:, -1]).max() < np.abs(missed).max()
            if not (is_better and value <= self.value + self._rounding()):
                self.objective.value_and_gradient(self.parameters)
                return False
            self.parameters, self.value, self.gradient, self._gap = (
                parameters,
                value,
                gradient,
                None,
            )
            if self._is_near(tol):
                return True
        return False

    def _trust(self, newton: Found, taken: _Step) -> None:
        """How long the next step may be, by how well this one kept its promise."""
        kept = (self.value - taken.value) / newton.promised
        if taken.length < 1:
            self._radius = taken.length * newton.length
        elif kept < _POOR:
            self._radius = newton.length / 2
        elif kept > _GOOD:
            self._radius = max(self._radius, _GROWS * newton.length)

    def _search(self, direction: Array, slope: float) -> _Step | None:
        """How far to go along a direction: all the way, or back by parabolas."""
        length = 1.0
        while length > 1e-10:
            parameters = self.parameters + length * direction
            value, gradient = self._evaluate(parameters)
            if -slope <= self._rounding():  # values cannot tell any more, but slopes may
                self._blind_steps += 1
                is_less = abs(dot(gradient, direction)) <= 0.5 * abs(slope)
                if is_less and self._blind_steps <= _MOST_BLIND_STEPS:
                    return _Step(length, parameters, value, gradient)
                return None
            if value <= self.value + _ENOUGH * length * slope:
                return _Step(length, parameters, value, gradient)
            length *= 0.1 if not np.isfinite(value) else self._back(length, slope, value)
        return None

    def _back(self, length: float, slope: float, value: float) -> float:
        """The part of a step to go instead: to the foot of the parabola through what is known."""
        foot = -slope * length / (2 * (value - self.value - slope * length))
        return min(max(foot, 0.1), 0.5)

    def look_precisely(self) -> None:
        """At where it is, in float64."""
        self.objective.work_precisely()
        self._look_again()

    def _in_full(self) -> bool:
        """Go on in float64 alone; False if it was so."""
        was_full = self.objective.is_full
        if not was_full:
            self.objective.work_in_full()
            self._curvature.forget()
            self._blind_steps, self._radius, self.promised = 0, np.inf, np.inf
        self._look_again()
        return not was_full

    def _look_again(self) -> None:
        self.value, self.gradient = self._evaluate(self.parameters)
        self._gap = None

    def _rounding(self) -> float:
        """How far values may differ by rounding alone."""
        dtype = np.float32 if self.objective.is_rough else np.float64
        return 64 * float(np.finfo(dtype).eps) * abs(self.value)


def _some_rows(sample: Objective, n: int) -> Objective:
    """The rows that a preconditioner is made of, no more than n."""
    is_sparse = not isinstance(sample.features, np.ndarray)
    if sample.n_rows <= n or (is_sparse and sample.probabilities is not None):
        return sample
    return sample.sample(slice(None, None, -(-sample.n_rows // n)))


def _most_rows(objective: Objective) -> int:
    row_bytes = objective.n_classes * objective.dtype.itemsize
    return int(max(1, min(_MOST_FACTOR_ROWS, _FACTOR_BYTES // row_bytes)))


def _message(descent: _Descent, gap: float, tol: float, max_iter: int, converged: bool) -> str:
    steps = f"{descent.steps} iteration" + "s" * (descent.steps != 1)
    proven = (
        f"the objective is proven to be within {gap:.2g} of itself from its minimum"
        if gap < 1
        else "nothing is proven about how far the minimum is"
    )
    if converged:
        return f"{proven}, after {steps}"
    advice = (
        f"Raise max_iter (now {max_iter}), or ask for more penalty by a smaller C"
        if descent.steps >= max_iter
        else "Rounding hides what is left: scale the columns of X alike "
        "(sklearn.preprocessing.StandardScaler), or ask for more penalty by a smaller C"
    )
    return f"the fit stopped after {steps}, above tol={tol:g}: {proven}. {advice}"
