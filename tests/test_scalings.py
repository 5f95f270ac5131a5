"""Each scaling against a general-purpose minimiser, and what none of them may do."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

import softly
from softly import scalings
from softly.kernels import threads
from softly.scalings import (
    Affine,
    fit_isotonic,
    fit_matrix,
    fit_temperature,
    fit_vector,
)

FITS = [fit_temperature, fit_vector, fit_matrix, fit_isotonic]


def drawn(rows, classes, scale, seed=0):
    """Logits that are `scale` times too large for the classes drawn by them."""
    rng = np.random.default_rng(seed)
    fair = rng.normal(0, 1.5, (rows, classes))
    y = (fair + rng.gumbel(size=fair.shape)).argmax(axis=1)
    return scale * fair, y, rng.uniform(0.2, 2.0, rows)


def mean_loss(logits, y, weight):
    log_p = scipy.special.log_softmax(logits, axis=1)
    return -np.average(log_p[np.arange(len(y)), y], weights=weight)


@settings(max_examples=25)
@given(st.integers(2, 12), st.sampled_from([0.02, 0.3, 1.0, 5.0, 400.0]), st.integers(0, 1000))
def test_temperature_is_the_minimum(classes, scale, seed):
    logits, y, weight = drawn(300, classes, scale, seed)
    found = fit_temperature(logits, y, weight)
    best = scipy.optimize.minimize_scalar(
        lambda log_t: mean_loss(logits / np.exp(log_t), y, weight),
        bounds=(np.log(scale) - 3, np.log(scale) + 3),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert found.temperature == pytest.approx(np.exp(best.x), rel=1e-4)
    assert mean_loss(logits / found.temperature, y, weight) <= best.fun + 1e-12


@pytest.mark.parametrize("of_some", ["right", "wrong", "blind", "hot"])
def test_rows_that_mislead_the_start_do_not_move_the_minimum(of_some):
    logits, y, weight = drawn(5000, 5, 2.0)
    some = np.arange(0, 5000, scalings._ONE_IN)
    best = {"right": y[some], "wrong": (y[some] + 1) % 5}
    if of_some in best:
        logits[some] = 4.0 * np.eye(5)[best[of_some]]
    else:
        logits[some] *= {"blind": 0.0, "hot": 1e-6}[of_some]
    found = fit_temperature(logits, y, weight).temperature
    lost = [mean_loss(logits / (found * by), y, weight) for by in (1 - 1e-4, 1.0, 1 + 1e-4)]
    assert lost[1] < min(lost[0], lost[2])
    shuffled = np.random.default_rng(0).permutation(5000)
    other = fit_temperature(logits[shuffled], y[shuffled], weight[shuffled]).temperature
    assert other == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize("fit", FITS)
def test_threads_change_no_bit(fit, monkeypatch):
    logits, y, weight = drawn(9000, 40, 2.0)
    found = fit(logits, y, weight)(logits[:9])
    for count in (1, 3):
        monkeypatch.setattr(threads, "_pool", threads._Pool())
        monkeypatch.setattr(threads._pool, "count", count)
        np.testing.assert_array_equal(fit(logits, y, weight)(logits[:9]), found)


def test_temperature_of_rows_that_are_all_right_is_cold_and_finite():
    logits = 3.0 * np.eye(4)[np.arange(40) % 4]
    found = fit_temperature(logits, np.arange(40) % 4, np.ones(40))
    assert mean_loss(found(logits), np.arange(40) % 4, np.ones(40)) == pytest.approx(1 / 42)


def test_temperature_of_rows_that_are_all_wrong_is_hot_and_finite():
    logits = 3.0 * np.eye(4)[np.arange(40) % 4]
    found = fit_temperature(logits, (np.arange(40) + 1) % 4, np.ones(40))
    assert 1e3 < found.temperature < np.inf
    np.testing.assert_allclose(scipy.special.softmax(found(logits), axis=1), 0.25, atol=1e-3)


def test_logits_that_say_nothing_are_left_alone():
    found = fit_temperature(np.zeros((20, 3)), np.arange(20) % 3, np.ones(20))
    assert found.temperature == 1


def test_one_huge_logit_does_not_move_the_others():
    logits, y, weight = drawn(2000, 4, 2.0)
    best = fit_temperature(logits, y, weight).temperature
    logits[7, y[7]] = 1e8
    assert fit_temperature(logits, y, weight).temperature == pytest.approx(best, rel=0.01)


def structured_loss(weight, bias, first, logits, y, sample_weight, of_matrix):
    """What vector and matrix scaling minimise, written out."""
    k = logits.shape[1]
    z = logits / first
    z = z - z.mean(axis=1, keepdims=True)
    total = sample_weight.sum()
    scaled = z @ weight.T + bias
    off = weight - np.diag(np.diag(weight))
    penalty = ((np.diag(weight) - 1) ** 2).sum() + (bias**2).sum()
    penalty += (k - 1) * (off**2).sum() * of_matrix
    return mean_loss(scaled, y, sample_weight) + k / total * penalty


@pytest.mark.parametrize(("classes", "rows"), [(2, 200), (3, 150), (12, 400)])
def test_vector_is_the_minimum(classes, rows):
    logits, y, weight = drawn(rows, classes, 3.0)
    logits[:, 0] += 2
    found = fit_vector(logits, y, weight)

    def loss(x):
        matrix = np.diag(x[:classes])
        return structured_loss(
            matrix, x[classes:], found.temperature, logits, y, weight, of_matrix=False
        )

    ours = np.concatenate([found.weight, found.bias])
    best = scipy.optimize.minimize(loss, ours + 0.1, options={"gtol": 1e-9})
    assert loss(ours) <= best.fun + 1e-9
    np.testing.assert_allclose(ours, best.x, atol=2e-4)


@pytest.mark.parametrize(("classes", "rows"), [(3, 150), (5, 400), (26, 300)])
def test_matrix_is_the_minimum(classes, rows):
    logits, y, weight = drawn(rows, classes, 3.0)
    logits = logits @ (np.eye(classes) + 0.2 * np.eye(classes, k=1))
    found = fit_matrix(logits, y, weight)
    shape = (classes, classes + 1)

    def loss(x):
        parts = x.reshape(shape)
        return structured_loss(
            parts[:, :-1], parts[:, -1], found.temperature, logits, y, weight, of_matrix=True
        )

    ours = np.concatenate([found.weight, found.bias[:, None]], axis=1).ravel()
    slope = scipy.optimize.approx_fprime(ours, loss, 1e-7)
    assert np.abs(slope).max() < 2e-5
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert loss(ours) <= loss(ours + rng.normal(0, 1e-3, ours.size)) + 1e-12


def test_matrix_scaling_of_a_hundred_classes_does_not_overfit():
    logits, y, weight = drawn(3000, 100, 2.0)
    half = np.arange(3000) < 1500
    weight[:] = 1
    alone = fit_temperature(logits[half], y[half], weight[half])
    for fit in (fit_vector, fit_matrix):
        rich = fit(logits[half], y[half], weight[half])
        lost = mean_loss(rich(logits[~half]), y[~half], weight[~half])
        assert lost < mean_loss(alone(logits[~half]), y[~half], weight[~half]) + 0.03


@pytest.mark.parametrize("fit", FITS)
def test_a_constant_for_a_row_changes_nothing(fit):
    logits, y, weight = drawn(300, 4, 2.0)
    moved = logits + np.random.default_rng(1).normal(0, 50, (300, 1))
    one, other = fit(logits, y, weight), fit(moved, y, weight)
    np.testing.assert_allclose(
        scipy.special.softmax(one(logits), axis=1),
        scipy.special.softmax(other(moved), axis=1),
        atol=1e-6,
    )


@pytest.mark.parametrize("fit", FITS)
def test_a_weight_of_two_is_the_row_twice(fit):
    logits, y, _ = drawn(200, 4, 2.0)
    weight = 1.0 + np.arange(200) % 2
    rows = np.repeat(np.arange(200), weight.astype(int))
    one, other = fit(logits, y, weight), fit(logits[rows], y[rows], np.ones(len(rows)))
    np.testing.assert_allclose(
        scipy.special.softmax(one(logits), axis=1),
        scipy.special.softmax(other(logits), axis=1),
        atol=1e-6,
    )


@pytest.mark.parametrize("fit", FITS)
def test_infinities_are_kept(fit):
    logits, y, weight = drawn(200, 4, 2.0)
    logits[::3, 1] = -np.inf
    y[y == 1] = 2
    logits[5, 3] = np.inf
    sound = scalings.usable(logits, y)
    assert not sound[5]
    found = fit(logits[sound], y[sound], weight[sound])
    p = scipy.special.softmax(np.where(np.isposinf(found(logits)), 1e9, found(logits)), axis=1)
    assert np.isfinite(p).all()
    assert (p[::3, 1] == 0).all()
    assert p[5, 3] == 1
    with np.errstate(all="ignore"):
        assert np.isnan(softly.softmax(found(np.full((1, 4), -np.inf)), axis=1)).all()


@pytest.mark.parametrize("fit", FITS)
def test_a_class_that_is_masked_by_a_huge_number_does_not_spoil_the_others(fit):
    logits, y, weight = drawn(400, 4, 2.0)
    y[y == 1] = 2
    masked, infinite = logits.copy(), logits.copy()
    masked[:, 1], infinite[:, 1] = -1e9, -np.inf
    without = fit(logits[:, [0, 2, 3]], np.array([0, -1, 1, 2])[y], weight)
    expected = scipy.special.softmax(without(logits[:, [0, 2, 3]]), axis=1)
    for some in (masked, infinite):
        p = scipy.special.softmax(fit(some, y, weight)(some), axis=1)
        assert (p[:, 1] == 0).all()
        if fit is not fit_matrix:  # that has no place for it, and is vector scaling here
            np.testing.assert_allclose(p[:, [0, 2, 3]], expected, atol=0.03)


@pytest.mark.parametrize("fit", [fit_vector, fit_matrix])
def test_a_class_that_is_impossible_in_a_row_moves_no_other(fit):
    logits, y, weight = drawn(2000, 4, 2.0)
    found = fit(logits + np.array([0.5, 0, 0, 0]), y, weight)
    p = scipy.special.softmax(found(np.array([[1.0, 1.0, 1.0, -np.inf]])), axis=1)
    assert p[0, 3] == 0
    np.testing.assert_allclose(p[0, :3], [0.28, 0.36, 0.36], atol=0.05)


@pytest.mark.parametrize("scale", [0.2, 1.0, 6.0])
def test_isotonic_keeps_the_order_of_every_row_and_finds_the_frequencies(scale):
    logits, y, weight = drawn(5000, 3, scale)
    found = fit_isotonic(logits, y, np.ones(5000))
    calibrated = found(logits)
    order = np.argsort(logits, axis=1, kind="stable")
    assert (np.diff(np.take_along_axis(calibrated, order, axis=1), axis=1) >= 0).all()
    assert np.isfinite(calibrated).all()
    fair = mean_loss(logits / scale, y, weight)
    assert mean_loss(calibrated, y, weight) < fair + 0.01


def regressed(odds, truth, weight):
    """The steps of isotonic regression over all numbers, which are sorted: mass, right, odds."""
    x, rank = np.unique(odds, return_inverse=True)
    steps = [np.bincount(rank, weight * part) for part in (np.ones(len(odds)), truth, odds)]
    share = steps[1] / steps[0]
    for _ in x:  # until nothing falls any more
        starts = scipy.optimize.isotonic_regression(share, weights=steps[0]).blocks[:-1]
        steps = [np.add.reduceat(part, starts) for part in steps]
        share = (steps[1] + 0.5) / (steps[0] + 1)
    return steps[2] / steps[0], share


@pytest.mark.parametrize(
    ("rows", "classes", "scale"), [(400, 3, 1.0), (30, 5, 9.0), (300, 2, 700.0)]
)
def test_isotonic_is_the_regression_of_all_numbers(rows, classes, scale):
    logits, y, weight = drawn(rows, classes, scale)
    logits[1::2] = logits[::2]  # ties
    log_p = scipy.special.log_softmax(logits, axis=1).ravel()
    with np.errstate(divide="ignore"):
        odds = np.minimum(log_p - np.log(-np.expm1(log_p)), 40)
    some = odds >= -1000
    knots, share = regressed(
        odds[some], np.eye(classes)[y].ravel()[some], np.repeat(weight, classes)[some]
    )
    found = fit_isotonic(logits, y, weight)
    np.testing.assert_allclose(found.knots, knots, rtol=1e-9)
    np.testing.assert_allclose(found.values, scipy.special.logit(share), rtol=1e-9)


def test_isotonic_gives_nothing_the_probability_0_for_want_of_rows():
    logits, y, weight = drawn(500, 6, 1.0)
    y[y == 5] = 0  # class 5 never occurs
    p = scipy.special.softmax(fit_isotonic(logits, y, weight)(logits), axis=1)
    assert (p > 0).all()


@pytest.mark.parametrize("fit", [fit_temperature, fit_vector, fit_matrix])
def test_the_matrix_of_a_map_is_the_map(fit):
    logits, y, weight = drawn(300, 5, 2.0)
    found = fit(logits, y, weight)
    np.testing.assert_allclose(
        scipy.special.softmax(logits @ found.matrix(5).T + found.bias, axis=1),
        scipy.special.softmax(found(logits), axis=1),
        atol=1e-12,
    )


def test_an_affine_map_is_what_it_says():
    z = np.array([[1.0, 2.0, 6.0]])
    found = Affine(2.0, np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.2, 0.3]))(z)
    np.testing.assert_allclose(found, [[-1.0 + 0.1, -1.0 + 0.2, 4.5 + 0.3]])
