"""Calibration beside its peers: what it is worth on real predictions, and how long it takes.

The first half of the rows, by RandomState(0).permutation, fits; the second half tests.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
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
Fit = Callable[[Array, Array], Callable[[Array], Array]]  # logits and classes; to probabilities

LITTLE = 0.002  # of log loss: so much may be lost by chance
SETS = {  # bars: log loss, and calibration error in 15 bins of equal width
    "cifar100_densenet": ("CIFAR-100, DenseNet", 0.847, 0.012),
    "cifar10_lenet": ("CIFAR-10, LeNet", 1.329, 0.024),
}
MOST_ROWS = 6000
HALVES, FEW = 100, 10
COVERAGE = 0.9


# --- the contenders ------------------------------------------------------------------------------


def ours(model: Any) -> Fit:
    return lambda z, y: model(classes=np.arange(z.shape[1])).fit(z, y).predict_proba


class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted classifier whose features are its logits."""

    def __init__(self, k: int = 2) -> None:
        self.k = k
        self.classes_ = np.arange(k)

    def fit(self, X: Array, y: Array) -> Given:
        return self

    def decision_function(self, X: Array) -> Array:
        return X[:, 1] - X[:, 0] if self.k == 2 else X

    def predict_proba(self, X: Array) -> Array:
        return softly.softmax(X, axis=1)

    def predict(self, X: Array) -> Array:
        found: Array = X.argmax(axis=1)
        return found


def scikit_learns(z: Array, y: Array) -> Callable[[Array], Array]:
    model = CalibratedClassifierCV(FrozenEstimator(Given(z.shape[1])), method="temperature")
    found: Callable[[Array], Array] = model.fit(z, y).predict_proba
    return found


def probmetrics(name: str) -> Fit:
    def fit(z: Array, y: Array) -> Callable[[Array], Array]:
        from probmetrics.calibrators import get_calibrator

        model = get_calibrator(name)
        model.fit(softly.softmax(z, axis=1), y)
        return lambda z: np.asarray(model.predict_proba(softly.softmax(z, axis=1)))

    return fit


def netcal(z: Array, y: Array) -> Callable[[Array], Array]:
    from netcal.scaling import TemperatureScaling

    model = TemperatureScaling()
    model.fit(softly.softmax(z, axis=1), y)
    return lambda z: np.asarray(model.transform(softly.softmax(z, axis=1)))


AUTO = "softly, auto"
CONTENDERS: dict[str, Fit] = {
    AUTO: ours(softly.Calibrator),
    "softly, temperature": ours(softly.TemperatureScaling),
    "softly, isotonic": ours(softly.IsotonicScaling),
    "softly, vector": ours(softly.VectorScaling),
    "softly, matrix": ours(softly.MatrixScaling),
    "scikit-learn, temperature": scikit_learns,
    "probmetrics, matrix": probmetrics("sms"),
}


# --- predictions ---------------------------------------------------------------------------------


def predictions(name: str) -> tuple[Array, Array]:
    data = np.load(DATA / f"predictions_{name}.npz")
    return softly.from_probabilities(data["P"]).astype(np.float64), data["y"].astype(np.int64)


def halves(n: int, seed: int = 0) -> tuple[Array, Array]:
    order = np.random.RandomState(seed).permutation(n)
    return order[: n // 2], order[n // 2 :]


def log_loss(p: Array, y: Array) -> float:
    return metrics.log_loss(Predictions(np.maximum(p, 1e-300), y)).value()


def error(p: Array, y: Array) -> float:
    return metrics.calibration_error(Predictions(p, y), cut=Bins.equal_width).value()


# --- tables --------------------------------------------------------------------------------------


def networks() -> str:
    rows = []
    for name, (title, loss_bar, error_bar) in SETS.items():
        z, y = predictions(name)
        fit, test = halves(len(y))
        before = softly.softmax(z[test], axis=1)
        rows.append([title, "as they are", f"{log_loss(before, y[test]):.4f}"])
        rows[-1].extend([f"{error(before, y[test]):.4f}", ""])
        for who, contender in CONTENDERS.items():
            p = contender(z[fit], y[fit])(z[test])
            loss, off = log_loss(p, y[test]), error(p, y[test])
            bar = ""
            if who == AUTO:
                met = round(loss, 4) <= loss_bar and round(off, 4) <= error_bar
                bar = f"{loss_bar} and {error_bar}: {'met' if met else 'missed'}"
            rows.append([title, who, f"{loss:.4f}", f"{off:.4f}", bar])
    return table(["predictions", "by", "log loss", "calibration error", "bar"], rows)


def tables() -> Iterator[tuple[str, Array, Array]]:
    for name in ("digits", "wine", "breast_cancer", "iris"):
        yield name, *getattr(datasets, f"load_{name}")(return_X_y=True)
    letter = np.load(DATA / "letter.npz")
    yield "letter", letter["X"].astype(float), letter["y"]
    covtype = np.load(DATA / "covtype.npz")
    yield "covtype", covtype["X"].astype(float), covtype["y"]
    banking = np.load(DATA / "banking77_minilm.npz")
    yield "banking77", banking["X"].astype(float), banking["y"]


def models() -> dict[str, Callable[[], Any]]:
    return {
        "SoftmaxClassifier": lambda: softly.SoftmaxClassifier(C=100),
        "boosting": lambda: HistGradientBoostingClassifier(max_iter=60, random_state=0),
        "MLP": lambda: MLPClassifier(max_iter=100, random_state=0),
    }


def fitted() -> Iterator[tuple[str, Array, Array, Array, Array]]:
    """Logits and classes to fit a calibration to, and to test it on: a third of the rows each."""
    for name, X, labels in tables():
        y = np.unique(labels, return_inverse=True)[1].astype(np.int64)
        rows = np.random.RandomState(0).permutation(len(y))[: 3 * MOST_ROWS]
        X = StandardScaler().fit_transform(X[rows])
        third = len(rows) // 3
        train, fit, test = (slice(i * third, (i + 1) * third) for i in range(3))
        if len(np.unique(y[rows][train])) < len(np.unique(y)):
            raise SystemExit(f"{name}: a class is missing among the training rows")
        for kind, make in models().items():
            if kind == "boosting" and name == "banking77":
                continue  # 77 trees a round of 384 features
            model = make().fit(X[train], y[rows][train])
            z = softly.from_probabilities(model.predict_proba(X))
            yield f"{name}, {kind}", z[fit], y[rows][fit], z[test], y[rows][test]


def fits() -> str:
    header = ["fit", "as it is", *CONTENDERS, "chosen", "bar"]
    rows, sums = [], np.zeros(1 + len(CONTENDERS))
    worst = -np.inf
    for name, z, y, new, truth in fitted():
        losses = [log_loss(softly.softmax(new, axis=1), truth)]
        losses += [log_loss(fit(z, y)(new), truth) for fit in CONTENDERS.values()]
        lost = losses[1] - losses[0]
        worst = max(worst, lost)
        chosen = softly.Calibrator(classes=np.arange(z.shape[1])).fit(z, y).method_
        rows.append([name, *(f"{loss:.4f}" for loss in losses), chosen])
        rows[-1].append(f"{lost:+.4f}: {'met' if lost <= LITTLE else 'missed'}")
        sums += losses
    mean = sums / len(rows)
    by = dict(zip(CONTENDERS, mean[1:], strict=True))
    met = by[AUTO] <= by["probmetrics, matrix"] and by[AUTO] < by["scikit-learn, temperature"]
    rows.append(["mean", *(f"{m:.4f}" for m in mean), "", "met" if met else "missed"])
    return (
        f"{table(header, rows)}\n\nLog loss on held-out rows. The bar of a fit: no more than "
        f"{LITTLE} above leaving it alone; of the mean: no more than probmetrics' structured "
        "matrix scaling, and less than scikit-learn's temperature."
    )


def speed() -> str:
    rows = []
    rng = np.random.default_rng(0)
    for what, n, k, bar, works in (
        (
            "temperature",
            10_000,
            100,
            3,
            {
                "softly": CONTENDERS["softly, temperature"],
                "scikit-learn": scikit_learns,
                "netcal": netcal,
            },
        ),
        (
            "matrix",
            5_000,
            100,
            5,
            {"softly": CONTENDERS["softly, matrix"], "probmetrics": probmetrics("sms")},
        ),
    ):
        fair = rng.normal(0, 1.5, (n, k))
        y = (fair + rng.gumbel(size=fair.shape)).argmax(axis=1)
        z = 2 * fair
        spent = interleaved({who: partial(work, z, y) for who, work in works.items()}, budget=20.0)
        own = spent.pop("softly")
        best = min(spent.values()) / own
        told = [f"{who} {duration(t)} ({t / own:.1f} x)" for who, t in spent.items()]
        verdict = f"{bar} x: {'met' if best >= bar else 'missed'}"
        rows.append([f"{what}, {n} x {k}", duration(own), ", ".join(told), verdict])
    return table(["fit", "softly", "others", "bar"], rows)


def sets() -> str:
    rows = []
    for name, (title, *_) in SETS.items():
        z, y = predictions(name)
        p = softly.softmax(z, axis=1)
        found: dict[str, list[tuple[float, float]]] = {}
        for seed in range(HALVES):
            fit, test = halves(len(y), seed)
            for method in ("lac", "aps", "raps"):
                sets = softly.PredictionSets(
                    COVERAGE, method=method, classes=np.arange(p.shape[1])
                ).fit(p[fit], y[fit])
                held = sets.predict(p[test])
                inside = held[np.arange(len(test)), y[test]].mean()
                found.setdefault(f"softly, {method}", []).append((inside, held.sum(1).mean()))
            if seed < FEW:  # slower by far
                found.setdefault("MAPIE, raps", []).append(mapie(z, p, y, fit, test))
        means = {who: np.mean(of, axis=0) for who, of in found.items()}
        first = np.mean(found["softly, raps"][:FEW], axis=0)[1]  # of the same halves
        for who, (inside, size) in means.items():
            bar = f"{COVERAGE} within 0.005: {_met(abs(inside - COVERAGE) <= 0.005)}"
            if who == "softly, raps":
                bar += f"; no larger than MAPIE's: {_met(first <= means['MAPIE, raps'][1])}"
            rows.append(
                [title, who, f"{inside:.4f}", f"{size:.3f}", bar if "MAPIE" not in who else ""]
            )
    return table(["predictions", "sets", "coverage", "size", "bar"], rows)


def mapie(z: Array, p: Array, y: Array, fit: Array, test: Array) -> tuple[float, float]:
    from mapie.classification import SplitConformalClassifier
    from mapie.conformity_scores import RAPSConformityScore

    sets = SplitConformalClassifier(
        Given(z.shape[1]),
        confidence_level=COVERAGE,
        conformity_score=RAPSConformityScore(),
        prefit=True,
        random_state=0,
    ).conformalize(z[fit], y[fit])
    held = sets.predict_set(z[test], conformity_score_params={"include_last_label": "randomized"})
    held = held[1][:, :, 0]
    return held[np.arange(len(test)), y[test]].mean(), held.sum(1).mean()


def _met(is_met: bool) -> str:
    return "met" if is_met else "missed"


def run() -> str:
    warnings.simplefilter("ignore")
    parts = {"Networks": networks, "Tables": fits, "Time": speed, "Prediction sets": sets}
    return "\n\n".join(f"### {title}\n\n{part()}" for title, part in parts.items())
