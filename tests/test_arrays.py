"""What comes in: types, scalars, empty arrays; room for the answer; and what is refused."""

import numpy as np
import pytest

import softly
from family import (
    DERIVATIVES,
    ELEMENTWISE,
    FLOATS,
    FUNCTIONS,
    HALVES,
    OVER_AN_AXIS,
    arguments,
    last_axis,
    names,
    same_bits,
    temperatures,
)

# Types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_answer_has_the_inputs_type(function, dtype):
    assert function(*arguments(function, (3, 4), dtype)).dtype == dtype
    assert function(*arguments(function, (), dtype)).dtype == dtype


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [*"bBhHiIlLqQ", "?", "p", "P"])
def test_integers_give_float64(function, dtype):
    given = [np.array([[0, 1, 1], [1, 0, 1]], dtype=dtype)] * len(names(function))
    answer = function(*given)
    assert answer.dtype == np.float64
    np.testing.assert_array_equal(answer, function(*(array.astype(float) for array in given)))


@pytest.mark.parametrize("function", DERIVATIVES)
def test_a_direction_may_have_another_type(function):
    """The answer is of the first array's, as the direction is before it counts."""
    first, second = arguments(function, (4, 5), np.float32)
    wanted = function(first, second, axis=1)
    same_bits(function(first, second.astype(np.float64), axis=1), wanted)
    ones = function(first, np.ones((4, 5), np.float32), axis=1)
    same_bits(function(first, np.ones((4, 5), int), axis=1), ones)
    assert function(first.astype(np.float16), second, axis=1).dtype == np.float16


def test_large_integers():
    x = np.array([2**64 - 1, 2**64 - 2**12], dtype=np.uint64)
    np.testing.assert_array_equal(softly.softmax(x), [1, 0])
    assert softly.logsumexp(np.array([-(2**62)])) == -(2.0**62)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_lists_and_scalars(function):
    many = len(names(function))
    x = [[0.1, 0.2], [0.3, 0.9]]
    np.testing.assert_array_equal(function(*[x] * many), function(*[np.array(x)] * many))
    floats = [np.array([0.0, 1.0])] * many
    np.testing.assert_array_equal(function(*[[0, 1]] * many), function(*floats))
    for scalar in (0.25, np.float64(0.25), np.array(0.25), 1, True):
        assert np.shape(function(*[scalar] * many)) == ()
        alone = function(*[np.array([scalar])] * many)
        np.testing.assert_array_equal(function(*[scalar] * many), alone.reshape(()))


@pytest.mark.parametrize("function", OVER_AN_AXIS)
def test_options_of_a_scalar(function):
    given = arguments(function, ())
    wanted = function(*given, temperature=2)
    for temperature in (2, 2.0, np.float32(2), np.array(2), np.int8(2)):
        same_bits(function(*given, temperature=temperature, where=True), wanted)


# Half types: worked on in float32 and rounded once ----------------------------------------------


def same_as_rounded(function, given, **options):
    half = function(*given, **options)
    with np.errstate(all="ignore"):
        single = function(*(array.astype(np.float32) for array in given), **options)
        same_bits(half, np.asarray(single).astype(given[0].dtype)[()])


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_is_computed_in_single_and_rounded_once(function, dtype):
    for shape in [(7, 33), (1, 1000), (300, 3), (64, 50), (5, 16, 3)]:
        given = arguments(function, shape, dtype)
        same_as_rounded(function, given, **last_axis(function))
        if function in OVER_AN_AXIS:
            same_as_rounded(function, given, axis=0)
            same_as_rounded(function, given, axis=0, temperature=0.3, where=given[0] > 0.2)


def every(dtype):
    """Every number of a half type, the infinities and NaNs as well."""
    return np.arange(2**16, dtype=np.uint16).view(dtype)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_half_there_is(function, dtype):
    """No warning where the answer overflows or underflows."""
    numbers = every(dtype)
    if function in ELEMENTWISE:
        same_as_rounded(function, [numbers])
        return
    # Among its neighbours, and beside numbers it does and does not dwarf.
    others = np.array([0, 1, -3.5, 2e4])
    beside = np.concatenate([numbers[:, None], np.tile(others, (2**16, 1)).astype(dtype)], axis=1)
    for rows in (numbers.reshape(-1, 8), beside, beside[::64, :2]):
        for options in ({}, {"temperature": 0.3}):
            given = [rows, np.roll(rows, 1, axis=1)]
            same_as_rounded(function, given[: len(names(function))], axis=1, **options)


# Empty ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", OVER_AN_AXIS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_an_empty_batch_is_an_empty_answer(function, dtype):
    for shape, axis, left in [
        ((0, 5), 1, (0,)),
        ((0, 5), -1, (0,)),
        ((5, 0), 0, (0,)),
        ((0, 2, 3), (1, 2), (0,)),
        ((4, 0, 3), 2, (4, 0)),
        ((4, 3, 0), 1, (4, 0)),
    ]:
        wanted = left if function is softly.logsumexp else shape
        options = {"temperature": np.ones(left), "where": np.ones(shape, bool)}
        for chosen in ({}, options, {"out": np.empty(wanted, dtype)}):
            answer = function(*arguments(function, shape, dtype), axis=axis, **chosen)
            assert answer.shape == wanted
            assert answer.dtype == dtype


def test_logsumexp_of_an_empty_batch_keeps_its_axis():
    assert softly.logsumexp(np.empty((0, 5)), axis=1, keepdims=True).shape == (0, 1)


@pytest.mark.parametrize("function", ELEMENTWISE)
def test_elementwise_of_nothing_is_nothing(function):
    for dtype in FLOATS:
        answer = function(np.empty((3, 0), dtype))
        assert answer.shape == (3, 0)
        assert answer.dtype == dtype


# Temperatures and masks of several shapes --------------------------------------------------------


@pytest.mark.parametrize("function", OVER_AN_AXIS)
@pytest.mark.parametrize("axis", [0, 1, -1, (0, 1), (2, 0), (0, 1, 2), None])
def test_a_temperature_per_row_has_the_rows_shape_or_the_kept_one(function, axis):
    given = arguments(function, (4, 5, 6))
    kept = np.sum(given[0], axis=axis, keepdims=True).shape
    each = np.random.default_rng(3).uniform(0.3, 2, size=kept)
    wanted = function(*given, axis=axis, temperature=each)
    squeezed = np.squeeze(each, axis=axis)
    same_bits(function(*given, axis=axis, temperature=squeezed), wanted)
    same_bits(function(*given, axis=axis, temperature=squeezed.tolist()), wanted)
    same_bits(function(*given, axis=axis, temperature=np.flip(np.flip(each).copy())), wanted)


@pytest.mark.parametrize("function", OVER_AN_AXIS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_one_temperature_is_that_of_every_row(function, dtype):
    """Whatever the type of the numbers, and whether or not that of the scores can hold them."""
    given = arguments(function, (5, 7), dtype)
    for number in (3, 1e-300, 1e300, *temperatures(function)):
        wanted = function(*given, axis=1, temperature=number)
        each = np.full(5, number)
        same_bits(function(*given, axis=1, temperature=each), wanted)
        same_bits(function(*given, axis=1, temperature=np.asarray(number)), wanted)
    same_bits(
        function(*given, axis=1, temperature=np.full(5, 2)),
        function(*given, axis=1, temperature=np.full((5, 1), 2, np.float16)),
    )


# Room for the answer ----------------------------------------------------------------------------


def room(function, shape, dtype):
    """An array for the answer, full of sevens."""
    answers_shape = shape[:-1] if function is softly.logsumexp else shape
    return np.full(answers_shape, 7, dtype)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_answer_is_written_to_out_and_out_returned(function, dtype):
    for shape in [(3, 5), (300, 70)]:
        given = arguments(function, shape, dtype)
        wanted = function(*given, **last_axis(function))
        out = room(function, shape, dtype)
        assert function(*given, **last_axis(function), out=out) is out
        same_bits(out, wanted)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_out_of_integers_and_of_scalars(function):
    given = [np.array([[0, 1, 1]])] * len(names(function))
    out = room(function, (1, 3), float)
    assert function(*given, **last_axis(function), out=out) is out
    same_bits(out, function(*given, **last_axis(function)))
    out = np.full((), 7.0)
    assert function(*arguments(function, ()), out=out) is out
    same_bits(out[()], function(*arguments(function, ())))


def test_out_of_logsumexp():
    (x,) = arguments(softly.logsumexp, (4, 5))
    for axis, keepdims, shape in [(None, False, ()), (0, True, (1, 5)), ((0, 1), True, (1, 1))]:
        out = np.full(shape, 7.0)
        assert softly.logsumexp(x, axis=axis, keepdims=keepdims, out=out) is out
        same_bits(out, np.asarray(softly.logsumexp(x, axis=axis, keepdims=keepdims)))
    out = np.full(4, 7.0)
    value, sign = softly.logsumexp(x, axis=1, b=-1, return_sign=True, out=out)
    assert value is out
    np.testing.assert_allclose(out, softly.logsumexp(x, axis=1), rtol=1e-15)
    np.testing.assert_array_equal(sign, -1)


WITH_ROOM = [function for function in FUNCTIONS if function is not softly.logsumexp]


@pytest.mark.parametrize("function", WITH_ROOM)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(3, 5), (5, 3, 50), (300, 70)])
def test_the_answer_may_replace_the_input(function, dtype, shape):
    for axis in [{}] if function in ELEMENTWISE else [{"axis": 0}, {"axis": -1}, {"axis": None}]:
        wanted = function(*arguments(function, shape, dtype), **axis)
        given = arguments(function, shape, dtype)
        assert function(*given, **axis, out=given[0]) is given[0]
        same_bits(given[0], wanted)
        # A view of the very same numbers is the same array.
        given = arguments(function, shape, dtype)
        function(*given, **axis, out=given[0][:])
        same_bits(given[0], wanted)


@pytest.mark.parametrize("function", [f for f in OVER_AN_AXIS if f in WITH_ROOM])
def test_in_place_with_options(function):
    given = arguments(function, (30, 50))
    rng = np.random.default_rng(5)
    options = {"axis": 1, "temperature": rng.uniform(size=30), "where": rng.random((30, 50)) < 0.8}
    wanted = function(*given, **options)
    function(*given, **options, out=given[0])
    same_bits(given[0], wanted)


def test_neighbours_in_memory_do_not_overlap():
    """Columns of one table, whose ranges of addresses cross but which share no number."""
    table = np.random.default_rng(7).normal(size=(20, 10))
    x, out = table[:, :5], table[:, 5:]
    wanted = softly.softmax(x.copy(), axis=1)
    softly.softmax(x, axis=1, out=out)
    same_bits(out, wanted)
    x, out = table[:, ::2], table[:, 1::2]
    wanted = softly.softmax(x.copy(), axis=0)
    softly.softmax(x, axis=0, out=out)
    same_bits(out, wanted)


@pytest.mark.parametrize("function", WITH_ROOM)
def test_any_other_overlap_is_refused(function):
    first, *rest = arguments(function, (6, 6))
    table = np.concatenate([first, first])
    for out in (table[1:7], table[:6].T, table[5::-1], table[:6, ::-1], table[::2]):
        before = table.copy()
        with pytest.raises(ValueError, match=r"\bout\b.*overlap"):
            function(table[:6], *rest, **last_axis(function), out=out)
        np.testing.assert_array_equal(table, before)


@pytest.mark.parametrize("function", DERIVATIVES)
def test_an_overlap_with_the_direction_is_refused(function):
    p, g = arguments(function, (6, 6))
    table = np.concatenate([g, g])
    before = table.copy()
    with pytest.raises(ValueError, match=r"\bout\b.*overlap"):
        function(p, table[:6], axis=1, out=table[1:7])
    np.testing.assert_array_equal(table, before)


def test_an_overlap_of_logsumexps_answer_is_refused():
    table = np.random.default_rng(9).normal(size=(6, 6))
    before = table.copy()
    for out in (table[0], table[:, 0], table[2, ::-1]):
        with pytest.raises(ValueError, match=r"\bout\b.*overlap"):
            softly.logsumexp(table, axis=1, out=out)
    np.testing.assert_array_equal(table, before)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_out_that_does_not_fit_is_refused(function):
    given = arguments(function, (4, 5), np.float32)
    right = room(function, (4, 5), np.float32)
    frozen = right.copy()
    frozen.flags.writeable = False
    wrong = [
        (right.astype(np.float64), TypeError, r"out\b.*float64.*float32"),
        (right.astype(np.float16), TypeError, r"out\b.*float16.*float32"),
        (right.astype(int), TypeError, r"out\b.*int.*float32"),
        (right.tolist(), TypeError, r"out\b"),
        (right[:3], ValueError, r"out\b.*\(3"),
        (right[None], ValueError, r"out\b.*\(1, 4"),
        (np.full((5, 4), 7, np.float32), ValueError, r"out\b.*\(5, 4\)"),
        (np.full(20, 7, np.float32), ValueError, r"out\b.*\(20,\)"),
        (frozen, ValueError, r"out\b.*read-only"),
        (np.broadcast_to(np.float32(7), right.shape), ValueError, r"out\b.*read-only"),
    ]
    for out, exception, message in wrong:
        with pytest.raises(exception, match=message):
            function(*given, **last_axis(function), out=out)
        np.testing.assert_array_equal(out, 7)


# Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    "wrong",
    [
        np.array([1j, 2]),
        np.array([1j], np.complex64),
        np.array([1.0, None], object),
        np.array(["1", "2"]),
        np.array([b"1", b"2"]),
        ["a", "b"],
        np.array(["2020-01-01"], "datetime64[D]"),
        np.array([1], "timedelta64[s]"),
        np.array([(1, 2.0)], "i4,f8"),
        "text",
        None,
        {},
    ],
    ids=lambda wrong: str(getattr(wrong, "dtype", type(wrong).__name__)),
)
def test_what_is_no_real_number_is_a_type_error(function, wrong):
    right = np.full(np.shape(wrong), 0.5)
    for place, name in enumerate(names(function)):
        given = [right] * len(names(function))
        given[place] = wrong
        with pytest.raises(TypeError, match=rf"\b{name}\b"):
            function(*given)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_other_floats_are_a_type_error(function):
    """Not rounded behind the caller's back to a type that holds less, or more."""
    wrong = [np.ones(3, np.longdouble)] if np.longdouble(0).itemsize > 8 else []
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for array in [*wrong, np.ones(3, ml_dtypes.float8_e4m3fn)]:
        with pytest.raises(TypeError, match=str(array.dtype)):
            function(*[array] * len(names(function)))


@pytest.mark.parametrize("function", OVER_AN_AXIS)
def test_an_axis_that_is_not_there(function):
    given = arguments(function, (2, 3))
    for axis in (2, -3, (0, 2), (-3,)):
        with pytest.raises(np.exceptions.AxisError):
            function(*given, axis=axis)
    with pytest.raises(ValueError, match=r"axis"):
        function(*given, axis=(1, 1))
    with pytest.raises(ValueError, match=r"axis"):
        function(*given, axis=(1, -1))
    for axis in (1.0, "1", [0.5]):
        with pytest.raises(TypeError):
            function(*given, axis=axis)
    with pytest.raises(np.exceptions.AxisError):
        function(*arguments(function, ()), axis=0)


@pytest.mark.parametrize("function", OVER_AN_AXIS)
def test_no_classes_is_an_error(function):
    for shape, axis in [((5, 0), 1), ((0,), 0), ((0,), None), ((0, 0), 1), ((2, 0, 3), (1, 2))]:
        with pytest.raises(ValueError, match=rf"\b{names(function)[0]}\b.*at least one"):
            function(*arguments(function, shape), axis=axis)
    with pytest.raises(ValueError, match=r"at least one"):
        function(*[[]] * len(names(function)))


# (name, options, exception, what the message says), for rows of shape (4, 5)
WRONG_OPTIONS = [
    ("negative", {"temperature": -1}, ValueError, r"temperature\b.*-1"),
    ("tiny negative", {"temperature": -5e-324}, ValueError, r"temperature\b.*-5e-324"),
    ("minus infinity", {"temperature": -np.inf}, ValueError, r"temperature\b.*-inf"),
    ("NaN", {"temperature": np.nan}, ValueError, r"temperature\b.*nan"),
    ("one negative", {"temperature": [1, 2, -3, 4]}, ValueError, r"temperature\b.*-3"),
    ("one NaN", {"temperature": [1, np.nan, 1, 1]}, ValueError, r"temperature\b.*nan"),
    ("too few", {"temperature": [1, 2, 3]}, ValueError, r"temperature\b.*\(3,\).*\(4,\)"),
    ("per class", {"temperature": np.ones(5)}, ValueError, r"temperature\b.*\(5,\).*\(4,\)"),
    ("per entry", {"temperature": np.ones((4, 5))}, ValueError, r"temperature\b.*\(4, 5\)"),
    ("wrong axis", {"temperature": np.ones((1, 4))}, ValueError, r"temperature\b.*\(1, 4\)"),
    ("complex", {"temperature": 1j}, TypeError, r"temperature\b"),
    ("text", {"temperature": "warm"}, TypeError, r"temperature\b"),
    ("no temperature", {"temperature": None}, TypeError, r"temperature\b"),
    ("objects", {"temperature": np.array([1, 2, 3, None])}, TypeError, r"temperature\b"),
    ("mask of floats", {"where": np.ones(5)}, TypeError, r"where\b.*float64.*bool"),
    ("mask of integers", {"where": [1, 0, 1, 1, 0]}, TypeError, r"where\b.*int.*bool"),
    ("mask of text", {"where": "all"}, TypeError, r"where\b"),
    ("short mask", {"where": np.ones(4, bool)}, ValueError, r"where\b.*\(4,\).*\(4, 5\)"),
    ("deep mask", {"where": np.ones((1, 4, 5), bool)}, ValueError, r"where\b.*\(1, 4, 5\)"),
    ("wide mask", {"where": np.ones((4, 10), bool)}, ValueError, r"where\b.*\(4, 10\)"),
]


@pytest.mark.parametrize("function", OVER_AN_AXIS)
@pytest.mark.parametrize(
    ("options", "exception", "message"),
    [pytest.param(*rest, id=name) for name, *rest in WRONG_OPTIONS],
)
def test_wrong_options_are_named_and_nothing_is_written(function, options, exception, message):
    given = arguments(function, (4, 5))
    out = room(function, (4, 5), float)
    for place in ({}, {"out": out}):
        with pytest.raises(exception, match=message):
            function(*given, axis=1, **options, **place)
    assert (out == 7).all()
    if function is not softly.logsumexp:  # nor over the input
        with pytest.raises(exception, match=message):
            function(*given, axis=1, **options, out=given[0])
        for array, before in zip(given, arguments(function, (4, 5)), strict=True):
            np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("function", DERIVATIVES)
def test_directions_of_another_shape(function):
    p, g = arguments(function, (4, 5))
    out = np.full((4, 5), 7.0)
    first, second = names(function)
    for wrong in (g[:, :4], g[:3], g.reshape(5, 4), g[None], g[0], g[:, :1], 1.0):
        shape = str(np.shape(wrong)).replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(ValueError, match=rf"\b{second}\b.*{shape}") as raised:
            function(p, wrong, axis=1, out=out)
        assert first in str(raised.value)
        assert "(4, 5)" in str(raised.value)
    assert (out == 7).all()


@pytest.mark.parametrize(
    ("b", "exception"),
    [
        (np.ones(4), ValueError),
        (np.ones((2, 4, 5)), ValueError),
        (np.ones((4, 10)), ValueError),
        (np.ones(5, complex), TypeError),
        (np.array([None] * 5), TypeError),
        ("heavy", TypeError),
    ],
)
def test_wrong_weights_of_logsumexp(b, exception):
    (x,) = arguments(softly.logsumexp, (4, 5))
    out = np.full(4, 7.0)
    with pytest.raises(exception, match=r"\bb\b"):
        softly.logsumexp(x, axis=1, b=b, out=out)
    assert (out == 7).all()


@pytest.mark.parametrize("function", OVER_AN_AXIS)
def test_only_the_axis_may_go_without_its_name(function):
    """But for logsumexp, which takes its arguments in SciPy's order."""
    many = 5 if function is softly.logsumexp else 1
    given = arguments(function, (4, 5))
    with pytest.raises(TypeError, match="positional"):
        function(*given, *[None] * many, 1.0)
