"""A proof of how near the minimum is that needs no penalty: by Newton's decrement."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softly.objective import Objective
from softly.solvers.preconditioners import centred, hessian_matrix

Array = NDArray[Any]

_NO_CURVATURE = 1e-13  # a part of the largest that is rounding alone
_FEW_PARAMETERS, _MOST_PARAMETERS = 300, 1000  # with a penalty, and without
_MOST_WORK = 1e11  # multiplications
_ROWS = 1 << 10
_ROUNDING = 1e-12


def is_affordable(objective: Objective) -> bool:
    """Whether the whole Hessian can be made and taken apart."""
    k, d = objective.shape
    return (
        isinstance(objective.features, np.ndarray)
        and k * d <= (_FEW_PARAMETERS if objective.l2 else _MOST_PARAMETERS)
        and objective.n_rows * (k * d) ** 2 <= _MOST_WORK
    )


def relative_gap(objective: Objective, value: float, gradient: Array) -> float:
    """How far F can be above its minimum at the last point asked for, as a part of F."""
    k, d = objective.shape
    hessian = hessian_matrix(objective, np.dtype(np.float64))
    steepest = hessian.diagonal().reshape(k, d).max(axis=0)
    if objective.fit_intercept:  # columns that are constant but for the rounding of their mean
        constant = np.abs(objective.feature_means) * _ROUNDING
        steepest[:-1][steepest[:-1] <= constant**2] = 0
    scale = np.zeros(d)  # to features of one size
    np.divide(1, np.sqrt(steepest), out=scale, where=steepest > 0)
    hessian *= np.tile(scale, k)[:, None] * np.tile(scale, k)
    slope = (centred(objective, gradient) * scale).ravel()
    gap = bound(hessian, slope, _longest_row(objective, scale))
    return gap / value if 0 < gap < np.inf else gap


def bound(hessian: Array, gradient: Array, longest: float) -> float:
    r"""A bound on F - F*, infinity where nothing is proven.

    The loss is self-concordant-like (Bach, 2010): along any d its third derivative is at most M
    times its second, with M the widest range of a row's scores d x_i. Let
    :math:`\nu^2 = g^\top H^{-1} g` and let :math:`\rho` be such that for all d
    :math:`M \le \rho \sqrt{d^\top H d}`. Integration from the point at hand gives, where
    :math:`\nu \rho < 1`,

    .. math:: F - F^* \le \frac{\nu\rho + (1 - \nu\rho) \log(1 - \nu\rho)}{\rho^2}

    which is :math:`\nu^2 / 2` in the limit. Here :math:`\rho^2 = 2 \max_i \|x_i\|^2` over the least
    eigenvalue of H, of those that are not 0: the others' eigenvectors change no probability.

    Parameters
    ----------
    hessian : ndarray, shape (P, P)
    gradient : ndarray, shape (P,)
    longest : float
        The largest norm of a row of features, a 1 for the intercept included.
    """
    values, vectors = np.linalg.eigh(hessian)
    steep = values > len(values) * _NO_CURVATURE * float(values[-1])
    along = vectors.T @ gradient
    flat = float(np.linalg.norm(along[~steep]))
    if not steep.any() or flat > np.sqrt(_NO_CURVATURE) * float(np.linalg.norm(along)):
        return np.inf if along.any() else 0.0
    decrement = float(np.sqrt(np.sum(along[steep] ** 2 / values[steep])))
    rho = longest * float(np.sqrt(2 / values[steep].min()))
    x = decrement * rho
    if x >= 1:
        return np.inf
    if x < 1e-4:  # where the sum below is rounding; its terms are all positive
        return decrement**2 * (0.5 + x / 6 + x**2)
    return (x + (1 - x) * float(np.log1p(-x))) / rho**2


def _longest_row(objective: Objective, scale: Array) -> float:
    longest = 0.0
    for start in range(0, objective.n_rows, _ROWS):
        x = objective.features[start : start + _ROWS].astype(np.float64)
        if objective.fit_intercept:
            x = np.concatenate([x - objective.feature_means, np.ones((len(x), 1))], axis=1)
        longest = max(longest, float(np.square(x * scale).sum(axis=1).max()))
    return float(np.sqrt(longest))
