"""The choice among scalings: rows held out of what calibrates them, and one standard error."""

import numpy as np
import pytest
import scipy.special

from softly import scalings, selection


def drawn(rows=300, classes=4, scale=3.0, seed=0):
    rng = np.random.default_rng(seed)
    fair = rng.normal(0, 1.5, (rows, classes))
    y = (fair + rng.gumbel(size=fair.shape)).argmax(axis=1)
    return scale * fair, y, rng.uniform(0.2, 2.0, rows)


@pytest.mark.parametrize("rows", [1, 3, 300])
def test_no_row_is_calibrated_by_itself(rows):
    logits, y, weight = drawn(rows)
    fits = selection.cross_fit(logits, y, weight, "temperature")
    found = fits.log_probabilities(logits)
    for i, scaling in enumerate(fits.scalings):
        held = fits.fold == i
        rest = ~held if rows > 1 else held
        by_hand = scalings.fit_temperature(logits[rest], y[rest], weight[rest])
        assert scaling.temperature == by_hand.temperature
        np.testing.assert_allclose(
            found[held],
            scipy.special.log_softmax(logits[held] / by_hand.temperature, axis=1),
            atol=1e-12,
        )


def test_every_fold_has_its_share_of_every_class():
    _, y, weight = drawn(600, scale=1.0)
    fold = selection.cross_fit(np.zeros((600, 4)), y, weight, "identity").fold
    for k in range(4):
        counts = np.bincount(fold[y == k], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_what_was_chosen_comes_with_its_fits():
    logits, y, weight = drawn(1000)
    choice = selection.choose(logits, y, weight, list(scalings.METHODS))
    assert choice.method == "temperature"
    log_p = choice.cross_fit.log_probabilities(logits)
    loss = -np.average(log_p[np.arange(1000), y], weights=weight)
    assert choice.candidates["temperature"].log_loss == pytest.approx(loss, rel=1e-12)


def test_the_error_is_that_of_the_difference_of_weighted_rows():
    logits, y, _ = drawn(400)
    weight = 1.0 + np.arange(400) % 2
    among = ["identity", "temperature"]
    choice = selection.choose(logits, y, weight, among)
    losses = [
        -selection.cross_fit(logits, y, weight, name).log_probabilities(logits)[np.arange(400), y]
        for name in among
    ]
    apart = losses[0] - losses[1]
    behind = choice.candidates["identity"]
    assert behind.behind == pytest.approx(np.average(apart, weights=weight))
    rng = np.random.default_rng(0)
    again = rng.integers(400, size=(4000, 400))
    means = (apart[again] * weight[again]).sum(axis=1) / weight[again].sum(axis=1)
    assert behind.standard_error == pytest.approx(means.std(), rel=0.1)


def test_nothing_to_choose_by_or_from():
    logits, y, weight = drawn(1)
    few = selection.choose(logits, y, weight, ["identity", "temperature"])
    assert (few.method, few.candidates, few.cross_fit) == ("identity", {}, None)
    assert few.reason.startswith("one row is too little")
    one = selection.choose(*drawn(50), ["vector"])
    assert (one.method, one.reason, one.cross_fit) == ("vector", "vector was asked for", None)
