"""Calibrators as scikit-learn estimators, their choice, their files, and what they refuse."""

import warnings

import numpy as np
import pytest
import scipy.special
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

import softly
from softly.calibration import Calibrator

ONE_WAY = [
    softly.TemperatureScaling,
    softly.VectorScaling,
    softly.MatrixScaling,
    softly.IsotonicScaling,
]
EVERY = [*(cls() for cls in ONE_WAY), Calibrator()]

# The columns of their input are classes, not features.
NEED_FEATURES = "the input's columns are the classes themselves"
EXPECTED = {
    "check_classifiers_train": NEED_FEATURES,
    "check_classifiers_classes": NEED_FEATURES,
    "check_estimators_overwrite_params": NEED_FEATURES,
    "check_estimators_fit_returns_self": NEED_FEATURES,
    "check_readonly_memmap_input": NEED_FEATURES,
    "check_estimators_dtypes": NEED_FEATURES,
    "check_estimators_nan_inf": "infinities are used as they are",
}
LITTLE = pytest.mark.filterwarnings("ignore:(all rows are of class|.* scaling fits):UserWarning")


@LITTLE
@parametrize_with_checks(EVERY, expected_failed_checks=lambda _: EXPECTED)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def drawn(rows=2000, classes=4, scale=3.0, seed=0):
    rng = np.random.default_rng(seed)
    fair = rng.normal(0, 1.5, (rows, classes))
    y = (fair + rng.gumbel(size=fair.shape)).argmax(axis=1)
    return scale * fair, y


@pytest.mark.parametrize("model", EVERY, ids=lambda m: type(m).__name__)
def test_probabilities_are_calibrated(model):
    logits, y = drawn()
    new, truth = drawn(seed=1)
    p = clone(model).fit(logits, y).predict_proba(new)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)
    loss = -np.log(p[np.arange(len(truth)), truth]).mean()
    fair = -scipy.special.log_softmax(new / 3, axis=1)[np.arange(len(truth)), truth].mean()
    assert loss == pytest.approx(fair, abs=0.02)


@pytest.mark.parametrize("model", EVERY, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_answers_agree_with_each_other(model, dtype):
    logits, y = drawn(classes=3)
    fitted = clone(model).fit(logits.astype(dtype), y)
    p = fitted.predict_proba(logits.astype(dtype))
    assert p.dtype == (np.float32 if dtype == np.float32 else np.float64)
    np.testing.assert_allclose(np.exp(fitted.predict_log_proba(logits.astype(dtype))), p, rtol=1e-4)
    assert (fitted.predict(logits) == p.argmax(axis=1)).mean() > 0.999


def test_a_class_is_predicted_from_the_scores():
    logits, y = drawn(classes=3)
    model = softly.TemperatureScaling().fit(logits, y)
    near = np.array([[0.0, 1e-14, 0.0]])  # the same probabilities, once rounded
    assert model.predict(near + 1)[0] == np.argmax(near + 1)


@pytest.mark.parametrize("model", EVERY, ids=lambda m: type(m).__name__)
def test_one_column_is_the_second_of_two_classes(model):
    logits, y = drawn(classes=2)
    both = clone(model).fit(logits, y)
    one = clone(model).fit(logits[:, 1:] - logits[:, :1], y)
    np.testing.assert_allclose(
        one.predict_proba(logits[:, 1:] - logits[:, :1]), both.predict_proba(logits), atol=1e-6
    )
    np.testing.assert_allclose(
        scipy.special.expit(one.decision_function(logits[:, 1:] - logits[:, :1])),
        one.predict_proba(logits[:, 1:] - logits[:, :1])[:, 1],
    )


@pytest.mark.parametrize(
    "make", [softly.TemperatureScaling, softly.VectorScaling, softly.MatrixScaling]
)
@pytest.mark.parametrize("classes", [2, 5])
def test_folding_into_a_layer_gives_calibrated_logits(make, classes):
    logits, y = drawn(classes=classes)
    rng = np.random.default_rng(0)
    W, b, X = rng.normal(size=(classes, 7)), rng.normal(size=classes), rng.normal(size=(50, 7))
    model = make().fit(logits, y)
    W2, b2 = model.fold_into(W, b)
    np.testing.assert_allclose(
        softly.softmax(X @ W2.T + b2, axis=1), model.predict_proba(X @ W.T + b), atol=1e-12
    )


BIASES = np.array([0, 3, -3, 0])

# --- the choice ----------------------------------------------------------------------------------


def test_good_logits_are_left_alone():
    model = Calibrator().fit(*drawn(scale=1.0, seed=1))
    assert model.method_ == "identity"
    np.testing.assert_array_equal(
        model.predict_proba(drawn(seed=3)[0]), softly.softmax(drawn(seed=3)[0], axis=1)
    )
    assert model.reason_.startswith("leaving them alone has a log loss of")


@pytest.mark.parametrize(("scale", "chosen"), [(3.0, "temperature"), (0.3, "temperature")])
def test_what_a_temperature_cures_gets_one(scale, chosen):
    model = Calibrator().fit(*drawn(scale=scale))
    assert model.method_ == chosen
    assert model.candidates_[chosen].log_loss < model.candidates_["identity"].log_loss - 0.01


def test_biases_call_for_vector_scaling():
    logits, y = drawn(rows=4000)
    assert Calibrator().fit(logits + BIASES, y).method_ == "vector"


def test_classes_that_leak_into_each_other_call_for_a_matrix():
    logits, y = drawn(rows=6000, classes=4, scale=1.0)
    leaking = logits @ np.linalg.inv(np.eye(4) + 0.5 * np.eye(4, k=1))
    assert Calibrator().fit(leaking, y).method_ == "matrix"


def test_what_bends_calls_for_isotonic_scaling():
    logits, y = drawn(rows=8000, classes=2, scale=1.0)
    gap = logits[:, 1] - logits[:, 0]
    bent = np.sign(gap) * np.where(np.abs(gap) < 1, 0.02 * np.abs(gap), np.abs(gap) ** 2)
    assert Calibrator().fit(bent[:, None], y).method_ == "isotonic"


def test_some_methods_may_be_chosen_from():
    logits, y = drawn(rows=4000)
    model = Calibrator(method=["identity", "temperature"]).fit(logits + BIASES, y)
    assert set(model.candidates_) == {"identity", "temperature"}


def test_the_choice_is_within_a_standard_error_of_the_best():
    model = Calibrator().fit(*drawn(rows=300, classes=6, scale=1.3))
    own = model.candidates_[model.method_]
    assert own.behind <= own.standard_error
    simpler = list(model.candidates_)[: list(model.candidates_).index(model.method_)]
    for name in simpler:
        assert model.candidates_[name].behind > model.candidates_[name].standard_error


@LITTLE
@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_few_rows_have_an_answer(rows):
    logits, y = drawn(rows=rows, classes=5)
    for model in EVERY:
        fitted = clone(model).set_params(classes=range(5)).fit(logits, y)
        p = fitted.predict_proba(logits)
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)


@LITTLE
def test_a_class_that_never_occurs_and_one_class_only():
    logits, y = drawn(classes=5)
    for kept in (y != 3, y == 2):
        for model in EVERY:
            model = clone(model).set_params(classes=range(5))
            p = model.fit(logits[kept], y[kept]).predict_proba(logits)
            assert np.isfinite(p).all()
            assert (p > 0).any(axis=0).all()


def test_few_rows_or_one_class_are_not_offered_what_each_class_has_numbers_of():
    logits, y = drawn(rows=400, classes=10)
    few = Calibrator(classes=range(10)).fit(logits[:9], y[:9])
    with pytest.warns(UserWarning, match="all rows are of class 2, and .* makes it more probable"):
        one = Calibrator(classes=range(10)).fit(logits[y == 2], y[y == 2])
    for model in (few, one):
        assert set(model.candidates_) == {"identity", "temperature", "isotonic"}
    assert "matrix" in Calibrator(classes=range(10)).fit(logits, y).candidates_
    with pytest.warns(UserWarning, match="all rows are of class 2, and matrix scaling"):
        softly.MatrixScaling(classes=range(10)).fit(logits[y == 2], y[y == 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what leaves logits alone learns nothing wrong
        Calibrator("identity", classes=range(10)).fit(logits[y == 2], y[y == 2])


def test_what_is_no_logits_is_refused_when_predicting_too():
    logits, y = drawn()
    for model in EVERY:
        fitted = clone(model).fit(logits, y)
        p = fitted.predict_proba(logits)
        for method in (fitted.predict, fitted.predict_proba, fitted.predict_log_proba):
            with pytest.raises(ValueError, match=r"sum to 1.*from_probabilities"):
                method(p)
        with pytest.raises(ValueError, match=r"as large as 1e.300, but 1e.15 at most"):
            fitted.predict(logits * [1e300, 1, 1, 1] / logits[:, [0]])
        with pytest.raises(ValueError, match=r"shape \(4,\), but a 2D array"):
            fitted.predict(logits[0])
        impossible = fitted.predict_proba(np.full((1, 4), -np.inf))  # has no answer
        assert np.isnan(impossible).all()


def test_rows_whose_loss_infinity_decides_say_nothing():
    logits, y = drawn(rows=500, classes=3)
    spoilt, more = logits.copy(), y.copy()
    spoilt = np.concatenate([spoilt, [[0, -np.inf, 1], [np.inf, 0, 0]]])
    more = np.concatenate([more, [1, 2]])
    for model in EVERY:
        one, other = clone(model).fit(logits, y), clone(model).fit(spoilt, more)
        np.testing.assert_allclose(
            one.predict_proba(logits), other.predict_proba(logits), atol=1e-9
        )
    p = softly.TemperatureScaling().fit(spoilt, more).predict_proba(spoilt[-2:])
    assert p[0, 1] == 0
    np.testing.assert_array_equal(p[1], [1, 0, 0])


# --- probabilities -------------------------------------------------------------------------------


def test_logits_of_probabilities():
    p = softly.softmax(drawn(classes=3)[0], axis=1)
    np.testing.assert_allclose(softly.softmax(softly.from_probabilities(p), axis=1), p, atol=1e-15)


def test_an_exact_zero_gets_a_floor_below_all_else_in_its_row():
    p = np.array([[1.0, 0.0, 0.0], [1 - 1e-9, 1e-9, 0.0], [1.0, 1e-310, 0.0]])
    expected = [[1, 1e-7, 1e-7], [1 - 1e-9, 1e-9, 0.5e-9], [1, 1e-7, 1e-7]]
    np.testing.assert_allclose(np.exp(softly.from_probabilities(p)), expected)
    tiny = softly.from_probabilities(np.array([[1.0, 1.4e-45, 0.0]], np.float32))
    assert tiny.dtype == np.float32
    assert np.isfinite(tiny).all()


def test_a_true_class_of_probability_zero_does_not_make_things_worse():
    X, y = load_digits(return_X_y=True)
    forest = RandomForestClassifier(10, random_state=0).fit(X[:600], y[:600])
    p = forest.predict_proba(X[600:])
    assert (p[np.arange(len(p)), y[600:]] == 0).any()
    logits, y = softly.from_probabilities(p), y[600:]
    before = -softly.log_softmax(logits[600:], axis=1)[np.arange(len(y) - 600), y[600:]].mean()
    for model, worse in ((softly.TemperatureScaling(), 0.02), (Calibrator(), -0.1)):
        log_p = model.fit(logits[:600], y[:600]).predict_log_proba(logits[600:])
        assert -log_p[np.arange(len(y) - 600), y[600:]].mean() < before + worse


# --- what is refused -----------------------------------------------------------------------------

SOUND, TRUTH = drawn(rows=20, classes=3)


def spoilt(row, column, value):
    changed = SOUND.copy()
    changed[row, column] = value
    return changed


@pytest.mark.parametrize(
    ("logits", "y", "said"),
    [
        (spoilt(7, 1, np.nan), TRUTH, r"logits\[7\] holds NaN, in 1 of 20 rows"),
        (SOUND, TRUTH[:-1], "logits have 20 rows, but y has 19"),
        (SOUND, TRUTH + 5, None),
        (SOUND, np.where(TRUTH == 1, 7, 0), "y has the label 7, but 3 columns stand for"),
        (SOUND, np.where(TRUTH == 1, 2, 1), "y has 2 classes .*classes="),  # from 0, or from 1?
        (SOUND, TRUTH - 0.5, "Unknown label type"),
        (softly.softmax(SOUND, axis=1), TRUTH, "all sum to 1, as probabilities do"),
        (np.full((20, 3), -np.inf), TRUTH, "no row can be learnt from"),
        (SOUND[:, 0], TRUTH, "2D"),
        (np.empty((0, 3)), TRUTH[:0], "0 sample"),
    ],
)
@pytest.mark.parametrize("model", EVERY, ids=lambda m: type(m).__name__)
def test_bad_input_is_one_sentence(model, logits, y, said):
    if said is None:
        assert clone(model).fit(logits, y).classes_.tolist() == [5, 6, 7]
        return
    with pytest.raises(ValueError, match=said):
        clone(model).fit(logits, y)


@pytest.mark.parametrize("method", ["vector", "matrix"])
def test_fewer_rows_than_classes_are_said_where_each_class_has_numbers(method):
    logits, y = drawn(rows=30, classes=12)
    own = {"vector": softly.VectorScaling, "matrix": softly.MatrixScaling}[method]
    for model in (own(classes=range(12)), Calibrator(method, classes=range(12))):
        said = f"{method} scaling fits numbers for each of 12 classes, but has 11 rows of .* Temp"
        with pytest.warns(UserWarning, match=said) as told:
            model.fit(logits[:11], y[:11])
        assert told[0].filename == __file__
        model.fit(logits[:12], y[:12])  # as many as classes: none
    with pytest.warns(UserWarning, match="but has 11 rows"):  # that can be learnt from
        model.fit(logits, y, sample_weight=np.arange(30) < 11)
    for silent in (softly.TemperatureScaling, softly.IsotonicScaling, Calibrator):
        silent(classes=range(12)).fit(logits[:11], y[:11])


@pytest.mark.parametrize(
    ("p", "said"),
    [
        ([[0.5, 0.4]], r"p\[0\] is \[0.5 0.4\], which sums to 0.9"),
        ([[0.5, 0.5], [1.2, -0.2]], r"p\[1\] is"),
        ([[2.0, -1.0]], "if these are logits, softly.softmax makes probabilities of them"),
        ([[np.nan, 1.0]], r"p\[0\]"),
        ([0.5, 0.5], "shape"),
    ],
)
def test_what_are_no_probabilities_is_refused(p, said):
    with pytest.raises(ValueError, match=said):
        softly.from_probabilities(p)


def test_weights_of_zero_are_rows_that_are_not_there():
    weight = (np.arange(20) < 15).astype(float)
    one = softly.TemperatureScaling().fit(SOUND, TRUTH, sample_weight=weight)
    other = softly.TemperatureScaling(classes=[0, 1, 2]).fit(SOUND[:15], TRUTH[:15])
    assert one.temperature_ == pytest.approx(other.temperature_)
    with pytest.raises(ValueError, match="at least one non-zero number"):
        softly.TemperatureScaling().fit(SOUND, TRUTH, sample_weight=np.zeros(20))


def test_labels_may_be_said():
    model = softly.TemperatureScaling(classes=["c", "a", "b"])
    model.fit(SOUND, np.array(["c", "a", "b"])[TRUTH])
    assert model.predict(SOUND[:1])[0] == ["c", "a", "b"][SOUND[0].argmax()]
    with pytest.raises(ValueError, match="y has the label 'z', which none of the columns"):
        softly.TemperatureScaling(classes=["c", "a", "b"]).fit(SOUND, ["z"] * 20)
    with pytest.raises(ValueError, match="2 different labels, but the logits have 3 columns"):
        softly.TemperatureScaling(classes=["a", "a", "b"]).fit(SOUND, ["a"] * 20)


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="method is 'platt', but auto, or some of identity"):
        Calibrator(method="platt").fit(SOUND, TRUTH)


def test_isotonic_scaling_cannot_be_folded():
    with pytest.raises(ValueError, match="no linear map"):
        softly.IsotonicScaling().fit(SOUND, TRUTH).fold_into(np.eye(3), np.zeros(3))


def test_a_layer_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"W has shape \(2, 2\)"):
        softly.TemperatureScaling().fit(SOUND, TRUTH).fold_into(np.eye(2), np.zeros(2))


def test_a_column_of_the_first_class_is_not_taken_for_another():
    with pytest.raises(ValueError, match="classes="):
        softly.TemperatureScaling().fit(SOUND[TRUTH > 0], TRUTH[TRUTH > 0])
    known = softly.TemperatureScaling(classes=[0, 1, 2])
    assert known.fit(SOUND[TRUTH > 0], TRUTH[TRUTH > 0]).classes_.tolist() == [0, 1, 2]


def test_any_layout_of_memory():
    logits, y = drawn(classes=3)
    for model in EVERY:
        one, other = clone(model).fit(logits, y), clone(model).fit(np.asfortranarray(logits), y)
        np.testing.assert_allclose(
            one.predict_proba(logits), other.predict_proba(np.asfortranarray(logits)), atol=1e-12
        )


def test_more_numbers_than_probabilities_are_kept_of():
    """Matrix scaling of 2.4 million logits: its Hessian is that of some rows."""
    logits, y = drawn(rows=600_000, classes=4, scale=2.0)
    few = softly.MatrixScaling().fit(logits[:300_000], y[:300_000])
    many = softly.MatrixScaling().fit(logits, y)
    np.testing.assert_allclose(
        many.predict_proba(logits[:9]), few.predict_proba(logits[:9]), atol=0.01
    )


def test_a_fit_that_fails_leaves_what_was():
    model = softly.TemperatureScaling().fit(SOUND, TRUTH)
    before = model.predict_proba(SOUND)
    with pytest.raises(ValueError, match="no row can be learnt from"):
        model.fit(np.full((20, 3), -np.inf), np.array(["a", "b", "c"])[TRUTH])
    np.testing.assert_array_equal(model.predict_proba(SOUND), before)


def test_methods_in_a_list_and_their_reasons():
    logits, y = drawn(rows=4000)
    model = Calibrator(method=["temperature", "vector"]).fit(logits, y)
    assert model.method_ == "temperature"
    assert "leaving" not in model.reason_
    assert Calibrator(method=["vector", "matrix"]).fit(*drawn(classes=2)).reason_ == (
        "vector was asked for"
    )
    for method in (5, [], ["magic"], None):
        with pytest.raises(ValueError, match="method is"):
            Calibrator(method=method).fit(logits, y)


def test_rows_that_are_all_right_are_not_believed_for_ever():
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=60)
    logits = 2.0 * np.eye(3)[y] + rng.uniform(0, 0.5, (60, 3))
    for model in EVERY:
        wrong = clone(model).fit(logits, y).predict_log_proba([[0.0, 1.0, 2.0]])[0, 0]
        assert wrong > -15
    # Nor is a model that is surer than so many rows can show.
    assert softly.TemperatureScaling().fit(100 * logits, y).temperature_ == 1


# --- a classifier's own --------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("method", ["auto", "identity", "temperature", "vector", "matrix"])
def test_a_classifier_takes_its_calibration_in(classes, method):
    X, y = load_digits(n_class=classes, return_X_y=True)
    X = X + np.random.default_rng(0).normal(0, 8, X.shape)
    third = len(y) // 3
    model = softly.SoftmaxClassifier(C=100).fit(X[:third], y[:third])
    shape, dtype = model.coef_.shape, model.coef_.dtype
    scores = model.decision_function(X)
    columns = scores[:, None] if classes == 2 else scores
    held = slice(third, 2 * third)
    asked = ["identity", "temperature", "vector", "matrix"] if method == "auto" else method
    by_hand = Calibrator(asked).fit(columns[held], y[held])
    model.calibrate(X[held], y[held], method=method)
    assert (model.coef_.shape, model.coef_.dtype) == (shape, dtype)
    assert model.calibration_ == by_hand.reason_
    np.testing.assert_allclose(model.predict_proba(X), by_hand.predict_proba(columns), atol=1e-9)
    model.fit(X[:third], y[:third])
    assert not hasattr(model, "calibration_")


def test_a_classifier_refuses_isotonic_scaling():
    X, y = load_digits(return_X_y=True)
    model = softly.SoftmaxClassifier().fit(X[:500], y[:500])
    with pytest.raises(ValueError, match="no coefficients have"):
        model.calibrate(X[500:], y[500:], method="isotonic")
    with pytest.raises(ValueError, match="none of the columns"):
        model.calibrate(X[500:], y[500:] + 5)
