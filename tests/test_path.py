"""regularization_path: each fit of the path is the fit that a cold start finds."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import softly
from softly import path, targets

CS = [0.01, 1.0, 30.0]


def digits(classes=4):
    X, y = load_digits(n_class=classes, return_X_y=True)
    return X / 16, y


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_a_path_is_cold_fits_side_by_side(classes, fit_intercept):
    X, y = digits(classes)
    options = {"fit_intercept": fit_intercept, "tol": 1e-9, "max_iter": 1000}
    found = softly.regularization_path(X, y, Cs=CS, **options)
    width = 1 if classes == 2 else classes
    assert found.coefs.shape == (3, width, X.shape[1])
    assert found.intercepts.shape == (3, width)
    assert found.converged.all()
    for at, C in enumerate(CS):
        cold = softly.SoftmaxClassifier(C=C, **options).fit(X, y)
        theirs = LogisticRegression(
            C=C, fit_intercept=fit_intercept, solver="newton-cholesky", tol=1e-12, max_iter=500
        ).fit(X, y)
        assert found.objectives[at] == pytest.approx(cold.objective_, rel=1e-8)
        np.testing.assert_allclose(found.coefs[at], theirs.coef_, atol=1e-3)
        np.testing.assert_allclose(found.intercepts[at], theirs.intercept_, atol=1e-3)


def test_every_fit_is_within_its_tolerance_of_the_minimum():
    X, y = digits()
    tol = 1e-4
    rough = softly.regularization_path(X, y, tol=tol)
    fine = softly.regularization_path(X, y, tol=1e-9, max_iter=1000)
    share = np.bincount(y) / len(y)
    guessing = -(share @ np.log(share))
    above = rough.objectives - fine.objectives
    assert (above <= tol * guessing).all()
    assert (rough.objectives * rough.gaps <= tol * guessing * 1.001).all()
    assert (above <= rough.gaps * rough.objectives + 1e-12).all()
    np.testing.assert_allclose(rough.Cs, np.logspace(-4, 4, 10))


def test_the_start_is_warm():
    X, y = digits()
    dense = np.geomspace(0.1, 10, 21)
    found = softly.regularization_path(X, y, Cs=dense, tol=1e-5)
    cold = [softly.regularization_path(X, y, Cs=[C], tol=1e-5).n_iter[0] for C in dense[1:]]
    assert found.n_iter[1:].sum() < 0.7 * sum(cold)


def test_the_order_of_the_grid_is_the_callers():
    X, y = digits()
    up = softly.regularization_path(X, y, Cs=CS)
    mixed = softly.regularization_path(X, y, Cs=[CS[i] for i in (1, 2, 0)])
    np.testing.assert_array_equal(mixed.coefs, up.coefs[[1, 2, 0]])
    np.testing.assert_array_equal(mixed.Cs, up.Cs[[1, 2, 0]])
    told = []
    softly.regularization_path(X, y, Cs=[1.0, 0.01], on_pass=lambda C, at: told.append((C, at)))
    assert sorted({C for C, _ in told}) == [0.01, 1.0]
    assert told[0][0] == 0.01
    numbers = [at.number for C, at in told if C == 1.0]
    assert numbers[0] <= 2  # passes are counted anew for each C


def test_weights_and_shares():
    X, y = digits()
    weight = np.arange(len(y)) % 3
    some = softly.regularization_path(X, y, Cs=CS, sample_weight=weight, tol=1e-8, max_iter=1000)
    rows = np.repeat(np.arange(len(y)), weight)
    again = softly.regularization_path(X[rows], y[rows], Cs=CS, tol=1e-8, max_iter=1000)
    np.testing.assert_allclose(some.coefs, again.coefs, atol=1e-3)
    np.testing.assert_allclose(some.objectives, again.objectives, rtol=1e-7)
    shares = softly.regularization_path(X, np.eye(4)[y], Cs=CS)
    np.testing.assert_allclose(
        shares.objectives, softly.regularization_path(X, y, Cs=CS).objectives, rtol=1e-3
    )


def test_sparse_and_float32():
    X, y = digits()
    dense = softly.regularization_path(X, y, Cs=CS)
    sparse = softly.regularization_path(sp.csr_array(X), y, Cs=CS)
    np.testing.assert_allclose(sparse.objectives, dense.objectives, rtol=1e-3)
    narrow = softly.regularization_path(X.astype(np.float32), y, Cs=CS)
    assert narrow.coefs.dtype == narrow.intercepts.dtype == np.float32
    np.testing.assert_allclose(narrow.objectives, dense.objectives, rtol=1e-3)


def test_no_penalty_comes_last():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = rng.integers(3, size=300)
    found = softly.regularization_path(X, y, Cs=[np.inf, 1.0])
    assert found.objectives[0] < found.objectives[1]


def test_l1_paths_go_from_no_features_to_many():
    X, y = digits()
    found = softly.regularization_path(X, y, Cs=[1e-3, 0.03, 1.0], l1_ratio=1.0)
    held = np.count_nonzero(found.coefs, axis=(1, 2))
    assert held[0] == 0
    assert 0 < held[1] < held[2] < found.coefs[0].size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"Cs": []}, r"Cs is \[\], but a whole number from 1 up, or a list of numbers above 0"),
        ({"Cs": 0}, "Cs is 0, but"),
        ({"Cs": True}, "Cs is True, but"),
        ({"Cs": [1.0, -1.0]}, r"Cs is \[1.0, -1.0\], but"),
        ({"Cs": [1.0, np.nan]}, "Cs is .*nan"),
        ({"Cs": ["a"]}, "Cs is"),
        ({"Cs": [[1.0]]}, "Cs is"),
        ({"l1_ratio": 1.5}, "l1_ratio is 1.5, but a number from 0 to 1"),
        ({"tol": -1}, "tol is -1, but a number, 0 or above"),
        ({"max_iter": 0}, "max_iter is 0, but a whole number from 1 up"),
    ],
)
def test_parameters_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        softly.regularization_path(*digits(), **options)


def test_a_grid_of_one_number():
    np.testing.assert_allclose(path.grid_of(np.int64(1)), [1e-4])
    np.testing.assert_allclose(path.grid_of(10), np.logspace(-4, 4, 10))


@pytest.mark.parametrize("rare", [False, True])
def test_a_path_without_proof_is_near_the_minimum_all_the_same(rare):
    """Wide enough for Kronecker factors, which are handed on from C to C."""
    X, y = load_digits(return_X_y=True)
    X = np.hstack([X / 16, np.sin(X[:, :40] * np.arange(1, 41))])
    if rare:  # columns that few rows have, and no sample
        X = np.hstack([X, np.eye(len(X))[:, 7:1500:300] * 3])
    X = np.tile(X, (4, 1)) + np.random.default_rng(0).normal(0, 0.05, (4 * len(X), X.shape[1]))
    known = targets.read(X, np.tile(y, 4), None, None)
    Cs = np.geomspace(1e-4, 1e3, 8)
    objective = path.objective_of(X, known, None, True)
    guessing = np.log(10)
    found = {}
    for proof, tol in ((False, 1e-4), (True, 1e-7)):
        results = path.along(objective, Cs, 0.0, tol=tol, max_iter=1000, proof=proof)
        found[proof] = [result for _, result in results]
    assert "Kronecker" in found[False][0].solver
    assert all(result.converged and result.curvature is None for result in found[False])
    behind = [a.objective - b.objective for a, b in zip(*found.values(), strict=True)]
    assert max(behind) < 2e-3 * guessing
    assert np.median(behind) < 2e-4 * guessing
    passes = [sum(result.n_passes for result in results) for results in found.values()]
    assert passes[0] < passes[1] / 2
