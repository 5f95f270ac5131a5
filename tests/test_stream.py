"""Streams: batches one after the other against one fit to all rows."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

import softly
from softly.solvers import stream


def scaled(load):
    X, y = load(return_X_y=True)
    X = (X - X.mean(axis=0)) / np.maximum(X.std(axis=0), 1e-9)
    rows = np.random.default_rng(0).permutation(len(y))
    return X[rows], y[rows]


def streamed(X, y, parts, model=None, **options):
    model = model or softly.SoftmaxClassifier(**options)
    for rows in np.array_split(np.arange(len(y)), parts):
        model.partial_fit(X[rows], y[rows], classes=np.unique(y))
    return model


def loss(model, X, y):
    place = np.searchsorted(model.classes_, y)
    return -model.predict_log_proba(X)[np.arange(len(y)), place].mean()


@pytest.mark.parametrize("load", [load_iris, load_breast_cancer])
@pytest.mark.parametrize("C", [0.1, 3.0])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_one_batch_is_a_fit(load, C, fit_intercept):
    X, y = scaled(load)
    fitted = softly.SoftmaxClassifier(C, tol=1e-12, fit_intercept=fit_intercept).fit(X, y)
    model = streamed(X, y, 1, C=C, fit_intercept=fit_intercept)
    np.testing.assert_allclose(model.coef_, fitted.coef_, atol=2e-3)
    np.testing.assert_allclose(model.intercept_, fitted.intercept_, atol=2e-3)
    if len(model.coef_) > 1:
        assert np.abs(model.coef_.sum(axis=0)).max() < 1e-12


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer, load_digits])
@pytest.mark.parametrize("parts", [3, 10])
def test_batches_come_near_to_a_fit(load, parts):
    X, y = scaled(load)
    model, fitted = streamed(X, y, parts), softly.SoftmaxClassifier().fit(X, y)
    none = softly.SoftmaxClassifier().fit(X[: len(y) // parts], y[: len(y) // parts])
    assert loss(model, X, y) < loss(fitted, X, y) + 0.03
    assert loss(model, X, y) < loss(none, X, y)


def test_a_class_may_come_late():
    X, y = scaled(load_iris)
    model = softly.SoftmaxClassifier()
    first = np.flatnonzero(y < 2)
    model.partial_fit(X[first[:40]], y[first[:40]], classes=[0, 1, 2])
    assert (model.predict(X) < 2).all()
    model.partial_fit(X[40:], y[40:])
    assert model.score(X, y) > 0.9


@pytest.mark.parametrize("whole", [True, False])
def test_sparse_rows_are_dense_rows(whole, monkeypatch):
    if not whole:
        monkeypatch.setattr(stream, "_MOST_WHOLE", 0)
    X, y = scaled(load_digits)
    X = np.where(np.abs(X) < 0.7, 0, X)
    dense = streamed(X, y, 4)
    padded = sp.hstack([sp.csr_array(X), sp.csr_array((len(y), 2000))], format="csr")
    monkeypatch.setattr("softly.inputs._LITTLE", 0)
    sparse = streamed(sp.csr_array(X), y, 4)
    assert sparse.precision_.shape == ((650, 650) if whole else (10, 65))
    np.testing.assert_allclose(sparse.coef_, dense.coef_, atol=1e-6)
    if not whole:
        wide = streamed(padded, y, 4)
        np.testing.assert_allclose(wide.coef_[:, :64], dense.coef_, atol=1e-3)
        assert not wide.coef_[:, 64:].any()


def test_the_precision_is_the_hessian():
    X, y = scaled(load_iris)
    model = streamed(X, y, 1, C=0.5)
    P, ones = model.predict_proba(X), np.column_stack([X, np.ones(len(X))])
    expected = np.zeros((15, 15))
    for p, x in zip(P, ones, strict=True):
        expected += np.kron(np.diag(p) - np.outer(p, p), np.outer(x, x))
    expected += np.diag(np.tile([2.0] * 4 + [0.0], 3))
    np.testing.assert_allclose(model.precision_, expected, atol=1e-8)


def test_weights_are_repetitions():
    X, y = scaled(load_wine)
    weight = np.random.default_rng(1).integers(0, 3, len(y))
    every = np.arange(3)
    weighted = softly.SoftmaxClassifier().partial_fit(X, y, classes=every, sample_weight=weight)
    again = softly.SoftmaxClassifier().partial_fit(
        np.repeat(X, weight, axis=0), np.repeat(y, weight), classes=every
    )
    np.testing.assert_allclose(weighted.coef_, again.coef_, atol=1e-9)
    by_class = softly.SoftmaxClassifier(class_weight={0: 2, 1: 0.5})
    by_row = softly.SoftmaxClassifier()
    by_class.partial_fit(X, y, classes=every)
    by_row.partial_fit(X, y, classes=every, sample_weight=np.array([2, 0.5, 1])[y])
    np.testing.assert_array_equal(by_class.coef_, by_row.coef_)


def test_large_batches_are_taken_in_parts(monkeypatch):
    X, y = scaled(load_digits)
    parts = streamed(X, y, 3)
    monkeypatch.setattr(stream, "_KEPT_BYTES", 8 * 10 * 599)
    np.testing.assert_allclose(streamed(X, y, 1).coef_, parts.coef_, atol=1e-12)


def test_a_stream_goes_on_after_pickling_and_begins_anew_after_cloning():
    X, y = scaled(load_iris)
    model = streamed(X[:70], y[:70], 1)
    other = pickle.loads(pickle.dumps(model))
    for each in (model, other):
        each.partial_fit(X[70:], y[70:])
    np.testing.assert_array_equal(model.coef_, other.coef_)
    anew = clone(model).partial_fit(X[:70], y[:70], classes=[0, 1, 2])
    np.testing.assert_array_equal(anew.coef_, streamed(X[:70], y[:70], 1).coef_)
    assert anew.optimality_gap_ == np.inf


def test_labels_of_any_type_and_two_classes():
    X, y = scaled(load_breast_cancer)
    names = np.array(["no", "yes"])[y]
    model = streamed(X, names, 4)
    assert model.coef_.shape == (1, 30)
    assert model.score(X, names) > 0.97
    np.testing.assert_array_equal(model.coef_, streamed(X, y, 4).coef_)


def test_an_interrupted_batch_leaves_the_stream_as_it_was(monkeypatch):
    X, y = scaled(load_iris)
    model = streamed(X[:70], y[:70], 1)
    before = pickle.dumps(model)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(stream._Batch, "_curvature", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.partial_fit(X[70:], y[70:])
    assert pickle.dumps(model) == before


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda m, X, y: m.partial_fit(X, y), "the first batch needs all labels"),
        (lambda m, X, y: m.partial_fit(X, y, classes=[0, 1]), "y has the label 2"),
        (lambda m, X, y: m.partial_fit(X, y, classes=[1]), "needs two or more"),
        (
            lambda m, X, y: m.partial_fit(X, y, [0, 1, 2]).partial_fit(X, y, [0, 1, 2, 3]),
            "cannot change",
        ),
        (lambda m, X, y: m.partial_fit(X, y, [0, 1, 2]).partial_fit(X[:, :2], y), "2 features"),
        (lambda m, X, y: m.partial_fit(X, y, [0, 1, 2], np.zeros(len(y))), "non-zero"),
        (lambda m, X, y: m.set_params(l1_ratio=0.5).partial_fit(X, y, [0, 1, 2]), "l1_ratio=0"),
        (
            lambda m, X, y: m.set_params(class_weight="balanced").partial_fit(X, y, [0, 1, 2]),
            "how frequent classes are",
        ),
        (lambda m, X, y: m.set_params(C=-1).partial_fit(X, y, [0, 1, 2]), "a number above 0"),
        (lambda m, X, y: m.partial_fit(X * np.nan, y, [0, 1, 2]), "NaN"),
    ],
)
def test_what_a_stream_cannot_be(make, match):
    X, y = scaled(load_iris)
    with pytest.raises(ValueError, match=match):
        make(softly.SoftmaxClassifier(), X, y)


def test_a_fit_ends_a_stream_and_a_search_has_none():
    X, y = scaled(load_iris)
    model = streamed(X, y, 2).fit(X, y)
    assert not hasattr(model, "precision_")
    assert not hasattr(softly.SoftmaxClassifierCV(), "partial_fit")


def test_after_a_fit_a_stream_begins_anew():
    X, y = scaled(load_iris)
    model = softly.SoftmaxClassifier().fit(X, y)
    with pytest.warns(UserWarning, match="begins anew"):
        model.partial_fit(X[:50], y[:50])
    np.testing.assert_array_equal(model.coef_, streamed(X[:50], y[:50], 1).coef_)
