"""Penalties that make coefficients exactly 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from softly.objective import Objective
from softly.solvers.result import Pass, Result


def proximal_newton(
    objective: Objective,
    start: NDArray[Any],
    *,
    tol: float,
    max_iter: int,
    on_pass: Callable[[Pass], None] | None = None,
) -> Result:
    """Not there yet."""
    raise NotImplementedError
