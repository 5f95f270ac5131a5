"""Fits along a grid of penalties, from strong to weak, each from where the one before ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_X_y

from softly import targets
from softly.inputs import FEATURES, check_fit, prepared
from softly.objective import Objective
from softly.solvers.auto import solve
from softly.solvers.result import Pass, Result
from softly.targets import Targets

Array = NDArray[Any]
OnPass = Callable[[float, Pass], None]

_WEAKEST, _STRONGEST = 1e4, 1e-4  # of the C's where only their number is given


@dataclass(frozen=True)
class RegularizationPath:
    """What `regularization_path` found, for each C in the order in which they were given.

    Attributes
    ----------
    Cs : ndarray, shape (P,)
    classes : ndarray, shape (K,)
    coefs : ndarray, shape (P, K, D), or (P, 1, D) for two classes
    intercepts : ndarray, shape (P, K) or (P, 1)
        Zeros where there are none.
    objectives : ndarray, shape (P,)
        The mean loss with its penalty.
    gaps : ndarray, shape (P,)
        How far each objective can be above its minimum, as a part of it: proven; infinity where
        there is no proof.
    n_iter : ndarray of int, shape (P,)
        Iterations from one C to the next.
    converged : ndarray of bool, shape (P,)
    """

    Cs: NDArray[np.float64]
    classes: Array
    coefs: Array
    intercepts: Array
    objectives: NDArray[np.float64]
    gaps: NDArray[np.float64]
    n_iter: NDArray[np.int64]
    converged: NDArray[np.bool_]


def regularization_path(
    X: Any,
    y: Any,
    *,
    Cs: Any = 10,
    l1_ratio: float = 0.0,
    fit_intercept: bool = True,
    class_weight: Any = None,
    sample_weight: Any = None,
    tol: float = 1e-4,
    max_iter: int = 100,
    on_pass: OnPass | None = None,
) -> RegularizationPath:
    r"""Coefficients of a softmax classifier for each strength of its penalty.

    For each C the minimum over W and b of

    .. math:: F_C = \frac{1}{S} \sum_i s_i \, \mathrm{CE}(\mathrm{softmax}(W x_i + b), y_i)
              + \frac{1}{C S} \Big( \tfrac{1 - r}{2} \|W\|_2^2 + r \|W\|_1 \Big)

    with S the sum of the weights and r the `l1_ratio`: what `SoftmaxClassifier` minimises. The
    fits go from the strongest penalty to the weakest, each from the coefficients of the one before.

    Parameters
    ----------
    X : array_like or sparse matrix, shape (N, D)
        Features, finite.
    y : array_like, shape (N,) or (N, K)
        Classes, or how much of each class a row is.
    Cs : int or array_like, shape (P,), default=10
        Inverse strengths of the penalty, in any order; a number P stands for P of them from 1e-4
        to 1e4, evenly on the logarithm's scale.
    l1_ratio, fit_intercept, class_weight, max_iter
        As for `SoftmaxClassifier`.
    sample_weight : array_like, shape (N,), optional
    tol : float, default=1e-4
        A fit ends when its objective is proven to be above its minimum by no more than this part
        of the loss of a model that knows the classes' frequencies alone. Unlike a part of the
        objective itself, which tends to 0 on classes that a plane parts, this is as near for each C
        (Friedman, Hastie and Tibshirani, 2010, section 2.3).
    on_pass : callable, optional
        Is given the C and the `softly.solvers.result.Pass`, at each pass over the data.

    Returns
    -------
    RegularizationPath

    Raises
    ------
    ValueError
        If X holds NaN or infinity, y one class only, or a parameter makes no sense.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> import softly
    >>> path = softly.regularization_path(*load_iris(return_X_y=True), Cs=[0.01, 1, 100])
    >>> path.coefs.shape
    (3, 3, 4)
    >>> path.objectives.round(2)
    array([0.75, 0.19, 0.05])
    """
    check_fit(l1_ratio=l1_ratio, tol=tol, max_iter=max_iter)
    grid = grid_of(Cs)
    X, y = check_X_y(X, y, multi_output=True, **FEATURES)
    X = prepared(X)
    known = targets.read(X, y, sample_weight, class_weight)
    objective = objective_of(X, known, known.weight, fit_intercept)
    results: list[Any] = [None] * len(grid)
    for at, result in along(objective, grid, l1_ratio, tol=tol, max_iter=max_iter, on_pass=on_pass):
        results[at] = result
    parameters = np.stack([r.parameters.astype(X.dtype) for r in results])
    return RegularizationPath(
        Cs=grid,
        classes=known.classes,
        coefs=parameters[..., : X.shape[1]],
        intercepts=(parameters[..., -1] if fit_intercept else np.zeros_like(parameters[..., 0])),
        objectives=np.array([r.objective for r in results]),
        gaps=np.array([r.gap for r in results]),
        n_iter=np.array([r.n_iter for r in results]),
        converged=np.array([r.converged for r in results]),
    )


def along(
    objective: Objective,
    Cs: NDArray[np.float64],
    l1_ratio: float,
    *,
    tol: float,
    max_iter: int,
    proof: bool = True,
    on_pass: OnPass | None = None,
) -> Iterator[tuple[int, Result]]:
    """Minimise for each C, from strong to weak penalty, as `regularization_path` says.

    Parameters
    ----------
    objective : Objective
        Its penalty is changed from C to C; all else that it holds is shared by them.
    Cs : ndarray of float64, shape (P,)
    proof : bool
        Whether each fit goes on until `tol` is proven; if not, until a step
        promises no more, and leaves little.

    Yields
    ------
    at : int
        Which C this is.
    result : Result
        Its passes are of this C alone.
    """
    parameters, curvature = np.zeros(objective.shape), None
    guessing, loss = _entropy(objective), float(np.log(objective.n_classes))
    for at in np.argsort(Cs, kind="stable"):
        strength = 1 / (Cs[at] * objective.total_weight)
        objective.l2, objective.l1 = (1 - l1_ratio) * strength, l1_ratio * strength
        objective.precise, objective.n_passes = False, 0.0
        # The solver's tolerance is a part of the objective, which is not above that at the start:
        # a C that is larger takes penalty away.
        result = solve(
            *(objective, parameters),
            tol=tol * guessing / max(loss, np.finfo(float).tiny),
            max_iter=max_iter,
            proof=proof,
            on_pass=None if on_pass is None else partial(on_pass, float(Cs[at])),
            curvature=curvature,
        )
        parameters, loss, curvature = result.parameters, result.objective, result.curvature
        yield int(at), replace(result, curvature=None)


def objective_of(
    X: Any, known: Targets, weight: NDArray[np.float64] | None, fit_intercept: bool
) -> Objective:
    """The loss of rows with these weights, without a penalty as yet."""
    return Objective(
        *(X, known.values, len(known.classes)), weight=weight, l2=0.0, fit_intercept=fit_intercept
    )


def grid_of(Cs: Any) -> NDArray[np.float64]:
    """The C's that a number or a list of them stands for.

    Raises
    ------
    ValueError
        If they are none, or not all above 0.

    Examples
    --------
    >>> grid_of(3)
    array([1.e-04, 1.e+00, 1.e+04])
    """
    if isinstance(Cs, Integral) and not isinstance(Cs, bool) and int(Cs) >= 1:
        return np.geomspace(_STRONGEST, _WEAKEST, int(Cs))
    try:
        grid = np.asarray(Cs, dtype=np.float64)
    except (TypeError, ValueError):
        grid = np.empty(0)
    if grid.ndim != 1 or len(grid) == 0 or not (grid > 0).all():
        raise ValueError(
            f"Cs is {Cs!r}, but a whole number from 1 up, or a list of numbers above 0, is needed"
        )
    return grid


def _entropy(objective: Objective) -> float:
    """The mean loss of guessing by the classes' frequencies."""
    target, weight = objective.target, objective.weight
    if target.ndim == 1:
        mass = np.bincount(target, weights=weight, minlength=objective.n_classes)
    else:
        mass = target.sum(axis=0) if weight is None else weight @ target
    share = mass[mass > 0] / mass.sum()
    return float(-(share @ np.log(share)))
