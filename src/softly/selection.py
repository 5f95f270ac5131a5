"""Which scaling suits some logits: the simplest that is as good as the best on held-out rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softly.functions import log_softmax
from softly.scalings import METHODS, Scaling
from softly.targets import of_target, shuffled_by_class

Array = NDArray[Any]

_FOLDS = 5
_LITTLE = 1e-6  # of log loss: less than that is no gain, however sure
_NAMES = {
    "identity": "leaving them alone",
    "temperature": "temperature scaling",
    "isotonic": "isotonic scaling",
    "vector": "vector scaling",
    "matrix": "matrix scaling",
}


@dataclass(frozen=True)
class Candidate:
    """How a scaling did on held-out rows.

    Attributes
    ----------
    log_loss : float
    behind : float
        How much that is above the best one's.
    standard_error : float
        Of `behind`, over rows.
    """

    log_loss: float
    behind: float
    standard_error: float


@dataclass(frozen=True)
class CrossFit:
    """What was fitted to all folds of some rows but one, for each fold.

    Attributes
    ----------
    fold : ndarray of int, shape (N,)
        In which each row is.
    scalings : list
        For each fold, what the rows of the others gave.
    """

    fold: NDArray[np.intp]
    scalings: list[Scaling]

    def log_probabilities(self, logits: Array) -> Array:
        """Of each row, calibrated by what the other folds' rows gave: shape (N, K)."""
        log_p = np.empty(logits.shape)
        for i, scaling in enumerate(self.scalings):
            held = self.fold == i
            log_p[held] = log_softmax(scaling(logits[held]), axis=1)
        return log_p


@dataclass(frozen=True)
class Choice:
    """A method, and why it was taken.

    Attributes
    ----------
    method : str
    reason : str
        A sentence.
    candidates : dict of str to Candidate
        How each did; none where there was nothing to choose by.
    cross_fit : CrossFit, optional
        Of the method.
    """

    method: str
    reason: str
    candidates: dict[str, Candidate]
    cross_fit: CrossFit | None


def choose(logits: Array, target: Array, weight: Array, among: list[str]) -> Choice:
    """The first method, from simple to rich, within a standard error of the best one's log loss.

    The error is that of the difference, row by row: far less than that of either loss, since a row
    that is hard for one is hard for the other.
    """
    if len(among) == 1:
        return Choice(among[0], f"{among[0]} was asked for", {}, None)
    if len(logits) == 1:
        said = f"one row is too little to choose by: {_NAMES[among[0]]} is the simplest"
        return Choice(among[0], said, {}, None)
    fits = {name: cross_fit(logits, target, weight, name) for name in among}
    losses = {name: -of_target(fit.log_probabilities(logits), target) for name, fit in fits.items()}
    candidates = _compared(losses, weight)
    method = _simplest(candidates)
    return Choice(method, _reason(candidates, method), candidates, fits[method])


def cross_fit(logits: Array, target: Array, weight: Array, method: str) -> CrossFit:
    """Fit a method to all folds but one, for each of five, in which every class has its share."""
    folds = min(_FOLDS, len(logits))
    fold = np.empty(len(target), np.intp)
    fold[shuffled_by_class(target)] = np.arange(len(target)) % folds

    def fit(i: int) -> Scaling:
        rest = fold != i if folds > 1 else slice(None)
        return METHODS[method](logits[rest], target[rest], weight[rest])

    return CrossFit(fold, [fit(i) for i in range(folds)])


def _compared(losses: dict[str, Array], weight: Array) -> dict[str, Candidate]:
    means = {name: float(np.average(loss, weights=weight)) for name, loss in losses.items()}
    best = losses[min(means, key=means.__getitem__)]
    total = weight.sum()

    def candidate(name: str) -> Candidate:
        if not np.isfinite(means[name]):
            return Candidate(means[name], np.inf, 0.0)
        apart = losses[name] - best
        behind = float(np.average(apart, weights=weight))
        error = float(np.sqrt(weight**2 @ (apart - behind) ** 2) / total)
        return Candidate(means[name], behind, error)

    return {name: candidate(name) for name in losses}


def _simplest(candidates: dict[str, Candidate]) -> str:
    near = (name for name, c in candidates.items() if c.behind <= max(c.standard_error, _LITTLE))
    return next(near, next(iter(candidates)))


def _reason(candidates: dict[str, Candidate], chosen: str) -> str:
    best = min(candidates, key=lambda name: candidates[name].log_loss)
    own = candidates[chosen]
    said = f"{_NAMES[chosen]} has a log loss of {own.log_loss:.4f} on held-out rows"
    if chosen != "identity" and "identity" in candidates:
        said += f", and {_NAMES['identity']} {candidates['identity'].log_loss:.4f}"
    if best == chosen:
        return f"{said}: the best of {len(candidates)}"
    if own.behind <= _LITTLE:
        return f"{said}; {_NAMES[best]} is better by {own.behind:.0e} only, which is nothing"
    return (
        f"{said}; {_NAMES[best]} is better by {own.behind:.4f} only, which is within its standard "
        f"error of {own.standard_error:.4f}"
    )
