"""The regularised loss and its gradient against their definition, written out."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import approx_fprime

import oracle
from softly import objective
from softly.kernels import blas
from softly.objective import Objective


def problem(classes, rows=57, features=4, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, features))
    y = rng.integers(classes, size=rows)
    weight = rng.choice([0.0, 0.5, 1.0, 2.0], size=rows)
    return X, y, weight, rng


def definition(X, y, weight, classes, l2, parameters):
    """F(W, b) in mpmath: scores row by row, the oracle's cross-entropy, the penalty."""
    W, b = parameters[:, : X.shape[1]], parameters[:, X.shape[1] :]
    total = oracle.mp.mpf(0)
    for row, target, w in zip(X, y, weight, strict=True):
        scores = W @ row + (b[:, 0] if b.size else 0)
        if classes == 2:
            scores = np.array([0, scores[0]])
        value = oracle.logsumexp(scores) - oracle.mp.mpf(float(scores[target]))
        total += w * value
    return float(total / weight.sum() + 0.5 * l2 * (W**2).sum())


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("make", [np.asarray, sp.csr_array])
def test_value_and_gradient(classes, fit_intercept, make):
    X, y, weight, rng = problem(classes)
    made = Objective(make(X), y, classes, weight=weight, l2=0.3, fit_intercept=fit_intercept)
    at = rng.normal(size=made.shape)
    value, gradient = made.value_and_gradient(at)
    assert value == pytest.approx(definition(X, y, weight, classes, 0.3, at), rel=1e-13)
    slope = approx_fprime(
        at.ravel(), lambda flat: made.value_and_gradient(flat.reshape(at.shape))[0], 1e-7
    )
    np.testing.assert_allclose(gradient.ravel(), slope, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("make", [np.asarray, sp.csr_array])
def test_curvature_by_the_intercepts(classes, weighted, make):
    X, y, weight, rng = problem(classes)
    weight = weight if weighted else None
    made = Objective(make(X), y, classes, weight=weight, l2=0.3, fit_intercept=True)
    at = rng.normal(size=made.shape)

    def slope(b):
        return made.value_and_gradient(np.column_stack([at[:, :-1], b]))[1][:, -1]

    steps = 1e-5 * np.eye(len(at))
    b = at[:, -1]
    numeric = np.array([(slope(b + h) - slope(b - h)) / 2e-5 for h in steps])
    np.testing.assert_allclose(made.intercept_hessian(at), numeric, atol=1e-8)


@pytest.mark.parametrize("make", [np.asarray, sp.csr_array])
def test_blocks_change_nothing_but_the_rounding(make, monkeypatch):
    X, y, weight, rng = problem(5, rows=1003)
    at = rng.normal(size=(5, 5))
    whole = Objective(make(X), y, 5, weight=weight, l2=0.1, fit_intercept=True)
    monkeypatch.setattr(objective, "_SCORE_BYTES", 8 * 5 * 17)
    cut = Objective(make(X), y, 5, weight=weight, l2=0.1, fit_intercept=True)
    assert sum(len(stripe) for stripe in cut._stripes) > 50
    assert [sum(len(b.target) for s in o._stripes for b in s) for o in (whole, cut)] == [1003] * 2
    first, second = whole.value_and_gradient(at), cut.value_and_gradient(at)
    assert first[0] == pytest.approx(second[0], rel=1e-14)
    np.testing.assert_allclose(first[1], second[1], atol=1e-14)
    assert cut.n_passes == 1


def test_rows_are_read_where_they_lie():
    """Blocks are views: a copy of X would double the memory of a fit."""
    X, y, _, _ = problem(3)
    dense = Objective(X, y, 3, weight=None, l2=0.1, fit_intercept=True)
    assert all(np.shares_memory(b.features, X) for s in dense._stripes for b in s)
    S = sp.csr_array(X)
    sparse = Objective(S, y, 3, weight=None, l2=0.1, fit_intercept=True)
    assert all(np.shares_memory(b.features.data, S.data) for s in sparse._stripes for b in s)


def test_float32_sums_are_kept_in_float64():
    """A million rows of float32: the mean loss at 0 is log K to float64's accuracy, nearly."""
    X = np.ones((1_000_000, 1), np.float32)
    y = np.arange(len(X)) % 3
    made = Objective(X, y, 3, weight=None, l2=0.0, fit_intercept=True)
    value, gradient = made.value_and_gradient(np.zeros(made.shape))
    assert value == pytest.approx(np.log(3), rel=3e-8)  # log 3 itself is rounded to float32
    np.testing.assert_allclose(gradient, [[-1e-6 / 3] * 2, [0] * 2, [0] * 2], atol=1e-6)


def test_blas_has_its_threads_back_after_fits_that_overlap():
    def blas_threads():
        return [pool["num_threads"] for pool in blas._blas().info()]

    before = blas_threads()
    first, second = blas.one_blas_thread, blas.one_blas_thread
    with first:
        with second:
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert blas_threads() == before
