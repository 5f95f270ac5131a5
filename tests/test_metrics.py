"""Each measure against scikit-learn's or against a slow one written another way."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from softly import metrics
from softly.functions import softmax
from softly.metrics import Bins, Predictions


def predictions(rows=400, classes=5, seed=0, dtype=np.float64, scale=3.0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, scale, (rows, classes)).astype(dtype)
    return Predictions(softmax(scores, axis=1), rng.integers(0, classes, rows), scores)


def calibrated(rows=4000, classes=4, seed=0):
    """Classes that are drawn by the probabilities themselves."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1.5, (rows, classes))
    target = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    return Predictions(softmax(scores, axis=1), target)


def sure(confidence, correct):
    """Two classes, the first of which is always predicted."""
    confidence = np.asarray(confidence, dtype=np.float64)
    p = np.stack([confidence, 1 - confidence], axis=1)
    return Predictions(p, np.where(correct, 0, 1), np.array([[1.0, 0.0]] * len(p)))


@pytest.mark.parametrize("classes", [2, 3, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_measures_equal_scikit_learns(classes, dtype):
    of = predictions(classes=classes, dtype=dtype)
    labels = np.arange(classes)
    close = {"rel": 2e-6 if dtype == np.float32 else 1e-12}
    exact = softmax(of.scores.astype(np.float64), axis=1)
    learn = sklearn.metrics
    wanted = {
        metrics.log_loss: learn.log_loss(of.target, exact, labels=labels),
        metrics.accuracy: learn.accuracy_score(of.target, of.predicted),
        metrics.balanced_accuracy: learn.balanced_accuracy_score(of.target, of.predicted),
        metrics.macro_f1: learn.f1_score(of.target, of.predicted, average="macro"),
        metrics.top_k_accuracy: learn.top_k_accuracy_score(of.target, exact, k=5, labels=labels)
        if classes > 5
        else 1.0,
    }
    for measure, value in wanted.items():
        assert measure(of).value() == pytest.approx(value, **close), measure
    brier = np.mean(
        [((row - np.eye(classes)[t]) ** 2).sum() for row, t in zip(of.p, of.target, strict=True)]
    )
    assert metrics.brier_score(of).value() == pytest.approx(brier, **close)
    np.testing.assert_array_equal(
        metrics.confusion_matrix(of.predicted, of.target, classes),
        learn.confusion_matrix(of.target, of.predicted, labels=labels),
    )


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("rounded", [False, True])
def test_area_under_the_curve_is_scikit_learns(classes, rounded):
    of = predictions(rows=300, classes=classes)
    p = of.p.round(1) if rounded else of.p
    wanted = np.mean(
        [sklearn.metrics.roc_auc_score(of.target == k, p[:, k]) for k in range(classes)]
    )
    found = metrics.roc_auc(Predictions(p, of.target))
    assert found.value() == pytest.approx(wanted, rel=1e-12)
    for spread, close in (
        (0.1, 2e-4),
        (1.0, 1e-12),
    ):  # drawn near the rows as they are; as they are
        weight = np.random.default_rng(0).uniform(1 - spread, 1 + spread, 300)
        exact = np.mean(
            [
                sklearn.metrics.roc_auc_score(of.target == k, p[:, k], sample_weight=weight)
                for k in range(classes)
            ]
        )
        near = found.by_weight(weight[None])[0]
        if spread == 1.0:
            near = metrics.roc_auc(Predictions(p, of.target, weight=weight)).value()
        assert near == pytest.approx(exact, abs=close)


def test_area_under_the_curve_leaves_out_classes_that_do_not_occur():
    of = predictions(rows=200, classes=4)
    target = of.target % 3
    wanted = np.mean([sklearn.metrics.roc_auc_score(target == k, of.p[:, k]) for k in range(3)])
    assert metrics.roc_auc(Predictions(of.p, target)).value() == pytest.approx(wanted)
    assert np.isnan(metrics.roc_auc(Predictions(of.p, 0 * target)).value())


def test_measures_of_weights_are_those_of_repeated_rows():
    of = predictions(rows=60, classes=3)
    count = np.random.default_rng(0).integers(0, 4, 60)
    rows = np.repeat(np.arange(60), count)
    again = Predictions(of.p[rows], of.target[rows])
    binned = {name for name in metrics.MEASURES if "calibration" in name or "brier_r" in name}
    weighted = Predictions(of.p, of.target, weight=count.astype(float))
    for name, make in metrics.MEASURES.items():
        # Bins of equal mass have their edges between rows, and on one of them.
        close = 0.05 if name in binned else 0.02 if name == "risk_coverage_area" else 1e-9
        assert make(weighted).value() == pytest.approx(make(again).value(), abs=close), name
    smooth = metrics.smooth_calibration_error
    assert smooth(weighted).value() == pytest.approx(smooth(again).value())


def test_many_weights_at_once_are_each_by_itself():
    of = predictions(rows=50)
    weight = np.random.default_rng(0).random((4, 50))
    for name, make in metrics.MEASURES.items():
        measure = make(of)
        each = [measure.by_weight(row[None])[0] for row in weight]
        np.testing.assert_allclose(measure.by_weight(weight), each, rtol=1e-9, err_msg=name)
        assert measure.least <= min(each) <= max(each) <= measure.most


def test_log_loss_of_a_sure_and_wrong_answer():
    scores = np.array([[800.0, 0.0]])
    p = softmax(scores, axis=1)
    assert metrics.log_loss(Predictions(p, np.array([1]), scores)).value() == 800.0
    spoilt = Predictions(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([1, 0]))
    assert metrics.log_loss(spoilt).value() == np.inf
    some = Predictions(spoilt.p, spoilt.target, weight=np.array([0.0, 1.0]))
    assert metrics.log_loss(some).value() == pytest.approx(np.log(2))


def test_a_tie_of_probabilities_is_decided_by_the_scores():
    scores = np.array([[100.0, 100.0 + 1e-13, 0.0]])
    p = np.array([[0.5, 0.5, 0.0]])
    assert Predictions(p, np.array([1])).predicted[0] == 0
    assert Predictions(p, np.array([1]), scores).predicted[0] == 1
    of = Predictions(np.array([[0.4, 0.4, 0.2]] * 2), np.array([0, 1]))
    assert metrics.top_k_accuracy(of, 1).value() == metrics.accuracy(of).value() == 0.5
    assert metrics.top_k_accuracy(of, 2).value() == 1


# --- bins ----------------------------------------------------------------------------------------


def slow_calibration_error(confidence, correct, edges):
    """Walk through the edges; average |confidence - accuracy| by rows."""
    total, bins = 0.0, len(edges) + 1
    for b in range(bins):
        inside = [
            (c, ok)
            for c, ok in zip(confidence, correct, strict=True)
            if (b == 0 or c > edges[b - 1]) and (b == bins - 1 or c <= edges[b])
        ]
        if inside:
            sure = sum(c for c, _ in inside) / len(inside)
            total += len(inside) * abs(sure - sum(ok for _, ok in inside) / len(inside))
    return total / len(confidence)


@given(st.integers(1, 80), st.integers(1, 20), st.integers(0, 1000), st.booleans())
def test_calibration_error_equals_a_slow_one(rows, bins, seed, tied):
    rng = np.random.default_rng(seed)
    confidence = rng.random(rows)
    if tied:
        confidence = np.round(confidence, 1)
    correct = rng.random(rows) < confidence
    confidence = np.maximum(confidence, 1 - confidence)
    of = sure(confidence, correct)
    for cut, edges in (
        (Bins.equal_mass, [np.quantile(confidence, i / bins) for i in range(1, bins)]),
        (Bins.equal_width, [i / bins for i in range(1, bins)]),
    ):
        np.testing.assert_allclose(
            metrics.calibration_error(of, bins, cut).value(),
            slow_calibration_error(confidence, correct, edges),
            atol=1e-12,
        )


def test_calibration_error_of_probabilities_that_lie_and_that_do_not():
    correct = np.arange(1000) % 10 < 7
    assert metrics.calibration_error(sure(np.full(1000, 0.7), correct)).value() == pytest.approx(0)
    lies = sure(np.full(1000, 0.9), correct)
    assert metrics.calibration_error(lies).value() == pytest.approx(0.2)
    # bins of as many rows each: a few odd rows weigh as a few rows
    odd = np.concatenate([np.full(999, 0.7), [0.1]])
    odd = Predictions(np.stack([odd, 1 - odd], axis=1).astype("f"), np.where(correct, 0, 1))
    assert metrics.calibration_error(odd).value() < 0.01


def test_a_probability_of_one_is_in_the_last_bin_and_empty_bins_count_nothing():
    of = sure([1.0, 1.0, 0.55, 0.5], [True, False, True, True])
    assert Bins.equal_width(of.confidence, None, 10).of(of.confidence).tolist() == [9, 9, 5, 4]
    assert metrics.calibration_error(of, 10, Bins.equal_width).value() == pytest.approx(
        (2 * 0.5 + 0.45 + 0.5) / 4
    )


def test_debiasing_takes_away_what_chance_adds():
    plain, debiased = [], []
    for seed in range(30):
        of = calibrated(400, seed=seed)
        plain.append(metrics.calibration_error(of).value())
        debiased.append(metrics.calibration_error(of, debiased=True).value())
    assert np.mean(plain) > 0.035
    assert np.mean(debiased) < 0.7 * np.mean(plain)
    lies = sure(np.full(4000, 0.9), np.arange(4000) % 10 < 7)
    assert metrics.calibration_error(lies, debiased=True).value() == pytest.approx(0.2, abs=0.002)


def test_calibration_of_the_classes():
    of = predictions(rows=500, classes=3)
    wanted = np.mean(
        [
            slow_calibration_error(
                of.p[:, k], of.target == k, [np.quantile(of.p[:, k], i / 15) for i in range(1, 15)]
            )
            for k in range(3)
        ]
    )
    assert metrics.class_calibration_error(of).value() == pytest.approx(wanted, rel=1e-9)


def test_the_calibration_part_of_the_brier_score_is_the_mean_square_of_the_gaps():
    of = predictions(rows=500, classes=3)
    for bins, cut in ((15, Bins.equal_mass), (4, Bins.equal_mass), (4, Bins.equal_width)):
        wanted = 0.0
        for k in range(3):
            place = cut(of.p[:, k], None, bins).of(of.p[:, k])
            for i in np.unique(place):
                there = place == i
                gap = (of.p[there, k] - (of.target[there] == k)).mean()
                wanted += there.mean() * gap**2
        assert metrics.brier_calibration(of, bins, cut).value() == pytest.approx(wanted, rel=1e-9)


def test_the_parts_of_the_brier_score_are_its_sum():
    of = predictions()
    parts = metrics.brier_calibration(of).value() + metrics.brier_refinement(of).value()
    assert parts == pytest.approx(metrics.brier_score(of).value(), rel=1e-12)
    assert (
        metrics.brier_calibration(calibrated()).value()
        < 0.01
        < metrics.brier_calibration(of).value()
    )


def slow_smooth_error(confidence, correct, width, points=4000):
    """By the definition: a Gaussian, reflected at 0 and 1, around every row."""
    grid = (np.arange(points) + 0.5) / points
    total = np.zeros(points)
    for c, ok in zip(confidence, correct, strict=True):
        for centre in [c + 2 * i for i in range(-3, 4)] + [-c + 2 * i for i in range(-3, 4)]:
            total += (c - ok) * scipy.stats.norm.pdf(grid, centre, width)
    return np.abs(total / len(confidence)).mean()


@pytest.mark.parametrize("seed", range(3))
def test_smooth_calibration_error_is_its_own_width(seed):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.5, 1, 60)
    correct = rng.random(60) < confidence**2
    found = metrics.smooth_calibration_error(sure(confidence, correct)).value()
    assert slow_smooth_error(confidence, correct, found) == pytest.approx(found, rel=0.02)


def test_reliability_has_the_interval_of_clopper_and_pearson():
    of = predictions(rows=300, classes=3)
    found = metrics.reliability(of)
    assert found.count.sum() == 300
    for accuracy, low, high, count in zip(
        found.accuracy, found.low, found.high, found.count, strict=True
    ):
        exact = scipy.stats.binomtest(round(accuracy * count), count).proportion_ci(method="exact")
        assert (low, high) == (pytest.approx(exact.low), pytest.approx(exact.high))
    assert found.count @ np.abs(found.confidence - found.accuracy) / 300 == pytest.approx(
        metrics.calibration_error(of).value()
    )
    assert len(metrics.reliability(sure([0.9] * 7, [True] * 7)).count) == 1


# --- abstaining ----------------------------------------------------------------------------------


def test_risk_and_coverage():
    of = sure([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
    curve = metrics.risk_coverage(of)
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.risk, [0, 1 / 2, 1 / 3, 1 / 2])
    assert metrics.risk_coverage_area(of).value() == pytest.approx(np.mean(curve.risk))


def test_rows_of_the_same_confidence_come_in_any_order():
    correct = np.array([True, False, True, False, True])
    confidence = np.array([0.9, 0.7, 0.7, 0.7, 0.6])
    areas = {
        metrics.risk_coverage_area(sure(confidence[order], correct[order])).value()
        for order in map(list, [(0, 1, 2, 3, 4), (0, 3, 2, 1, 4), (4, 2, 1, 3, 0)])
    }
    assert max(areas) - min(areas) < 1e-15


def test_ties_of_rows_that_weigh_differently():
    of = sure([0.7, 0.7], [True, False])
    weighted = Predictions(of.p, of.target, of.scores, np.array([1.0, 0.0]))
    assert metrics.risk_coverage_area(weighted).value() == 0
    weighted = Predictions(of.p, of.target, of.scores, np.array([1.0, 3.0]))
    assert metrics.risk_coverage_area(weighted).value() == 0.75


def test_the_area_of_a_perfect_order_is_less_than_of_none():
    of = calibrated()
    shuffled = Predictions(of.p, np.random.default_rng(0).permutation(of.target))
    assert metrics.risk_coverage_area(of).value() < metrics.risk_coverage_area(shuffled).value()
