"""Probabilities to decisions, each of which can say why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softly.conformal import PredictionSets
from softly.inputs import no_distributions, probabilities
from softly.targets import of_target

Array = NDArray[Any]

_MOST_STEPS = 1000
_NEAR = 1e-8
_ROUNDING = 1e-14
_SHOWN = 3
_CONTRARY = 0.01  # of a row's largest probability, further than rounding goes

ABSTAINS = -1


@dataclass(frozen=True)
class Decisions:
    """What was decided for each row, and why.

    Attributes
    ----------
    answers : ndarray
        Numbers of classes, shape (N,), where -1 abstains; the best `top_k`, shape (N, k); or which
        classes are in the set, bool of shape (N, K).
    probabilities : ndarray, shape (N, K)
        By which it was decided: with a new prior, those that it makes.
    classes : ndarray, shape (K,)
        The labels.
    rule : str
        What decided, in words.
    """

    answers: Array
    probabilities: Array
    classes: Array
    rule: str
    _reason: Callable[[Decisions, int], str]

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def labels(self) -> list[Any]:
        """The answers by their labels: None abstains, a list is a set or the best few."""
        names = self.classes.tolist()
        if self.answers.dtype == bool:
            return [[names[k] for k in np.flatnonzero(row)] for row in self.answers]
        if self.answers.ndim == 2:
            return [[names[k] for k in row] for row in self.answers]
        return [None if k == ABSTAINS else names[k] for k in self.answers.tolist()]

    def why(self, row: int) -> str:
        """A sentence: the classes in question, their probabilities, and the rule."""
        return f"{self._reason(self, row)} ({self.rule})"

    def shown(self, row: int, which: Array) -> str:
        """Some classes of a row with their probabilities."""
        p = self.probabilities[row]
        parts = [f"{self.classes[k]} {p[k]:.3g}" for k in which[:_SHOWN]]
        more = [f"{len(which) - _SHOWN} more"] if len(which) > _SHOWN else []
        return ", ".join(parts + more)


def decide(
    p: Any,
    *,
    scores: Any = None,
    top_k: int | None = None,
    min_probability: float | None = None,
    cost: Any = None,
    abstain_cost: float | None = None,
    prior: Any = None,
    trained_prior: Any = None,
    coverage: float | PredictionSets | None = None,
    held_out: Any = None,
    classes: Any = None,
) -> Decisions:
    """Decide by probabilities, which are best calibrated ones.

    Without a rule, the most probable class. One of `top_k`, `min_probability`, `cost` and
    `coverage` is another; `prior` goes with each of them.

    Parameters
    ----------
    p : array_like, shape (N, K)
        Probabilities of the classes.
    scores : array_like, shape (N, K), optional
        The logits that p was made of: where rounding made two probabilities the same, these decide.
        Of calibrated probabilities the calibrated ones, `decision_function`.
    top_k : int, optional
        The k most probable classes.
    min_probability : float, optional
        The most probable class where it has at least this probability; else none, -1.
    cost : array_like, shape (K, K), optional
        What an answer (column) costs where a class (row) is true: the answer whose mean cost is
        least.
    abstain_cost : float, optional
        What it costs to give no answer, -1; with `cost`.
    prior : array_like, shape (K,), or "estimate", optional
        How frequent the classes are where the decisions are made, if not as in training; or to be
        estimated from p (EM: Saerens, Latinne and Decaestecker, 2002).
    trained_prior : array_like, shape (K,), optional
        How frequent they were in training; with `prior`.
    coverage : float or PredictionSets, optional
        Sets of classes that hold the true one with this probability, the smallest on average; or
        fitted `PredictionSets`, for other ones.
    held_out : tuple of (p, y), optional
        Rows with their true classes that neither training nor calibration has used; with a number
        as `coverage`.
    classes : array_like, shape (K,), optional
        The labels of the columns. If none are given, those of fitted `PredictionSets`; or 0 to
        K - 1.

    Returns
    -------
    Decisions

    Raises
    ------
    ValueError
        If a row is no distribution, a rule makes no sense, or there are two.

    Examples
    --------
    >>> import numpy as np, softly
    >>> p = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]])
    >>> found = softly.decide(p, min_probability=0.5, classes=["cat", "dog", "owl"])
    >>> found.labels
    ['cat', None]
    >>> found.why(1)
    'no answer: the most probable are cat 0.4, dog 0.35, owl 0.25 (at least 0.5 is asked for)'
    """
    p = probabilities(p).astype(np.float64)
    k = p.shape[1]
    labels = _labels(classes, coverage, k)
    rules = {"top_k": top_k, "min_probability": min_probability, "cost": cost, "coverage": coverage}
    given = [name for name, value in rules.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are given, but one rule decides: give one of them")
    for name, value, needs in (
        ("abstain_cost", abstain_cost, "cost"),
        ("trained_prior", trained_prior, "prior"),
        ("held_out", held_out, "coverage"),
    ):
        if value is not None and (prior if needs == "prior" else rules[needs]) is None:
            raise ValueError(f"{name} is given, but not {needs}, which it goes with")
    said = ""
    scores = None if scores is None else _logits_of(p, scores)
    if prior is not None:
        if coverage is not None:
            raise ValueError(
                "prior and coverage are given, but sets hold the true class as often as asked only "
                "where the classes are as frequent as in the rows held out: give one of them"
            )
        p, moved, said = _moved(p, prior, trained_prior)
        scores = None if scores is None else scores + moved
    ranked = _ranked(p, scores)
    if cost is not None:
        found = _by_cost(p, ranked, _matrix(cost, k), abstain_cost, labels)
    elif coverage is not None:
        found = _sets(p, coverage, held_out, ranked, labels)
    elif top_k is not None:
        found = _best_few(ranked, top_k)
    else:
        found = _most_probable(p, ranked, min_probability)
    answers, rule, reason = found
    return Decisions(answers, p, labels, rule + said, reason)


def _labels(classes: Any, coverage: Any, k: int) -> Array:
    """The columns' labels, which fitted sets know, too."""
    known = getattr(coverage, "classes_", None)
    if classes is None:
        return np.arange(k) if known is None or len(known) != k else known
    labels = np.asarray(classes)
    if labels.shape != (k,) or len(np.unique(labels)) < k:
        raise ValueError(
            f"classes has shape {labels.shape} and {len(np.unique(labels))} different labels, but "
            f"({k},) is needed: a label for each column"
        )
    if known is not None and not np.array_equal(labels, known):
        raise ValueError(
            f"classes is {np.array2string(labels, threshold=6)}, but the sets were fitted to "
            f"{np.array2string(known, threshold=6)}: leave it out, since they know their labels"
        )
    return labels


Found = tuple[Array, str, Callable[[Decisions, int], str]]


def _logits_of(p: Array, scores: Any) -> NDArray[np.float64]:
    """Scores, which must agree with the probabilities on what is most probable."""
    logits = _numbers("scores", scores)
    if logits.shape != p.shape:
        raise ValueError(f"scores has shape {logits.shape}, but p has {p.shape}: both are needed")
    best = logits.argmax(axis=1)
    contrary = of_target(p, best) < (1 - _CONTRARY) * p.max(axis=1)
    if contrary.any():
        row = int(contrary.argmax())
        raise ValueError(
            f"scores[{row}] are highest for column {best[row]}, but p[{row}] for column "
            f"{p[row].argmax()}: scores are to be the logits that p was made of"
        )
    return logits


def _ranked(p: Array, scores: Array | None) -> Array:
    """Classes of each row, the most probable first; the first of equals."""
    return np.argsort(-(p if scores is None else scores), axis=1, kind="stable")


def _most_probable(p: Array, ranked: Array, least: float | None) -> Found:
    answers = ranked[:, 0].copy()
    if least is not None:
        if not isinstance(least, Real) or not 0 <= float(least) <= 1:
            raise ValueError(f"min_probability is {least!r}, but a number from 0 to 1 is needed")
        answers[p[np.arange(len(p)), answers] < least] = ABSTAINS

    def reason(of: Decisions, row: int) -> str:
        first, rest = ranked[row, :1], ranked[row, 1:]
        if answers[row] == ABSTAINS:
            return f"no answer: the most probable are {of.shown(row, ranked[row])}"
        return f"{of.shown(row, first)}, before {of.shown(row, rest)}"

    rule = "the most probable" if least is None else f"at least {least:g} is asked for"
    return answers, rule, reason


def _best_few(ranked: Array, top_k: int) -> Found:
    k = ranked.shape[1]
    if isinstance(top_k, bool) or not isinstance(top_k, Integral) or not 1 <= int(top_k) <= k:
        raise ValueError(
            f"top_k is {top_k!r}, but a whole number from 1 to {k}, the classes, is needed"
        )
    answers = ranked[:, : int(top_k)]

    def reason(of: Decisions, row: int) -> str:
        rest = of.shown(row, ranked[row, int(top_k) :])
        return of.shown(row, answers[row]) + (f", before {rest}" if rest else "")

    return answers, f"the {top_k} most probable", reason


def _by_cost(
    p: Array, ranked: Array, cost: Array, abstain_cost: float | None, labels: Array
) -> Found:
    costs = p @ cost
    # Costs that differ by rounding alone are the same: the more probable of the answers.
    near = costs <= costs.min(axis=1, keepdims=True) + _ROUNDING * np.abs(cost).max()
    first = np.take_along_axis(near, ranked, axis=1).argmax(axis=1)
    answers = ranked[np.arange(len(p)), first]
    if abstain_cost is not None:
        if not isinstance(abstain_cost, Real) or not np.isfinite(float(abstain_cost)):
            raise ValueError(f"abstain_cost is {abstain_cost!r}, but a finite number is needed")
        answers[costs.min(axis=1) > abstain_cost] = ABSTAINS

    def reason(of: Decisions, row: int) -> str:
        best = int(ranked[row, first[row]])
        least = f"answering {labels[best]} costs {costs[row, best]:.3g} on average"
        probable = f"the most probable are {of.shown(row, ranked[row])}"
        if answers[row] == ABSTAINS:
            return f"no answer: it costs {abstain_cost:g}, and {least}; {probable}"
        return f"{least}, the least; {probable}"

    return answers, "the least mean cost", reason


def _sets(p: Array, coverage: Any, held_out: Any, ranked: Array, labels: Array) -> Found:
    if isinstance(coverage, PredictionSets):
        if held_out is not None:
            raise ValueError(
                "held_out is given, but coverage is PredictionSets, which bring their threshold: "
                "give a number as coverage, or leave held_out out"
            )
        sets = coverage
    elif held_out is None:
        raise ValueError(
            "coverage needs rows that neither training nor calibration has used: "
            "held_out=(probabilities, classes)"
        )
    else:
        if not isinstance(held_out, (tuple, list)) or len(held_out) != 2:
            raise ValueError(
                f"held_out is of type {type(held_out).__name__}, but a pair is needed: "
                "(probabilities, classes)"
            )
        known, y = held_out
        sets = PredictionSets(coverage, classes=labels).fit(known, y)
    answers = sets.predict(p)

    def reason(of: Decisions, row: int) -> str:
        held, left_out = (
            ranked[row][answers[row, ranked[row]] == there] for there in (True, False)
        )
        return of.shown(row, held) + (
            f", and not {of.shown(row, left_out)}" if len(left_out) else ""
        )

    return answers, f"sets that hold the true class in {sets.coverage:.4g} of all cases", reason


def _matrix(cost: Any, k: int) -> Array:
    found = _numbers("cost", cost)
    if found.shape != (k, k):
        raise ValueError(
            f"cost has shape {found.shape}, but ({k}, {k}) is needed: a row for each true class, "
            "a column for each answer"
        )
    if not np.isfinite(found).all():
        raise ValueError("cost holds NaN or infinity, but finite numbers are needed")
    return found


def _numbers(name: str, given: Any) -> NDArray[np.float64]:
    try:
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} is {given!r:.60}, but an array of numbers is needed ({error})"
        ) from error


def _moved(p: Array, prior: Any, trained_prior: Any) -> tuple[Array, Array, str]:
    """Probabilities under other class frequencies, and by how much the scores move."""
    if trained_prior is None:
        raise ValueError(
            "prior needs trained_prior, how frequent the classes were in training, to be set "
            "against it"
        )
    k = p.shape[1]
    old = _frequencies("trained_prior", trained_prior, k)
    if isinstance(prior, str):
        if prior != "estimate":
            raise ValueError(f"prior is {prior!r}, but frequencies or 'estimate' are needed")
        new, said = estimate_prior(p, old), "estimated class frequencies"
    else:
        new, said = _frequencies("prior", prior, k), "new class frequencies"
    if ((old == 0) & (new > 0)).any():
        raise ValueError(
            f"trained_prior is 0 for column {int(((old == 0) & (new > 0)).argmax())}, and prior is "
            "not: nothing was learnt of that class"
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.where(new > 0, np.log(new / old), -np.inf)
    return _reweighed(p, new, old), moved, f", by {said}"


def _frequencies(name: str, given: Any, k: int) -> NDArray[np.float64]:
    found = _numbers(name, given)
    if found.shape != (k,) or len(no_distributions(found[None])):
        raise ValueError(
            f"{name} is {np.array2string(found, threshold=6)}, but {k} numbers are needed that are "
            "not negative and sum to 1"
        )
    frequencies: NDArray[np.float64] = found / found.sum()
    return frequencies


def _reweighed(p: Array, new: Array, old: Array) -> Array:
    moved = p * np.divide(new, old, out=np.zeros_like(new), where=old > 0)
    total = moved.sum(axis=1, keepdims=True)
    # A row of nothing but classes that are there no more: they stay as they were.
    reweighed: Array = np.divide(moved, total, out=p.copy(), where=total > 0)
    return reweighed


def estimate_prior(p: Any, trained_prior: Any) -> NDArray[np.float64]:
    """How frequent the classes are where p comes from, if only their frequencies have changed.

    Parameters
    ----------
    p : array_like, shape (N, K)
        Calibrated probabilities of a model that was trained under `trained_prior`.
    trained_prior : array_like, shape (K,)

    Returns
    -------
    ndarray, shape (K,)

    References
    ----------
    Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori
    probabilities: a simple procedure", 2002: expectation maximisation.

    Examples
    --------
    >>> import numpy as np
    >>> from softly.decisions import estimate_prior
    >>> p = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.2, 0.8]])
    >>> estimate_prior(p, [0.5, 0.5]).round(2)
    array([0.97, 0.03])
    """
    p = probabilities(p).astype(np.float64)
    old = _frequencies("trained_prior", trained_prior, p.shape[1])
    new = old
    for _ in range(_MOST_STEPS):
        before, new = new, _reweighed(p, new, old).mean(axis=0)
        if np.abs(new - before).max() <= _NEAR:
            break
    return new
