"""Calibration beside its peers: what it is worth on real predictions, and how long it takes.

The first half of the rows, by RandomState(0).permutation, fits; the second half tests. The peers
are those of `pip install "softly[benchmarks]"`, each in its best configuration: scikit-learn fits
one temperature to all rows (one fold, no more work than that); netcal gets float64 (in float32 its
numerical gradient is 0); probmetrics' temperature is the one with a part of the uniform
distribution mixed in; MAPIE's RAPS draws the last class as ours does. Whoever takes probabilities
has them ready, and whoever takes logits has these: no time is counted for that. Everybody may use
all cores.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

import softly
from benchmarks.measure import DATA, duration, interleaved, table
from softly import metrics
from softly.metrics import Bins, Predictions

Array = NDArray[Any]

LITTLE = 0.002  # of log loss: so much may be lost by chance
SETS = {  # bars: log loss, and calibration error in 15 bins of equal width
    "cifar100_densenet": ("CIFAR-100, DenseNet", 0.847, 0.012),
    "cifar10_lenet": ("CIFAR-10, LeNet", 1.329, 0.024),
}
MOST_ROWS = 6000
HALVES = 100
COVERAGE, NEAR = 0.9, 0.005
FASTER = {"temperature": 3, "matrix": 5}  # bars of the fits with a hundred classes


# --- the contenders ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """What a model says of some rows: logits, and the same as probabilities."""

    z: Array
    p: Array

    @classmethod
    def of(cls, p: Array) -> Scores:
        z = softly.from_probabilities(np.asarray(p, np.float64))
        return cls(z, softly.softmax(z, axis=1))

    def __getitem__(self, rows: Any) -> Scores:
        return Scores(self.z[rows], self.p[rows])

    @property
    def k(self) -> int:
        return self.z.shape[1]


Fit = Callable[[Scores, Array], Callable[[Scores], Array]]  # to probabilities


@dataclass(frozen=True)
class Ours:
    """One of our calibrators, fitted."""

    model: Any

    def __call__(self, new: Scores) -> Array:
        p: Array = self.model.predict_proba(new.z)
        return p


def ours(model: Any) -> Fit:
    return lambda given, y: Ours(model(classes=np.arange(given.k)).fit(given.z, y))


class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted classifier whose features are its logits."""

    def __init__(self, k: int = 2) -> None:
        self.k = k
        self.classes_ = np.arange(k)

    def fit(self, X: Array, y: Array) -> Given:
        return self

    def decision_function(self, X: Array) -> Array:
        return X[:, 1] - X[:, 0] if self.k == 2 else X

    def predict(self, X: Array) -> Array:
        return X.argmax(axis=1)


def scikit_learns(given: Scores, y: Array) -> Callable[[Scores], Array]:
    rows = np.arange(len(y))
    model = CalibratedClassifierCV(
        FrozenEstimator(Given(given.k)), method="temperature", cv=[(rows, rows)], ensemble=False
    ).fit(given.z, y)
    return lambda new: model.predict_proba(new.z)


def probmetrics(name: str, **options: Any) -> Fit:
    def fit(given: Scores, y: Array) -> Callable[[Scores], Array]:
        from probmetrics.calibrators import get_calibrator

        model = get_calibrator(name, **options).fit(given.p, y)
        return lambda new: np.asarray(model.predict_proba(new.p))

    return fit


def netcal(given: Scores, y: Array) -> Callable[[Scores], Array]:
    from netcal.scaling import TemperatureScaling

    model = TemperatureScaling().fit(given.p, y)
    return lambda new: np.asarray(model.transform(new.p))


AUTO, THEIRS, SCIKIT = "softly, auto", "probmetrics, matrix", "scikit-learn, temperature"
CONTENDERS: dict[str, Fit] = {
    AUTO: ours(softly.Calibrator),
    "softly, temperature": ours(softly.TemperatureScaling),
    "softly, isotonic": ours(softly.IsotonicScaling),
    "softly, vector": ours(softly.VectorScaling),
    "softly, matrix": ours(softly.MatrixScaling),
    SCIKIT: scikit_learns,
    "probmetrics, temperature": probmetrics("ts-mix"),
    "probmetrics, vector": probmetrics("svs"),
    THEIRS: probmetrics("sms"),
}


# --- predictions ---------------------------------------------------------------------------------


def predictions(name: str) -> tuple[Scores, Array]:
    data = np.load(DATA / f"predictions_{name}.npz")
    return Scores.of(data["P"]), data["y"].astype(np.int64)


def halves(n: int, seed: int = 0) -> tuple[Array, Array]:
    order = np.random.RandomState(seed).permutation(n)
    return order[: n // 2], order[n // 2 :]


def log_loss(p: Array, y: Array) -> float:
    return metrics.log_loss(Predictions(np.maximum(p, 1e-300), y)).value()


def error(p: Array, y: Array) -> float:
    return metrics.calibration_error(Predictions(p, y), cut=Bins.equal_width).value()


def error_by_chance(p: Array, draws: int = 8) -> float:
    """The calibration error of p if it were right: bins are never as they are on average."""
    rng = np.random.default_rng(0)
    log_p = np.log(np.maximum(p, 1e-300))
    drawn = ((log_p + rng.gumbel(size=p.shape)).argmax(axis=1) for _ in range(draws))
    return float(np.mean([error(p, y) for y in drawn]))


def verdict(is_met: bool) -> str:
    return "met" if is_met else "missed"


# --- tables --------------------------------------------------------------------------------------


def networks() -> str:
    rows = []
    for name, (title, loss_bar, error_bar) in SETS.items():
        given, y = predictions(name)
        fit, test = halves(len(y))
        found = {"as they are": given.p[test]}
        for who, contender in CONTENDERS.items():
            found[who] = contender(given[fit], y[fit])(given[test])
        for who, p in found.items():
            loss, off = log_loss(p, y[test]), error(p, y[test])
            met = round(loss, 4) <= loss_bar and round(off, 4) <= error_bar
            bar = f"{loss_bar} and {error_bar}: {verdict(met)}"
            chance = f"{error_by_chance(p):.4f}"
            rows.append([title, who, f"{loss:.4f}", f"{off:.4f}", chance, bar])
    return table(
        ["predictions", "by", "log loss", "calibration error", "that of right ones", "bar"], rows
    )


def tables() -> Iterator[tuple[str, Array, Array]]:
    for name in ("digits", "wine", "breast_cancer", "iris"):
        yield name, *getattr(datasets, f"load_{name}")(return_X_y=True)
    for name in ("letter", "covtype", "banking77_minilm"):
        data = np.load(DATA / f"{name}.npz")
        yield name, data["X"].astype(float), data["y"]


def models() -> dict[str, Callable[[], Any]]:
    return {
        "SoftmaxClassifier": lambda: softly.SoftmaxClassifier(C=100),
        "boosting": lambda: HistGradientBoostingClassifier(max_iter=60, random_state=0),
        "MLP": lambda: MLPClassifier(max_iter=100, random_state=0),
    }


def fitted() -> Iterator[tuple[str, Scores, Array, Scores, Array]]:
    """Scores and classes to fit a calibration to, and to test it on: a third of the rows each."""
    for name, X, labels in tables():
        y = np.unique(labels, return_inverse=True)[1].astype(np.int64)
        rows = np.random.RandomState(0).permutation(len(y))[: 3 * MOST_ROWS]
        X, y = StandardScaler().fit_transform(X[rows]), y[rows]
        third = len(rows) // 3
        train, fit, test = (slice(i * third, (i + 1) * third) for i in range(3))
        if len(np.unique(y[train])) < len(np.unique(y)):
            raise SystemExit(f"{name}: a class is missing among the training rows")
        for kind, make in models().items():
            if kind == "boosting" and name == "banking77_minilm":
                continue  # 77 trees a round of 384 features
            given = Scores.of(make().fit(X[train], y[train]).predict_proba(X))
            yield f"{name}, {kind}", given[fit], y[fit], given[test], y[test]


def fits() -> str:
    header = ["fit", "as it is", *CONTENDERS, "chosen", "bar"]
    rows, losses = [], []
    for name, given, y, new, truth in fitted():
        by = {who: fit(given, y) for who, fit in CONTENDERS.items()}
        found = [log_loss(new.p, truth), *(log_loss(p(new), truth) for p in by.values())]
        lost, chosen = found[1] - found[0], by[AUTO].model.method_
        bar = f"{lost:+.4f}: {verdict(lost <= LITTLE)}"
        rows.append([name, *(f"{loss:.4f}" for loss in found), chosen, bar])
        losses.append(found)
    mean = np.mean(losses, axis=0)
    of = dict(zip(CONTENDERS, mean[1:], strict=True))
    met = verdict(of[AUTO] <= of[THEIRS] and of[AUTO] < of[SCIKIT])
    rows.append([f"mean of {len(rows)}", *(f"{m:.4f}" for m in mean), "", met])
    return (
        f"{table(header, rows)}\n\nLog loss on held-out rows. The bar of a fit: no more than "
        f"{LITTLE} above leaving it alone; of the mean: no more than probmetrics' structured "
        "matrix scaling, and less than scikit-learn's temperature."
    )


WORKS: dict[str, dict[str, Fit]] = {
    "temperature": {
        "softly": CONTENDERS["softly, temperature"],
        "scikit-learn": scikit_learns,
        "netcal": netcal,
        "probmetrics": probmetrics("temp-scaling"),
    },
    "vector": {
        "softly": CONTENDERS["softly, vector"],
        "probmetrics": probmetrics("svs"),
        "probmetrics (SAGA)": probmetrics("svs", svs_opt="saga"),
    },
    "matrix": {
        "softly": CONTENDERS["softly, matrix"],
        "probmetrics": probmetrics("sms"),
        "probmetrics (SAGA)": probmetrics("sms", sms_opt="saga"),
    },
}


def speed() -> str:
    rows = []
    for name in SETS:
        given, y = predictions(name)
        fit, test = halves(len(y))
        for what, works in WORKS.items():
            some = fit if what != "temperature" else np.arange(len(y))
            work = {who: partial(f, given[some], y[some]) for who, f in works.items()}
            spent = interleaved(work, budget=20.0)
            own = spent["softly"]
            told = [f"{who} {duration(t)} ({t / own:.1f} x)" for who, t in spent.items()]
            bar, found = "", {}
            for who, f in work.items():
                p = f()(given[test])
                if what == "temperature":  # how much closer the two best logits of a row have moved
                    z, best = given.z[test][0], np.argsort(p[0])[-2:]
                    found[who] = f"{np.diff(z[best])[0] / np.diff(np.log(p[0, best]))[0]:.6f}"
                else:
                    found[who] = f"{log_loss(p, y[test]):.4f}"
            if given.k == 100 and what in FASTER:
                judged = ("probmetrics", "probmetrics (SAGA)")
                judged = judged if what == "matrix" else ("scikit-learn", "netcal")
                times = min(spent[who] for who in judged) / own
                bar = f"{FASTER[what]} x: {verdict(times >= FASTER[what])}"
            shape = f"{what}, {len(some)} x {given.k}"
            rows.append([shape, duration(own), ", ".join(told[1:]), ", ".join(found.values()), bar])
    return (
        table(["fit", "softly", "others", "found", "bar"], rows)
        + "\n\nFound, by softly and the others in this order: the temperature; or the log loss of "
        "the other half. probmetrics works in float32, and SAGA stops at a gap of 1e-5."
    )


class Rows(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted classifier that knows the probabilities of each row by its number."""

    def __init__(self, p: Array) -> None:
        self.p = p
        self.classes_ = np.arange(p.shape[1])

    def fit(self, X: Array, y: Array) -> Rows:
        return self

    def predict_proba(self, X: Array) -> Array:
        known: Array = self.p[np.asarray(X)[:, 0]]
        return known

    def predict(self, X: Array) -> Array:
        return self.predict_proba(X).argmax(axis=1)


class AsMapie(softly.PredictionSets):
    """RAPS with the penalty that MAPIE chose, and without the rows it chose by."""

    chosen: tuple[float, int, NDArray[np.bool_]]

    def _choose_penalty(self, p: Array, target: Array) -> NDArray[np.bool_]:
        self.penalty_, self.free_, rest = self.chosen
        return rest


def mapie(p: Array, y: Array, fit: Array, test: Array) -> tuple[dict[str, Array], Any]:
    """Its sets, and what it chose."""
    from mapie.classification import SplitConformalClassifier
    from mapie.conformity_scores import RAPSConformityScore

    score = RAPSConformityScore()
    model = SplitConformalClassifier(
        Rows(p), confidence_level=COVERAGE, conformity_score=score, random_state=0
    ).conformalize(fit[:, None], y[fit])
    found = {}
    for last, name in ((True, "MAPIE, raps by default"), ("randomized", "MAPIE, raps")):
        held = model.predict_set(test[:, None], {"include_last_label": last})[1]
        found[name] = held[:, :, 0]
    rest = ~np.isin(fit, score.X_raps[:, 0])
    return found, (float(score.lambda_star), int(score.k_star[0]), rest)


def sets() -> str:
    rows = []
    for name, (title, *_) in SETS.items():
        given, y = predictions(name)
        p, classes = given.p, np.arange(given.k)
        told: dict[str, list[tuple[float, float]]] = {}
        for seed in range(HALVES):
            fit, test = halves(len(y), seed)
            theirs, chosen = mapie(p, y, fit, test)
            makers = {
                f"softly, {method}": softly.PredictionSets(COVERAGE, method=method, classes=classes)
                for method in ("lac", "aps", "raps")
            }
            as_mapie = AsMapie(COVERAGE, method="raps", classes=classes)
            as_mapie.chosen = chosen
            makers["softly, raps with MAPIE's penalty"] = as_mapie
            found = {who: made.fit(p[fit], y[fit]).predict(p[test]) for who, made in makers.items()}
            for who, held in (found | theirs).items():
                inside = held[np.arange(len(test)), y[test]].mean()
                told.setdefault(who, []).append((inside, held.sum(axis=1).mean()))
        means = {who: np.mean(of, axis=0) for who, of in told.items()}
        most = means["MAPIE, raps"][1]
        for who, (inside, size) in means.items():
            bar = f"{COVERAGE} within {NEAR}: {verdict(abs(inside - COVERAGE) <= NEAR)}"
            if "softly, raps" in who:
                bar += f"; no larger than MAPIE's: {verdict(size <= most)}"
            rows.append([title, who, f"{inside:.4f}", f"{size:.3f}", bar])
    return (
        table(["predictions", "sets", "coverage", "size", "bar"], rows)
        + f"\n\nMeans of {HALVES} random halves. Both choose the penalty of RAPS, among the same "
        "ones, on rows that they leave out then: a fifth here, a tenth in MAPIE (whatever it is "
        "told). By default MAPIE always holds the last class, and covers more than was asked."
    )


PARTS = {"networks": networks, "tables": fits, "time": speed, "sets": sets}


def run(only: str | None = None) -> str:
    """Of one part, if that is named."""
    warnings.simplefilter("ignore")
    if only and only not in PARTS:
        raise SystemExit(f"--only is {only!r}, but one of {', '.join(PARTS)} is needed")
    some = [only] if only else PARTS
    return "\n\n".join(f"### {name.capitalize()}\n\n{PARTS[name]()}" for name in some)
