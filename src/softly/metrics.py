"""How good probabilities are: the one place that counts, and the one place that bins.

A measure is a function of what rows weigh: with all weights 1 it is the score, and with weights
drawn by chance what the score might as well have been (`softly.resampling`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import scipy.fft
import scipy.sparse as sp
import scipy.special
import scipy.stats
from numpy.typing import NDArray

from softly.functions import log_softmax
from softly.targets import of_target

Array = NDArray[Any]

BINS = 15
_GRID = 512  # places from 0 to 1 where the smooth calibration error looks
_HALVINGS = 25


@dataclass(frozen=True)
class Predictions:
    """What was said of rows, and what was true.

    Attributes
    ----------
    p : ndarray, shape (N, K)
        Probabilities.
    target : ndarray of int, shape (N,)
        The true classes, 0 to K - 1.
    scores : ndarray, shape (N, K), optional
        The logits that the probabilities were made of: where rounding made two of those the same,
        these decide, and no loss is infinite for it.
    weight : ndarray of float64, shape (N,), optional
        What each row counts.
    """

    p: Array
    target: Array
    scores: Array | None = None
    weight: Array | None = None

    @cached_property
    def each(self) -> Array:
        """What each row counts, 1 unless said."""
        return np.ones(len(self.target)) if self.weight is None else self.weight

    @cached_property
    def class_gaps(self) -> dict[Any, Any]:
        """What measures that bin by class have made, by the bins' number and kind."""
        return {}

    @cached_property
    def predicted(self) -> NDArray[np.intp]:
        """The most probable classes."""
        most: NDArray[np.intp] = (self.p if self.scores is None else self.scores).argmax(axis=1)
        return most

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        same: NDArray[np.bool_] = self.predicted == self.target
        return same

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """The probability of the predicted class."""
        most: NDArray[np.float64] = self.p.max(axis=1).astype(np.float64)
        return most

    @cached_property
    def of_target(self) -> NDArray[np.float64]:
        """The probability of the true class."""
        return of_target(self.p, self.target).astype(np.float64)

    @cached_property
    def loss(self) -> NDArray[np.float64]:
        """Minus the log of that, infinite where it is 0."""
        if self.scores is None:
            with np.errstate(divide="ignore"):
                return -np.log(self.of_target)
        log_p = log_softmax(self.scores, axis=1)
        return -of_target(log_p, self.target).astype(np.float64)


@dataclass(frozen=True)
class Measure:
    """A measure of some predictions.

    Attributes
    ----------
    by_weight : callable
        From weights of the rows, shape (B, N) and not negative, to a number for each of B.
    each : ndarray, shape (N,)
        What the rows weigh as they are.
    least, most : float
        What it can be.
    with_noise : callable, optional
        Of a measure that adds up sizes of gaps: `by_weight`, and the same of how far the gaps are
        from those of the rows as they are. Chance adds to such a measure, and never takes away: no
        more than this.
    """

    by_weight: Callable[[Array], Array]
    each: Array
    least: float = 0.0
    most: float = 1.0
    with_noise: Callable[[Array], tuple[Array, Array]] | None = None

    def value(self) -> float:
        """Of the rows as they are."""
        return float(self.by_weight(self.each[None])[0])


def _of_means(
    of: Predictions,
    rows: Any,
    finish: Callable[[Array], Array],
    most: float = 1.0,
    noisy: bool = False,
) -> Measure:
    """A function of weighted means over the rows of (N, M) numbers: of means (B, M)."""

    def means(weight: Array) -> Array:
        found: Array = (weight @ rows) / weight.sum(axis=1, keepdims=True)
        return found

    def with_noise(weight: Array) -> tuple[Array, Array]:
        found = means(weight)
        return finish(found), finish(found - means(of.each[None]))

    return Measure(
        lambda weight: finish(means(weight)), of.each, 0.0, most, with_noise if noisy else None
    )


def _mean(of: Predictions, row: Array, most: float = 1.0) -> Measure:
    return _of_means(of, row[:, None], lambda means: means[:, 0], most)


# --- Is it right, and how sure -------------------------------------------------------------------


def log_loss(of: Predictions) -> Measure:
    """The mean of minus the log of the probability given to the true class.

    Infinite where that is 0 for a row that has weight.

    Examples
    --------
    >>> of = Predictions(np.array([[0.8, 0.2], [0.5, 0.5]]), np.array([0, 1]))
    >>> round(log_loss(of).value(), 4)
    0.4581
    """
    impossible = np.isinf(of.loss)
    return _of_means(
        of,
        np.stack([np.where(impossible, 0.0, of.loss), impossible], axis=1),
        lambda means: np.where(means[:, 1] > 0, np.inf, means[:, 0]),
        most=np.inf,
    )


def brier_score(of: Predictions) -> Measure:
    """The mean squared distance of the probabilities from the truth: 0 best, 2 worst.

    References
    ----------
    Brier, "Verification of forecasts expressed in terms of probability", 1950.

    Examples
    --------
    >>> of = Predictions(np.array([[0.8, 0.2], [0.5, 0.5]]), np.array([0, 1]))
    >>> round(brier_score(of).value(), 4)
    0.29
    """
    return _mean(of, _squares(of), most=2.0)


def _squares(of: Predictions) -> Array:
    # |p - onehot|^2 = |p|^2 - 2 p[target] + 1
    squares: Array = np.einsum("ij,ij->i", of.p, of.p, dtype=np.float64) - 2 * of.of_target + 1
    return squares


def accuracy(of: Predictions) -> Measure:
    """The share of rows whose predicted class is the true one."""
    return _mean(of, of.correct)


def top_k_accuracy(of: Predictions, k: int = 5) -> Measure:
    """The share of rows whose true class is among the k most probable.

    Of classes as probable as the true one, those with a lower number come first, as in `predicted`.
    """
    scores = of.p if of.scores is None else of.scores
    own = of_target(scores, of.target)[:, None]
    before = np.arange(scores.shape[1]) < of.target[:, None]
    rank = ((scores > own) | ((scores == own) & before)).sum(axis=1)
    return _mean(of, rank < k)


def balanced_accuracy(of: Predictions) -> Measure:
    """The mean, over the classes that occur, of the share of their rows that is found."""
    k = of.p.shape[1]
    right = _indicators(of.target, k, of.correct)
    rows = sp.hstack([right, _indicators(of.target, k)], format="csr")
    return _of_means(of, rows, lambda means: _mean_ratio(means[:, :k], means[:, k:]))


def macro_f1(of: Predictions) -> Measure:
    """The mean of the classes' F1, over those that occur or are predicted."""
    k = of.p.shape[1]
    right = _indicators(of.target, k, 2 * of.correct)
    either = _indicators(of.target, k) + _indicators(of.predicted, k)
    rows = sp.hstack([right, either], format="csr")
    return _of_means(of, rows, lambda means: _mean_ratio(means[:, :k], means[:, k:]))


def _indicators(column: Array, k: int, value: Array | None = None) -> Any:
    """Rows with one number each, in the column given: CSR, (N, k)."""
    numbers = np.ones(len(column)) if value is None else value.astype(np.float64)
    return _placed(numbers[:, None], column[:, None], k)


def _placed(numbers: Array, columns: Array, width: int) -> Any:
    """Rows with a few numbers each (N, M), in the columns given: CSR, (N, width)."""
    n, m = numbers.shape
    starts = np.arange(0, n * m + 1, m)
    return sp.csr_array((numbers.ravel(), columns.ravel(), starts), shape=(n, width))


def _mean_ratio(above: Array, below: Array) -> Array:
    """The mean of the ratios whose denominator is above 0."""
    there = below > 0
    ratios = np.divide(above, below, out=np.zeros_like(above), where=there)
    mean: Array = ratios.sum(axis=1) / there.sum(axis=1)
    return mean


def confusion_matrix(predicted: Array, target: Array, n_classes: int) -> NDArray[np.int64]:
    """How often each true class (row) was given each predicted class (column).

    Examples
    --------
    >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 1, 0]), 2)
    array([[1, 1],
           [0, 1]])
    """
    pairs = np.bincount(target * n_classes + predicted, minlength=n_classes**2)
    return pairs.reshape(n_classes, n_classes)


@dataclass(frozen=True)
class ByClass:
    """How each class is found.

    Attributes
    ----------
    rows, predicted : ndarray of int, shape (K,)
        How often it is true, and how often it is the answer.
    precision, recall, f1 : ndarray, shape (K,)
        NaN where there is nothing to count: no answer, no row, or neither.
    probability : ndarray, shape (K,)
        The mean of what is given to it where it is true; NaN without a row.
    """

    rows: NDArray[np.int64]
    predicted: NDArray[np.int64]
    precision: Array
    recall: Array
    f1: Array
    probability: Array


def by_class(of: Predictions) -> ByClass:
    """Precision, recall, F1 and the mean probability of each class.

    Examples
    --------
    >>> p = np.array([[0.8, 0.2], [0.5, 0.5], [0.9, 0.1]])
    >>> by_class(Predictions(p, np.array([0, 0, 1]))).recall
    array([1., 0.])
    """
    k = of.p.shape[1]
    rows, predicted = (np.bincount(x, minlength=k) for x in (of.target, of.predicted))
    right = np.bincount(of.target[of.correct], minlength=k)
    given = np.bincount(of.target, of.of_target, minlength=k)
    return ByClass(
        rows=rows,
        predicted=predicted,
        precision=_ratio(right, predicted),
        recall=_ratio(right, rows),
        f1=_ratio(2 * right, rows + predicted),
        probability=_ratio(given, rows),
    )


def _ratio(above: Array, below: Array) -> Array:
    """NaN where there is nothing below."""
    ratio: Array = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return ratio


def roc_auc(of: Predictions) -> Measure:
    """The mean of the classes' areas under the ROC curve, each against the rest.

    Of the classes that some rows have and some have not. Other weights move it as each row's
    own part does, its rank among the rows of the other kind (DeLong, 1988); of the rows as they are
    it is scikit-learn's ``roc_auc_score(multi_class="ovr")``.
    """
    k = of.p.shape[1]
    ranked = (_ranked(of.p[:, j], of.target == j, of.each) for j in range(k))
    parts = [part for part in ranked if part is not None]
    if not parts:
        return Measure(lambda weight: np.full(len(weight), np.nan), of.each)
    rows = np.concatenate([part for part, _ in parts], axis=1)
    areas = np.array([area for _, area in parts])

    def finish(means: Array) -> Array:
        won, ones, lost, others = means.reshape(len(means), -1, 4).transpose(2, 0, 1)
        there = (ones > 0) & (others > 0)
        each = won / np.where(there, ones, 1) + lost / np.where(there, others, 1) - areas
        count = there.sum(axis=1)
        total = (each * there).sum(axis=1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    return _of_means(of, rows, finish)


def _ranked(score: Array, is_one: NDArray[np.bool_], weight: Array) -> tuple[Array, float] | None:
    """Each row's part of an area, by how much of the other kind it outdoes; and the area."""
    ones, others = weight * is_one, weight * ~is_one
    if not (ones.any() and others.any()):
        return None
    _, place = np.unique(score, return_inverse=True)

    def share_below(kind: Array) -> Array:
        """How much of a kind has a lower score, and half of what has the same."""
        mass = np.bincount(place, weights=kind)
        below: Array = (np.cumsum(mass) - mass / 2)[place] / kind.sum()
        return below

    part = np.where(is_one, share_below(others), 1 - share_below(ones))
    parts = np.stack([part * is_one, is_one, part * ~is_one, ~is_one], axis=1)
    return parts, float(np.average(part, weights=ones))


# --- Can it be believed --------------------------------------------------------------------------


@dataclass(frozen=True)
class Bins:
    """Neighbouring numbers from 0 to 1, each taken with its upper edge, the first also with 0.

    Attributes
    ----------
    inner : ndarray, shape (M - 1,)
        The edges between them.
    """

    inner: NDArray[np.float64]

    @classmethod
    def equal_mass(cls, numbers: Array, weight: Array | None, count: int = BINS) -> Bins:
        """With as many of the numbers each; those that are the same are never parted."""
        at = np.linspace(0, 1, count + 1)[1:-1]
        if weight is None:
            return cls(np.quantile(numbers, at))
        return cls(np.quantile(numbers, at, weights=weight, method="inverted_cdf"))

    @classmethod
    def equal_width(cls, numbers: Array, weight: Array | None, count: int = BINS) -> Bins:
        return cls(np.linspace(0, 1, count + 1)[1:-1])

    @property
    def count(self) -> int:
        return len(self.inner) + 1

    def of(self, numbers: Array) -> NDArray[np.intp]:
        """Which bin each is in."""
        return np.searchsorted(self.inner, numbers, side="left")


Cut = Callable[[Array, Array | None, int], Bins]


def calibration_error(
    of: Predictions, bins: int = BINS, cut: Cut = Bins.equal_mass, debiased: bool = False
) -> Measure:
    r"""How far confidence is from the share of right answers, on average over bins.

    .. math:: \sum_b \frac{n_b}{N} \, |\mathrm{confidence}_b - \mathrm{accuracy}_b|

    Debiased, it is less by what chance adds to it: the mean of what it would be if the shares
    scattered around those seen, less what it is.

    Parameters
    ----------
    of : Predictions
    bins : int
    cut : callable
        `Bins.equal_mass` or `Bins.equal_width`.
    debiased : bool

    References
    ----------
    Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
    binning", 2015; bins of equal mass as in Nguyen and O'Connor, 2015; Kumar, Liang and Ma,
    "Verified uncertainty calibration", 2019, for the bias.

    Examples
    --------
    >>> p = np.array([[0.75, 0.25]] * 4)
    >>> calibration_error(Predictions(p, np.array([0, 0, 0, 1]))).value()
    0.0
    """
    rows = _binned(of, of.confidence, of.correct, bins, cut)
    if not debiased:
        return _of_means(of, rows, lambda means: np.abs(_gaps(means)).sum(axis=1), noisy=True)
    n = of.each.sum() ** 2 / (of.each @ of.each)  # rows that count

    def finish(means: Array) -> Array:
        mass, right = means[:, 0::3], means[:, 2::3]
        share = np.divide(right, mass, out=np.zeros_like(mass), where=mass > 0)
        error = np.sqrt(share * (1 - share) * mass / n)  # of the gap
        gap = np.abs(_gaps(means))
        less: Array = 2 * gap.sum(axis=1) - _mean_size(gap, error).sum(axis=1)
        return np.maximum(less, 0)

    return _of_means(of, rows, finish)


def _gaps(means: Array) -> Array:
    return means[:, 1::3] - means[:, 2::3]


def _mean_size(mean: Array, deviation: Array) -> Array:
    """The mean of |x| of a normal x."""
    ratio = np.divide(mean, deviation, out=np.full_like(mean, np.inf), where=deviation > 0)
    normal = np.exp(-(ratio**2) / 2) / np.sqrt(2 * np.pi)
    size: Array = 2 * deviation * normal + mean * (1 - 2 * scipy.special.ndtr(-ratio))
    return size


def _binned(of: Predictions, number: Array, right: Array, bins: int, cut: Cut) -> Any:
    """For each bin: is a row there, its number, is it right. CSR, (N, 3 bins)."""
    edges = cut(number, of.weight, bins)
    columns = 3 * edges.of(number)[:, None] + np.arange(3)
    values = np.stack([np.ones(len(number)), number, right.astype(np.float64)], axis=1)
    return _placed(values, columns, 3 * edges.count)


def class_calibration_error(
    of: Predictions, bins: int = BINS, cut: Cut = Bins.equal_mass
) -> Measure:
    """`calibration_error` of each class's probability as it is, on average over the classes.

    References
    ----------
    Kull et al., "Beyond temperature scaling: obtaining well-calibrated multi-class probabilities
    with Dirichlet calibration", 2019.
    """
    k = of.p.shape[1]
    gaps = _class_gaps(of, bins, cut)
    return _of_means(of, gaps, lambda means: np.abs(means).sum(axis=1) / k, noisy=True)


def brier_calibration(of: Predictions, bins: int = BINS, cut: Cut = Bins.equal_mass) -> Measure:
    """The part of the Brier score that calibration could take away: see `brier_refinement`.

    The mean square of how far, in each class's bins, probability is from frequency.

    References
    ----------
    Murphy, "A new vector partition of the probability score", 1973.
    """
    return _of_means(of, _class_gaps_and_mass(of, bins, cut), _mean_square_of_gaps, most=2.0)


def brier_refinement(of: Predictions, bins: int = BINS, cut: Cut = Bins.equal_mass) -> Measure:
    """The Brier score less its calibration part: what only a better model can take away."""
    whole, part = brier_score(of), brier_calibration(of, bins, cut)
    return Measure(lambda weight: whole.by_weight(weight) - part.by_weight(weight), of.each, most=2)


def _class_gaps(of: Predictions, bins: int, cut: Cut) -> Any:
    """In each class's bin of a row: its probability, less 1 if it is true. CSR, (N, K bins)."""
    if (bins, cut) not in of.class_gaps:
        n, k = of.p.shape
        gap, column = of.p.astype(np.float64), np.empty((n, k), np.int32)
        for j in range(k):
            column[:, j] = cut(gap[:, j], of.weight, bins).of(gap[:, j]) + j * bins
        gap[np.arange(n), of.target] -= 1
        of.class_gaps[bins, cut] = _placed(gap, column, k * bins)
    return of.class_gaps[bins, cut]


def _class_gaps_and_mass(of: Predictions, bins: int, cut: Cut) -> Any:
    """The same, and then a 1 in each of those bins: CSR, (N, 2 K bins)."""
    gaps, shape = _class_gaps(of, bins, cut), of.p.shape
    gap, column, width = gaps.data.reshape(shape), gaps.indices.reshape(shape), gaps.shape[1]
    both = np.concatenate([gap, np.ones(shape)], axis=1)
    return _placed(both, np.concatenate([column, column + width], axis=1), 2 * width)


def _mean_square_of_gaps(means: Array) -> Array:
    gap, mass = np.split(means, 2, axis=1)
    squares: Array = np.divide(gap**2, mass, out=np.zeros_like(mass), where=mass > 0).sum(axis=1)
    return squares


def smooth_calibration_error(of: Predictions) -> Measure:
    """How far confidence is from the share of right answers nearby, without bins.

    The residuals of the answers, smoothed along confidence by a reflected Gaussian whose width is
    the result itself.

    References
    ----------
    Blasiok and Nakkiran, "Smooth ECE: principled reliability diagrams via kernel smoothing", 2023.
    """
    place = of.confidence * (_GRID - 1)
    left = np.minimum(place.astype(np.intp), _GRID - 2)
    share = place - left
    residual = of.confidence - of.correct
    values = np.stack([residual * (1 - share), residual * share], axis=1)
    columns = np.stack([left, left + 1], axis=1)
    return _of_means(of, _placed(values, columns, _GRID), _smooth_error, noisy=True)


def _smooth_error(residuals: Array) -> Array:
    """Where the smoothed size of the residuals (B, M) is the width of smoothing, by halving."""
    waves = scipy.fft.dct(residuals, axis=1)  # a cosine series reflects at both ends
    low, high = np.zeros(len(residuals)), np.ones(len(residuals))
    frequency = np.pi * np.arange(residuals.shape[1]) * (1 - 1 / _GRID)
    for _ in range(_HALVINGS):
        width = (low + high) / 2
        damped = waves * np.exp(-((width[:, None] * frequency) ** 2) / 2)
        size = np.abs(scipy.fft.idct(damped, axis=1)).sum(axis=1)
        low, high = np.where(size > width, width, low), np.where(size > width, high, width)
    return (low + high) / 2


@dataclass(frozen=True)
class Reliability:
    """Confidence beside the share of right answers, bin by bin; empty ones are left out.

    Attributes
    ----------
    confidence : ndarray, shape (M,)
        The mean in each bin.
    accuracy : ndarray, shape (M,)
    low, high : ndarray, shape (M,)
        An interval of the accuracy (Clopper and Pearson, 1934), 95 %.
    count : ndarray of int, shape (M,)
        Rows.
    """

    confidence: Array
    accuracy: Array
    low: Array
    high: Array
    count: Array


def reliability(of: Predictions, bins: int = BINS, cut: Cut = Bins.equal_mass) -> Reliability:
    """The reliability curve: where it is below the diagonal, the model is too sure.

    Parameters
    ----------
    of : Predictions
    bins : int
    cut : callable
        `Bins.equal_mass` or `Bins.equal_width`.
    """
    rows = _binned(of, of.confidence, of.correct, bins, cut)
    sums = np.asarray(rows.sum(axis=0)).reshape(-1, 3)
    count, confidence, right = sums[sums[:, 0] > 0].T
    wrong = count - right
    beta = scipy.stats.beta
    return Reliability(
        confidence=confidence / count,
        accuracy=right / count,
        low=np.where(right > 0, beta.ppf(0.025, np.maximum(right, 1), wrong + 1), 0.0),
        high=np.where(wrong > 0, beta.ppf(0.975, right + 1, np.maximum(wrong, 1)), 1.0),
        count=count.astype(np.int64),
    )


def confidences(of: Predictions, bins: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many right and how many wrong answers are how sure, in bins of equal width.

    Examples
    --------
    >>> p = np.array([[0.8, 0.2], [0.5, 0.5], [0.9, 0.1]])
    >>> right, wrong = confidences(Predictions(p, np.array([0, 0, 1])), bins=4)
    >>> right, wrong
    (array([0, 1, 0, 1]), array([0, 0, 0, 1]))
    """
    place = Bins.equal_width(of.confidence, None, bins).of(of.confidence)
    right, wrong = (np.bincount(place[x], minlength=bins) for x in (of.correct, ~of.correct))
    return right, wrong


# --- What if it may abstain ----------------------------------------------------------------------


@dataclass(frozen=True)
class RiskCoverage:
    """The share of wrong answers among the most confident rows.

    Attributes
    ----------
    coverage : ndarray, shape (N,)
        The share of rows that are answered, the most confident first.
    risk : ndarray, shape (N,)
    """

    coverage: Array
    risk: Array


def risk_coverage(of: Predictions) -> RiskCoverage:
    """The risk-coverage curve (El-Yaniv and Wiener, 2010).

    Rows of the same confidence come in any order: each has their mean risk.
    """
    order, starts = _by_confidence(of)
    seen, wrong = _seen_and_wrong(of.each[None, order], ~of.correct[order], starts)
    return RiskCoverage(seen[0] / seen[0, -1], wrong[0] / np.where(seen[0] > 0, seen[0], 1))


def risk_coverage_area(of: Predictions) -> Measure:
    """The area under the risk-coverage curve: 0 best.

    The mean over the rows of the risk where each is the last that is answered (Geifman and
    El-Yaniv, 2017).
    """
    order, starts = _by_confidence(of)
    is_wrong = ~of.correct[order]

    def by_weight(weight: Array) -> Array:
        weight = weight[:, order]
        seen, wrong = _seen_and_wrong(weight, is_wrong, starts)
        risk = wrong / np.where(seen > 0, seen, 1)
        area: Array = np.einsum("bn,bn->b", weight, risk) / seen[:, -1]
        return area

    return Measure(by_weight, of.each)


def _by_confidence(of: Predictions) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows from the most to the least confident; where those of another confidence begin."""
    order = np.argsort(-of.confidence, kind="stable")
    sorted_ = of.confidence[order]
    starts = np.flatnonzero(np.append(True, sorted_[1:] != sorted_[:-1]))
    return order, starts


def _seen_and_wrong(
    weight: Array, is_wrong: NDArray[np.bool_], starts: NDArray[np.intp]
) -> tuple[Array, Array]:
    """What is answered down to each row, and what of it is wrong, ties taken together."""
    mass = np.add.reduceat(weight, starts, axis=1)
    wrong = np.add.reduceat(weight * is_wrong, starts, axis=1)
    risk = wrong / np.where(mass > 0, mass, 1)
    each = np.repeat(risk, np.diff(np.append(starts, weight.shape[1])), axis=1)
    return np.cumsum(weight, axis=1), np.cumsum(weight * each, axis=1)


# Those that are said unless others are asked for, from what matters most.
MEASURES: dict[str, Callable[[Predictions], Measure]] = {
    "log_loss": log_loss,
    "brier_score": brier_score,
    "brier_calibration": brier_calibration,
    "brier_refinement": brier_refinement,
    "accuracy": accuracy,
    "top_5_accuracy": partial(top_k_accuracy, k=5),
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "roc_auc": roc_auc,
    "calibration_error": calibration_error,
    "calibration_error_debiased": partial(calibration_error, debiased=True),
    "calibration_error_equal_width": partial(calibration_error, cut=Bins.equal_width),
    "class_calibration_error": class_calibration_error,
    "smooth_calibration_error": smooth_calibration_error,
    "risk_coverage_area": risk_coverage_area,
}
