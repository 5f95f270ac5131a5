"""Which solver an objective gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from softly.objective import Objective
from softly.solvers.newton import newton
from softly.solvers.proximal import proximal_newton
from softly.solvers.result import Pass, Result


def solve(
    objective: Objective,
    start: NDArray[Any],
    *,
    tol: float,
    max_iter: int,
    on_pass: Callable[[Pass], None] | None = None,
) -> Result:
    """Minimise by the solver that suits the penalty."""
    solver = proximal_newton if objective.l1 else newton
    return solver(objective, start, tol=tol, max_iter=max_iter, on_pass=on_pass)
