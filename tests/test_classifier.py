"""SoftmaxClassifier against scikit-learn's own contract and its LogisticRegression."""

import pickle
import re
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import softly

TIGHT = {"tol": 1e-30, "max_iter": 5000}  # to where rounding hides any further progress
# Of scikit-learn's solvers the one that comes closest to the optimum.
NEWTON = {"solver": "newton-cholesky", "tol": 1e-12, "max_iter": 500}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([softly.SoftmaxClassifier(), softly.SoftmaxClassifier(C=np.inf)])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def digits(classes=10):
    X, y = load_digits(n_class=classes, return_X_y=True)
    return X / 16, y


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("C", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_coefficients_are_those_of_scikit_learn(classes, C, fit_intercept):
    X, y = digits(classes)
    options = {"C": C, "fit_intercept": fit_intercept}
    ours = softly.SoftmaxClassifier(**options, **TIGHT).fit(X, y)
    theirs = LogisticRegression(**options, **NEWTON).fit(X, y)
    assert ours.coef_.shape == theirs.coef_.shape
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-7)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 3.0, 1: 0.5}])
def test_weights_mean_what_they_mean_in_scikit_learn(classes, class_weight):
    X, y = digits(classes)
    weight = np.random.default_rng(0).uniform(0, 3, len(y))
    weight[::7] = 0
    ours = softly.SoftmaxClassifier(class_weight=class_weight, **TIGHT)
    theirs = LogisticRegression(class_weight=class_weight, **NEWTON)
    ours.fit(X, y, sample_weight=weight)
    theirs.fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6)


def test_no_penalty():
    X, y = make_classification(
        400, 5, n_informative=4, n_redundant=0, n_classes=3, class_sep=0.4, random_state=0
    )
    ours = softly.SoftmaxClassifier(C=np.inf, **TIGHT).fit(X, y)
    theirs = LogisticRegression(C=np.inf, **NEWTON).fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6)


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.coo_array])
@pytest.mark.parametrize("classes", [2, 4])
def test_sparse_is_dense(make, classes):
    X, y = digits(classes)
    X[X < 0.5] = 0
    dense = softly.SoftmaxClassifier(**TIGHT).fit(X, y)
    sparse = softly.SoftmaxClassifier(**TIGHT).fit(make(X), y)
    np.testing.assert_allclose(sparse.coef_, dense.coef_, atol=1e-6)
    np.testing.assert_allclose(sparse.predict_proba(make(X)), dense.predict_proba(X), atol=1e-7)


def test_float32_stays_float32():
    X, y = digits(4)
    wide = softly.SoftmaxClassifier(tol=1e-6, max_iter=500).fit(X, y)
    narrow = softly.SoftmaxClassifier(tol=1e-6, max_iter=500).fit(X.astype(np.float32), y)
    assert narrow.coef_.dtype == narrow.intercept_.dtype == np.float32
    assert narrow.predict_proba(X.astype(np.float32)).dtype == np.float32
    assert wide.predict_proba(X).dtype == np.float64
    np.testing.assert_allclose(narrow.coef_, wide.coef_, atol=1e-3)


def test_labels_of_any_kind():
    X, y = digits(3)
    names = np.array(["zero", "one", "two"], dtype=object)[y]
    model = softly.SoftmaxClassifier().fit(X, names)
    assert list(model.classes_) == ["one", "two", "zero"]
    assert model.score(X, names) > 0.99


def test_probabilities_near_certainty_keep_their_logarithm():
    X = np.array([[-1.0], [1.0]])
    model = softly.SoftmaxClassifier(C=1e6, **TIGHT).fit(X, [0, 1])
    log_p = model.predict_log_proba(1e3 * X)
    assert (log_p.max(axis=1) <= 0).all()
    assert np.isfinite(log_p).all()


def test_warm_start_goes_on_where_it_stopped():
    X, y = digits()
    cold = softly.SoftmaxClassifier(tol=1e-6, max_iter=1000).fit(X, y)
    warm = softly.SoftmaxClassifier(tol=1e-6, max_iter=1000, warm_start=True).fit(X, y)
    first = warm.n_passes_
    warm.fit(X, y)
    assert warm.n_passes_ < first / 5
    np.testing.assert_allclose(warm.coef_, cold.coef_, atol=1e-3)
    with pytest.raises(ValueError, match="use a new classifier"):
        warm.fit(X, y + 1)


@pytest.mark.parametrize(
    ("n", "d", "k", "form"),
    [
        (20_000, 50, 5, np.asarray),
        (3000, 700, 10, np.asarray),
        (2000, 400, 300, np.asarray),
        (600, 1500, 200, np.asarray),
        (20_000, 3000, 20, sp.csr_array),
        (3000, 30_000, 40, sp.csr_array),
    ],
)
@pytest.mark.parametrize("l1_ratio", [0, 1])
def test_no_more_memory_than_the_fit_says(n, d, k, form, l1_ratio, capsys):
    rng = np.random.default_rng(0)
    X = (
        rng.normal(size=(n, d))
        if form is np.asarray
        else sp.random_array((n, d), density=30 / d, rng=rng)
    )
    X = form(X).astype(np.float32)
    y = np.append(np.arange(k), rng.integers(k, size=n - k))
    model = softly.SoftmaxClassifier(C=0.01, l1_ratio=l1_ratio, max_iter=4, tol=0, verbose=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X[: 3 * k], y[: 3 * k])
        capsys.readouterr()
        tracemalloc.start()
        try:
            model.fit(X, y)
            held = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    said = re.match(r"at most ([\d,]+) bytes", capsys.readouterr().out)
    assert held <= int(said[1].replace(",", ""))


def test_what_the_fit_says_of_itself(capsys):
    X, y = digits()
    passes = []
    model = softly.SoftmaxClassifier(tol=1e-3, verbose=passes.append).fit(X, y)
    numbers = [p.number for p in passes]
    assert numbers[0] == 1
    assert sorted(set(numbers)) == numbers
    assert numbers[-1] <= model.n_passes_
    assert passes[-1].objective == model.objective_
    assert passes[-1].gap <= model.optimality_gap_ <= 1e-3 < passes[0].gap
    assert model.solver_ == "newton-cg, preconditioned by Kronecker factors"
    log_p = model.predict_log_proba(X)
    loss = -log_p[np.arange(len(y)), y].sum() + 0.5 * (model.coef_**2).sum()
    assert model.objective_ == pytest.approx(loss / len(y))
    softly.SoftmaxClassifier(tol=1e-2, verbose=True).fit(X, y)
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == f"at most {2**26 + 8 * 8 * 10 * 65 + 8 * 65**2:,} bytes are held beside X"
    assert second.startswith("pass 1.0: objective 2.302585, gap ")


def test_a_fit_that_stops_early_warns_with_what_to_do():
    X, y = digits()
    with pytest.warns(ConvergenceWarning, match=r"stopped after 3 iterations.*Raise max_iter"):
        softly.SoftmaxClassifier(max_iter=3).fit(X, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"C": 0}, "C is 0, but a number above 0"),
        ({"C": -1.0}, "C is -1.0, but"),
        ({"C": np.nan}, "C is nan, but"),
        ({"C": "1"}, "C is '1', but"),
        ({"tol": -1}, "tol is -1, but a number, 0 or above"),
        ({"max_iter": 0}, "max_iter is 0, but a whole number"),
        ({"max_iter": 1.5}, "max_iter is 1.5, but a whole number"),
    ],
)
def test_parameters_that_make_no_sense(options, message):
    X, y = digits(2)
    with pytest.raises(ValueError, match=message):
        softly.SoftmaxClassifier(**options).fit(X, y)


def test_rows_that_make_no_sense():
    X, y = digits(2)
    for bad in (np.nan, np.inf):
        spoilt = X.copy()
        spoilt[3, 4] = bad
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            softly.SoftmaxClassifier().fit(spoilt, y)
    with pytest.raises(ValueError, match="one class only"):
        softly.SoftmaxClassifier().fit(X, np.zeros(len(X)))
    with pytest.raises(ValueError, match="at least one non-zero"):
        softly.SoftmaxClassifier().fit(X, y, sample_weight=np.zeros(len(X)))
    with pytest.raises(NotFittedError):
        softly.SoftmaxClassifier().predict(X)


def test_rows_of_no_weight_count_for_nothing():
    X, y = digits(3)
    weight = (np.arange(len(y)) % 3 != 0).astype(float)
    wild = X.copy()
    wild[weight == 0] = 1e6
    left = softly.SoftmaxClassifier(**TIGHT).fit(wild, y, sample_weight=weight)
    right = softly.SoftmaxClassifier(**TIGHT).fit(X[weight > 0], y[weight > 0])
    np.testing.assert_allclose(left.coef_, right.coef_, atol=1e-7)


def test_inside_scikit_learn():
    X, y = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), softly.SoftmaxClassifier())
    search = GridSearchCV(model, {"softmaxclassifier__C": [0.1, 1.0]}).fit(X, y)
    assert search.best_score_ > 0.96
    X = StandardScaler().fit_transform(X)
    calibrated = CalibratedClassifierCV(softly.SoftmaxClassifier(), cv=3).fit(X, y)
    assert calibrated.score(X, y) > 0.96
    assert OneVsRestClassifier(softly.SoftmaxClassifier()).fit(X, y).score(X, y) > 0.96
    fitted = softly.SoftmaxClassifier().fit(X, y)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert sp.issparse(fitted.sparsify().coef_)


def test_all_scores_are_never_held():
    rows, classes = 20_000, 500
    X = np.random.default_rng(0).normal(size=(rows, 4))
    y = np.arange(rows) % classes
    tracemalloc.start()
    with pytest.warns(ConvergenceWarning):
        softly.SoftmaxClassifier(max_iter=1, tol=0).fit(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < rows * classes * 8 / 4


FIT = """
import hashlib, sys, warnings
import numpy as np, scipy.sparse as sp
import softly
warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
digest = hashlib.sha256()
for dtype in (np.float32, np.float64):
    for classes in (2, 5, 60):
        X = rng.normal(size=(30_000, 20)).astype(dtype)
        y = rng.integers(classes, size=len(X))
        for features in (X, sp.csr_array(X * (X > 1))):
            model = softly.SoftmaxClassifier(max_iter=5).fit(features, y)
            digest.update(model.coef_.tobytes() + model.intercept_.tobytes())
print(digest.hexdigest())
"""


def test_the_same_bits_on_any_number_of_threads(monkeypatch):
    digests = set()
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("SOFTLY_THREADS", threads)
        done = subprocess.run([sys.executable, "-c", FIT], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


class Follower:
    """A callback that keeps what it is told."""

    def __init__(self):
        self.begun, self.ended, self.scores, self.open = 0, 0, [], False

    def setup(self, estimator, context):
        self.open = True

    def teardown(self, estimator, context):
        self.open = False

    def on_fit_task_begin(self, estimator, context):
        self.begun += 1

    def on_fit_task_end(self, estimator, context, *, X, y, fitted_estimator):
        self.ended += 1
        if fitted_estimator is not None:
            self.scores.append(fitted_estimator.score(X, y))


@pytest.mark.skipif(
    not hasattr(softly.SoftmaxClassifier, "set_callbacks"), reason="scikit-learn has no callbacks"
)
@pytest.mark.parametrize("l1_ratio", [0, 1])
def test_callbacks_follow_the_passes(l1_ratio):
    X, y = digits()
    follower, passes = Follower(), []
    model = softly.SoftmaxClassifier(0.1, l1_ratio=l1_ratio, verbose=passes.append)
    model.set_callbacks(follower).fit(X, y)
    assert follower.begun == follower.ended == len(passes) + 2  # one that was not taken, and all
    assert len(follower.scores) == len(passes)
    assert follower.scores[-1] == model.score(X, y) > follower.scores[0]
    assert not follower.open
    alone = softly.SoftmaxClassifier(0.1, l1_ratio=l1_ratio).fit(X, y)
    np.testing.assert_array_equal(model.coef_, alone.coef_)
    search = softly.SoftmaxClassifierCV(Cs=[0.1, 1], l1_ratios=[l1_ratio], cv=3)
    search.set_callbacks(follower).fit(X[:300], y[:300])
    assert follower.begun == follower.ended > len(passes) + 2
    with pytest.raises(ValueError, match="NaN"):
        model.fit(X * np.nan, y)
    assert not follower.open
