"""Prediction sets: as many classes as it takes to hold the true one as often as was asked."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, column_or_1d

from softly import targets
from softly.inputs import probabilities

Array = NDArray[Any]

_METHODS = ("lac", "aps", "raps")
_TUNED = 0.2  # of the rows choose the penalty of RAPS
_PENALTIES = (0.001, 0.01, 0.1, 0.2, 0.5)
_MIX = 0x9E3779B97F4A7C15


class PredictionSets(BaseEstimator):  # type: ignore[misc]
    """Sets of classes that hold the true one with a given probability, whatever the model.

    For rows that are drawn as the fitted ones were, the set holds the true class with at least the
    probability `coverage`, and with no more than 1 / (N + 1) above it (unless its most probable
    class does alone), on average over draws of the fitted rows (split conformal prediction).

    Parameters
    ----------
    coverage : float, default=0.9
        Between 0 and 1.
    method : str, default="lac"
        How classes are ranked. "lac": those whose probability is above a threshold, the smallest
        sets on average (Sadinle, Lei and Wasserman, 2019). "aps": the most probable until their sum
        is enough, larger where the model is unsure (Romano, Sesia and Candes, 2020). "raps": the
        same with a penalty on long sets, chosen on a fifth of the rows (Angelopoulos et al., 2021).
    by_class : bool, default=False
        Whether `coverage` is to hold for the rows of each class by themselves: each has a threshold
        of its own (class-conditional).
    classes : array_like, shape (K,), optional
        Which label each column stands for. If none are given, the labels of y, sorted, where there
        are as many as columns; or 0 to K - 1.

    Attributes
    ----------
    threshold_ : float, or ndarray of shape (K,)
    penalty_ : float
        Of RAPS for each class beyond `free_`; 0 for the others.
    free_ : int
    classes_ : ndarray, shape (K,)
    n_rows_ : int
        Rows fitted.

    Notes
    -----
    APS and RAPS draw whether a set's last class is in it: the draw is made from the row's own
    numbers, so that the same row always has the same set, alone or among others. The most probable
    class is always in the set, so that none is empty.

    Examples
    --------
    >>> import numpy as np, softly
    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(2000, 4)) * 2
    >>> y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)  # drawn from softmax(z)
    >>> p = softly.softmax(z, axis=1)
    >>> sets = softly.PredictionSets(coverage=0.9).fit(p[:1000], y[:1000])
    >>> held = sets.predict(p[1000:])
    >>> round(float(held[np.arange(1000), y[1000:]].mean()), 1)
    0.9
    """

    def __init__(
        self,
        coverage: float = 0.9,
        *,
        method: str = "lac",
        by_class: bool = False,
        classes: Any = None,
    ) -> None:
        self.coverage = coverage
        self.method = method
        self.by_class = by_class
        self.classes = classes

    def fit(self, p: Any, y: Any) -> PredictionSets:
        """Find the threshold.

        Parameters
        ----------
        p : array_like, shape (N, K)
            Probabilities of rows that neither training nor calibration has used.
        y : array_like, shape (N,)
            Their true classes.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there are too few rows for the coverage, or a parameter makes no sense.
        """
        self._check()
        p, y = probabilities(p).astype(np.float64), column_or_1d(y)
        if len(p) != len(y):
            raise ValueError(f"p has {len(p)} rows and y {len(y)}, but as many are needed")
        classes, target = targets.columns_of(y, p.shape[1], self.classes)
        self.penalty_, self.free_ = 0.0, p.shape[1]
        rest = np.ones(len(p), bool)
        if self.method == "raps":
            rest = self._choose_penalty(p, target)
        own = targets.of_target(self._scores(p), target)
        self.n_rows_ = len(p)
        if self.by_class:
            self.threshold_: Any = np.array(
                [
                    self._threshold(own[rest & (target == k)], f" of class {label!r}")
                    for k, label in enumerate(classes.tolist())
                ]
            )
        else:
            self.threshold_ = self._threshold(own[rest])
        self.classes_ = classes
        return self

    def predict(self, p: Any) -> NDArray[np.bool_]:
        """Which classes are in each row's set.

        Parameters
        ----------
        p : array_like, shape (N, K)

        Returns
        -------
        ndarray of bool, shape (N, K)
        """
        check_is_fitted(self, "classes_")
        p = probabilities(p).astype(np.float64)
        if p.shape[1] != len(self.classes_):
            raise ValueError(
                f"p has {p.shape[1]} columns, but the sets were fitted to {len(self.classes_)}"
            )
        held: NDArray[np.bool_] = self._scores(p) <= self.threshold_
        return held

    def _check(self) -> None:
        if not isinstance(self.coverage, Real) or not 0 < self.coverage < 1:
            raise ValueError(
                f"coverage is {self.coverage!r}, but a number between 0 and 1 is needed"
            )
        if self.method not in _METHODS:
            raise ValueError(
                f"method is {self.method!r}, but one of {', '.join(_METHODS)} is needed"
            )

    def _scores(self, p: Array) -> Array:
        """How unlike each class is to be the true one, (N, K): the least unlike are in the set.

        The most probable class always is, for the rows of the threshold too.
        """
        scores = 1 - p if self.method == "lac" else self._down_to(p)
        np.put_along_axis(scores, p.argmax(axis=1)[:, None], -np.inf, axis=1)
        return scores

    def _down_to(self, p: Array) -> Array:
        """The mass of what is more probable, with a part of its own, and the penalty."""
        order = np.argsort(-p, axis=1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(p.shape[1])[None, :], axis=1)
        down_to = np.cumsum(np.take_along_axis(p, order, axis=1), axis=1)
        mass = np.take_along_axis(down_to, rank, axis=1) - _chance(p)[:, None] * p
        scores: Array = mass + self.penalty_ * np.maximum(rank + 1 - self.free_, 0)
        return scores

    def _threshold(self, own: Array, of: str = "") -> float:
        """That which the true classes' scores do not pass as often as was asked."""
        n = len(own)
        place = max(1, int(np.ceil((n + 1) * self.coverage - 1e-9)))
        if place > n:
            needed = int(np.ceil(self.coverage / (1 - self.coverage) - 1e-9))
            left = " once a fifth has chosen the penalty" if self.method == "raps" else ""
            raise ValueError(
                f"a coverage of {self.coverage:g} needs {needed} rows{of}, but there are {n}{left}"
            )
        return float(np.partition(own, place - 1)[place - 1])

    def _choose_penalty(self, p: Array, target: Array) -> NDArray[np.bool_]:
        """The penalty of the smallest sets on some of the rows; which ones are left."""
        chosen = np.zeros(len(p), bool)
        chosen[np.random.RandomState(0).permutation(len(p))[: int(_TUNED * len(p))]] = True
        some, truth = p[chosen], target[chosen]
        rank = (some > targets.of_target(some, truth)[:, None]).sum(axis=1) + 1
        self.free_ = int(np.quantile(rank, self.coverage, method="higher")) if len(rank) else 1
        sizes = {}
        for penalty in _PENALTIES if len(rank) else _PENALTIES[:1]:
            self.penalty_ = penalty
            scores = self._scores(some)
            place = min(len(some) - 1, int(np.ceil((len(some) + 1) * self.coverage)) - 1)
            threshold = np.sort(targets.of_target(scores, truth))[place] if len(rank) else 1.0
            sizes[penalty] = float((scores <= threshold).sum())
        self.penalty_ = min(sizes, key=sizes.__getitem__)
        return ~chosen


def _chance(p: Array) -> NDArray[np.float64]:
    """A number from 0 to 1 for each row, that looks drawn but is made of the row's own numbers."""
    bits = np.ascontiguousarray(p).view(np.uint64)
    mixed = np.zeros(len(p), np.uint64)
    for column in range(p.shape[1]):
        mixed = (mixed ^ bits[:, column]) * np.uint64(_MIX)
        mixed ^= mixed >> np.uint64(29)
    return (mixed >> np.uint64(11)) / float(1 << 53)
