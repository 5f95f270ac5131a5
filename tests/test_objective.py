"""The regularised loss and its gradient against their definition, written out."""

import threading

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import approx_fprime

import oracle
from softly import objective, passes
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
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("make", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("kept", [True, False])
def test_curvature_is_the_slope_of_the_gradient(classes, fit_intercept, make, kept, monkeypatch):
    """Along any direction; from probabilities that were kept, and from scores made again."""
    if not kept:
        monkeypatch.setattr(objective, "_KEPT_BYTES", 0)
    X, y, weight, rng = problem(classes)
    made = Objective(make(X), y, classes, weight=weight, l2=0.3, fit_intercept=fit_intercept)
    assert (made.probabilities is not None) == kept
    at, direction = rng.normal(size=made.shape), rng.normal(size=made.shape)
    before, after = (made.value_and_gradient(at + h * direction)[1] for h in (-1e-5, 1e-5))
    made.value_and_gradient(at)
    np.testing.assert_allclose(
        made.curvature_along(direction), (after - before) / 2e-5, atol=1e-8, rtol=1e-7
    )
    assert made.n_passes == 4


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("make", [np.asarray, sp.csr_array])
def test_shares_of_classes_are_rows_of_each(classes, make):
    """A row with shares of the classes is as good as a weighted row of each class."""
    X, _, weight, rng = problem(classes)
    soft = rng.dirichlet(np.ones(classes), size=len(X))
    kinds = {"l2": 0.3, "fit_intercept": True}
    made = Objective(make(X), soft, classes, weight=weight, **kinds)
    each = np.tile(np.arange(classes), len(X))
    apart = Objective(
        make(np.repeat(X, classes, axis=0)),
        each,
        classes,
        weight=np.repeat(weight, classes) * soft.ravel(),
        **kinds,
    )
    at, direction = rng.normal(size=made.shape), rng.normal(size=made.shape)
    value, gradient = made.value_and_gradient(at)
    same_value, same_gradient = apart.value_and_gradient(at)
    assert value == pytest.approx(same_value, rel=1e-13)
    np.testing.assert_allclose(gradient, same_gradient, atol=1e-14)
    np.testing.assert_allclose(
        made.curvature_along(direction), apart.curvature_along(direction), atol=1e-14
    )
    gaps = [o.relative_gap(at, value, gradient) for o in (made, apart)]
    assert gaps[0] == pytest.approx(gaps[1], rel=1e-9)


def test_a_sample_has_the_same_C():
    X, y, weight, rng = problem(3)
    made = Objective(X, y, 3, weight=weight, l2=0.3, l1=0.1, fit_intercept=True)
    rows = np.array([3, 5, 8, 13, 21, 34])
    part = made.sample(rows)
    scale = weight.sum() / weight[rows].sum()
    alone = Objective(
        X[rows], y[rows], 3, weight=weight[rows], l2=0.3 * scale, l1=0.1 * scale, fit_intercept=True
    )
    at = rng.normal(size=made.shape)
    assert part.value_and_gradient(at)[0] == alone.value_and_gradient(at)[0]
    assert part.l1 == pytest.approx(alone.l1)


@pytest.mark.parametrize("make", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("kept", [True, False])
def test_float32_features_can_be_worked_on_in_float64(make, soft, kept, monkeypatch):
    if not kept:
        monkeypatch.setattr(objective, "_KEPT_BYTES", 0)
    X, y, weight, rng = problem(4)
    X, y = X.astype(np.float32), rng.dirichlet(np.ones(4), size=len(X)).astype("f") if soft else y
    kinds = {"weight": weight, "l2": 0.3, "fit_intercept": True}
    narrow = Objective(make(X), y, 4, **kinds)
    wide = Objective(make(X.astype(float)), y.astype(float) if soft else y, 4, **kinds)
    at = rng.normal(size=narrow.shape)
    rough, exact = narrow.value_and_gradient(at), wide.value_and_gradient(at)
    assert rough[0] != pytest.approx(exact[0], rel=1e-12)
    narrow.precise = True
    value, gradient = narrow.value_and_gradient(at)
    assert value == pytest.approx(exact[0], rel=1e-14)
    np.testing.assert_allclose(gradient, exact[1], atol=1e-14)
    along = rng.normal(size=narrow.shape)
    np.testing.assert_allclose(
        narrow.curvature_along(along), wide.curvature_along(along), atol=1e-5
    )


@pytest.mark.parametrize("make", [np.asarray, sp.csr_array])
def test_stripes_change_nothing_but_the_rounding(make, monkeypatch):
    X, y, weight, rng = problem(5, rows=1003)
    at = rng.normal(size=(5, 5))
    monkeypatch.setattr(passes, "_COLUMN_BYTES", 0)
    whole = Objective(make(X), y, 5, weight=weight, l2=0.1, fit_intercept=True)
    monkeypatch.setattr(passes, "_STRIPE_BYTES", 1000)
    cut = Objective(make(X), y, 5, weight=weight, l2=0.1, fit_intercept=True)
    assert len(whole._passes._stripes) == 1
    assert len(cut._passes._stripes) == passes._MOST_STRIPES
    assert [stop for _, stop in cut._passes._stripes[:-1]] == [
        start for start, _ in cut._passes._stripes[1:]
    ]
    first, second = whole.value_and_gradient(at), cut.value_and_gradient(at)
    assert first[0] == pytest.approx(second[0], rel=1e-14)
    np.testing.assert_allclose(first[1], second[1], atol=1e-14)
    assert cut.n_passes == 1


@pytest.mark.parametrize("classes", [2, 3, 20, 41])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("precise", [True, False])
def test_a_copy_by_columns_changes_nothing_but_the_rounding(
    classes, fit_intercept, soft, dtype, precise, monkeypatch
):
    X, y, weight, rng = problem(classes, rows=1003, features=9)
    X = sp.csr_array(X * (rng.random(X.shape) < 0.3), dtype=dtype)
    y = rng.dirichlet(np.ones(classes), size=len(y)) if soft else y
    kinds = {"weight": weight, "l2": 0.1, "fit_intercept": fit_intercept}
    monkeypatch.setattr(passes, "_STRIPE_BYTES", 1000)
    by_columns = Objective(X, y, classes, **kinds)
    monkeypatch.setattr(passes, "_COLUMN_BYTES", 0)
    by_rows = Objective(X, y, classes, **kinds)
    assert isinstance(by_columns._passes, passes.Columns)
    assert isinstance(by_rows._passes, passes.Stripes)
    at, along = rng.normal(size=(2, *by_rows.shape))
    slopes = rng.random((1003, len(at))).astype(dtype)
    answers = []
    for made in (by_columns, by_rows):
        made.precise = precise
        value, gradient = made.value_and_gradient(at)
        means = made.class_means
        sums = made.square_sums(slopes)
        product = made.curvature_along(along)
        answers.append([value, gradient, product, means.frequency, means.features, sums])
    for place, (ours, theirs) in enumerate(zip(*answers, strict=True)):
        exact = dtype == np.float64 or (precise and place in (0, 1))
        np.testing.assert_allclose(
            ours, theirs, rtol=1e-12 if exact else 2e-5, atol=1e-13 if exact else 1e-6
        )


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


def test_blas_is_limited_from_any_thread():
    """Also after another thread was the first to limit it, and whoever leaves last."""
    seen, inside, left = [], threading.Event(), threading.Event()
    before = [pool["num_threads"] for pool in blas._blas().info()]

    def second():
        with blas.one_blas_thread:
            inside.set()
            left.wait(10)
            seen.extend(pool["num_threads"] for pool in blas._blas().info())

    with blas.one_blas_thread:
        pass
    other = threading.Thread(target=second)
    with blas.one_blas_thread:
        other.start()
        inside.wait(10)
    left.set()
    other.join()
    assert set(seen) == {1}
    assert [pool["num_threads"] for pool in blas._blas().info()] == before


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("features", [3, 40, 300])
def test_float64_features_can_be_worked_on_in_float32(soft, kept, features, monkeypatch):
    monkeypatch.setattr(objective, "_LITTLE", 0)
    monkeypatch.setattr(passes, "_STRIPE_BYTES", 1 << 30)  # one, whatever the type
    if not kept:
        monkeypatch.setattr(objective, "_KEPT_BYTES", 0)
    X, y, weight, rng = problem(4, rows=700)
    X = rng.normal(size=(700, features))
    y = rng.dirichlet(np.ones(4), size=700) if soft else y
    kinds = {"weight": weight, "l2": 0.3, "fit_intercept": True}
    made = Objective(X, y, 4, **kinds)
    narrow = Objective(X.astype("f"), y, 4, **kinds)
    at, along = rng.normal(size=made.shape), rng.normal(size=made.shape)
    exact = made.value_and_gradient(at), made.curvature_along(along)
    made.work_roughly()
    assert made.is_rounded == made.is_rough == (not soft)  # soft targets would be a second copy
    rough, expected = made.value_and_gradient(at), narrow.value_and_gradient(at)
    if not soft:  # to the last bit what the features in float32 give
        assert rough[0] == expected[0]
        np.testing.assert_array_equal(rough[1], expected[1])
        curved = made.curvature_along(along), narrow.curvature_along(along)
        np.testing.assert_array_equal(*curved)
        assert np.abs(curved[0] - exact[1]).max() > 1e-12
        sample = made.sample(np.arange(0, 700, 2))
        assert sample.features.dtype == np.float32
    made.work_precisely()
    again = made.value_and_gradient(at), made.curvature_along(along)
    assert again[0][0] == exact[0][0]
    np.testing.assert_array_equal(again[0][1], exact[0][1])
    np.testing.assert_array_equal(again[1], exact[1])


@pytest.mark.parametrize(
    ("column", "may_be"),
    [
        ([1e16, 0.0, 1.0, 2.0], False),
        ([1e-200, 0.0, 2e-200, 0.0], False),
        ([1e6, 1e6 + 1, 1e6 + 2, 1e6], False),
        ([-1e6, -1e6 - 1, -1e6 + 2, -1e6], False),
        ([0.1, 0.1, 0.1, 0.1], True),
        ([0.0, 0.0, 0.0, 0.0], True),
        ([1990.0, 2024.5, 2000.0, 2001.0], True),
    ],
)
def test_float64_stays_where_float32_would_not_tell_rows_apart(column, may_be, monkeypatch):
    monkeypatch.setattr(objective, "_LITTLE", 0)
    X = np.stack([np.arange(4.0), column], axis=1)
    made = Objective(X, np.array([0, 1, 0, 1]), 2, weight=None, l2=0.1, fit_intercept=True)
    made.work_roughly()
    assert made.is_rounded == may_be
    assert made.dtype == (np.float32 if may_be else np.float64)
    monkeypatch.setattr(objective, "_LITTLE", X.nbytes + 1)
    little = Objective(X, np.array([0, 1, 0, 1]), 2, weight=None, l2=0.1, fit_intercept=True)
    little.work_roughly()
    assert not little.is_rounded


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_extremes_are_those_of_each_column(rows):
    X = np.random.default_rng(0).normal(size=(rows, 129)) * np.arange(129)
    low, high = objective.extremes(X)
    np.testing.assert_array_equal(low, X.min(axis=0))
    np.testing.assert_array_equal(high, X.max(axis=0))
