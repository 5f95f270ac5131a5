"""Each measure against scikit-learn's or against a slow one written another way."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from softly import metrics
from softly.functions import log_softmax, softmax


def scored(rows=400, classes=5, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (rows, classes)).astype(dtype)
    return logits, rng.integers(0, classes, rows)


@pytest.mark.parametrize("classes", [2, 3, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_measures_equal_scikit_learns(classes, dtype):
    logits, target = scored(classes=classes, dtype=dtype)
    p, predicted = softmax(logits, axis=1), logits.argmax(axis=1)
    labels = np.arange(classes)
    rtol = 1e-6 if dtype == np.float32 else 1e-12
    wanted = sklearn.metrics.log_loss(
        target, softmax(logits.astype(np.float64), axis=1), labels=labels
    )
    np.testing.assert_allclose(
        metrics.log_loss(log_softmax(logits, axis=1), target), wanted, rtol=rtol
    )
    assert metrics.accuracy(predicted, target) == sklearn.metrics.accuracy_score(target, predicted)
    np.testing.assert_array_equal(
        metrics.confusion_matrix(predicted, target, classes),
        sklearn.metrics.confusion_matrix(target, predicted, labels=labels),
    )
    brier = np.mean(
        [((row - np.eye(classes)[t]) ** 2).sum() for row, t in zip(p, target, strict=True)]
    )
    np.testing.assert_allclose(metrics.brier_score(p, target), brier, rtol=rtol)


def test_log_loss_of_a_sure_and_wrong_answer_is_finite_and_right():
    logits = np.array([[800.0, 0.0]])
    assert metrics.log_loss(log_softmax(logits, axis=1), np.array([1])) == 800.0


def slow_calibration_error(confidence, correct, bins):
    """Sort; walk through quantile edges; average |confidence - accuracy| by rows."""
    edges = [np.quantile(confidence, i / bins) for i in range(1, bins)]
    total = 0.0
    for b in range(bins):
        inside = [
            (c, ok)
            for c, ok in zip(confidence, correct, strict=True)
            if (b == 0 or c > edges[b - 1]) and (b == bins - 1 or c <= edges[b])
        ]
        if inside:
            gap = sum(c for c, _ in inside) / len(inside) - sum(ok for _, ok in inside) / len(
                inside
            )
            total += len(inside) * abs(gap)
    return total / len(confidence)


@given(st.integers(1, 80), st.integers(1, 20), st.integers(0, 1000), st.booleans())
def test_calibration_error_equals_a_slow_one(rows, bins, seed, tied):
    rng = np.random.default_rng(seed)
    confidence = rng.random(rows)
    if tied:
        confidence = np.round(confidence, 1)
    correct = rng.random(rows) < confidence
    np.testing.assert_allclose(
        metrics.calibration_error(confidence, correct, bins),
        slow_calibration_error(confidence, correct, bins),
        atol=1e-12,
    )


def test_calibration_error_of_probabilities_that_lie_and_that_do_not():
    correct = np.arange(1000) % 10 < 7
    assert metrics.calibration_error(np.full(1000, 0.7), correct) == pytest.approx(0)
    assert metrics.calibration_error(np.full(1000, 0.9), correct) == pytest.approx(0.2)
    # bins of as many rows each: a few odd rows weigh as a few rows
    odd = np.concatenate([np.full(999, 0.7), [0.1]])
    assert metrics.calibration_error(odd.astype(np.float32), correct) < 0.01
