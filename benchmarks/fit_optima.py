"""The least objective of each problem of `fit`, from a long float64 run, kept in optima.json.

By softly, with its own proof that no more than 1e-9 of it can be gained; or, as a reference that
shares nothing with softly, by solvers of scikit-learn and SciPy.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import minimize

from benchmarks.fit_data import Array, Problem, problem

OPTIMA = Path(__file__).with_name("optima.json")
ROUNDING = 1e-9  # relative: as much as two good optima may differ by
SMALL = 2_000  # coefficients: Newton's method is quick

Case = tuple[str, float, float]  # data, C, l1_ratio


def known() -> dict[str, dict[str, Any]]:
    return json.loads(OPTIMA.read_text()) if OPTIMA.exists() else {}


def key(data: str, C: float, l1_ratio: float) -> str:
    return f"{data}, C={C:g}, l1_ratio={l1_ratio:g}"


def make(cases: Iterable[Case], by: str) -> str:
    """Find the optima `by` "softly" or by "reference", and keep them; in the end, what was found.

    A new one takes the place of an older one only if it is less, or has a better proof.
    """
    said = []
    for case in cases:
        name = key(*case)
        print(name, flush=True)
        found = certified(problem(*case)) if by == "softly" else reference(problem(*case))
        kept = known()
        old = kept.get(name)
        if old is None or is_better(found, old):
            kept[name] = found
            OPTIMA.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
        said.append(line(name, found, old))
        print(said[-1], flush=True)
    return "\n".join(said)


def is_better(found: dict[str, Any], old: dict[str, Any]) -> bool:
    """Less by more than rounding; or as good, and proven."""
    change = found["objective"] / old["objective"] - 1
    return bool(change < -ROUNDING or (change < ROUNDING and found["within"] < old["within"]))


def line(name: str, found: dict[str, Any], old: dict[str, Any] | None) -> str:
    change = "" if old is None else f", {found['objective'] / old['objective'] - 1:+.1e} to before"
    return f"{name}: {found['objective']!r} by {found['by']}, within {found['within']:.1e}{change}"


def certified(asked: Problem) -> dict[str, Any]:
    from softly import SoftmaxClassifier

    mixed: dict[str, Any] = {"l1_ratio": asked.l1_ratio} if asked.l1_ratio else {}
    model: Any = SoftmaxClassifier(C=asked.C, tol=ROUNDING, max_iter=1_000_000, **mixed)
    model.fit(asked.X.astype(float), asked.y)
    least = asked.objective(model.coef_, model.intercept_)
    return {"objective": least, "within": float(model.optimality_gap_), "by": "softly"}


def reference(asked: Problem) -> dict[str, Any]:
    exact = Problem(asked.X.astype(float, copy=False), asked.y, asked.C, asked.l1_ratio)
    if asked.l1_ratio:
        coef, intercept = by_working_set(exact)
        by = "SciPy's L-BFGS-B on features that matter"
    elif exact.n_classes * (exact.X.shape[1] + 1) <= SMALL:
        coef, intercept = by_newton(exact)
        by = "scikit-learn's newton-cholesky"
    else:
        coef, intercept = by_lbfgs(exact)
        by = "SciPy's L-BFGS-B on mixed features"
    within = bound(exact, coef, intercept)
    return {"objective": exact.objective(coef, intercept), "within": within, "by": by}


def bound(asked: Problem, coef: Array, intercept: Array) -> float:
    r"""How far the objective can be from its minimum for these intercepts, as a part of it.

    With G the slope of the mean loss L, :math:`(1 - \epsilon) (L - \langle W, G \rangle) -
    \Omega^*(-(1 - \epsilon) G)` is no more than the minimum, for any :math:`\epsilon`: the dual,
    at probabilities mixed with the classes. It is 0 unless the penalty is L1 alone, and then the
    least for which its conjugate is not infinite.
    """
    loss, slope, _ = value_and_gradient(asked, coef, intercept)
    edge, mu = asked.l1_ratio * asked.strength, (1 - asked.l1_ratio) * asked.strength
    primal = loss + asked.strength * asked.penalty(coef)
    most = float(np.abs(slope).max())
    kept = 1.0 if mu else min(1.0, edge / most)
    beyond = np.maximum(np.abs(slope) - edge, 0)
    conjugate = float(np.vdot(beyond, beyond)) / (2 * mu) if mu else 0.0
    gap = primal + conjugate - kept * (loss - float(np.vdot(coef, slope)))
    return max(gap / primal, 0.0)


def value_and_gradient(asked: Problem, coef: Array, intercept: Array) -> tuple[float, Array, Array]:
    """Of the mean loss alone."""
    total, slope, of_intercept = 0.0, np.zeros_like(coef), np.zeros_like(intercept)
    for features, target in asked.blocks():
        rows = np.arange(len(target))
        p = features @ coef.T + intercept
        p -= p.max(axis=1, keepdims=True)
        total -= p[rows, target].sum()
        np.exp(p, out=p)
        sums = p.sum(axis=1, keepdims=True)
        total += np.log(sums).sum()
        p /= sums
        p[rows, target] -= 1
        slope += (features.T @ p).T
        of_intercept += p.sum(axis=0)
    n = len(asked.y)
    return total / n, slope / n, of_intercept / n


def by_newton(asked: Problem) -> tuple[Array, Array]:
    from sklearn.linear_model import LogisticRegression

    warnings.simplefilter("ignore")
    model = LogisticRegression(C=asked.C, solver="newton-cholesky", tol=1e-12, max_iter=200)
    model.fit(asked.X, asked.y)
    return model.coef_, model.intercept_


LONG = {"maxiter": 100_000, "maxfun": 200_000, "maxcor": 50, "gtol": 0, "ftol": 1e-15}


def by_lbfgs(asked: Problem) -> tuple[Array, Array]:
    """Coefficients of columns that are centred, and mixed to curve the objective alike."""
    K, d = asked.n_classes, asked.X.shape[1]
    mean, mix = _columns(asked)
    enough = 2 * asked.strength * ROUNDING / 20
    slopes: list[float] = []

    def evaluate(flat: Array) -> tuple[float, Array]:
        coef, intercept = unpack(flat)
        value, slope, of_intercept = value_and_gradient(asked, coef, intercept)
        value += asked.strength * asked.penalty(coef)
        slope += asked.strength * coef
        slopes.append(float(np.vdot(slope, slope)) / value)
        slope -= np.outer(of_intercept, mean)
        return value, np.concatenate([(slope @ mix.T).ravel(), of_intercept])

    def unpack(flat: Array) -> tuple[Array, Array]:
        coef = flat[: K * d].reshape(K, d) @ mix
        return coef, flat[K * d :] - coef @ mean

    def stop(_: Array) -> None:
        if slopes[-1] <= enough:  # then `bound` says enough as well
            raise StopIteration

    start = np.zeros(K * (d + 1))
    found = minimize(evaluate, start, jac=True, method="L-BFGS-B", options=LONG, callback=stop)
    return unpack(found.x)


def _columns(asked: Problem) -> tuple[Array, Any]:
    """Their means; and M for which M' M is about the inverse of the second derivatives."""
    mean = np.asarray(asked.X.mean(axis=0)).ravel()
    if sp.issparse(asked.X):
        variance = np.asarray(asked.X.multiply(asked.X).mean(axis=0)).ravel() - mean**2
        return mean, sp.diags_array(1 / np.sqrt(variance / asked.n_classes + asked.strength))
    second = asked.X.T @ asked.X / len(asked.y) - np.outer(mean, mean)
    values, vectors = np.linalg.eigh(second)
    curve = np.maximum(values, 0) / asked.n_classes + asked.strength
    return mean, (vectors / np.sqrt(curve)).T


def by_working_set(asked: Problem) -> tuple[Array, Array]:
    """L1: solved on some features, to which those are added that want to leave 0."""
    K, d = asked.n_classes, asked.X.shape[1]
    edge = asked.l1_ratio * asked.strength
    coef, intercept = np.zeros((K, d)), np.log(np.bincount(asked.y) / len(asked.y))
    chosen, done = np.zeros(d, bool), 0.0
    for precision in (1e-6, LONG["ftol"]):
        while True:
            _, slope, _ = value_and_gradient(asked, coef, intercept)
            wish = np.where(chosen, 0, np.abs(slope).max(axis=0) / edge - 1)
            wanted = np.argsort(-wish)[: max(2000, np.count_nonzero(chosen))]
            wanted = wanted[wish[wanted] > 1e-9]
            if not len(wanted) and done == precision:
                break
            chosen[wanted] = True
            part = _columns_alone(asked, chosen)
            coef[:, chosen], intercept = _split(part, coef[:, chosen], intercept, precision)
            done = precision
            size, found = np.count_nonzero(coef), asked.objective(coef, intercept)
            print(f"  {np.count_nonzero(chosen)} features, {size} coefficients: {found!r}")
    return coef, intercept


def _columns_alone(asked: Problem, chosen: Array) -> Problem:
    return Problem(asked.X[:, chosen].tocsr(), asked.y, asked.C, asked.l1_ratio)


def _split(part: Problem, coef: Array, intercept: Array, precision: float) -> tuple[Array, Array]:
    """L1 made smooth: coefficients are a difference of two that are not below 0."""
    size, edge = coef.size, part.l1_ratio * part.strength
    mu = (1 - part.l1_ratio) * part.strength

    def unpack(flat: Array) -> tuple[Array, Array]:
        return (flat[:size] - flat[size : 2 * size]).reshape(coef.shape), flat[2 * size :]

    def evaluate(flat: Array) -> tuple[float, Array]:
        coef, intercept = unpack(flat)
        value, slope, of_intercept = value_and_gradient(part, coef, intercept)
        value += edge * flat[: 2 * size].sum() + mu / 2 * float(np.vdot(coef, coef))
        slope = (slope + mu * coef).ravel()
        return value, np.concatenate([slope + edge, edge - slope, of_intercept])

    start = np.concatenate([np.maximum(coef, 0).ravel(), np.maximum(-coef, 0).ravel(), intercept])
    options = LONG | {"ftol": precision}
    limits = [(0, None)] * (2 * size) + [(None, None)] * len(intercept)
    found = minimize(evaluate, start, jac=True, method="L-BFGS-B", bounds=limits, options=options)
    return unpack(found.x)
