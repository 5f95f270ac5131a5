"""Minimise an objective; say in the result how far it came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, root

from softly.objective import Objective

Array = NDArray[Any]


@dataclass(frozen=True)
class Pass:
    """One pass over the data: its number from 1, the objective and its gradient's largest entry."""

    number: int
    objective: float
    gradient: float


@dataclass(frozen=True)
class Result:
    """Where a solver ended.

    Attributes
    ----------
    parameters : ndarray, of the objective's shape, float64
    objective : float
        The mean loss with its penalty, at `parameters`.
    gradient : float
        The largest entry of its gradient there.
    n_iter, n_passes : int
        Steps taken, and times the data was read.
    gap : float
        How far `objective` can be above the minimum, as a part of it: proven; infinity where
        there is no penalty.
    converged : bool
        Whether the tolerance was reached.
    message : str
        Why it ended, as a sentence.
    """

    parameters: Array
    objective: float
    gradient: float
    n_iter: int
    n_passes: int
    gap: float
    converged: bool
    message: str


def lbfgs(
    objective: Objective,
    start: Array,
    *,
    tol: float,
    max_iter: int,
    on_pass: Callable[[Pass], None] | None = None,
) -> Result:
    """L-BFGS (Byrd, Lu, Nocedal and Zhu, 1995) until no entry of the gradient exceeds `tol`."""

    values: list[float] = []

    def evaluate(flat: Array) -> tuple[float, Array]:
        value, gradient = objective.value_and_gradient(flat.reshape(objective.shape))
        values.append(value)
        if on_pass is not None:
            on_pass(Pass(objective.n_passes, value, float(np.abs(gradient).max())))
        return value, gradient.ravel()

    found = minimize(
        evaluate,
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iter, "maxfun": 50 * max_iter, "maxls": 50, "gtol": tol, "ftol": 0},
    )
    at, value, slope = found.x, float(found.fun), found.jac
    gradient = float(np.abs(slope).max())
    # The descent also ends where rounding hides any further progress; the gradient can still be
    # told from 0 there, for float64 data.
    rounding = _rounding(objective, value)
    # The two least, since the last may be far trials of a search that found nothing better.
    hidden = bool(found.nit < max_iter and np.ptp(sorted(values)[:2]) <= rounding)
    if hidden and gradient > tol and objective.dtype == np.float64:
        better = _polished(lambda flat: evaluate(flat)[1], at, tol)
        better_value, better_slope = evaluate(better)
        if (smaller := float(np.abs(better_slope).max())) < gradient:
            at, value, slope, gradient = better, better_value, better_slope, smaller
    converged = gradient <= tol or hidden
    if objective.fit_intercept and objective.l2 and len(slope) >= objective.n_classes**2:
        at, value, slope = _with_intercepts(objective, evaluate, at, value, slope)
        gradient = float(np.abs(slope).max())
    gap = objective.relative_gap(at.reshape(objective.shape), value, slope.reshape(objective.shape))
    message = (
        f"the gradient's largest entry is {gradient:.2g} after {found.nit} iterations"
        if converged
        else f"the fit stopped after {found.nit} iterations with a gradient of {gradient:.2g}, "
        f"above tol={tol:g}{_proven(gap)}: raise max_iter (now {max_iter}), or scale the features "
        "alike (sklearn.preprocessing.StandardScaler)"
    )
    return Result(
        parameters=at.reshape(objective.shape),
        objective=value,
        gradient=gradient,
        n_iter=int(found.nit),
        n_passes=objective.n_passes,
        gap=gap,
        converged=converged,
        message=message,
    )


def _with_intercepts(
    objective: Objective,
    evaluate: Callable[[Array], tuple[float, Array]],
    at: Array,
    value: float,
    slope: Array,
) -> tuple[Array, float, Array]:
    """The intercepts one Newton step on, if that helps: where they miss, the proof is loose.

    Only where the curvature takes no more room than the gradient.
    """
    parameters, missed = at.reshape(objective.shape), slope.reshape(objective.shape)[:, -1]
    curvature = objective.intercept_hessian(parameters)
    if len(missed) > 1:  # a constant for all classes changes nothing
        curvature += np.trace(curvature) / len(missed)
    better = parameters.copy()
    try:
        step = np.linalg.solve(curvature, missed)
    except np.linalg.LinAlgError:
        return at, value, slope
    better[:, -1] -= step - step.mean() if len(step) > 1 else step
    better_value, better_slope = evaluate(better.ravel())
    left = better_slope.reshape(objective.shape)[:, -1]
    is_less = np.abs(left).max() < np.abs(missed).max()
    if is_less and better_value <= value + _rounding(objective, value):
        return better.ravel(), better_value, better_slope
    return at, value, slope


def _rounding(objective: Objective, value: float) -> float:
    """How far values may differ by rounding alone."""
    return 64 * float(np.finfo(objective.dtype).eps) * abs(value)


def _proven(gap: float) -> str:
    if not gap < 1:
        return ""  # as much as knowing nothing: the objective is not below 0
    return f"; its objective is proven to be within {gap:.2g} of itself from the optimum"


def _polished(gradient: Callable[[Array], Array], start: Array, tol: float) -> Array:
    """A zero of the gradient near `start`, by Newton-Krylov steps (Knoll and Keyes, 2004)."""
    found = root(
        gradient,
        start,
        method="krylov",
        options={"fatol": tol, "maxiter": 20, "jac_options": {"inner_maxiter": 100}},
    )
    return found.x  # type: ignore[no-any-return]
