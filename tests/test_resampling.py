"""Intervals that hold the truth as often as they say, and comparisons of the same rows."""

import numpy as np
import pytest
import scipy.stats

from softly import compare, metrics, resampling
from softly import measure as scores
from softly.functions import softmax
from softly.metrics import MEASURES


def drawn(rows, seed=0, scale=1.0, classes=4):
    rng = np.random.default_rng(seed)
    fair = rng.normal(0, 1.5, (rows, classes))
    y = (fair + rng.gumbel(size=fair.shape)).argmax(axis=1)
    return softmax(scale * fair, axis=1), y


def test_every_measure_has_a_value_within_its_interval_or_above_it():
    p, y = drawn(800)
    found = scores(p, y)
    assert list(found) == list(MEASURES)
    for name, score in found.items():
        assert score.low <= score.high, name
        assert score.low <= score.value, name  # what chance adds makes a score too high
        if "calibration" not in name:
            assert score.value <= score.high, name


@pytest.mark.parametrize(
    "name", ["accuracy", "log_loss", "macro_f1", "roc_auc", "risk_coverage_area"]
)
def test_the_interval_holds_the_truth_as_often_as_it_says(name):
    truth = scores(*drawn(200_000), measures=[name], resamples=10)[name].value
    held = 0
    for seed in range(200):
        score = scores(*drawn(300, seed=seed + 1), measures=[name], resamples=200)[name]
        held += score.low <= truth <= score.high
    assert 0.88 <= held / 200 <= 0.99


def test_the_interval_of_a_calibration_error_is_about_the_true_one():
    """Chance adds 0.04 to the error of 300 calibrated rows: the interval is lower by as much."""
    held = 0
    for seed in range(100):
        score = scores(*drawn(300, seed=seed), measures=["calibration_error"], resamples=200)[
            "calibration_error"
        ]
        assert score.value > 0.01
        held += score.low == 0
    assert held >= 90


def test_a_difference_is_known_better_than_its_parts():
    p, y = drawn(1000)
    q, _ = drawn(1000, scale=1.3)
    found = compare(p, q, y, measures=["log_loss"])["log_loss"]
    assert found.difference.value == pytest.approx(found.b.value - found.a.value)
    assert found.difference.low > 0
    assert found.difference.high - found.difference.low < 0.4 * (found.a.high - found.a.low)


def test_the_same_predictions_do_not_differ():
    p, y = drawn(100)
    for name, found in compare(p, p, y).items():
        assert (found.difference.low, found.difference.high) == (0, 0), name


def test_the_same_draws_give_the_same_interval():
    p, y = drawn(300)
    assert scores(p, y) == scores(p, y)
    assert scores(p, y) != scores(p, y, random_state=1)


def test_rows_of_no_weight_are_not_there():
    p, y = drawn(300)
    weight = (np.arange(300) < 200).astype(float)
    for name in ("log_loss", "accuracy", "macro_f1", "roc_auc", "calibration_error"):
        one = scores(p, y, measures=[name], sample_weight=weight)[name]
        other = scores(p[:200], y[:200], measures=[name])[name]
        close = 0.03 if name == "calibration_error" else 1e-12  # edges on rows, or between them
        assert one.value == pytest.approx(other.value, abs=close)
        assert one.high - one.low == pytest.approx(other.high - other.low, rel=0.3)


def test_an_infinite_loss_is_said():
    score = scores(np.array([[1.0, 0.0], [0.5, 0.5]]), [1, 0], measures=["log_loss"])["log_loss"]
    assert score.value == np.inf


def test_few_rows():
    for rows in (1, 2, 3):
        p, y = drawn(rows)
        for name, score in scores(p, y, classes=[0, 1, 2, 3]).items():
            if name != "roc_auc":
                assert np.isfinite(score.value), name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"p": [[0.5, 0.6]]}, r"p\[0\]"),
        ({"y": [0, 1]}, "p has 3 rows and y 2"),
        ({"measures": ["sharpness"]}, "'sharpness' is no measure, but some of log_loss"),
        ({"measures": []}, "no measure"),
        ({"measures": "accuracy"}, r"measures is 'accuracy', but .*: \['accuracy'\]"),
        ({"y": [0, 1, 9]}, "y has the label 9, but 2 columns stand for 0 to 1"),
        ({"y": [0.5, 1.5, 1.5]}, "continuous"),
        ({"p": [[0.333, 0.65]] * 3}, "sums to 0.983, .*: if they were rounded, divide"),
        ({"resamples": 1}, "resamples is 1, but a whole number from 2"),
        ({"resamples": "many"}, "resamples is 'many'"),
        ({"sample_weight": [0, 0, 0]}, "at least one non-zero number|0 for all rows"),
        ({"sample_weight": [1, -1, 1]}, "[Nn]egative"),
        ({"resamples": 0}, "resamples is 0"),
    ],
)
def test_bad_input(change, said):
    given = {"p": [[0.5, 0.5]] * 3, "y": [0, 1, 1]} | change
    with pytest.raises(ValueError, match=said):
        scores(given.pop("p"), given.pop("y"), **given)


def test_predictions_of_different_rows_are_not_compared():
    with pytest.raises(ValueError, match=r"y has 2 classes .*3 columns|a has shape"):
        compare([[0.5, 0.5]] * 2, [[0.2, 0.3, 0.5]] * 2, [0, 1])


@pytest.mark.parametrize(
    "name", ["calibration_error", "class_calibration_error", "smooth_calibration_error"]
)
def test_the_ends_of_an_error_that_chance_adds_to(name):
    p, y = drawn(300)
    of = metrics.Predictions(p, y)
    made = metrics.MEASURES[name](of)
    weight = np.concatenate(list(resampling._counts(300, 500, 0)))
    values, noise = made.with_noise(weight)
    np.testing.assert_allclose(values, made.by_weight(weight), rtol=1e-12)
    np.testing.assert_allclose(made.with_noise(np.ones((1, 300)))[1], 0, atol=1e-7)
    found = scores(p, y, measures=[name], resamples=500)[name]
    assert found.low == pytest.approx(max(found.value - np.quantile(noise, 0.975), 0))
    high = 2 * found.value - np.quantile(values, 0.025)
    assert found.high == pytest.approx(max(high, found.value))


@pytest.mark.parametrize("rows", [1, 30, 200])
def test_all_right_is_not_certain_to_stay_so(rows):
    p = np.tile([0.9, 0.1], (rows, 1))
    right = scores(p, np.zeros(rows, int), classes=[0, 1], measures=["accuracy"])["accuracy"]
    wrong = scores(p, np.ones(rows, int), classes=[0, 1], measures=["accuracy"])["accuracy"]
    exact = scipy.stats.binomtest(rows, rows).proportion_ci(0.95, method="exact")
    assert (right.low, right.value, right.high) == pytest.approx((exact.low, 1, 1))
    assert (wrong.low, wrong.value, wrong.high) == pytest.approx((0, 0, 1 - exact.low))
