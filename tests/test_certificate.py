"""The proof that comes with a fit: it holds at any parameters, and is tight at the minimum."""

import warnings
from unittest import mock

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning

import softly
from softly.objective import Objective
from softly.solvers import decrement

TIGHT = {"tol": 1e-30, "max_iter": 5000}
LOADERS = [load_iris, load_wine, load_digits, load_breast_cancer]


def standardised(load):
    X, y = load(return_X_y=True)
    deviation = X.std(axis=0)
    return (X - X.mean(axis=0)) / np.where(deviation > 0, deviation, 1), y


def fitted(X, y, *, weight=None, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return softly.SoftmaxClassifier(**options).fit(X, y, sample_weight=weight)


def objective_of(model, X, y, weight, C):
    """By itself, in float64: log-probabilities picked, averaged, and the penalty added."""
    weight = np.ones(len(y)) if weight is None else weight
    scores = np.asarray(X @ model.coef_.T.astype(float)) + model.intercept_
    if scores.shape[1] == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    top = scores.max(axis=1, keepdims=True)
    log_p = scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
    loss = -log_p[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    total = weight.sum()
    return weight @ loss / total + (model.coef_.astype(float) ** 2).sum() / (2 * C * total)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("C", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gap_bounds_the_true_difference(load, C, intercept, weighted):
    X, y = standardised(load)
    weight = np.random.default_rng(0).integers(0, 4, len(y)).astype(float) if weighted else None
    options = {"C": C, "fit_intercept": intercept, "weight": weight}
    best = objective_of(fitted(X, y, **options, **TIGHT), X, y, weight, C)
    gaps = []
    for steps in (1, 2, 5, 20, 100):
        model = fitted(X, y, **options, tol=0, max_iter=steps)
        value = objective_of(model, X, y, weight, C)
        assert model.objective_ == pytest.approx(value, rel=1e-9)
        assert value - best <= model.optimality_gap_ * value + 1e-12
        gaps.append(model.optimality_gap_)
    assert gaps[-1] <= gaps[0]


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("intercept", [True, False])
def test_the_gap_closes_at_the_minimum(load, intercept):
    X, y = standardised(load)
    model = fitted(X, y, fit_intercept=intercept, **TIGHT)
    assert 0 <= model.optimality_gap_ < 1e-10


def test_intercepts_do_not_loosen_it():
    """Their gradient enters the bound at first order: a Newton step has to take it away."""
    X, y = load_digits(return_X_y=True)
    assert fitted(X / 16, y, tol=1e-6, max_iter=1000).optimality_gap_ < 1e-5


@pytest.mark.parametrize("form", [sp.csr_array, lambda X: X.astype(np.float32)])
def test_sparse_rows_and_single_precision(form):
    X, y = standardised(load_digits)
    best = objective_of(fitted(X, y, **TIGHT), X, y, None, 1.0)
    model = fitted(form(X), y, tol=1e-5, max_iter=1000)
    value = objective_of(model, X, y, None, 1.0)
    assert value - best <= model.optimality_gap_ * value + 1e-6
    assert model.optimality_gap_ < 2e-2


@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 5),
    st.sampled_from([0.01, 1.0, 50.0]),
    st.sampled_from([1e-6, 1e-2, 1.0, 5.0]),
)
def test_it_holds_anywhere(seed, classes, C, far):
    """Also where no solver would end: far from the minimum, with intercepts far from theirs."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(40, 3)), rng.integers(0, classes, 40)
    y[:classes] = range(classes)
    weight = rng.uniform(0.1, 3, 40)
    l2 = 1 / (C * weight.sum())
    kinds = {"weight": weight, "l2": l2, "fit_intercept": True}
    objective = Objective(X, y, classes, **kinds)
    best = fitted(X, y, weight=weight, C=C, **TIGHT)
    at = np.hstack([best.coef_, best.intercept_[:, None]])
    at += far * rng.normal(size=at.shape)
    value, gradient = objective.value_and_gradient(at)
    above = value - best.objective_
    gap = objective.relative_gap(at, value, gradient) * value
    assert above <= gap * (1 + 1e-9) + 1e-12


@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 4),
    st.booleans(),
    st.sampled_from([1e-4, 1e-3, 1e-2, 0.1]),
    st.booleans(),
)
def test_without_a_penalty_the_decrement_proves(seed, classes, intercept, far, is_rough):
    """Also with columns far from 0, given twice, and constant, which change no score."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(80, 2)) * [3, 1] + [0, 5], rng.integers(0, classes, 80)
    y[:classes] = range(classes)
    X = np.column_stack([X, X[:, 0], np.ones(80)])
    weight = rng.uniform(0.1, 3, 80)
    objective = Objective(X, y, classes, weight=weight, l2=0.0, fit_intercept=intercept)
    with mock.patch.object(softly.objective, "_LITTLE", 0 if is_rough else np.inf):
        best = fitted(X, y, weight=weight, C=np.inf, fit_intercept=intercept, **TIGHT)
    at = np.hstack([best.coef_, best.intercept_[:, None]])[:, : objective.shape[1]]
    at = at + far * rng.normal(size=at.shape)
    value, gradient = objective.value_and_gradient(at)
    gap = decrement.relative_gap(objective, value, gradient) * value
    above = value - best.objective_
    assert above <= gap * (1 + 1e-9) + 1e-12
    if far < 1e-3:
        assert gap < 2 * above + 1e-9


def test_a_fit_without_a_penalty_is_proven_where_it_has_a_minimum():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 4)), rng.integers(0, 3, 300)
    assert fitted(X, y, C=np.inf).optimality_gap_ < 1e-4
    apart = (X[:, 0] > 0).astype(int)
    model = softly.SoftmaxClassifier(C=np.inf).fit(X, apart)  # and without a warning
    assert model.optimality_gap_ == np.inf
    assert model.objective_ < 1e-4


@pytest.mark.parametrize("C", [0.1, 10.0])
def test_classes_without_weight_do_not_loosen_it(C):
    """Their intercepts have no minimum; the fit ends where they make no difference."""
    X, y = standardised(load_digits)
    weight = (y != 3).astype(float)
    model = softly.SoftmaxClassifier(C=C).fit(X, y, sample_weight=weight)
    assert model.optimality_gap_ <= 1e-4
    assert model.predict_proba(X)[y != 3, 3].max() < 1e-3
    without = fitted(X[y != 3], y[y != 3], C=C, **TIGHT)
    assert without.objective_ <= model.objective_
    assert model.objective_ - without.objective_ <= model.optimality_gap_ * model.objective_


def test_a_fit_that_stops_early_says_how_far_it_may_be():
    X, y = standardised(load_digits)
    with pytest.warns(ConvergenceWarning, match=r"proven to be within 0\.\d+ of itself"):
        softly.SoftmaxClassifier(C=0.01, max_iter=3, tol=1e-9).fit(X, y)
