"""What the functions compute: against SciPy, the oracle, and one another.

What the numbers of the kernels promise is in test_contract.py; which arrays are taken and
which are not in test_arrays.py; that their layout does not matter in test_layouts.py.
"""

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import scipy.special
from hypothesis import assume, given
from hypothesis import strategies as st

import oracle
import softly
from family import (
    DERIVATIVES,
    DOUBLE,
    ELEMENTWISE,
    FUNCTIONS,
    OF_SCORES,
    SINGLE,
    arguments,
    names,
    same_bits,
    temperatures,
)
from softly.kernels import chosen

NATIVE = chosen.name.startswith("native")
DTYPES = [SINGLE, DOUBLE]

# In units in the last place; see test_contract.py. The reference's exponential is NumPy's.
PROBABILITY = 2 if NATIVE else 3
LOGARITHM = 8
# A derivative is p times a difference of numbers of the size of g: some roundings of those.
DERIVATIVE = 16


def scipys(function):
    name = function.__name__
    return getattr(scipy.special, {"sigmoid": "expit", "log_sigmoid": "log_expit"}.get(name, name))


# Against SciPy --------------------------------------------------------------------------------


@pytest.mark.parametrize("function", OF_SCORES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "axis", [None, 0, 1, 2, -1, -3, (0,), (1, 2), (0, 2), (2, 0), (-1, 0), (0, 1, 2)]
)
def test_every_axis_agrees_with_scipy(function, dtype, axis):
    (x,) = arguments(function, (4, 5, 6), dtype)
    answer = function(x, axis=axis)
    wanted = scipys(function)(x.astype(np.float64), axis=axis)
    assert answer.dtype == dtype
    assert np.shape(answer) == np.shape(wanted)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(answer, wanted, rtol=20 * eps, atol=20 * eps)


@pytest.mark.parametrize("function", OF_SCORES)
def test_the_default_axis_is_all_entries_as_in_scipy(function):
    (x,) = arguments(function, (4, 5))
    np.testing.assert_allclose(function(x), scipys(function)(x), rtol=1e-14)
    np.testing.assert_array_equal(function(x), function(x, None))


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1), (2, 0)])
def test_logsumexp_keepdims(axis):
    (x,) = arguments(softly.logsumexp, (4, 5, 6))
    kept = softly.logsumexp(x, axis=axis, keepdims=True)
    assert kept.shape == scipy.special.logsumexp(x, axis=axis, keepdims=True).shape
    np.testing.assert_array_equal(np.squeeze(kept), softly.logsumexp(x, axis))


@pytest.mark.parametrize("function", ELEMENTWISE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_elementwise_agrees_with_scipy(function, dtype):
    (x,) = arguments(function, (40, 50), dtype)
    answer = function(x)
    wanted = scipys(function)(x.astype(np.float64))
    assert answer.dtype == dtype
    assert answer.shape == x.shape
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(answer, wanted, rtol=10 * eps, atol=10 * eps)


# Against the oracle ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 2, 3, 10, 33, 100])
def test_rows_agree_with_the_oracle(classes, dtype):
    named = oracle.hard_rows(classes, dtype, seed=1)
    columns = np.array(list(named.values())).T  # the classes along the first, strided axis
    p = softly.softmax(columns, axis=0)
    log_p = softly.log_softmax(columns, axis=0)
    for i, (name, row) in enumerate(named.items()):
        difference = oracle.rounded_difference(row)
        worst = oracle.worst_ulps(p[:, i], oracle.softmax(difference), dtype)
        assert worst <= PROBABILITY, name
        worst = oracle.worst_ulps(log_p[:, i], oracle.log_softmax(difference), dtype)
        assert worst <= LOGARITHM, name


@pytest.mark.parametrize("dtype", DTYPES)
def test_logit_agrees_with_the_oracle(dtype):
    """Relative accuracy everywhere: near 0, near 1 and near 1/2, where the answer is near 0."""
    rng = np.random.default_rng(2)
    info = np.finfo(dtype)
    away = 10 ** rng.uniform(np.log10(info.eps), -0.31, size=300)
    p = np.concatenate(
        [
            [info.smallest_subnormal, info.tiny, 0.5, 0.25, 0.75, 1 - info.eps, 1 - info.epsneg],
            0.5 + 2.0 ** -np.arange(2, info.nmant + 1),
            0.5 - 2.0 ** -np.arange(2, info.nmant + 2),
            rng.uniform(size=300),
            away,
            1 - away,
            0.5 - away[away < 0.5],
            10 ** rng.uniform(np.log10(float(info.smallest_subnormal)) + 1, 0, size=200),
        ]
    ).astype(dtype)
    p = p[(p > 0) & (p < 1)]
    wanted = [oracle.logit(value) for value in p]
    # 2p - 1 is exact, 1 - p rounded, the quotient and log1p rounded: 2.5 units of up to two ulp.
    assert oracle.worst_ulps(softly.logit(p), wanted, dtype) <= 5


def test_logit_at_the_ends_and_outside():
    p = np.array([0, -0.0, 1, -1e-300, np.nextafter(1, 2), -np.inf, np.inf, np.nan, 0.5])
    np.testing.assert_array_equal(
        softly.logit(p), [-np.inf, -np.inf, np.inf, np.nan, np.nan, np.nan, np.nan, np.nan, 0]
    )
    for dtype in (np.float16, np.float32, np.float64):
        outside = softly.logit(np.array([0, 1, 2, -1], dtype))
        np.testing.assert_array_equal(outside, [-np.inf, np.inf, np.nan, np.nan])


def test_half_is_close_to_the_oracle():
    (row,) = arguments(softly.softmax, 100, np.float16)
    p = softly.softmax(row)
    # Half a unit for the one rounding, and the float32 answer's few units of 2**-13 of it.
    assert oracle.worst_ulps(p, oracle.softmax(row), np.float16) <= 0.51
    assert oracle.worst_ulps(softly.log_softmax(row), oracle.log_softmax(row), np.float16) <= 0.51
    assert oracle.ulps(softly.logsumexp(row), oracle.logsumexp(row), np.float16) <= 0.51


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 2, 17, 50, 300])
def test_the_inverse_agrees_with_the_oracle(classes, dtype):
    """log p, its mean and their difference: the unit is that of the larger of the two."""
    rng = np.random.default_rng([3, classes])
    p = softly.softmax((20 * rng.normal(size=(5, classes))).astype(dtype), axis=1)
    p[0, 0], p[1, -1] = 1, np.finfo(dtype).smallest_subnormal
    p[2, : classes // 2] = 0
    scores = softly.softmax_inverse(p, axis=1)
    for row, answer in zip(p, scores, strict=True):
        unit = oracle.ulp(max(abs(np.log(row[row > 0]))), dtype)
        for actual, wanted in zip(answer, oracle.softmax_inverse(row), strict=True):
            close = abs(oracle.mp.mpf(float(actual)) - wanted) <= LOGARITHM * unit
            assert close or actual == wanted == -np.inf


def sizes(function, first, second):
    """How large the numbers are of which an entry of a derivative is the sum."""
    first, second = first.astype(float), abs(second.astype(float))
    if function is softly.log_softmax_vjp:
        return second + np.exp(first) * second.sum()
    return first * (second + first @ second)


@pytest.mark.parametrize("function", DERIVATIVES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 2, 7, 17, 50, 1000])
def test_derivatives_agree_with_the_oracle(function, classes, dtype):
    rng = np.random.default_rng([5, classes])
    x = (8 * rng.normal(size=(3, classes))).astype(dtype)
    x[0, 0] = -np.inf if classes > 1 else 0
    given = softly.log_softmax if function is softly.log_softmax_vjp else softly.softmax
    first = given(x, axis=1)
    second = (10 ** rng.uniform(-3, 3, size=(3, 1)) * rng.normal(size=x.shape)).astype(dtype)
    temperatures = np.array([0.3, 1, 8], dtype)
    answer = function(first, second, axis=1, temperature=temperatures)
    for i, temperature in enumerate(temperatures):
        exact = getattr(oracle, function.__name__)(first[i], second[i], temperature=temperature)
        unit = np.finfo(dtype).eps * sizes(function, first[i], second[i]) / temperature
        error = [abs(oracle.mp.mpf(float(a)) - e) for a, e in zip(answer[i], exact, strict=True)]
        least = float(np.finfo(dtype).smallest_subnormal)
        assert (np.array(error, float) <= DERIVATIVE * unit + 8 * least).all()


# Temperature ----------------------------------------------------------------------------------


def tempered(row, temperature):
    """z - max(z) rounded, then divided by T and rounded: what a tempered softmax starts from."""
    top = row.max()
    if not np.isfinite(top):
        return row  # its limit is the same at every temperature
    if np.isinf(temperature):
        return np.where(row > -np.inf, 0, -np.inf)
    difference = oracle.rounded_difference(row)
    if temperature == 0:
        return np.where(difference == 0, 0, -np.inf)
    with np.errstate(over="ignore", under="ignore"):
        return difference / row.dtype.type(temperature)


def temperatures_of(dtype):
    """Numbers of the type, the limits among them."""
    info = np.finfo(dtype)
    numbers = [0, info.smallest_subnormal, info.tiny, 1e-3, 0.3, 0.5, 1, 1.7, 64, 1e30, np.inf]
    return [float(dtype.type(number)) for number in numbers]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 2, 3, 17, 50])
def test_temperature_agrees_with_the_oracle(classes, dtype):
    named = oracle.hard_rows(classes, dtype, seed=7)
    named["infinite"] = np.where(np.arange(classes) % 3, named["holes"], dtype.type(np.inf))
    del named["largest"]  # z - max(z) overflows: no temperature brings that back
    rows = np.array(list(named.values()))
    for temperature in temperatures_of(dtype):
        p = softly.softmax(rows, axis=1, temperature=temperature)
        log_p = softly.log_softmax(rows, axis=1, temperature=temperature)
        for i, (name, row) in enumerate(named.items()):
            scores = tempered(row, temperature)
            worst = oracle.worst_ulps(p[i], oracle.softmax(scores), dtype)
            assert worst <= PROBABILITY, (name, temperature)
            worst = oracle.worst_ulps(log_p[i], oracle.log_softmax(scores), dtype)
            assert worst <= LOGARITHM, (name, temperature)
            assert abs(math.fsum(p[i]) - 1) <= 4 * np.finfo(dtype).eps, (name, temperature)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 2, 17, 50])
def test_tempered_logsumexp_agrees_with_the_oracle(classes, dtype):
    """max / T + log sum exp((z - max) / T): the unit is that of the larger of the two."""
    named = oracle.hard_rows(classes, dtype, seed=11)
    del named["largest"]
    rows = np.array(list(named.values()))
    largest = oracle.mp.mpf(float(np.finfo(dtype).max))
    for temperature in temperatures_of(dtype)[1:-1]:
        answer = softly.logsumexp(rows, axis=1, temperature=temperature)
        for i, (name, row) in enumerate(named.items()):
            top = oracle.mp.mpf(float(row.max())) / oracle.mp.mpf(temperature)
            rest = oracle.logsumexp(tempered(row, temperature))
            if abs(top) > largest:
                assert answer[i] == np.sign(row.max()) * np.inf, (name, temperature)
                continue
            unit = oracle.ulp(max(abs(top), rest), dtype)
            error = abs(oracle.mp.mpf(float(answer[i])) - (top + rest))
            assert error <= LOGARITHM * unit, (name, temperature)


@pytest.mark.skipif(not NATIVE, reason="test_contract.py says what the reference may do")
@pytest.mark.parametrize("function", [softly.softmax, softly.log_softmax])
@pytest.mark.parametrize("dtype", DTYPES)
def test_order_of_neighbouring_numbers_at_any_temperature(function, dtype):
    """Runs of scores one unit in the last place apart: dividing them makes ties, never turns."""
    rng = np.random.default_rng(17)
    bits = {4: np.uint32, 8: np.uint64}[dtype.itemsize]
    starts = np.concatenate([rng.uniform(1e-3, 50, 30), 2.0 ** np.arange(-9, 6)]).astype(dtype)
    runs = starts.view(bits)[:, None] - bits(500) + np.arange(1000, dtype=bits)
    rows = np.concatenate([-runs.view(dtype)[:, ::-1], np.zeros((len(starts), 1), dtype)], axis=1)
    for temperature in (1e-3, 0.3, 1 / 3, 0.999, 1.7, 30, 1e30):
        answer = function(rows, axis=1, temperature=temperature)
        assert (np.diff(answer, axis=1) >= 0).all(), temperature


LIMITS = np.array(
    [
        [1, 3, 3, -np.inf, -3e300],
        [-1, -np.inf, -np.inf, -1, -1],
        [0, 0, -1, -np.inf, -5],
        [np.inf, 7, np.inf, -np.inf, 3e300],
        [-np.inf] * 5,
        [np.nan, np.inf, 0, 0, 0],
    ]
)
HALF, THIRD = [0.5, 0, 0.5, 0, 0], [1 / 3, 0, 0, 1 / 3, 1 / 3]
NONE = [np.nan] * 5


def test_at_temperature_0_the_greatest_share_the_whole():
    wanted = np.array([[0, 0.5, 0.5, 0, 0], THIRD, [0.5, 0.5, 0, 0, 0], HALF, NONE, NONE])
    np.testing.assert_array_equal(softly.softmax(LIMITS, axis=1, temperature=0), wanted)
    with np.errstate(divide="ignore"):
        logs = np.log(wanted)
    log_p = softly.log_softmax(LIMITS, axis=1, temperature=0)
    np.testing.assert_allclose(log_p, logs, rtol=1e-15)
    total = softly.logsumexp(LIMITS, axis=1, temperature=0)
    np.testing.assert_allclose(total, [np.inf, -np.inf, np.log(2), np.inf, -np.inf, np.nan])


def test_at_an_infinite_temperature_all_that_are_possible_share_it():
    first = [0.25, 0.25, 0.25, 0, 0.25]
    wanted = np.array([first, THIRD, first, HALF, NONE, NONE])
    infinite = np.inf
    np.testing.assert_array_equal(softly.softmax(LIMITS, axis=1, temperature=infinite), wanted)
    with np.errstate(divide="ignore"):
        logs = np.log(wanted)
    log_p = softly.log_softmax(LIMITS, axis=1, temperature=infinite)
    np.testing.assert_allclose(log_p, logs, rtol=1e-15)
    total = softly.logsumexp(LIMITS, axis=1, temperature=infinite)
    np.testing.assert_allclose(total, [np.log(4), np.log(3), np.log(4), np.inf, -np.inf, np.nan])


@pytest.mark.parametrize("temperature", [1e-300, 1, 1e300])
def test_infinities_share_the_whole_at_every_temperature(temperature):
    p = softly.softmax(LIMITS[3:], axis=1, temperature=temperature)
    np.testing.assert_array_equal(p, [HALF, NONE, NONE])
    total = softly.logsumexp(LIMITS[3:], axis=1, temperature=temperature)
    np.testing.assert_array_equal(total, [np.inf, -np.inf, np.nan])


@pytest.mark.parametrize("function", OF_SCORES)
@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1.0, 1e308, np.inf])
def test_each_row_has_its_own_temperature(function, temperature):
    """A row's temperature spoils no other row: 0 and infinity beside 1."""
    x = np.concatenate([LIMITS, arguments(function, (5, 5))[0]])
    each = np.linspace(0.1, 3, len(x))
    each[::2] = temperature
    answer = function(x, axis=1, temperature=each)
    for i in range(len(x)):
        same_bits(answer[i : i + 1], function(x[i : i + 1], axis=1, temperature=each[i]))
    # Minus zero is zero.
    minus = np.where(each == 0, -0.0, each)
    same_bits(answer, function(x, axis=1, temperature=minus))
    same_bits(function(x, axis=1, temperature=-0.0), function(x, axis=1, temperature=0))


@pytest.mark.parametrize("function", OF_SCORES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_power_of_two_is_a_shift_of_the_exponent(function, dtype):
    (x,) = arguments(function, (50, 33), dtype)
    for temperature in (0.25, 2, 64):
        tempered_x = x / dtype.type(temperature)
        same_bits(function(x, axis=1, temperature=temperature), function(tempered_x, axis=1))
    same_bits(function(x, axis=1, temperature=1), function(x, axis=1))


@pytest.mark.parametrize("function", DERIVATIVES)
def test_nothing_moves_at_an_infinite_temperature(function):
    first, second = arguments(function, (4, 5))
    assert (function(first, 1e300 * second, axis=1, temperature=np.inf) == 0).all()
    each = np.array([1, np.inf, 2, np.inf])
    assert (function(first, second, axis=1, temperature=each) == 0).all(axis=1).tolist() == [
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("function", [softly.softmax_vjp, softly.softmax_jvp])
def test_a_winner_stays_the_winner_at_temperature_0(function):
    x, g = np.random.default_rng(13).normal(size=(2, 4, 5))
    p = softly.softmax(x, axis=1, temperature=0)
    assert (function(p, g, axis=1, temperature=0) == 0).all()


def test_derivatives_where_the_limit_jumps():
    ties = np.array([0.5, 0.5, 0])
    g = np.array([1.0, -1, 5])
    for function in (softly.softmax_vjp, softly.softmax_jvp):
        np.testing.assert_array_equal(function(ties, g, temperature=0), [np.inf, -np.inf, 0])
        np.testing.assert_array_equal(function(ties, np.ones(3), temperature=0), [0, 0, 0])
    log_p = np.array([0.0, -np.inf])
    vjp = softly.log_softmax_vjp
    np.testing.assert_array_equal(vjp(log_p, np.array([1.0, 2]), temperature=0), [-np.inf, np.inf])
    np.testing.assert_array_equal(vjp(log_p, np.array([1.0, 0]), temperature=0), [0, 0])


# Where ----------------------------------------------------------------------------------------


def masks(shape, seed=0):
    """Masks that broadcast to (n, k), all of whose entries are there, some, or none."""
    rng = np.random.default_rng(seed)
    n, k = shape
    some = rng.random(shape) < 0.6
    some[0], some[1] = False, True
    yield "entries", some
    yield "classes", rng.random(k) < 0.6
    yield "one row of classes", rng.random((1, k)) < 0.6
    yield "rows", rng.random((n, 1)) < 0.6
    yield "all", True
    yield "nobody", np.False_
    yield "nested lists", some.tolist()


FILLS = [np.nan, np.inf, -np.inf, 1e308, 0.0]


@pytest.mark.parametrize("function", OF_SCORES)
@pytest.mark.parametrize("classes", [1, 2, 17, 50])
@pytest.mark.parametrize("temperature", [0, 0.5, 1, np.inf])
def test_masked_scores_are_as_if_impossible(function, classes, temperature):
    for name, where in masks((9, classes)):
        (x,) = arguments(function, (9, classes))
        x[4, 0] = -np.inf
        allowed = np.broadcast_to(where, x.shape)
        wanted = function(np.where(allowed, x, -np.inf), axis=1, temperature=temperature)
        for fill in FILLS:
            masked = np.where(allowed, x, fill)
            answer = function(masked, axis=1, temperature=temperature, where=where)
            same_bits(answer, wanted, f"{name}, {fill}")


def test_masked_classes_and_rows_in_numbers():
    x = np.array([[1, np.nan, 1], [5, 6, 7], [np.inf, 0, 0]])
    where = np.array([[True, False, True], [False, False, False], [False, True, True]])
    p = softly.softmax(x, axis=1, where=where)
    np.testing.assert_array_equal(p, [[0.5, 0, 0.5], [np.nan] * 3, [0, 0.5, 0.5]])
    log_p = softly.log_softmax(x, axis=1, where=where)
    assert (log_p[[0, 2], [1, 0]] == -np.inf).all()
    assert np.isnan(log_p[1]).all()
    total = softly.logsumexp(x, axis=1, where=where)
    np.testing.assert_allclose(total, [1 + np.log(2), -np.inf, np.log(2)])


@pytest.mark.parametrize("axis", [0, 1, None, (0, 1)])
def test_a_mask_goes_with_its_axis(axis):
    (x,) = arguments(softly.softmax, (6, 5))
    where = np.random.default_rng(17).random((6, 5)) < 0.7
    p = softly.softmax(x, axis=axis, where=where)
    np.testing.assert_array_equal(p, softly.softmax(np.where(where, x, -np.inf), axis=axis))
    assert (p[~where] == 0).all()


@pytest.mark.parametrize("temperature", [0.5, 1, 3])
def test_masked_probabilities_have_no_score(temperature):
    for name, where in masks((9, 17), seed=1):
        (p,) = arguments(softly.softmax_inverse, (9, 17))
        allowed = np.broadcast_to(where, p.shape)
        for fill in FILLS:
            masked = np.where(allowed, p, fill)
            scores = softly.softmax_inverse(masked, axis=1, temperature=temperature, where=where)
            assert (scores[~allowed] == -np.inf).all(), name
            for row, only, keep in zip(scores, p, allowed, strict=True):
                if keep.any():
                    wanted = softly.softmax_inverse(only[keep], temperature=temperature)
                    np.testing.assert_allclose(row[keep], wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("function", DERIVATIVES)
@pytest.mark.parametrize("temperature", [0.5, 1, 0, np.inf])
def test_masked_derivatives_are_exactly_0(function, temperature):
    for name, where in masks((9, 17), seed=2):
        first, second = arguments(function, (9, 17))
        allowed = np.broadcast_to(where, first.shape)
        for fill in FILLS:
            answer = function(
                np.where(allowed, first, fill),
                np.where(allowed, second, fill),
                axis=1,
                temperature=temperature,
                where=where,
            )
            assert (answer[~allowed] == 0).all(), name
            for row, p, g, keep in zip(answer, first, second, allowed, strict=True):
                if keep.any():
                    wanted = function(p[keep], g[keep], temperature=temperature)
                    np.testing.assert_allclose(row[keep], wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("function", DERIVATIVES)
def test_a_nan_gradient_does_not_reach_the_masked(function):
    first, second = arguments(function, (4, 6))
    second[:, 0] = np.nan
    where = np.arange(6) < 4
    answer = function(first, second, axis=1, where=where)
    assert np.isnan(answer[:, 0]).all()
    assert (answer[:, 4:] == 0).all()


# logsumexp: weights and signs -----------------------------------------------------------------


SIGNED = [
    ([0, 0], [1, -1]),
    ([0, 1], [1, -1]),
    ([0, np.nan], [1, 0]),
    ([0, np.inf], [1, 0]),
    ([-np.inf, -np.inf], [1, 1]),
    ([-np.inf, -np.inf], [1, -1]),
    ([np.inf, 0], [-1, 1]),
    ([np.inf, np.inf], [1, -1]),
    ([np.inf, np.inf], [2, 3]),
    ([-np.inf, 0], [-1, 0]),
    ([0, 0], [0, 0]),
    ([np.nan, 0], [1, 1]),
    ([1, 2], [np.nan, 1]),
    ([1000, 1000], [2, -1]),
    ([-1000, -1001], [-2, 1]),
    ([-800, 0], [-1e300, 1e-30]),
]


@pytest.mark.parametrize(("x", "b"), SIGNED)
def test_weights_and_signs_are_scipys(x, b):
    with np.errstate(all="ignore"):
        value, sign = scipy.special.logsumexp(x, b=b, return_sign=True)
    answer = softly.logsumexp(x, b=b, return_sign=True)
    np.testing.assert_allclose(answer, (value, sign), rtol=1e-15)
    # SciPy gives -inf where a negative sum is tiny.
    plain = np.nan if sign < 0 else value
    np.testing.assert_allclose(softly.logsumexp(x, b=b), plain, rtol=1e-15)


@pytest.mark.parametrize("x", [[1.0, 2.0], [-np.inf, -np.inf], [np.inf, 0], [np.nan, 1]])
def test_the_sign_without_weights_is_scipys(x):
    with np.errstate(all="ignore"):
        wanted = scipy.special.logsumexp(x, return_sign=True)
    np.testing.assert_allclose(softly.logsumexp(x, return_sign=True), wanted, rtol=1e-15)


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("shape", [(4, 5, 6), (6,), (5, 1), (1, 1, 1), ()])
@pytest.mark.parametrize("keepdims", [False, True])
def test_weights_over_every_axis_agree_with_scipy(axis, shape, keepdims):
    rng = np.random.default_rng(19)
    x, b = 3 * rng.normal(size=(4, 5, 6)), rng.normal(size=shape)
    b = np.where(abs(b) < 0.2, 0, b)
    with np.errstate(all="ignore"):
        # in SciPy's order of arguments
        value, sign = scipy.special.logsumexp(x, axis, b, keepdims, True)
        plain = scipy.special.logsumexp(x, axis, b, keepdims, False)
    answer, answers_sign = softly.logsumexp(x, axis, b, keepdims, True)
    assert np.shape(answer) == np.shape(value)
    assert np.shape(answers_sign) == np.shape(value)
    np.testing.assert_allclose(answer, value, rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(answers_sign, sign)
    alone = softly.logsumexp(x, axis, b, keepdims, False)
    np.testing.assert_allclose(alone, plain, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_positive_weights_keep_full_accuracy(dtype):
    rng = np.random.default_rng(23)
    x = (10 * rng.normal(size=(20, 50))).astype(dtype)
    b = rng.uniform(0.1, 5, size=(20, 50)).astype(dtype)
    answer = softly.logsumexp(x, axis=1, b=b)
    assert answer.dtype == dtype
    wanted = scipy.special.logsumexp(x.astype(float), axis=1, b=b.astype(float))
    np.testing.assert_allclose(answer, wanted, rtol=4 * np.finfo(dtype).eps)


def test_integer_weights():
    x = np.array([[0.5, 1, 2]])
    answer = softly.logsumexp(x, axis=1, b=[1, 2, 3])
    np.testing.assert_allclose(answer, scipy.special.logsumexp(x, axis=1, b=[1, 2, 3]))


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_weights_with_a_temperature_and_a_mask(temperature):
    rng = np.random.default_rng(29)
    x, b = rng.normal(size=(2, 7, 9))
    where = rng.random((7, 9)) < 0.7
    x[0, 0], b[1, 1] = np.nan, np.nan
    where[[0, 1], [0, 1]] = False
    each = np.full(7, temperature)
    value, sign = softly.logsumexp(x, axis=1, b=b, return_sign=True, temperature=each, where=where)
    wanted = [
        oracle.logsumexp(scores, b=weights, where=taken, temperature=temperature, return_sign=True)
        for scores, weights, taken in zip(x, np.where(where, b, 0), where, strict=True)
    ]
    np.testing.assert_allclose(value, [float(size) for size, _ in wanted], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(sign, [float(sign) for _, sign in wanted])


def test_weights_at_the_limits_of_temperature():
    b = np.array([1, 2, 3, 4, 5.0])
    cold = softly.logsumexp(LIMITS, axis=1, b=b, temperature=0)
    np.testing.assert_allclose(cold, [np.inf, -np.inf, np.log(3), np.inf, -np.inf, np.nan])
    hot = softly.logsumexp(LIMITS, axis=1, b=b, temperature=np.inf)
    np.testing.assert_allclose(
        hot, [np.log(11), np.log(10), np.log(11), np.inf, -np.inf, np.nan], rtol=1e-15
    )


# Relations ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 7.0])
def test_the_inverse_undoes_softmax_and_softmax_the_inverse(dtype, temperature):
    rng = np.random.default_rng(31)
    x = (3 * rng.normal(size=(20, 17))).astype(dtype)
    where = rng.random(x.shape) < 0.9
    where[:, 0] = True
    options = {"axis": 1, "temperature": temperature, "where": where}
    p = softly.softmax(x, **options)
    scores = softly.softmax_inverse(p, **options)
    eps = np.finfo(dtype).eps
    # An error of e, relative, in p is one of T e in the score, and so of size / T in p again.
    size = 100 * eps * max(temperature, 1 / temperature)
    mean = np.mean(x.astype(float), axis=1, keepdims=True, where=where)
    assert (scores[~where] == -np.inf).all()
    np.testing.assert_allclose(scores[where], (x - mean)[where], atol=size)
    np.testing.assert_allclose(softly.softmax(scores, **options), p, rtol=size, atol=0)


@pytest.mark.parametrize("limit", [0, 0.0, np.inf])
def test_softmax_has_no_inverse_at_the_limits_of_temperature(limit):
    for temperature in (limit, np.array([1, limit])):
        with pytest.raises(ValueError, match=r"temperature\b.*positive and finite"):
            softly.softmax_inverse(np.full((2, 3), 1 / 3), axis=1, temperature=temperature)


def test_the_inverse_of_a_probability_of_0():
    p = np.array([[0, 0.25, 0.75], [0, 0, 1], [0.5, 0.5, 0]])
    scores = softly.softmax_inverse(p, axis=1)
    half = np.log(3) / 2
    wanted = [[-np.inf, -half, half], [-np.inf, -np.inf, 0], [0, 0, -np.inf]]
    np.testing.assert_allclose(scores, wanted, rtol=1e-15)
    np.testing.assert_allclose(softly.softmax(scores, axis=1), p, rtol=1e-15)
    assert np.isnan(softly.softmax_inverse([np.nan, 0.5])).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [0.25, 1.0, 8.0])
def test_two_classes_are_a_sigmoid(dtype, temperature):
    rng = np.random.default_rng(37)
    x = (10 ** rng.uniform(-3, 1.5, size=(2000, 2)) * rng.normal(size=(2000, 2))).astype(dtype)
    difference = (x[:, 0] - x[:, 1]) / dtype.type(temperature)
    p = softly.softmax(x, axis=1, temperature=temperature)
    np.testing.assert_array_max_ulp(p[:, 0].copy(), softly.sigmoid(difference), 2 * PROBABILITY)
    log_p = softly.log_softmax(x, axis=1, temperature=temperature)
    np.testing.assert_array_max_ulp(
        log_p[:, 0].copy(), softly.log_sigmoid(difference), maxulp=2 * LOGARITHM
    )


@pytest.mark.parametrize("classes", [1, 2, 17, 50])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_vjp_is_the_transpose_of_jvp(classes, temperature):
    rng = np.random.default_rng([41, classes])
    where = rng.random((30, classes)) < 0.8
    where[:, 0] = True
    options = {"axis": 1, "temperature": temperature, "where": where}
    p = softly.softmax(rng.normal(size=(30, classes)), **options)
    g, t = rng.normal(size=(2, 30, classes))
    across = (g * softly.softmax_jvp(p, t, **options)).sum(axis=1)
    back = (softly.softmax_vjp(p, g, **options) * t).sum(axis=1)
    np.testing.assert_allclose(across, back, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("axis", [0, 1, None, (0, 2)])
@pytest.mark.parametrize("masked", [False, True])
def test_derivatives_agree_with_central_differences(axis, masked):
    rng = np.random.default_rng(43)
    x, g, t = rng.normal(size=(3, 4, 3, 5))
    where = rng.random(x.shape) < 0.8 if masked else None
    if masked:
        where |= x == x.max(axis=axis, keepdims=True)  # a row of nothing has no derivative
    left = [n for a, n in enumerate(x.shape) if axis is not None and a not in np.atleast_1d(axis)]
    options = {"axis": axis, "where": where, "temperature": rng.uniform(0.5, 2, size=left)}
    step = 1e-6

    def slope(function, direction):
        ahead = function(x + step * direction, **options)
        behind = function(x - step * direction, **options)
        with np.errstate(invalid="ignore"):
            return np.where(ahead == behind, 0, (ahead - behind) / (2 * step))  # -inf stays -inf

    def gradient(function, g):
        units = np.eye(x.size).reshape(-1, *x.shape)
        return np.reshape([(g * slope(function, unit)).sum() for unit in units], x.shape)

    p = softly.softmax(x, **options)
    log_p = softly.log_softmax(x, **options)
    close = {"rtol": 1e-7, "atol": 1e-8}
    jvp = softly.softmax_jvp(p, t, **options)
    np.testing.assert_allclose(jvp, slope(softly.softmax, t), **close)
    vjp = softly.softmax_vjp(p, g, **options)
    np.testing.assert_allclose(vjp, gradient(softly.softmax, g), **close)
    vjp = softly.log_softmax_vjp(log_p, g, **options)
    np.testing.assert_allclose(vjp, gradient(softly.log_softmax, g), **close)
    assert not masked or (vjp[~where] == 0).all()


def test_the_gradient_of_logsumexp_is_softmax():
    rng = np.random.default_rng(47)
    x, t = rng.normal(size=(2, 6, 5))
    temperature = rng.uniform(0.5, 2, size=6)
    ahead, behind = (
        softly.logsumexp(x + step * t, axis=1, temperature=temperature) for step in (1e-6, -1e-6)
    )
    wanted = (softly.softmax(x, axis=1, temperature=temperature) * t).sum(axis=1) / temperature
    np.testing.assert_allclose((ahead - behind) / 2e-6, wanted, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_warnings_even_where_every_one_is_an_error(function):
    """NumPy's floating-point errors raised, not only warned of, by the caller's choice."""
    every_option = [{}]
    if function not in ELEMENTWISE:
        every_option = [
            {"axis": 1, "temperature": number, "where": where}
            for number in (1e-300, 1e300, *temperatures(function))
            for where in (None, True)
        ]
    extremes = [np.nan, np.inf, -np.inf, 1.7e308, -1.7e308, 5e-324, 1e-300, 0, 1, 0.5]
    rng = np.random.default_rng(53)
    for dtype in (np.float64, np.float32, np.float16):
        with np.errstate(all="ignore"):
            given = [rng.choice(extremes, size=(60, 5)).astype(dtype) for _ in names(function)]
        with np.errstate(all="raise"):
            for options in every_option:
                function(*given, **options)


# Properties -----------------------------------------------------------------------------------


def rows(dtype, **limits):
    """Rows of any scores but NaN, tiny and huge."""
    width = 8 * np.dtype(dtype).itemsize
    return hnp.arrays(
        dtype,
        st.integers(1, 40),
        elements=st.floats(width=width, allow_nan=False, **limits),
    )


any_row = st.sampled_from([np.float32, np.float64]).flatmap(rows)
finite_row = st.sampled_from([np.float32, np.float64]).flatmap(
    lambda dtype: rows(dtype, min_value=-(2.0**100), max_value=2.0**100)
)
any_temperature = st.floats(min_value=0, allow_nan=False, width=32)


def has_an_answer(row):
    return row.max() > -np.inf


@given(any_row)
def test_probabilities(row):
    p = softly.softmax(row)
    assert p.dtype == row.dtype
    if not has_an_answer(row):
        assert np.isnan(p).all()
        return
    assert ((p >= 0) & (p <= 1)).all()
    assert abs(math.fsum(p) - 1) <= 4 * np.finfo(row.dtype).eps
    assert (softly.log_softmax(row) <= 0).all()
    assert softly.logsumexp(row) >= row.max()


@given(any_row, any_temperature)
def test_equal_scores_have_equal_answers(row, temperature):
    for function in (softly.softmax, softly.log_softmax):
        answer = function(row, temperature=temperature)
        for score in np.unique(row):
            assert np.unique(answer[row == score]).size == 1


def with_neighbours(row):
    """Every score, and the numbers of its type next to it on either side."""
    with np.errstate(over="ignore"):
        sides = [np.nextafter(row, row.dtype.type(end)) for end in (-np.inf, np.inf)]
    return np.sort(np.concatenate([row, *sides]))


@given(any_row, any_temperature)
def test_a_larger_score_has_no_smaller_answer(row, temperature):
    """The reference in float64 only: test_contract.py says what it may do in float32."""
    assume(NATIVE or row.dtype == np.float64)
    row = with_neighbours(row)
    if has_an_answer(row):
        for function in (softly.softmax, softly.log_softmax):
            answer = function(row, temperature=temperature)
            assert (answer[:-1] <= answer[1:]).all()


@given(finite_row, st.floats(2.0**-60, 1))
def test_tempered_probabilities_agree_with_the_oracle(row, temperature):
    """Up to 1: above it a z - max(z) that overflowed would count."""
    temperature = float(row.dtype.type(temperature))
    scores = tempered(row, temperature)
    p = softly.softmax(row, temperature=temperature)
    assert oracle.worst_ulps(p, oracle.softmax(scores), row.dtype) <= PROBABILITY
    log_p = softly.log_softmax(row, temperature=temperature)
    assert oracle.worst_ulps(log_p, oracle.log_softmax(scores), row.dtype) <= LOGARITHM


@given(
    hnp.arrays(np.int64, st.integers(1, 40), elements=st.integers(-(2**12), 2**12)),
    st.integers(-(2**20), 2**20),
    st.sampled_from([np.float32, np.float64]),
)
def test_an_exact_shift_changes_no_bit(eighths, shift, dtype):
    row = eighths.astype(dtype) / 8
    moved = (eighths + shift).astype(dtype) / 8  # 22 bits: exact in both types
    for temperature in (1.0, 0.3):
        for function in (softly.softmax, softly.log_softmax):
            same_bits(
                function(moved, temperature=temperature), function(row, temperature=temperature)
            )


@given(finite_row, st.randoms(use_true_random=False))
def test_permuted_classes_have_permuted_probabilities(row, random):
    """The sum may be taken in another order: each answer is within its bound of one number."""
    turn = random.sample(range(len(row)), len(row))
    np.testing.assert_array_max_ulp(
        softly.softmax(row)[turn], softly.softmax(row[turn]), maxulp=2 * PROBABILITY
    )
    np.testing.assert_array_max_ulp(
        softly.log_softmax(row)[turn], softly.log_softmax(row[turn]), maxulp=2 * LOGARITHM
    )


@given(finite_row)
def test_rows_agree_with_the_oracle_whatever_they_hold(row):
    difference = oracle.rounded_difference(row)
    worst = oracle.worst_ulps(softly.softmax(row), oracle.softmax(difference), row.dtype)
    assert worst <= PROBABILITY
    worst = oracle.worst_ulps(softly.log_softmax(row), oracle.log_softmax(difference), row.dtype)
    assert worst <= LOGARITHM


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_the_sigmoid_rises_from_0_to_1(a, b):
    low, high = sorted([a, b])
    # Not to the bit: numerator and denominator both change with x < 0.
    slack = 1 + 4 * np.finfo(float).eps
    assert 0 <= softly.sigmoid(low) <= softly.sigmoid(high) * slack
    assert softly.sigmoid(high) <= 1
    assert float(softly.log_sigmoid(low)) * slack <= softly.log_sigmoid(high) <= 0


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_the_sigmoid_undoes_the_logit(p):
    """An error of e in the logit x is one of (1 - p) e in p, relative to it."""
    x = softly.logit(p)
    tolerance = PROBABILITY + 2 * 5 * (1 - p) * abs(x)
    assert oracle.ulps(softly.sigmoid(x), oracle.mp.mpf(p), np.float64) <= tolerance


@given(st.floats(-700, 30))
def test_the_logit_undoes_the_sigmoid(x):
    """p keeps what 1 - p has lost by x = 30: an error of e in p is one of e / (1 - p) in x."""
    p = softly.sigmoid(x)
    error = 4 * np.finfo(float).eps * (abs(x) + 1 / (1 - p))
    assert abs(softly.logit(p) - x) <= error


@given(st.floats(allow_nan=False))
def test_a_sigmoid_and_its_mirror(x):
    assert abs(softly.sigmoid(x) + softly.sigmoid(-x) - 1) <= 2 * np.finfo(float).eps
