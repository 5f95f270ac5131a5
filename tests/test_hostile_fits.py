"""Data that fits break on: an answer with its certificate, or one clear error."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning

import softly
from softly import objective

rng = np.random.default_rng(0)
X = rng.normal(size=(200, 5))
Y = rng.integers(0, 3, 200)
APART = np.digitize(X[:, 0], [-0.5, 0.5])
CONSTANT = np.column_stack([X, np.ones(200), np.zeros(200), X[:, 0], X[:, 0]])
WIDE = rng.normal(size=(30, 2000))
MANY = rng.normal(size=(20_000, 8))


def rare(label=1):
    y = np.zeros(len(MANY), int)
    y[:3] = label
    return y


@pytest.mark.parametrize("C", [1e-300, 1e-3, 1.0, 1e4, 1e12, np.inf])
@pytest.mark.parametrize(
    ("features", "y"),
    [
        (X, Y),
        (X, APART),
        (X, (X[:, 0] > 0).astype(int)),
        (CONSTANT, Y),
        (X * 0, Y),
        (X * 1e-200, Y),
        (X + 1e6, Y),
        ((X + 1e4).astype(np.float32), Y),
        (X[:10], np.arange(10)),
        (X[:2], [0, 1]),
        (X, np.r_[7, Y[1:]]),
        (WIDE, Y[:30]),
        (WIDE.astype(np.float32), Y[:30]),
        (X.astype(np.float32), APART),
        (MANY, rare()),
        (MANY, np.sort(rng.integers(0, 5, len(MANY)))),
        (sp.csr_array(X * (X > 1)), Y),
        (sp.csr_array((200, 5)), Y),
        (X * [1e8, 1, 1, 1e-8, 1], Y),
    ],
)
def test_an_answer_with_its_certificate(features, y, C, monkeypatch):
    monkeypatch.setattr(objective, "_LITTLE", 0)  # float32 where that can be
    """Without a warning: within the tolerance, by proof unless there is no penalty."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = softly.SoftmaxClassifier(C=C).fit(features, y)
    assert model.optimality_gap_ <= 1e-4 or np.isinf(C)
    assert np.isfinite(model.coef_).all()
    assert np.isfinite(model.intercept_).all()
    p = model.predict_proba(features)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_whose_squares_overflow_are_named(dtype):
    big = X.copy()
    big[:, 0] *= float(np.finfo(dtype).max) ** 0.6
    with pytest.raises(ValueError, match=r"numbers as large as .* scale the columns"):
        softly.SoftmaxClassifier().fit(big.astype(dtype), Y)


def test_rounding_that_hides_the_end_is_said():
    wild = X * [1e60, 1, 1, 1, 1]
    with pytest.warns(ConvergenceWarning, match="Rounding hides what is left: scale the columns"):
        softly.SoftmaxClassifier().fit(wild, Y)


@pytest.mark.parametrize("make", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("C", [0.1, 10.0])
def test_a_weight_of_two_is_the_row_twice(make, C):
    weight = np.random.default_rng(1).integers(0, 3, 200)
    once = softly.SoftmaxClassifier(C=C).fit(make(X), Y, sample_weight=weight)
    rows = np.repeat(np.arange(200), weight)
    twice = softly.SoftmaxClassifier(C=C).fit(make(X[rows]), Y[rows])
    np.testing.assert_allclose(once.coef_, twice.coef_, atol=1e-9, rtol=0)
    np.testing.assert_allclose(once.coef_.sum(axis=0), 0, atol=1e-12)


def test_shares_of_classes():
    """As good as weighted rows of each class, with class weights too."""
    shares = np.random.default_rng(1).dirichlet(np.ones(3), 200)
    kinds = {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}, "tol": 1e-30}
    weight = np.random.default_rng(2).uniform(0, 2, 200)
    soft = softly.SoftmaxClassifier(**kinds).fit(X, shares, sample_weight=weight)
    rows = np.repeat(np.arange(200), 3)
    apart = softly.SoftmaxClassifier(**kinds).fit(
        X[rows], np.tile(np.arange(3), 200), sample_weight=weight[rows] * shares.ravel()
    )
    np.testing.assert_allclose(soft.coef_, apart.coef_, atol=1e-7)
    np.testing.assert_array_equal(soft.classes_, [0, 1, 2])
    balanced = softly.SoftmaxClassifier(class_weight="balanced")
    one_hot = np.eye(3)[Y]
    np.testing.assert_allclose(balanced.fit(X, one_hot).coef_, balanced.fit(X, Y).coef_, atol=1e-6)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (rng.random((200, 3)) + 1, r"row 0 is .*: shares are not negative and sum to 1"),
        (np.full((200, 2), [-0.5, 1.5]), "shares are not negative"),
        (np.full((200, 2), "a"), r"labels have shape \(N,\)"),
        (np.eye(3)[np.zeros(200, int)], "only rows of the class"),
    ],
)
def test_shares_that_are_none(y, message):
    with pytest.raises(ValueError, match=message):
        softly.SoftmaxClassifier().fit(X, y)


def test_features_in_a_file_are_not_copied(tmp_path):
    """More of them than the process may have of memory."""
    big = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float32, (400_000, 250))
    for start in range(0, len(big), 50_000):
        big[start : start + 50_000] = np.random.default_rng(start).normal(size=(50_000, 250))
    big.flush()
    code = """
import resource, sys, numpy as np, softly
X = np.load(sys.argv[1], mmap_mode="r")
y = np.random.default_rng(0).integers(0, 3, len(X))
softly.SoftmaxClassifier(max_iter=2).fit(X[:2000], y[:2000])
import re
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
before, most = anonymous(), []
softly.SoftmaxClassifier(tol=1e-2, verbose=lambda p: most.append(anonymous())).fit(X, y)
print(max(most) - before, X.nbytes)
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "X.npy")]
    done = subprocess.run(command, capture_output=True, text=True)
    if "RssAnon" in done.stderr or "/proc" in done.stderr:
        pytest.skip("the system does not tell")
    assert done.returncode == 0, done.stderr
    more, size = map(int, done.stdout.split())
    assert more < 64 << 20 < size


def test_a_fit_that_is_interrupted_leaves_the_classifier_as_it_was():
    model = softly.SoftmaxClassifier(C=1.0).fit(X, Y)
    before = {k: np.copy(v) for k, v in vars(model).items() if k.endswith("_")}

    def stop(done):
        raise KeyboardInterrupt

    model.set_params(C=50.0, verbose=stop)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X[:150], Y[:150])
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(model, name), value)
