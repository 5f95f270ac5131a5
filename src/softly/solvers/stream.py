"""Fits to rows that come in batches and are not kept: what they said is, as a quadratic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softly.kernels.blas import one_blas_thread
from softly.objective import Objective, dot
from softly.solvers.conjugate import centred, conjugate_gradients
from softly.solvers.preconditioners import diagonal_of, hessian_matrix, solver_of_hessian
from softly.targets import Targets

Array = NDArray[Any]

_MOST_WHOLE = 1024  # parameters, whose Hessian is kept whole
_KEPT_BYTES = 1 << 23  # of probabilities: larger batches are taken in parts
_MOST_STEPS = 50
_NEAR = 1e-8  # of the objective: what a step still promises at the end
_LEAVE = 0.01
_ENOUGH = 1e-4  # of the decrease that the slope promises (Armijo)
_SHORTEST = 1e-12


@dataclass(frozen=True)
class Past:
    r"""All rows seen: their loss and the penalty, expanded around where they left the parameters.

    .. math:: \tfrac{1}{2} (\theta - \theta_0)' \Lambda (\theta - \theta_0)

    The same as a normal distribution of the parameters that each batch narrows (online Laplace
    approximation: Opper, 1998; Ritter, Botev and Barber, 2018).

    Attributes
    ----------
    centre : ndarray, shape (K, D)
    precision : ndarray, shape (K D, K D), or (K, D) where that would be too large: its diagonal
    """

    centre: Array
    precision: Array

    @classmethod
    def empty(cls, shape: tuple[int, int], n_features: int, penalty: float) -> Past:
        """Nothing but the penalty; whole where there are few parameters."""
        of_each = np.full(shape, penalty)
        of_each[:, n_features:] = 0
        is_small = of_each.size <= _MOST_WHOLE
        return cls(np.zeros(shape), np.diag(of_each.ravel()) if is_small else of_each)

    @property
    def is_whole(self) -> bool:
        return self.precision.shape != self.centre.shape

    def times(self, direction: Array) -> Array:
        """The precision times a direction."""
        if self.is_whole:
            product: Array = (self.precision @ direction.ravel()).reshape(direction.shape)
            return product
        return self.precision * direction


@dataclass(frozen=True)
class Learnt:
    """Where a batch led to, in how many steps and passes over it."""

    past: Past
    n_iter: int
    n_passes: float


def learn(
    X: Any, targets: Targets, past: Past | None, penalty: float, fit_intercept: bool
) -> Learnt:
    """Minimise the loss of these rows, added up, and the past's quadratic; all of it is past then.

    Parameters
    ----------
    X : ndarray or CSR matrix, shape (N, D)
    targets : Targets
    past : Past or None
        None before the first batch.
    penalty : float
        Of a coefficient's square, half, in a first past.
    fit_intercept : bool
    """
    n_iter, read = 0, 0.0
    step = max(1, _KEPT_BYTES // (X.dtype.itemsize * len(targets.classes)))
    for start in range(0, X.shape[0], step):
        some = slice(start, start + step)
        weight = None if targets.weight is None else targets.weight[some]
        if weight is not None and not weight.any():
            continue
        objective = Objective(
            *(X[some], targets.values[some], len(targets.classes)),
            weight=weight,
            l2=0.0,
            fit_intercept=fit_intercept,
        )
        past = past or Past.empty(objective.shape, objective.n_features, penalty)
        with one_blas_thread:
            past, steps = _Batch(objective, past).learn()
        n_iter += steps
        read += objective.n_passes * objective.n_rows / X.shape[0]
    assert past is not None  # some row has a weight
    return Learnt(past, n_iter, read)


@dataclass(frozen=True)
class _Point:
    parameters: Array
    value: float
    gradient: Array


class _Batch:
    """The loss of some rows, added up, and the past."""

    def __init__(self, objective: Objective, past: Past) -> None:
        objective.feature_means = np.zeros(objective.n_features, objective.dtype)  # as they are
        self._objective, self._past, self._strength = objective, past, objective.total_weight

    def learn(self) -> tuple[Past, int]:
        """What is past once these rows are, and how many steps that took."""
        at = self._look(self._past.centre)
        for steps in range(_MOST_STEPS + 1):  # noqa: B007
            direction = self._direction(at.gradient)
            slope = dot(at.gradient, direction)
            found = self._search(at, direction, slope) if -slope > _NEAR * abs(at.value) else None
            if found is None:
                break
            at = found
        self._look(at.parameters)
        return Past(at.parameters, self._past.precision + self._curvature()), steps

    def _search(self, at: _Point, direction: Array, slope: float) -> _Point | None:
        """All the way, or back by halves."""
        length = 1.0
        while length > _SHORTEST:
            found = self._look(at.parameters + length * direction)
            if found.value <= at.value + _ENOUGH * length * slope:
                return found
            length /= 2
        return None

    def _look(self, parameters: Array) -> _Point:
        away = parameters - self._past.centre
        pull = self._past.times(away)
        value, gradient = self._objective.value_and_gradient(parameters)
        value = self._strength * value + dot(away, pull) / 2
        return _Point(parameters, value, self._strength * gradient + pull)

    def _curvature(self) -> Array:
        """The batch's Hessian at the last look, or its diagonal."""
        of = hessian_matrix if self._past.is_whole else diagonal_of
        curvature: Array = of(self._objective) * self._strength
        return curvature

    def _direction(self, gradient: Array) -> Array:
        total = self._past.precision + self._curvature()
        if self._past.is_whole:
            return centred(-solver_of_hessian(total, gradient.shape)(gradient))
        total = np.maximum(total, max(1e-12 * float(total.max()), np.finfo(float).tiny))

        def product(d: Array) -> Array:
            curved = self._strength * self._objective.curvature_along(d)
            return centred(curved + self._past.times(d))

        def inverse(g: Array) -> Array:
            image: Array = g / total
            return image

        # A diagonal pulls also at what is the same for all classes.
        gradient = centred(gradient)
        image = centred(inverse(gradient))
        return conjugate_gradients(product, gradient, image, inverse, _LEAVE).direction
