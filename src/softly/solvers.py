"""Minimise an objective; say in the result how far it came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

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
    gradient = float(np.abs(found.jac).max())
    # The line search also gives up where rounding hides any further progress: an optimum, too.
    rounding = 64 * float(np.finfo(objective.dtype).eps) * abs(values[-1])
    stuck = found.nit < max_iter and abs(values[-1] - values[-2:][0]) <= rounding
    converged = bool(found.success) or stuck
    message = (
        f"the gradient's largest entry is {gradient:.2g} after {found.nit} iterations"
        if converged
        else f"the fit stopped after {found.nit} iterations with a gradient of {gradient:.2g}, "
        f"above tol={tol:g}: raise max_iter (now {max_iter}), or scale the features alike "
        "(sklearn.preprocessing.StandardScaler)"
    )
    return Result(
        parameters=found.x.reshape(objective.shape),
        objective=float(found.fun),
        gradient=gradient,
        n_iter=int(found.nit),
        n_passes=objective.n_passes,
        converged=converged,
        message=message,
    )
