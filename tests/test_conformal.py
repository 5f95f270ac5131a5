"""Prediction sets: their coverage, their size, and what they refuse."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import softly
from softly.conformal import PredictionSets


def drawn(rows, classes=6, seed=0, scale=1.0, fair=1.5):
    rng = np.random.default_rng(seed)
    fair = rng.normal(0, fair, (rows, classes))
    y = (fair + rng.gumbel(size=fair.shape)).argmax(axis=1)
    return softly.softmax(scale * fair, axis=1), y


def held(sets, p, y):
    return sets.predict(p)[np.arange(len(y)), y]


@pytest.mark.parametrize("method", ["lac", "aps", "raps"])
@pytest.mark.parametrize("coverage", [0.7, 0.9, 0.95])
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])  # also where the model is wrong of itself
def test_sets_hold_the_true_class_as_often_as_asked(method, coverage, scale):
    shares = []
    for seed in range(40):
        p, y = drawn(1000, seed=seed, scale=scale)
        sets = PredictionSets(coverage, method=method).fit(p[:500], y[:500])
        shares.append(held(sets, p[500:], y[500:]).mean())
    # The most probable class is always in: that may be more than is asked for.
    assert coverage - 0.01 < np.mean(shares) < coverage + 0.04


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_each_class_is_held_as_often_as_asked(method):
    rng = np.random.default_rng(0)
    p, y = drawn(40_000, classes=4)
    p = p * [4.0, 1, 1, 0.25]
    p /= p.sum(axis=1, keepdims=True)
    half = rng.random(40_000) < 0.5
    plain = PredictionSets(0.9, method=method).fit(p[half], y[half])
    by_class = PredictionSets(0.9, method=method, by_class=True).fit(p[half], y[half])
    for k in range(4):
        of = ~half & (y == k)
        assert held(by_class, p[of], y[of]).mean() == pytest.approx(0.9, abs=0.03)
    of = ~half & (y == 3)
    assert held(plain, p[of], y[of]).mean() < 0.8


def test_the_threshold_is_the_place_that_the_theorem_names():
    p = np.stack([np.arange(1, 10) / 10, 1 - np.arange(1, 10) / 10], axis=1)
    sets = PredictionSets(0.9).fit(p, np.zeros(9, int))
    assert sets.threshold_ == pytest.approx(0.9)  # the 9th least of 9 scores: ceil(10 * 0.9)
    assert PredictionSets(0.8).fit(p, np.zeros(9, int)).threshold_ == pytest.approx(0.8)


def test_no_set_is_empty():
    p, y = drawn(2000, scale=3)
    for method in ("lac", "aps", "raps"):
        sets = PredictionSets(0.5, method=method).fit(p[:1000], y[:1000])
        found = sets.predict(p[1000:])
        assert found.any(axis=1).all()
        assert found[np.arange(1000), p[1000:].argmax(axis=1)].all()


def test_a_row_has_the_same_set_alone_and_among_others():
    p, y = drawn(1000)
    for method in ("aps", "raps"):
        sets = PredictionSets(0.9, method=method).fit(p[:500], y[:500])
        every = sets.predict(p[500:])
        np.testing.assert_array_equal(sets.predict(p[700:701])[0], every[200])
        np.testing.assert_array_equal(sets.predict(np.asfortranarray(p[500:])), every)


def test_raps_has_smaller_sets_than_aps_where_there_are_many_classes():
    p, y = drawn(4000, classes=60, fair=3.0, scale=0.4)
    size = {
        method: PredictionSets(0.9, method=method).fit(p[:2000], y[:2000]).predict(p[2000:]).sum()
        for method in ("aps", "raps")
    }
    assert size["raps"] < size["aps"]


def test_sets_take_in_the_most_probable_first():
    p, y = drawn(1000)
    for method in ("lac", "aps", "raps"):
        found = PredictionSets(0.9, method=method).fit(p[:500], y[:500]).predict(p[500:])
        least_in = np.where(found, p[500:], 2).min(axis=1)
        most_out = np.where(found, -1, p[500:]).max(axis=1)
        assert (least_in > most_out).all()


@pytest.mark.parametrize(
    ("options", "rows", "said"),
    [
        ({"coverage": 1.0}, 100, "coverage is 1.0, but a number between 0 and 1"),
        ({"coverage": 0}, 100, "between 0 and 1"),
        ({"coverage": 90}, 100, "between 0 and 1"),
        ({"coverage": 0.99}, 50, "a coverage of 0.99 needs 99 rows, but there are 50"),
        ({"method": "best"}, 100, "method is 'best', but one of lac, aps, raps"),
        ({"by_class": True}, 20, "a coverage of 0.9 needs 9 rows of class 0, but there are"),
    ],
)
def test_bad_input(options, rows, said):
    with pytest.raises(ValueError, match=said):
        PredictionSets(**options).fit(*drawn(rows))


def test_rows_and_columns_that_do_not_fit():
    p, y = drawn(100)
    with pytest.raises(ValueError, match="p has 100 rows and y 99"):
        PredictionSets().fit(p, y[:99])
    with pytest.raises(ValueError, match="p has 4 columns, but the sets were fitted to 6"):
        PredictionSets().fit(p, y).predict(np.full((2, 4), 0.25))
    with pytest.raises(ValueError, match="if these are logits"):
        PredictionSets().fit(np.log(p), y)
    with pytest.raises(NotFittedError):
        PredictionSets().predict(p)
