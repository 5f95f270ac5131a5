"""Scores with their intervals, and that of a difference: the rows, drawn again by chance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, column_or_1d

from softly import targets
from softly.inputs import probabilities
from softly.metrics import MEASURES, Measure, Predictions

Array = NDArray[Any]

_RESAMPLES = 1000
_TAIL = 0.025
_BLOCK = 1 << 21  # weights drawn at once


@dataclass(frozen=True)
class Score:
    """A measure, and between what it may truly lie with 95 % confidence.

    Attributes
    ----------
    value, low, high : float
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


@dataclass(frozen=True)
class Comparison:
    """A measure of two predictions of the same rows.

    Attributes
    ----------
    a, b : Score
    difference : Score
        b less a. An interval that does not hold 0 is a difference that chance does not explain.
    """

    a: Score
    b: Score
    difference: Score

    def __str__(self) -> str:
        return f"{self.a.value:.4f} to {self.b.value:.4f}, by {self.difference}"


def measure(
    p: Any,
    y: Any,
    *,
    measures: Iterable[str] | None = None,
    classes: Any = None,
    sample_weight: Any = None,
    resamples: int = _RESAMPLES,
    random_state: int = 0,
) -> dict[str, Score]:
    """Measures of probabilities, each with its 95 % interval.

    Parameters
    ----------
    p : array_like, shape (N, K)
        Probabilities of the classes.
    y : array_like, shape (N,)
        The true classes.
    measures : iterable of str, optional
        Names of `softly.metrics.MEASURES`; all of them, if none are given.
    classes : array_like, shape (K,), optional
        Which label each column stands for. If none are given, the labels of y, sorted, where there
        are as many as columns; or 0 to K - 1.
    sample_weight : array_like, shape (N,), optional
    resamples : int, default=1000
        How often rows are drawn again.
    random_state : int, default=0
        Of the draws.

    Returns
    -------
    dict of str to Score

    Raises
    ------
    ValueError
        If a row of p is no distribution, labels do not fit the columns, or a measure is unknown.

    Notes
    -----
    Intervals are those of the basic bootstrap (Davison and Hinkley, 1997, section 5.2): as far
    below the score as draws are above it. Chance adds to a calibration error, and never takes away:
    the lower end is lower by the error that the draws have against the rows themselves.

    Examples
    --------
    >>> import numpy as np
    >>> from softly import measure
    >>> p = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    >>> print(measure(p, [0, 0, 1, 1], measures=["accuracy"])["accuracy"])
    0.7500 (0.5000 to 1.0000)
    """
    of = _predictions(p, y, classes, sample_weight)
    return measure_predictions(of, measures, resamples, random_state)


def measure_predictions(
    of: Predictions,
    measures: Iterable[str] | None = None,
    resamples: int = _RESAMPLES,
    random_state: int = 0,
) -> dict[str, Score]:
    """`measure`, of predictions that were checked."""
    named = _named(measures, of)
    draws = _draws(list(named.values()), of.each, resamples, random_state)
    return {
        name: _score(made, drawn) for (name, made), drawn in zip(named.items(), draws, strict=True)
    }


def compare(
    a: Any,
    b: Any,
    y: Any,
    *,
    measures: Iterable[str] | None = None,
    classes: Any = None,
    sample_weight: Any = None,
    resamples: int = _RESAMPLES,
    random_state: int = 0,
) -> dict[str, Comparison]:
    """Measures of two predictions of the same rows, and the 95 % interval of each difference.

    Far narrower than two intervals beside each other tell, since a row that is hard for one is
    hard for the other.

    Parameters
    ----------
    a, b : array_like, shape (N, K)
        Probabilities, before and after.
    y, measures, classes, sample_weight, resamples, random_state
        As for `measure`.

    Returns
    -------
    dict of str to Comparison

    Raises
    ------
    ValueError
        As `measure` does, and if a and b are of different shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from softly import compare
    >>> a = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    >>> found = compare(a, a[:, ::-1], [0, 0, 1, 1], measures=["accuracy"])
    >>> found["accuracy"].difference.value
    -0.5
    """
    first = _predictions(a, y, classes, sample_weight)
    second = _predictions(b, y, classes, sample_weight)
    return compare_predictions(first, second, measures, resamples, random_state)


def compare_predictions(
    first: Predictions,
    second: Predictions,
    measures: Iterable[str] | None = None,
    resamples: int = _RESAMPLES,
    random_state: int = 0,
) -> dict[str, Comparison]:
    """`compare`, of predictions that were checked."""
    if first.p.shape != second.p.shape:
        raise ValueError(
            f"a has shape {first.p.shape} and b {second.p.shape}, but both are of the same rows"
        )
    one, other = _named(measures, first), _named(measures, second)
    both = [*one.values(), *other.values()]
    draws = _draws(both, first.each, resamples, random_state)
    found = {}
    for i, name in enumerate(one):
        of_a, of_b = draws[i], draws[i + len(one)]
        a, b = _score(one[name], of_a), _score(other[name], of_b)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            apart = _interval(b.value - a.value, of_b.values - of_a.values)
        found[name] = Comparison(a, b, apart)
    return found


def _predictions(p: Any, y: Any, classes: Any, sample_weight: Any) -> Predictions:
    p, y = probabilities(p), column_or_1d(y)
    if len(p) != len(y) or not len(y):
        raise ValueError(
            f"p has {len(p)} rows and y {len(y)}, but as many, and one or more, are needed"
        )
    check_classification_targets(y)
    _, target = targets.columns_of(y, p.shape[1], classes)
    weight = None
    if sample_weight is not None:
        weight = _check_sample_weight(sample_weight, p, dtype=np.float64, ensure_non_negative=True)
        if not weight.any():
            raise ValueError("sample_weight is 0 for all rows, but one above 0 is needed")
    return Predictions(p, target, weight=weight)


def _named(measures: Iterable[str] | None, of: Predictions) -> dict[str, Measure]:
    if isinstance(measures, str):
        raise ValueError(f"measures is {measures!r}, but a list of names is needed: [{measures!r}]")
    names = list(MEASURES if measures is None else measures)
    unknown = [name for name in names if name not in MEASURES]
    if unknown or not names:
        said = f"{unknown[0]!r} is no measure" if unknown else "measures holds no measure"
        raise ValueError(f"{said}, but some of {', '.join(MEASURES)} are needed")
    return {name: MEASURES[name](of) for name in names}


@dataclass(frozen=True)
class _Drawn:
    """What a measure would be for rows drawn again, and what chance adds to it, if it does."""

    values: Array
    noise: Array | None


def _draws(
    measures: list[Measure], weight: Array, resamples: int, random_state: int
) -> list[_Drawn]:
    parts: list[list[Array]] = [[] for _ in measures]
    noise: list[list[Array]] = [[] for _ in measures]
    for counts in _counts(len(weight), resamples, random_state):
        drawn = counts * weight
        drawn = drawn[drawn.any(axis=1)]
        for i, made in enumerate(measures):
            if made.with_noise is None:
                parts[i].append(made.by_weight(drawn))
                continue
            for kept, found in zip((parts[i], noise[i]), made.with_noise(drawn), strict=True):
                kept.append(found)
    return [
        _Drawn(np.concatenate(values), np.concatenate(sizes) if sizes else None)
        for values, sizes in zip(parts, noise, strict=True)
    ]


def _counts(n: int, resamples: int, random_state: int) -> Iterator[Array]:
    """How often each row is drawn, when as many are drawn as there are."""
    if not isinstance(resamples, Integral) or resamples < 2:
        raise ValueError(f"resamples is {resamples!r}, but a whole number from 2 up is needed")
    random, step = np.random.RandomState(random_state), max(1, _BLOCK // n)
    for start in range(0, resamples, step):
        some = min(step, resamples - start)
        rows = random.randint(n, size=(some, n)) + n * np.arange(some)[:, None]
        yield np.bincount(rows.ravel(), minlength=some * n).reshape(some, n).astype(np.float64)


def _score(made: Measure, drawn: _Drawn) -> Score:
    score = _interval(made.value(), drawn.values, made.least, made.most)
    if np.isfinite(made.most) and score.low == score.high in (made.least, made.most):
        return _at_the_edge(made, score.value)
    if drawn.noise is None:
        return score
    # Sizes of gaps: no further above the truth than gaps are from the true ones.
    low = score.value - float(np.quantile(drawn.noise, 1 - _TAIL))
    return Score(score.value, max(low, made.least), score.high)


def _at_the_edge(made: Measure, value: float) -> Score:
    """As far from it as a mean may be, of which no row says so."""
    rows = made.each.sum() ** 2 / (made.each**2).sum()  # as many as their weights are worth
    far = (made.most - made.least) * (1 - _TAIL ** (1 / rows))
    low, high = max(value - far, made.least), min(value + far, made.most)
    return Score(value, float(low), float(high))


def _interval(value: float, drawn: Array, least: float = -np.inf, most: float = np.inf) -> Score:
    """As far to the other side of the value as the draws are to this one."""
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not len(drawn):
        return Score(value, value, value)
    below, above = np.quantile(drawn, [_TAIL, 1 - _TAIL])
    low, high = np.clip([2 * value - above, 2 * value - below], least, most)
    # Draws of a measure that chance adds to may all lie on one side of it.
    return Score(value, min(float(low), value), max(float(high), value))
