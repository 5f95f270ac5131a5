"""All that a report says, as data: every number of it, and no words."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import scipy.cluster.hierarchy
import scipy.spatial.distance
from numpy.typing import NDArray

from softly import metrics
from softly.calibration import Calibrator
from softly.conformal import PredictionSets
from softly.functions import softmax
from softly.metrics import Predictions, Reliability, RiskCoverage
from softly.resampling import Comparison, Score, compare_predictions, measure_predictions
from softly.scalings import fit_temperature, usable
from softly.subjects import MISTAKES, Subject, of_logits
from softly.verdict import verdict

Array = NDArray[Any]

SAID = ("accuracy", "log_loss", "brier_score", "calibration_error")
COVERAGE = 0.9  # of the prediction sets

_MOST_CALIBRATED = 20_000  # rows that calibration is judged by
_MOST_NUMBERS = 2_000_000  # logits, likewise
_MOST_IN_MATRIX = 60  # classes for which matrix scaling is tried: it fits numbers for each pair
_MOST_SHOWN = 150  # classes in the confusion matrix
_MOST_LISTED = 1000  # classes in the table
_MOST_UNKNOWN = 20  # classes that the model never saw, by name
_PAIRS = 10
_CONFIDENCES = 40  # bins of the histograms
_PER_BIN = 20  # rows at least in a bin of the reliability curve
_POINTS = 200  # of a curve
_TEMPERATURES = 61
_APART = 6.0  # times: how far temperatures go from the best one, and from 1


@dataclass(frozen=True)
class Guessing:
    """What always saying how frequent the classes are is worth."""

    of_training: bool
    accuracy: float
    log_loss: float
    brier_score: float


@dataclass(frozen=True)
class Confidence:
    """How sure the answers are.

    Attributes
    ----------
    mean : float
    edges : ndarray, shape (M + 1,)
    right, wrong : ndarray of int, shape (M,)
        Answers in each bin.
    """

    mean: float
    edges: Array
    right: NDArray[np.int64]
    wrong: NDArray[np.int64]


@dataclass(frozen=True)
class Believed:
    """Confidence beside the share of right answers, and how often each confidence is said."""

    reliability: Reliability
    confidence: Confidence


@dataclass(frozen=True)
class Calibration:
    """What a calibration would change: each row calibrated by what the other folds' rows told.

    Attributes
    ----------
    rows : int
        On which this was found.
    decided : int
        Rows of which nothing can be learnt, since infinite scores decide their loss.
    method : str
    temperature : float or None
        Where it is all there is to say.
    measures : dict of str to Comparison
        Before and after.
    before : Believed
    after : Believed or None
        None where the probabilities are best left alone.
    """

    rows: int
    decided: int
    method: str
    temperature: float | None
    measures: dict[str, Comparison]
    before: Believed
    after: Believed | None


@dataclass(frozen=True)
class Temperatures:
    """The log loss at other temperatures.

    Attributes
    ----------
    rows : int
    temperature, log_loss : ndarray, shape (M,)
    best : float
        The temperature of the least log loss.
    least : float
        That log loss.
    bounded : bool
        Whether there is a least one: where no row is wrong, it falls for ever.
    """

    rows: int
    temperature: Array
    log_loss: Array
    best: float
    least: float
    bounded: bool


@dataclass(frozen=True)
class Pair:
    """Rows of one class that were taken for another, and which share of that class they are."""

    true: str
    predicted: str
    rows: int
    share: float


@dataclass(frozen=True)
class Confusion:
    """What was taken for what.

    Attributes
    ----------
    shown : list of int
        Classes, so sorted that those which are confused stand together.
    counts : ndarray of int, shape (M, M)
        Of these: a row for each true class, a column for each predicted one.
    pairs : list of Pair
        The most frequent mistakes.
    """

    shown: list[int]
    counts: NDArray[np.int64]
    pairs: list[Pair]


@dataclass(frozen=True)
class ClassRow:
    """How one class is found; None where there is nothing to count."""

    name: str
    rows: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None
    probability: float | None
    confused_with: str | None
    confused_rows: int


@dataclass(frozen=True)
class Sets:
    """Prediction sets, made on half of the rows and counted on the others.

    Attributes
    ----------
    coverage : float
        That was asked for.
    covered : float
        The share of rows whose set holds the true class.
    rows : int
        Counted.
    size : list of int
    count : list of int
        Sets of that size.
    mean : float
        Size.
    """

    coverage: float
    covered: float
    rows: int
    size: list[int]
    count: list[int]
    mean: float


@dataclass(frozen=True)
class Mistake:
    """A row with a wrong answer, and how sure it was."""

    row: int
    predicted: str
    true: str
    probability: float
    probability_of_true: float
    cells: list[str]


@dataclass(frozen=True)
class Report:
    """What a report says of some scores.

    Attributes
    ----------
    source : list of str
        The files that it is about.
    rows : int
    unlabelled : int
        Rows without a label, left out.
    unknown_rows : int
        Rows of classes that the model never saw, left out.
    unknown : dict of str to int
        The most frequent of these classes.
    classes : list of str
    measures : dict of str to Score
    guessing : Guessing
    confidence : Confidence
    calibration : Calibration or None
        None where no row tells of it.
    temperatures : Temperatures or None
    confusion : Confusion
    by_class : list of ClassRow
    risk_coverage : RiskCoverage
    sets : Sets or None
        None where there are too few rows.
    weights : dict of str to list of (str, float), or None
    first_row : int
        The number of the first row.
    columns : list of str
        Of which the mistakes' cells tell.
    mistakes : list of Mistake
        The most confident ones.
    """

    source: list[str]
    rows: int
    unlabelled: int
    unknown_rows: int
    unknown: dict[str, int]
    classes: list[str]
    measures: dict[str, Score]
    guessing: Guessing
    confidence: Confidence
    calibration: Calibration | None
    temperatures: Temperatures | None
    confusion: Confusion
    by_class: list[ClassRow]
    risk_coverage: RiskCoverage
    sets: Sets | None
    weights: dict[str, list[tuple[str, float]]] | None
    first_row: int
    columns: list[str]
    mistakes: list[Mistake]

    @classmethod
    def of(cls, subject: Subject) -> Report:
        """Everything there is to say of some scores."""
        of = Predictions(softmax(subject.logits, axis=1), subject.target, subject.logits)
        calibration, temperatures = _calibrated(subject)
        unknown = subject.left_out.unknown
        by_frequency = sorted(unknown.items(), key=lambda item: -item[1])
        pairs = _pairs(of)
        return cls(
            source=subject.source,
            rows=len(of.target),
            unlabelled=subject.left_out.unlabelled,
            unknown_rows=sum(unknown.values()),
            unknown=dict(by_frequency[:_MOST_UNKNOWN]),
            classes=subject.classes,
            measures=_measures(of, calibration),
            guessing=_guessing(subject),
            confidence=_confidence(of),
            calibration=calibration,
            temperatures=temperatures,
            confusion=_confusion(of, pairs, subject.classes),
            by_class=_by_class(of, pairs, subject.classes),
            risk_coverage=_thinned(metrics.risk_coverage(of)),
            sets=_sets(of),
            weights=subject.weights,
            first_row=int(subject.are_trained),
            columns=subject.columns,
            mistakes=_mistakes(of, subject),
        )

    @classmethod
    def of_logits(
        cls, logits: Any, y: Any, *, classes: Any = None, source: str = "the scores"
    ) -> Report:
        """A report on the scores that any model gives to rows whose classes are known.

        Parameters
        ----------
        logits : array_like, shape (N, K), (N, 1) or (N,)
            Scores before softmax, of rows that the model was not trained on; one column is the
            scores of the second of two classes, as a ``decision_function`` gives them. For
            probabilities see `softly.from_probabilities`.
        y : array_like, shape (N,)
            The true classes.
        classes : array_like, shape (K,), optional
            Which label each column stands for. If none are given, the labels of y, sorted, where
            there are as many as columns; or 0 to K - 1.
        source : str
            What it is about, for the page's title.

        Raises
        ------
        ValueError
            If these do not fit together, or are no logits.

        Notes
        -----
        Calibration is judged by 20,000 rows drawn by chance, if there are more (or by as many as
        have two million logits), and beyond 60 classes without matrix scaling.

        Examples
        --------
        >>> import numpy as np, softly
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(3, size=2000)
        >>> fair = rng.normal(size=(2000, 3)) + np.eye(3)[y]
        >>> report = softly.Report.of_logits(4 * fair, y)
        >>> report.calibration.method, round(report.calibration.temperature)
        ('temperature', 4)
        >>> report.to_html()[:15]
        '<!doctype html>'
        """
        return cls.of(of_logits(np.asarray(logits), np.asarray(y), [source], classes=classes))

    def to_html(self, language: str = "en") -> str:
        """One page that asks the network for nothing: the verdict, figures and tables.

        Parameters
        ----------
        language : str
            "en" or "ko".
        """
        from softly.report_page import page

        return page(self, language)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and text, ready for JSON; None for what is infinite or unknown."""
        found: dict[str, Any] = plain(self)
        return {"verdict": plain(verdict(self))} | found


def plain(value: Any) -> Any:
    """Numbers, text, lists and dicts of whatever is made of them."""
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _measures(of: Predictions, calibration: Calibration | None) -> dict[str, Score]:
    if calibration is not None and calibration.rows == len(of.target):
        return {name: compared.a for name, compared in calibration.measures.items()}
    return measure_predictions(of, SAID)


def _guessing(subject: Subject) -> Guessing:
    guess = np.broadcast_to(subject.frequencies, subject.logits.shape)
    of = Predictions(guess, subject.target)
    return Guessing(
        subject.are_trained,
        accuracy=metrics.accuracy(of).value(),
        log_loss=metrics.log_loss(of).value(),
        brier_score=metrics.brier_score(of).value(),
    )


def _confidence(of: Predictions) -> Confidence:
    right, wrong = metrics.confidences(of, _CONFIDENCES)
    edges = np.linspace(0, 1, _CONFIDENCES + 1)
    return Confidence(float(of.confidence.mean()), edges, right, wrong)


# --- Can it be believed --------------------------------------------------------------------------


def _calibrated(subject: Subject) -> tuple[Calibration | None, Temperatures | None]:
    k = len(subject.classes)
    most = max(min(_MOST_CALIBRATED, _MOST_NUMBERS // k), 1000)
    rows: Any = np.flatnonzero(usable(subject.logits, subject.target))
    decided = len(subject.logits) - len(rows)
    if len(rows) > most:
        rows = np.sort(np.random.RandomState(0).permutation(rows)[:most])
    logits, target = subject.logits[rows], subject.target[rows]
    if not len(rows):
        return None, None
    found = Calibrator(_methods(target, k), classes=np.arange(k)).fit(logits, target)
    return _calibration(found, logits, target, decided), _temperatures(logits, target)


def _methods(target: Array, k: int) -> list[str]:
    """Those to choose from: numbers for each pair of many classes take too long to find."""
    if len(np.unique(target)) < 2:
        return ["identity"]
    if k <= _MOST_IN_MATRIX:
        return ["auto"]
    return ["identity", "temperature", "isotonic", *(["vector"] if len(target) >= k else [])]


def _calibration(found: Calibrator, logits: Array, target: Array, decided: int) -> Calibration:
    before, after = Predictions(softmax(logits, axis=1), target, logits), None
    if found.cross_fit_ is not None and found.method_ != "identity":
        z = found.cross_fit_.log_probabilities(logits)
        after = Predictions(softmax(z, axis=1), target, z)
    return Calibration(
        rows=len(target),
        decided=decided,
        method=found.method_,
        temperature=found.temperature_,
        measures=compare_predictions(before, after or before, SAID),
        before=_believed(before),
        after=_believed(after) if after else None,
    )


def _believed(of: Predictions) -> Believed:
    bins = max(1, min(metrics.BINS, len(of.target) // _PER_BIN))
    return Believed(metrics.reliability(of, bins), _confidence(of))


def _temperatures(logits: Array, target: Array) -> Temperatures:
    best = fit_temperature(logits, target, np.ones(len(target))).temperature
    tried = np.geomspace(min(best, 1.0) / _APART, max(best, 1.0) * _APART, _TEMPERATURES)
    loss = np.array([_loss_at(logits, target, t) for t in tried])
    least = _loss_at(logits, target, best)
    bounded = least <= loss.min()
    return Temperatures(len(target), tried, loss, best, least, bool(bounded))


def _loss_at(logits: Array, target: Array, temperature: float) -> float:
    z = logits / logits.dtype.type(temperature)
    return metrics.log_loss(Predictions(logits, target, z)).value()


# --- What is taken for what ----------------------------------------------------------------------


def _pairs(of: Predictions) -> tuple[Array, Array, Array]:
    """Mistakes, the most frequent first: true classes, predicted ones, rows."""
    k = of.p.shape[1]
    wrong = of.target[~of.correct] * k + of.predicted[~of.correct]
    pair, rows = np.unique(wrong, return_counts=True)
    order = np.argsort(-rows, kind="stable")
    return pair[order] // k, pair[order] % k, rows[order]


def _confusion(of: Predictions, pairs: tuple[Array, Array, Array], names: list[str]) -> Confusion:
    true, predicted, rows = pairs
    k = len(names)
    mistaken = np.bincount(true, rows, k) + np.bincount(predicted, rows, k)
    shown = np.sort(np.argsort(-mistaken, kind="stable")[:_MOST_SHOWN])
    place = np.full(k, -1)
    place[shown] = np.arange(len(shown))
    there = (place[of.target] >= 0) & (place[of.predicted] >= 0)
    counts = metrics.confusion_matrix(
        place[of.predicted[there]], place[of.target[there]], len(shown)
    )
    order = in_blocks(counts)
    own = np.bincount(of.target, minlength=k)
    return Confusion(
        shown=shown[order].tolist(),
        counts=counts[np.ix_(order, order)],
        pairs=[
            Pair(names[i], names[j], int(n), float(n / own[i]))
            for i, j, n in zip(true[:_PAIRS], predicted, rows, strict=False)
        ],
    )


def in_blocks(counts: Array) -> NDArray[np.intp]:
    """An order of the classes in which those that are confused stand together.

    Parameters
    ----------
    counts : ndarray, shape (K, K)
        A confusion matrix.

    Notes
    -----
    Hierarchical clustering (mean linkage) by the share of rows that are confused, with the order
    of its leaves in which neighbours are nearest (Bar-Joseph, Gifford and Jaakkola, 2001).

    Examples
    --------
    >>> in_blocks(np.array([[5, 0, 4, 0], [0, 5, 1, 4], [4, 1, 5, 0], [0, 4, 0, 5]])).tolist()
    [0, 2, 1, 3]
    """
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    near = share + share.T
    np.fill_diagonal(near, 0)
    if len(counts) < 3 or not near.any():
        return np.arange(len(counts))
    apart = near.max() - near
    np.fill_diagonal(apart, 0)
    distances = scipy.spatial.distance.squareform(apart)
    tree = scipy.cluster.hierarchy.linkage(distances, "average", optimal_ordering=True)
    leaves: NDArray[np.intp] = scipy.cluster.hierarchy.leaves_list(tree).astype(np.intp)
    return leaves


def _by_class(
    of: Predictions, pairs: tuple[Array, Array, Array], names: list[str]
) -> list[ClassRow]:
    found = metrics.by_class(of)
    taken_for: dict[int, tuple[int, int]] = {}
    for i, j, n in zip(*(x.tolist() for x in pairs), strict=True):
        taken_for.setdefault(i, (j, n))  # the most frequent is the first

    def row(i: int) -> ClassRow:
        other, n = taken_for.get(i, (None, 0))
        return ClassRow(
            names[i],
            int(found.rows[i]),
            int(found.predicted[i]),
            _known(found.precision[i]),
            _known(found.recall[i]),
            _known(found.f1[i]),
            _known(found.probability[i]),
            confused_with=None if other is None else names[other],
            confused_rows=n,
        )

    listed = np.sort(np.argsort(-found.rows, kind="stable")[:_MOST_LISTED])
    return [row(i) for i in listed.tolist()]


def _known(number: float) -> float | None:
    return None if np.isnan(number) else float(number)


# --- What to do with it --------------------------------------------------------------------------


def _thinned(curve: RiskCoverage) -> RiskCoverage:
    n = len(curve.coverage)
    some = np.unique(np.linspace(0, n - 1, min(n, _POINTS)).astype(np.intp))
    return RiskCoverage(curve.coverage[some], curve.risk[some])


def _sets(of: Predictions) -> Sets | None:
    order = np.random.RandomState(0).permutation(len(of.target))
    fitted, others = np.array_split(order, 2)
    k = of.p.shape[1]
    try:
        sets = PredictionSets(COVERAGE, classes=np.arange(k)).fit(of.p[fitted], of.target[fitted])
    except ValueError:  # too few rows
        return None
    held = sets.predict(of.p[others])
    sizes = held.sum(axis=1)
    size, count = np.unique(sizes, return_counts=True)
    return Sets(
        coverage=COVERAGE,
        covered=float(held[np.arange(len(others)), of.target[others]].mean()),
        rows=len(others),
        size=size.tolist(),
        count=count.tolist(),
        mean=float(sizes.mean()),
    )


def _mistakes(of: Predictions, subject: Subject) -> list[Mistake]:
    wrong = np.flatnonzero(~of.correct)
    surest = wrong[np.argsort(-of.confidence[wrong], kind="stable")[:MISTAKES]]
    return [
        Mistake(
            row=int(subject.number[i]),
            predicted=subject.classes[of.predicted[i]],
            true=subject.classes[of.target[i]],
            probability=float(of.confidence[i]),
            probability_of_true=float(of.of_target[i]),
            cells=subject.cells.get(int(subject.number[i]), [""] * len(subject.columns)),
        )
        for i in surest
    ]
