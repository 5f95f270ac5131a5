"""softmax, log_softmax, logsumexp, sigmoid, log_sigmoid, logit as a caller sees them.

What the numbers promise is in test_contract.py; here are the arrays that come in, the axes,
the types and the errors, and comparisons with SciPy and the oracle.
"""

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

import oracle
import softly

OVER_AN_AXIS = [softly.softmax, softly.log_softmax, softly.logsumexp]
ELEMENTWISE = [softly.sigmoid, softly.log_sigmoid, softly.logit]
FUNCTIONS = [*OVER_AN_AXIS, *ELEMENTWISE]
FLOATS = [np.float16, np.float32, np.float64]

# In units in the last place; see test_contract.py, where the compiled kernels are held to 2.
PROBABILITY = 3
LOGARITHM = 8


def scipys(function):
    name = function.__name__
    return getattr(scipy.special, {"sigmoid": "expit", "log_sigmoid": "log_expit"}.get(name, name))


def inputs(function, shape, dtype=np.float64, seed=0):
    """Scores, or probabilities for logit."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=shape) if function is softly.logit else 3 * rng.normal(size=shape)
    return np.asarray(x).astype(dtype)


# Against SciPy --------------------------------------------------------------------------------


@pytest.mark.parametrize("function", OVER_AN_AXIS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "axis", [None, 0, 1, 2, -1, -3, (0,), (1, 2), (0, 2), (2, 0), (-1, 0), (0, 1, 2)]
)
def test_every_axis_agrees_with_scipy(function, dtype, axis):
    x = inputs(function, (4, 5, 6), dtype)
    answer = function(x, axis=axis)
    wanted = scipys(function)(x.astype(np.float64), axis=axis)
    assert answer.dtype == dtype
    assert np.shape(answer) == np.shape(wanted)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(answer, wanted, rtol=20 * eps, atol=20 * eps)


@pytest.mark.parametrize("function", OVER_AN_AXIS)
def test_the_default_axis_is_all_entries_as_in_scipy(function):
    x = inputs(function, (4, 5))
    np.testing.assert_allclose(function(x), scipys(function)(x), rtol=1e-14)
    np.testing.assert_array_equal(function(x), function(x, None))


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1), (2, 0)])
def test_logsumexp_keepdims(axis):
    x = inputs(softly.logsumexp, (4, 5, 6))
    kept = softly.logsumexp(x, axis=axis, keepdims=True)
    assert kept.shape == scipy.special.logsumexp(x, axis=axis, keepdims=True).shape
    np.testing.assert_array_equal(np.squeeze(kept), softly.logsumexp(x, axis))


@pytest.mark.parametrize("function", ELEMENTWISE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elementwise_agrees_with_scipy(function, dtype):
    x = inputs(function, (40, 50), dtype)
    answer = function(x)
    wanted = scipys(function)(x.astype(np.float64))
    assert answer.dtype == dtype
    assert answer.shape == x.shape
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(answer, wanted, rtol=10 * eps, atol=10 * eps)


# Against the oracle ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
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
    for dtype in FLOATS:
        outside = softly.logit(np.array([0, 1, 2, -1], dtype))
        np.testing.assert_array_equal(outside, [-np.inf, np.inf, np.nan, np.nan])


# Types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_answer_has_the_inputs_type(function, dtype):
    assert function(inputs(function, (3, 4), dtype)).dtype == dtype
    assert function(inputs(function, (), dtype)).dtype == dtype


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [*"bBhHiIlLqQ", "?", "p", "P"])
def test_integers_give_float64(function, dtype):
    x = np.array([[0, 1, 1], [1, 0, 1]], dtype=dtype)
    answer = function(x)
    assert answer.dtype == np.float64
    np.testing.assert_array_equal(answer, function(x.astype(np.float64)))


def test_large_integers():
    x = np.array([2**64 - 1, 2**64 - 2**12], dtype=np.uint64)
    np.testing.assert_array_equal(softly.softmax(x), [1, 0])
    assert softly.logsumexp(np.array([-(2**62)])) == -(2.0**62)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_lists_and_scalars(function):
    x = [[0.1, 0.2], [0.3, 0.9]]
    np.testing.assert_array_equal(function(x), function(np.array(x)))
    np.testing.assert_array_equal(function([0, 1]), function(np.array([0.0, 1.0])))
    for scalar in (0.25, np.float64(0.25), np.array(0.25), 1, True):
        assert np.shape(function(scalar)) == ()
        np.testing.assert_array_equal(function(scalar), function(np.array([scalar])).reshape(()))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_half_is_computed_in_single_and_rounded_once(function):
    for shape in [(7, 33), (1, 1000), (300, 3)]:
        x = inputs(function, shape, np.float16)
        if function in OVER_AN_AXIS:
            half, single = function(x, axis=1), function(x.astype(np.float32), axis=1)
        else:
            half, single = function(x), function(x.astype(np.float32))
        np.testing.assert_array_equal(half, single.astype(np.float16))


@pytest.mark.parametrize("function", ELEMENTWISE)
def test_every_half_there_is(function):
    """Finite, infinite and NaN; no warning where the answer overflows or underflows."""
    x = np.arange(2**16, dtype=np.uint16).view(np.float16)
    with np.errstate(all="ignore"):
        wanted = function(x.astype(np.float32)).astype(np.float16)
    np.testing.assert_array_equal(function(x), wanted)


def test_half_is_close_to_the_oracle():
    row = inputs(softly.softmax, 100, np.float16)
    p = softly.softmax(row)
    # Half a unit for the one rounding, and the float32 answer's few units of 2**-13 of it.
    assert oracle.worst_ulps(p, oracle.softmax(row), np.float16) <= 0.51
    assert oracle.worst_ulps(softly.log_softmax(row), oracle.log_softmax(row), np.float16) <= 0.51
    assert oracle.ulps(softly.logsumexp(row), oracle.logsumexp(row), np.float16) <= 0.51


# Memory layout --------------------------------------------------------------------------------


def layouts(x):
    """The same numbers, differently laid out in memory."""
    yield "Fortran", np.asfortranarray(x)
    wide = np.full((2 * x.shape[0], 3 * x.shape[1], *x.shape[2:]), np.nan, x.dtype)
    wide[::2, ::3] = x
    yield "strided", wide[::2, ::3]
    yield "reversed", np.flip(np.flip(x).copy())
    yield "transposed", x.transpose(2, 0, 1).copy().transpose(1, 2, 0)
    frozen = x.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen
    yield "other byte order", x.astype(x.dtype.newbyteorder())
    shifted = np.frombuffer(b"?" + x.tobytes(), dtype=np.uint8)[1:].view(x.dtype)
    yield "unaligned", shifted.reshape(x.shape)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_any_layout_gives_the_same_bits_and_is_left_alone(function, dtype):
    x = inputs(function, (5, 6, 7), dtype)
    axes = [{}] if function in ELEMENTWISE else [{"axis": a} for a in (None, 0, 1, 2, (0, 2))]
    for kwargs in axes:
        wanted = function(x, **kwargs)
        for name, same in layouts(x):
            answer = function(same, **kwargs)
            np.testing.assert_array_equal(answer, wanted, err_msg=name)
            assert answer.dtype.kind == "f", name
            assert answer.dtype.itemsize == x.dtype.itemsize, name
            np.testing.assert_array_equal(same, x, err_msg=f"{name}: the input was written to")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_broadcast_input(function):
    x = np.broadcast_to(inputs(function, 5), (4, 5))
    np.testing.assert_array_equal(function(x), function(x.copy()))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_answer_is_the_callers_own(function):
    """Writable, and no view of the input."""
    x = inputs(function, (3, 4))
    answer = function(x) if function in ELEMENTWISE else function(x, axis=0)
    assert not np.shares_memory(answer, x)
    answer[...] = 0


# Empty ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [softly.softmax, softly.log_softmax])
@pytest.mark.parametrize("dtype", FLOATS)
def test_an_empty_batch_is_an_empty_answer(function, dtype):
    for shape, axis in [((0, 5), 1), ((0, 5), -1), ((5, 0), 0), ((0, 2, 3), (1, 2))]:
        answer = function(np.empty(shape, dtype), axis=axis)
        assert answer.shape == shape
        assert answer.dtype == dtype


def test_logsumexp_of_an_empty_batch():
    assert softly.logsumexp(np.empty((0, 5)), axis=1).shape == (0,)
    assert softly.logsumexp(np.empty((0, 5)), axis=1, keepdims=True).shape == (0, 1)


@pytest.mark.parametrize("function", OVER_AN_AXIS)
def test_no_classes_is_an_error(function):
    for shape, axis in [((5, 0), 1), ((0,), 0), ((0,), None), ((0, 0), 1), ((2, 0, 3), (1, 2))]:
        with pytest.raises(ValueError, match=r"\w"):
            function(np.empty(shape), axis=axis)
    with pytest.raises(ValueError, match=r"\w"):
        function([])


@pytest.mark.parametrize("function", ELEMENTWISE)
def test_elementwise_of_nothing_is_nothing(function):
    for dtype in FLOATS:
        answer = function(np.empty((3, 0), dtype))
        assert answer.shape == (3, 0)
        assert answer.dtype == dtype


# Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    "wrong",
    [
        np.array([1j, 2]),
        np.array([1j], np.complex64),
        np.array([1.0, None], object),
        np.array(["1", "2"]),
        ["a", "b"],
        np.array(["2020-01-01"], "datetime64[D]"),
        "text",
        None,
    ],
    ids=lambda wrong: str(getattr(wrong, "dtype", type(wrong).__name__)),
)
def test_what_is_no_real_number_is_a_type_error(function, wrong):
    argument = "p" if function is softly.logit else "x"
    with pytest.raises(TypeError, match=rf"\b{argument}\b"):
        function(wrong)


@pytest.mark.parametrize("function", OVER_AN_AXIS)
def test_an_axis_that_is_not_there(function):
    x = np.zeros((2, 3))
    for axis in (2, -3, (0, 2), (-3,)):
        with pytest.raises(np.exceptions.AxisError):
            function(x, axis=axis)
    with pytest.raises(ValueError, match=r"\w"):
        function(x, axis=(1, 1))
    with pytest.raises(TypeError):
        function(x, axis=1.0)
    with pytest.raises(np.exceptions.AxisError):
        function(np.float64(1), axis=0)


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


@given(any_row)
def test_equal_scores_have_equal_answers(row):
    for answer in (softly.softmax(row), softly.log_softmax(row)):
        for score in np.unique(row):
            assert np.unique(answer[row == score]).size == 1


@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(allow_nan=False)))
def test_a_larger_score_has_no_smaller_answer(row):
    """float64 only: test_contract.py says what the reference may do in float32."""
    if has_an_answer(row):
        order = np.argsort(row)
        assert (np.diff(softly.softmax(row)[order]) >= 0).all()
        lower, upper = softly.log_softmax(row)[order][:-1], softly.log_softmax(row)[order][1:]
        assert (lower <= upper).all()


@given(
    hnp.arrays(np.int64, st.integers(1, 40), elements=st.integers(-(2**12), 2**12)),
    st.integers(-(2**20), 2**20),
    st.sampled_from([np.float32, np.float64]),
)
def test_an_exact_shift_changes_no_bit(eighths, shift, dtype):
    row = eighths.astype(dtype) / 8
    moved = (eighths + shift).astype(dtype) / 8  # 22 bits: exact in both types
    np.testing.assert_array_equal(softly.softmax(moved), softly.softmax(row))
    np.testing.assert_array_equal(softly.log_softmax(moved), softly.log_softmax(row))


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
    assert softly.log_sigmoid(low) * slack <= softly.log_sigmoid(high) <= 0


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
