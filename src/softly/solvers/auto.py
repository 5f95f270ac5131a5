"""Which solver an objective gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from softly.objective import Objective
from softly.solvers.curvature import Curvature
from softly.solvers.newton import newton
from softly.solvers.proximal import proximal_newton
from softly.solvers.result import Pass, Result


def solve(
    objective: Objective,
    start: NDArray[Any],
    *,
    tol: float,
    max_iter: int,
    proof: bool = True,
    on_pass: Callable[[Pass], None] | None = None,
    curvature: Curvature | None = None,
) -> Result:
    """Minimise by the solver that suits the penalty.

    Without `proof` a fit may end where its own promise is within `tol`; the gap that it has reached
    is in the result all the same. `curvature` is that in the result of a fit of the same objective
    under another penalty.
    """
    options = {"tol": tol, "max_iter": max_iter, "on_pass": on_pass}
    if objective.l1:
        return proximal_newton(objective, start, **options)  # type: ignore[arg-type]
    return newton(objective, start, proof=proof, curvature=curvature, **options)  # type: ignore[arg-type]
