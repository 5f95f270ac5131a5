"""What is known of a Hessian: an inverse that is near its own, and what products with it told."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softly.objective import Objective
from softly.solvers.preconditioners import Inverse, Preconditioner, cost_of_pass, sums_of_rows
from softly.solvers.recycled import Recycled

Array = NDArray[Any]

_HANDED_ON = 3.0  # times its cost are spent before an inverse of another penalty is made again


class Curvature:
    """A preconditioner of an objective, made of a sample of its rows, and again when that pays.

    A step asks for the `inverse` once, at the parameters that the objective was last asked for, and
    then for products.

    Parameters
    ----------
    objective : Objective
    sample : Objective
        Some of its rows, or itself.
    ladder : list of Preconditioner
        The kind to begin with, then those that may come to be worth their making.
    """

    def __init__(
        self, objective: Objective, sample: Objective, ladder: list[Preconditioner]
    ) -> None:
        self._objective, self._sample = objective, sample
        self._kind, *self._better = ladder
        self._inverse: Inverse | None = None
        self._recycled = Recycled()
        self._spent = 0.0  # multiplications since the inverse was made
        self._spent_on_kind = 0.0  # and since there was a better kind
        self._read = 0.0  # of samples that have made way for larger ones
        self._l2 = objective.l2
        self._patience = 1.0

    @property
    def name(self) -> str:
        """Of the preconditioner."""
        return self._kind.name

    def read(self) -> float:
        """Passes over the sample, as parts of passes over all rows."""
        if self._sample is self._objective:
            return self._read
        share: float = self._sample.n_rows / self._objective.n_rows
        return self._read + share * self._sample.n_passes

    def product(self, along: Array) -> Array:
        """The Hessian at the objective's last point times a direction."""
        product = self._objective.curvature_along(along)
        self._spent += cost_of_pass(self._objective)
        if self._kind.learns:
            self._recycled.keep(along, product)
        return product

    def inverse(self, parameters: Array) -> Inverse:
        """What is near the inverse of the Hessian.

        It is made again, at these parameters, when products have cost as much as making it; and of
        a better kind, when they have cost twice as much as making that.
        """
        if self._inverse is None or self._spent >= self._patience * self._kind.cost:
            self._make(parameters)
        self._spent += cost_of_pass(self._objective)  # for the value at the end of the step
        assert self._inverse is not None
        return self._recycled.improve(self._inverse) if self._kind.learns else self._inverse

    def _make(self, parameters: Array) -> None:
        self._spent_on_kind += self._spent
        while self._better and self._spent_on_kind >= 2 * self._better[0].cost:
            self._kind, self._spent_on_kind = self._better.pop(0), 0.0
            self._recycled = Recycled()
            self._take_more_rows()
        if self._sample is not self._objective:
            self._sample.work_as(self._objective)
            self._sample.value_and_gradient(parameters)
        self._inverse = None  # before there are two
        self._inverse = self._kind.make(self._sample)
        self._spent, self._patience = 0.0, 1.0

    def forget(self) -> None:
        """Make the inverse again: this one was of no use."""
        self._inverse, self._recycled = None, Recycled()

    def _take_more_rows(self) -> None:
        """A larger sample, if the preconditioner wants one."""
        n, wanted = self._objective.n_rows, self._kind.rows
        if wanted >= 2 * self._sample.n_rows:
            self._read = self.read()
            self._inverse, self._sample = None, self._objective  # let go of the smaller one
            if wanted < n:
                self._sample = self._objective.sample(spread(n, wanted))

    def of_intercepts(self, parameters: Array) -> Array:
        """The Hessian by the intercepts alone, (K, K), of the sample."""
        sample = self._sample
        if sample is not self._objective:
            sample.value_and_gradient(parameters)

        def add(_: Array, p: Array, weight: Array, total: Array) -> None:
            weighted = p * weight
            total += np.diag(weighted.sum(axis=0)) - weighted.T @ p

        (curvature,) = sums_of_rows(sample, add, (len(parameters),) * 2, dtype=np.dtype(np.float64))
        return curvature / sample.total_weight

    @property
    def can_go_on(self) -> bool:
        """Whether it is of use under another penalty."""
        return self._kind.follows_penalty

    def go_on(self) -> None:
        """Be of the same rows under the penalty that the objective has now."""
        objective, sample = self._objective, self._sample
        if sample is not objective:
            sample.l2 = objective.l2 * objective.total_weight / sample.total_weight
            sample.n_passes = 0.0
        self._read = 0.0
        self._recycled.add_penalty(objective.l2 - self._l2, objective)
        self._l2, self._patience = objective.l2, _HANDED_ON


def spread(n: int, size: int) -> NDArray[np.intp]:
    """Rows from every stretch of the data, at random within it."""
    at = (np.arange(size) + np.random.RandomState(0).random_sample(size)) * (n / size)
    return np.minimum(at.astype(np.intp), n - 1)
