"""What conjugate gradients learnt of the Hessian, kept to make the next of them shorter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softly.objective import Objective, dot
from softly.solvers.preconditioners import Inverse

Array = NDArray[Any]

_MOST, _BYTES = 20, 1 << 24  # directions, and of all pairs
_LEAST_CURVATURE = 1e-6  # of the largest among them: below, they are one another's shadows


class Recycled:
    r"""The last directions S that were multiplied with a Hessian, and the products Y.

    They make an inverse B that is near the Hessian's exact along S, by the update that a block of
    BFGS steps is (Gratton, Sartenaer and Tshimanga, 2011):

    .. math:: (I - S (S'Y)^{-1} Y') \, B \, (I - Y (S'Y)^{-1} S') + S (S'Y)^{-1} S'

    The Hessian of the next point is another, but not very much: whatever Y is, the result is
    positive definite.
    """

    def __init__(self) -> None:
        self._pairs: list[tuple[Array, Array]] = []

    def keep(self, direction: Array, product: Array) -> None:
        """One more pair, in the place of the oldest if there are many."""
        curvature = dot(direction, product)
        if curvature > 0:
            pair = np.stack([direction.ravel(), product.ravel()]) / np.sqrt(curvature)
            most = min(_MOST, max(1, _BYTES // pair.nbytes))
            self._pairs = [*self._pairs, (pair[0], pair[1])][-most:]

    def add_penalty(self, l2: float, objective: Objective) -> None:
        """As if the products had been with a Hessian of so much more penalty."""
        features = np.zeros(objective.shape)
        features[:, : objective.n_features] = l2
        self._pairs = [(s, y + s * features.ravel().astype(s.dtype)) for s, y in self._pairs]

    def improve(self, inverse: Inverse) -> Inverse:
        """The inverse with all that is known along the directions."""
        basis = self._conjugate()
        if basis is None:
            return inverse
        S, Y = basis

        def improved(g: Array) -> Array:
            along = S @ g.ravel()
            image = inverse(g - (along @ Y).reshape(g.shape)).ravel()
            image += (along - Y @ image) @ S
            return image.reshape(g.shape)

        return improved

    def _conjugate(self) -> tuple[Array, Array] | None:
        """S and Y as rows, with S'Y made the identity; what is doubtful of them, left out."""
        if not self._pairs:
            return None
        S, Y = (np.stack(each) for each in zip(*self._pairs, strict=True))
        curvature = S @ Y.T
        values, vectors = np.linalg.eigh((curvature + curvature.T) / 2)
        sound = values > _LEAST_CURVATURE * values[-1]
        to = (vectors[:, sound] / np.sqrt(values[sound])).T
        return to @ S, to @ Y
