"""Is it scikit-learn's objective? Optimum beside optimum, and scikit-learn's own checks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import softly
from benchmarks.measure import DATA, table


def run() -> str:
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows = []
    for name, X, y in problems():
        X = StandardScaler().fit_transform(X)
        ours = softly.SoftmaxClassifier(tol=1e-13, max_iter=10_000).fit(X, y)
        theirs = LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=500).fit(X, y)
        mine, other = objective(ours, X, y), objective(theirs, X, y)
        rows.append(
            [
                f"{name} ({X.shape[0]} x {X.shape[1]}, {len(ours.classes_)} classes)",
                f"{np.abs(ours.coef_ - theirs.coef_).max():.1e}",
                f"{np.abs(theirs.coef_).max():.1f}",
                f"{mine:.12f}",
                f"{mine / other - 1:+.0e}",
            ]
        )
    header = ["standardised, C = 1", "greatest difference of a coefficient"]
    header += ["greatest coefficient", "objective", "relative to scikit-learn's"]
    return table(header, rows) + f"\n\n{estimator_checks()}"


def problems() -> Iterator[tuple[str, Any, Any]]:
    for name in ("breast_cancer", "iris", "wine", "digits"):
        yield name, *getattr(datasets, f"load_{name}")(return_X_y=True)
    letter = np.load(DATA / "letter.npz")
    yield "letter", letter["X"], letter["y"]
    covtype = np.load(DATA / "covtype.npz")
    some = np.random.default_rng(0).choice(len(covtype["y"]), 50_000, replace=False)
    yield "covtype, some rows", covtype["X"][some], covtype["y"][some]


def objective(model: Any, X: Any, y: Any) -> float:
    """The mean loss and its share of the penalty, by one routine for both."""
    log_p = softly.log_softmax(scores(model, X), axis=1)
    loss = -log_p[np.arange(len(y)), np.searchsorted(model.classes_, y)].sum()
    return float((loss + 0.5 * (model.coef_**2).sum()) / len(y))


def scores(model: Any, X: Any) -> Any:
    found = model.decision_function(X)
    return found if found.ndim == 2 else np.stack([np.zeros_like(found), found], axis=1)


def estimator_checks() -> str:
    results = check_estimator(softly.SoftmaxClassifier(), on_fail=None, on_skip=None)
    counts: dict[str, int] = {}
    for result in results:
        counts[result["status"]] = counts.get(result["status"], 0) + 1
    said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    skipped = "; ".join(
        f"{r['check_name']}: {r['exception']}" for r in results if r["status"] == "skipped"
    )
    return f"scikit-learn's `check_estimator`, with no failure expected: {said}. Skipped: {skipped}"
