"""What every solver answers, and what it tells on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from softly.solvers.curvature import Curvature

Array = NDArray[Any]


@dataclass(frozen=True)
class Pass:
    """A step of a fit, as it is told while it runs.

    Attributes
    ----------
    number : float
        How often the rows were read so far; parts of them count as parts.
    objective : float
        The mean loss with its penalty.
    gap : float
        How far it can be above the minimum, as a part of it; infinity where that is not known.
    parameters : ndarray, of the objective's shape
        Where that is.
    """

    number: float
    objective: float
    gap: float
    parameters: Array = field(repr=False, compare=False)


@dataclass(frozen=True)
class Result:
    """Where a solver ended.

    Attributes
    ----------
    parameters : ndarray, of the objective's shape, float64
    objective : float
        The mean loss with its penalty, at `parameters`.
    n_iter : int
        Steps taken.
    n_passes : float
        Times the data was read.
    gap : float
        How far `objective` can be above the minimum, as a part of it: proven; infinity where
        there is no proof.
    converged : bool
        Whether the tolerance was reached.
    message : str
        Why it ended, as a sentence.
    solver : str
        The name of the solver.
    curvature : softly.solvers.curvature.Curvature or None
        What it learnt of the Hessian, for a fit of the same rows under another penalty.
    """

    parameters: Array
    objective: float
    n_iter: int
    n_passes: float
    gap: float
    converged: bool
    message: str
    solver: str
    curvature: Curvature | None = field(default=None, repr=False, compare=False)
