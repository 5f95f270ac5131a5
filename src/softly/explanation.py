"""Softmax step by step: every number on the way from scores to probabilities."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from string import ascii_uppercase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softly.functions import log_softmax, sigmoid, softmax

__all__ = ["CrossEntropy", "Explanation", "Sigmoid", "explain"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sigmoid:
    """What softmax is for two classes: a function of one number.

    Attributes
    ----------
    difference : float
        The first class's score less the second's, divided by the temperature.
    value : float
        The sigmoid of it: the first class's probability.
    """

    difference: float
    value: float


@dataclass(frozen=True)
class CrossEntropy:
    """How badly the scores predict the class that came.

    Attributes
    ----------
    true_class : str
    value : float
        Minus the natural logarithm of its probability.
    gradient_of_scaled_scores : list of float
        ``p - target``, the derivative with respect to each score divided by the temperature.
    """

    true_class: str
    value: float
    gradient_of_scaled_scores: list[float]


@dataclass(frozen=True)
class Explanation:
    """The softmax of some scores, with all numbers on the way. One entry a class in each list.

    Attributes
    ----------
    classes : list of str
    scores : list of float
        As given; infinite ones stand for the limit.
    temperature : float
    scaled_scores : list of float
        Scores divided by the temperature.
    shifted_scores : list of float
        Scores less the greatest of them, divided by the temperature: at most 0. Softmax is the
        same with or without it, and no exponential overflows.
    exponentials : list of float
        Of the shifted scores.
    sum_of_exponentials : float
    probabilities : list of float
        Exponentials divided by their sum.
    chosen : str
        The class with the greatest score, the first if several have it.
    tied : int
        How many have it.
    margin : float
        The greatest probability less the next; 1 where there is no next.
    entropy : float
        In nats.
    perplexity : float
        Its exponential: between how many equally probable classes one would be as unsure.
    sigmoid : Sigmoid or None
        For two classes.
    cross_entropy : CrossEntropy or None
        Where a true class was given.
    """

    classes: list[str]
    scores: list[float]
    temperature: float
    scaled_scores: list[float]
    shifted_scores: list[float]
    exponentials: list[float]
    sum_of_exponentials: float
    probabilities: list[float]
    chosen: str
    tied: int
    margin: float
    entropy: float
    perplexity: float
    sigmoid: Sigmoid | None
    cross_entropy: CrossEntropy | None

    def to_dict(self) -> dict[str, Any]:
        """Numbers and text, ready for JSON.

        JSON has no infinity: it is the text ``Infinity`` or ``-Infinity``, which `float` reads,
        and JavaScript's `Number` too.
        """
        fields: dict[str, Any] = _finite(asdict(self))
        return fields

    def leading(self, most: int) -> list[int]:
        """The most probable classes, best first, and the true one in any case."""
        order = np.argsort(-np.asarray(self.scores), kind="stable")[:most].tolist()
        if self.cross_entropy:
            true = self.classes.index(self.cross_entropy.true_class)
            order += [true] if true not in order else []
        found: list[int] = order
        return found


def explain(
    scores: Sequence[float],
    *,
    classes: Sequence[str] | None = None,
    temperature: float = 1.0,
    true: str | None = None,
) -> Explanation:
    r"""Explain the softmax of some scores.

    .. math:: p_i = \frac{\exp((z_i - \max z) / T)}{\sum_j \exp((z_j - \max z) / T)}

    Parameters
    ----------
    scores : sequence of float
        One for each class. A score of ``-inf`` has probability 0; those of ``inf`` share 1.
    classes : sequence of str, optional
        Their names; without them A, B, C and so on, and numbers beyond 26.
    temperature : float
        T, above 0: below 1 it makes the greatest more certain, above 1 less.
    true : str, optional
        The class that came, for the cross-entropy and its gradient.

    Returns
    -------
    Explanation

    Raises
    ------
    ValueError
        If there is no answer, or the names do not fit the scores.

    Examples
    --------
    >>> from softly.explanation import explain
    >>> found = explain([2.0, 1.0, 0.1], classes=["cat", "dog", "bird"], true="cat")
    >>> [round(p, 4) for p in found.probabilities]
    [0.659, 0.2424, 0.0986]
    >>> found.chosen, round(found.sum_of_exponentials, 4)
    ('cat', 1.5174)
    >>> [round(g, 4) for g in found.cross_entropy.gradient_of_scaled_scores]
    [-0.341, 0.2424, 0.0986]
    """
    z, t = _sound_scores(scores), _sound_temperature(temperature)
    names = _sound_names(classes, len(z))
    if true is not None and true not in names:
        raise ValueError(f"the true class '{_short(true)}' is none of {_listed(names)}")
    p = np.asarray(softmax(z, temperature=t))
    log_p = np.asarray(log_softmax(z, temperature=t))
    shifted = _shifted(z, t)
    exponentials = np.exp(shifted)
    entropy = -float((p * np.where(p > 0, log_p, 0.0)).sum())
    best = np.sort(p)[::-1]
    with np.errstate(over="ignore"):
        scaled = z / t
    return Explanation(
        classes=names,
        scores=z.tolist(),
        temperature=t,
        scaled_scores=scaled.tolist(),
        shifted_scores=shifted.tolist(),
        exponentials=exponentials.tolist(),
        sum_of_exponentials=math.fsum(exponentials),
        probabilities=p.tolist(),
        chosen=names[int(z.argmax())],
        tied=int((z == z.max()).sum()),
        margin=float(best[0] - best[1]) if len(z) > 1 else 1.0,
        entropy=entropy + 0.0,  # no minus before a 0
        perplexity=math.exp(entropy),
        sigmoid=_sigmoid(shifted) if len(z) == 2 else None,
        cross_entropy=None if true is None else _cross_entropy(true, names, p, log_p),
    )


def _shifted(z: Array, t: float) -> Array:
    """(z - max z) / t, with the limit where the greatest is infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        away: Array = (z - z.max()) / t
    away[z == z.max()] = 0.0
    return away


def _sigmoid(shifted: Array) -> Sigmoid:
    difference = float(shifted[0] - shifted[1])
    return Sigmoid(difference, float(sigmoid(difference)))


def _cross_entropy(true: str, names: list[str], p: Array, log_p: Array) -> CrossEntropy:
    target = np.array([float(name == true) for name in names])
    value = -float(log_p[names.index(true)])
    return CrossEntropy(true, value + 0.0, (p - target).tolist())


def _finite(field: Any) -> Any:
    """The same with words for infinities, however deep they are."""
    if isinstance(field, dict):
        return {name: _finite(value) for name, value in field.items()}
    if isinstance(field, list):
        return [_finite(value) for value in field]
    if isinstance(field, float) and math.isinf(field):
        return "Infinity" if field > 0 else "-Infinity"
    return field


def _sound_scores(scores: Sequence[float]) -> Array:
    z = np.array(scores, dtype=np.float64)
    if z.ndim != 1 or not len(z):
        raise ValueError("scores are needed, one for each class, and none came")
    if np.isnan(z).any():
        number = int(np.isnan(z).argmax()) + 1
        raise ValueError(
            f"score {number} is NaN, which is no number: nothing can be said of the others beside "
            "it, so give it a number, or -inf to leave its class out"
        )
    if z.max() == -np.inf:
        raise ValueError(
            "every score is -inf, which leaves out every class: give at least one that is more"
        )
    return z


def _sound_temperature(temperature: float) -> float:
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"the temperature is {temperature:g}, but a finite one above 0 is needed: towards 0 "
            "the greatest score takes all, towards infinity all classes become alike"
        )
    return float(temperature)


def _sound_names(classes: Sequence[str] | None, count: int) -> list[str]:
    if classes is None:
        return list(ascii_uppercase[:count]) if count <= 26 else [str(i + 1) for i in range(count)]
    if len(classes) != count:
        raise ValueError(
            f"names of classes: {len(classes):,} came, but {count:,} are needed, one for each score"
        )
    for i, name in enumerate(classes):
        if not name.strip():
            raise ValueError(f"the name of class {i + 1} is empty: give each class a name")
        if not _is_text(name):
            raise ValueError(f"the name of class {i + 1} is not text in UTF-8: write it in that")
    if len(set(classes)) < count:
        twice = next(name for name, times in Counter(classes).items() if times > 1)
        raise ValueError(f"two classes are called '{_short(twice)}': give each its own name")
    return list(classes)


def _is_text(name: str) -> bool:
    """No half of a character, which is what bytes of another encoding come in as."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:39]}…"


def _listed(names: list[str]) -> str:
    return ", ".join(map(_short, names[:8])) + (", ..." if len(names) > 8 else "")
