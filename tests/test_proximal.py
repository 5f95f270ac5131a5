"""Fits with an L1 penalty: against scikit-learn, the conditions of a minimum, and the proof."""

import itertools
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

import softly
from softly.certificate import duality_gap, elastic_net_gap
from softly.objective import Objective
from softly.solvers import proximal, quadratic
from softly.solvers.proximal import proximal_newton

LOADERS = [load_iris, load_wine, load_breast_cancer]


def standardised(load):
    X, y = load(return_X_y=True)
    deviation = X.std(axis=0)
    return (X - X.mean(axis=0)) / np.where(deviation > 0, deviation, 1), y


def objective_of(X, y, C=1.0, l1_ratio=1.0, weight=None, fit_intercept=True):
    total = len(y) if weight is None else weight.sum()
    return Objective(
        *(X, y.astype(np.int64), int(y.max()) + 1),
        weight=weight,
        l2=(1 - l1_ratio) / (C * total),
        l1=l1_ratio / (C * total),
        fit_intercept=fit_intercept,
    )


def solved(objective, *, tol=1e-10, max_iter=200, start=None, **options):
    start = np.zeros(objective.shape) if start is None else start
    return proximal_newton(objective, start, tol=tol, max_iter=max_iter, **options)


def value_at(objective, parameters):
    """In float64, by itself."""
    X = objective.features.astype(float)
    d, K = X.shape[1], objective.n_classes
    W = np.zeros((K, d))
    b = np.zeros(K)
    W[-len(parameters) :] = parameters[:, :d]
    if objective.fit_intercept:
        b[-len(parameters) :] = parameters[:, d]
    scores = np.asarray(X @ W.T) + b
    top = scores.max(axis=1, keepdims=True)
    log_p = scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
    loss = -log_p[np.arange(len(scores)), objective.target]
    mean = np.average(loss, weights=objective.weight)
    return mean + objective.l2 / 2 * (W**2).sum() + objective.l1 * np.abs(W).sum()


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("l1_ratio", [1.0, 0.999, 0.5, 1e-3])
@pytest.mark.parametrize("C", [0.02, 0.2])
def test_agrees_with_saga(load, l1_ratio, C):
    X, y = standardised(load)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        saga = LogisticRegression(
            solver="saga", l1_ratio=l1_ratio, C=C, tol=1e-11, max_iter=100_000, random_state=0
        ).fit(X, y)
    objective = objective_of(X, y, C, l1_ratio)
    result = solved(objective)
    theirs = value_at(objective, np.hstack([saga.coef_, saga.intercept_[:, None]]))
    assert result.converged
    assert result.objective == pytest.approx(theirs, rel=1e-8)
    assert result.objective <= theirs * (1 + 1e-10)
    ours = result.parameters[:, :-1]
    np.testing.assert_allclose(ours, saga.coef_, atol=2e-4)
    if l1_ratio > 0.1:
        np.testing.assert_array_equal(ours == 0, np.abs(saga.coef_) < 1e-7)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_conditions_of_a_minimum(load, l1_ratio, fit_intercept, form):
    X, y = standardised(load)
    weight = np.random.default_rng(0).integers(0, 3, len(y)).astype(float)
    objective = objective_of(form(X), y, 1.0, l1_ratio, weight, fit_intercept)
    result = solved(objective, tol=1e-13)
    _, gradient = objective.value_and_gradient(result.parameters)
    d, l1 = X.shape[1], objective.l1
    W, slope = result.parameters[:, :d], gradient[:, :d]
    accuracy = 1e-4 * l1
    assert np.abs(gradient[:, d:]).max(initial=0) < accuracy
    assert np.abs(slope + l1 * np.sign(W))[W != 0].max() < accuracy
    assert np.abs(slope[W == 0]).max() <= l1 + accuracy
    assert (W == 0).any()


@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 5),
    st.sampled_from([0.05, 1.0, 50.0]),
    st.sampled_from([1.0, 0.5, 0.01]),
    st.sampled_from([0.0, 1e-6, 1e-2, 1.0, 5.0]),
    st.booleans(),
)
def test_the_gap_bounds_the_difference_anywhere(seed, classes, C, l1_ratio, far, fit_intercept):
    """Also where no solver would end: far from the minimum, with zeros and without."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(40, 3)), rng.integers(0, classes, 40)
    y[:classes] = range(classes)
    weight = rng.uniform(0.1, 3, 40)
    objective = objective_of(X, y, C, l1_ratio, weight, fit_intercept)
    best = solved(objective, tol=1e-12)
    at = best.parameters * rng.integers(0, 2, best.parameters.shape)
    at += far * rng.normal(size=at.shape)
    value, gradient = objective.value_and_gradient(at)
    means = objective.class_means if fit_intercept else None
    gap = elastic_net_gap(at, value, gradient, objective.l1, objective.l2, means)
    assert value_at(objective, at) - best.objective <= gap * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("far", [1e-3, 1e-2, 1e-1])
def test_without_l1_it_is_the_gap_of_the_squares(load, far):
    """With intercepts off their place, so that the mixture counts."""
    X, y = standardised(load)
    best = solved(objective_of(X, y, 1.0, 0.001)).parameters
    objective = objective_of(X, y, 1.0, 0.0)
    best[:, -1] += far * np.random.default_rng(0).normal(size=len(best))
    value, gradient = objective.value_and_gradient(best)
    given = (best, value, gradient)
    squares = duality_gap(*given, objective.l2, objective.class_means)
    both = elastic_net_gap(*given, 0.0, objective.l2, objective.class_means)
    assert both <= squares * (1 + 1e-9)
    assert both == pytest.approx(squares, rel=0.05)


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_every_gap_on_the_way_is_proven(l1_ratio):
    X, y = standardised(load_digits)
    objective = objective_of(X, y, 0.1, l1_ratio)
    best = solved(objective).objective
    passes = []
    solved(objective, on_pass=passes.append)
    assert all(p.objective - best <= p.gap * p.objective + 1e-12 for p in passes)
    assert all(a.number <= b.number for a, b in itertools.pairwise(passes))
    assert passes[-1].gap < 0.1


def test_the_gap_closes():
    for load in LOADERS:
        assert 0 <= solved(objective_of(*standardised(load))).gap <= 1e-10


@pytest.mark.parametrize("load", [load_wine, load_breast_cancer])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_sparse_rows_are_the_same_problem(load, l1_ratio):
    X, y = standardised(load)
    X[np.abs(X) < 0.5] = 0
    dense = solved(objective_of(X, y, 1.0, l1_ratio))
    sparse = solved(objective_of(sp.csr_array(X), y, 1.0, l1_ratio))
    np.testing.assert_allclose(sparse.parameters, dense.parameters, atol=1e-4)
    np.testing.assert_array_equal(sparse.parameters == 0, dense.parameters == 0)
    assert sparse.objective == pytest.approx(dense.objective, rel=1e-9)


@pytest.mark.parametrize("load", [load_wine, load_breast_cancer])
def test_weights_of_two_are_rows_twice(load):
    X, y = standardised(load)
    weight = np.random.default_rng(1).integers(0, 3, len(y)).astype(float)
    rows = np.repeat(np.arange(len(y)), weight.astype(int))
    weighted = solved(objective_of(X, y, weight=weight))
    repeated = solved(objective_of(X[rows], y[rows]))
    np.testing.assert_allclose(weighted.parameters, repeated.parameters, atol=1e-4)
    assert weighted.objective == pytest.approx(repeated.objective, rel=1e-9)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_single_precision(form):
    X, y = standardised(load_digits)
    X = X.astype(np.float32)
    double = solved(objective_of(X.astype(float), y))
    for tol in (1e-4, 1e-8):
        single = objective_of(form(X), y)
        result = solved(single, tol=tol)
        assert result.converged
        true = value_at(single, result.parameters)
        assert true - double.objective <= tol * true + 1e-7 * (tol > 1e-5)


@pytest.mark.parametrize("load", LOADERS)
def test_all_coefficients_are_zero_where_the_penalty_is_large(load):
    X, y = standardised(load)
    result = solved(objective_of(X, y, 1e-4), tol=1e-12)
    assert result.converged
    assert result.n_iter == 0
    assert not result.parameters[:, :-1].any()
    frequency = np.bincount(y) / len(y)
    expected = -(frequency @ np.log(frequency))
    assert result.objective == pytest.approx(expected, rel=1e-12)


def test_little_penalty():
    X, y = load_iris(return_X_y=True)
    result = solved(objective_of(X, y, 1e3), tol=1e-4)
    assert result.converged
    assert result.objective < 0.05


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_columns_without_a_curvature_of_their_own(form, l1_ratio):
    """Constant, empty, and twice the same: the minimum is not one point, but its value is."""
    X, y = standardised(load_wine)
    more = np.hstack([X, X[:, :3], np.ones((len(X), 1)), np.zeros((len(X), 2))])
    plain = solved(objective_of(X, y, 1.0, l1_ratio))
    result = solved(objective_of(form(more), y, 1.0, l1_ratio))
    assert result.converged
    assert not result.parameters[:, -4:-1].any()
    if l1_ratio == 1:
        assert result.objective == pytest.approx(plain.objective, rel=1e-8)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_more_features_than_rows(form):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2000))
    y = np.argmax(X[:, :3] + 0.1 * rng.normal(size=(60, 3)), axis=1)
    objective = objective_of(form(X), y, 1.0)
    result = solved(objective, tol=1e-8)
    assert result.converged
    assert 0 < np.count_nonzero(result.parameters[:, :-1]) < 120
    assert result.n_passes < 100  # most of the passes read few of the features


def test_starts_from_where_it_is_told():
    X, y = standardised(load_wine)
    objective = objective_of(X, y)
    first = solved(objective)
    again = solved(objective, start=first.parameters)
    assert again.n_iter <= 1
    assert again.objective == pytest.approx(first.objective, rel=1e-10)
    far = 3 * np.random.default_rng(0).normal(size=objective.shape)
    assert solved(objective, start=far).objective == pytest.approx(first.objective, rel=1e-9)


def test_a_fit_that_stops_early_says_how_far_it_may_be():
    X, y = standardised(load_digits)
    result = solved(objective_of(X, y), max_iter=3)
    assert not result.converged
    assert "stopped after 3 iterations" in result.message
    assert result.objective - solved(objective_of(X, y)).objective <= result.gap * result.objective


BITS = """
import hashlib, sys
import scipy.sparse as sp
from sklearn.datasets import load_digits
import softly
X, y = load_digits(return_X_y=True)
X = (X / 16).astype("float32").repeat(4, axis=0)
for form in (lambda x: x, sp.csr_array):
    model = softly.SoftmaxClassifier(C=0.05, l1_ratio=0.9).fit(form(X), y.repeat(4))
    sys.stdout.write(hashlib.sha256(model.coef_.tobytes()).hexdigest())
"""


def test_the_same_bits_on_any_number_of_threads():
    def run(threads):
        environment = {**os.environ, "SOFTLY_THREADS": str(threads)}
        command = [sys.executable, "-c", BITS]
        return subprocess.run(
            command, env=environment, capture_output=True, check=True, text=True
        ).stdout

    assert run(1) == run(2) == run(3)


def test_the_classifier_has_exact_zeros():
    X, y = standardised(load_wine)
    model = softly.SoftmaxClassifier(C=0.2, l1_ratio=1, tol=1e-8).fit(X, y)
    assert 0 < np.count_nonzero(model.coef_) < model.coef_.size / 2
    assert model.solver_ == "proximal-newton"
    assert model.optimality_gap_ <= 1e-8


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_features_that_a_sample_has_not(form, monkeypatch):
    """Blocks are made of some rows; what is rare may be in none of them."""
    monkeypatch.setattr(proximal, "_SPARSE_ROWS", 60)
    monkeypatch.setattr(proximal, "_DENSE_ROWS", 60)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 900)
    X = rng.normal(size=(900, 6)) + y[:, None] * [1, 0, 0, 0, 0, 0]
    rare = np.zeros((900, 40))
    for column in range(40):
        rare[rng.choice(np.flatnonzero(y == column % 3), 4), column] = 3
    X = np.hstack([X, rare])
    objective = objective_of(form(X), y, 1.0)
    sampled = solved(objective, tol=1e-8, max_iter=60)
    assert sampled.converged
    monkeypatch.undo()
    whole = solved(objective_of(form(X), y, 1.0), tol=1e-8)
    assert sampled.objective == pytest.approx(whole.objective, rel=1e-8)
    assert (sampled.parameters[:, 6:-1] != 0).any()


def rare_indicators(n=8000, levels=40, k=4):
    """One column for each level of a category, standardised: rare ones reach far, all add up."""
    rng = np.random.default_rng(0)
    level = np.minimum(rng.geometric(0.2, n) - 1, levels - 1)
    X = np.concatenate([np.eye(levels)[level], rng.normal(size=(n, 4))], axis=1)
    X = np.ascontiguousarray(X[:, X.std(axis=0) > 0])
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    scores = 3 * rng.normal(size=(levels, k))[level] + X[:, -4:] @ rng.normal(size=(4, k))
    return X, (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
@pytest.mark.parametrize("C", [1.0, 100.0])
def test_rare_levels_of_a_category(l1_ratio, C):
    X, y = rare_indicators()
    found = solved(objective_of(X, y, C, l1_ratio), tol=1e-6, max_iter=100)
    assert found.converged
    assert found.n_passes < 1000  # thousands, by blocks of classes or steps of any length


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("rows", [10_000, 60])
def test_one_block_is_the_hessian(fit_intercept, rows, monkeypatch):
    """Also of rows whose probabilities are not kept."""
    monkeypatch.setattr("softly.objective._KEPT_BYTES", 8 * 3 * rows)
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(500, 7)) + 3, rng.integers(0, 3, 500)
    weight = rng.random(500) * (np.arange(500) >= 120)
    objective = objective_of(X, y, 1.0, 0.5, weight, fit_intercept)
    assert (objective.probabilities is None) == (rows < 500)
    mask = rng.random(objective.shape) < 0.7
    mask[:, 7:] = True
    model = quadratic.Model(objective, mask)
    at = rng.normal(size=objective.shape)
    objective.value_and_gradient(at)
    (block,) = model.blocks(at).blocks
    products = np.array([model.product(unit) for unit in np.eye(model.size)])
    np.testing.assert_allclose(block.matrix, products, rtol=1e-10, atol=1e-14)
