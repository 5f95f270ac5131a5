"""Any layout in memory: the same bits, the input left alone, and no hidden copy."""

import json
import subprocess
import sys

import numpy as np
import pytest

import softly
from family import (
    DOUBLE,
    ELEMENTWISE,
    FLOATS,
    FUNCTIONS,
    OVER_AN_AXIS,
    SINGLE,
    arguments,
    by_rows,
    inside_of_sevens,
    last_axis,
    same_bits,
    temperatures,
)
from softly.kernels import chosen

# Around the vectors of 8 and 16 lanes and the 48 classes up to which small rows are transposed.
CLASSES = [1, 2, 3, 7, 15, 16, 17, 47, 48, 49, 50, 1000]
INNER = [1, 3, 8, 15, 16, 17, 100]


# Axes: rows, columns, and between ---------------------------------------------------------------


@pytest.mark.parametrize("function", OVER_AN_AXIS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, -3, (0,), (1, 2), (0, 2), (2, 0), (0, 1, 2)])
def test_every_axis_has_the_bits_of_contiguous_rows(function, dtype, axis):
    given = arguments(function, (4, 5, 6), dtype)
    rng = np.random.default_rng(3)
    left = np.sum(given[0].astype(float), axis=axis).shape
    where = rng.random((4, 5, 6)) < 0.8
    each = rng.choice(temperatures(function), size=left)
    for options in ({}, {"temperature": 0.3}, {"temperature": each}, {"where": where}):
        wanted = by_rows(function, given, axis, **options)
        same_bits(function(*given, axis=axis, **options), wanted)


@pytest.mark.parametrize("function", OVER_AN_AXIS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("classes", CLASSES)
def test_columns_have_the_bits_of_rows(function, classes, dtype):
    """Axis 0, a middle axis, strided and reversed columns, any number of them, or one alone."""
    rng = np.random.default_rng([5, classes])
    for inner in INNER if classes < 1000 else INNER[::3]:
        given = arguments(function, (inner, classes), dtype)
        rows = function(*given, axis=1)
        columns = [array.T.copy() for array in given]

        def laid_back(answer):
            return answer if function is softly.logsumexp else answer.T

        name = f"{inner} columns"
        same_bits(laid_back(function(*columns, axis=0)), rows, name)
        one = [array[:, inner // 2] for array in columns]
        same_bits(np.asarray(function(*one, axis=0)), rows[inner // 2], f"one of {name}")
        reversed_rows = [array[::-1, ::-1].copy() for array in columns]
        same_bits(laid_back(function(*(a[::-1, ::-1] for a in reversed_rows), axis=0)), rows, name)
        middle = [np.stack([array, array]) for array in columns]
        for answer in function(*middle, axis=1):
            same_bits(laid_back(answer), rows, f"middle, {name}")

        options = {"temperature": rng.choice(temperatures(function), size=inner)}
        where = rng.random((inner, classes)) < 0.7
        rows = function(*given, axis=1, where=where, **options)
        answer = function(*columns, axis=0, where=where.T.copy(), **options)
        same_bits(laid_back(answer), rows, f"options, {name}")


@pytest.mark.parametrize("function", OVER_AN_AXIS)
@pytest.mark.parametrize("classes", [3, 17, 48, 50])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_row_of_any_axis_has_the_same_bits_alone_and_in_a_large_batch(function, classes, axis):
    """Large enough that threads share it, by rows and by columns."""
    given = arguments(function, (9_001, classes), SINGLE)
    given = given if axis else [array.T.copy() for array in given]
    everyone = function(*given, axis=axis)
    for i in (0, 1, 4_500, 9_000):
        alone = [np.take(array, i, axis=1 - axis) for array in given]
        wanted = everyone[i] if function is softly.logsumexp else np.take(everyone, i, 1 - axis)
        same_bits(np.asarray(function(*alone)), wanted)


# Layouts ----------------------------------------------------------------------------------------


def records(x):
    """As fields of packed records: a stride that is no multiple of the numbers' size."""
    table = np.zeros(x.shape, [("before", "u1"), ("x", x.dtype)])
    table["x"] = x
    return table["x"]


def layouts(x):
    """The same numbers of shape (a, b, c), differently laid out in memory."""
    yield "Fortran", np.asfortranarray(x)
    wide = np.ones((2 * x.shape[0], 3 * x.shape[1], *x.shape[2:]), x.dtype)
    wide[::2, ::3] = x
    yield "strided", wide[::2, ::3]
    yield "every second class", np.repeat(x, 2, axis=2)[:, :, ::2]
    yield "reversed", np.flip(np.flip(x).copy())
    yield "last axis reversed", x[..., ::-1].copy()[..., ::-1]
    yield "transposed", x.transpose(2, 0, 1).copy().transpose(1, 2, 0)
    frozen = x.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen
    yield "unaligned", np.frombuffer(b"?" + x.tobytes(), x.dtype, offset=1).reshape(x.shape)
    yield "field of records", records(x)
    if x.dtype.kind == "f":
        yield "other byte order", x.astype(x.dtype.newbyteorder())


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_any_layout_gives_the_same_bits_and_is_left_alone(function, dtype):
    given = arguments(function, (5, 6, 7), dtype)
    axes = [{}] if function in ELEMENTWISE else [{"axis": a} for a in (None, 0, 1, 2, (0, 2))]
    for axis in axes:
        wanted = np.asarray(function(*given, **axis))
        for name, first in layouts(given[0]):
            same_bits(np.asarray(function(first, *given[1:], **axis)), wanted, name)
            np.testing.assert_array_equal(first, given[0], err_msg=f"{name}: it was written to")
        if len(given) == 2:
            for name, second in layouts(given[1]):
                same_bits(np.asarray(function(given[0], second, **axis)), wanted, name)
                np.testing.assert_array_equal(second, given[1], err_msg=f"{name}: written to")


@pytest.mark.parametrize("function", OVER_AN_AXIS)
@pytest.mark.parametrize("axis", [0, 1, 2, (0, 2)])
def test_any_layout_of_the_mask_gives_the_same_bits(function, axis):
    given = arguments(function, (5, 6, 7))
    where = np.random.default_rng(7).random((5, 6, 7)) < 0.7
    wanted = function(*given, axis=axis, where=where)
    for name, same in layouts(where):
        same_bits(function(*given, axis=axis, where=same), wanted, name)
    for shape in [(7,), (6, 1), (5, 1, 1), (1, 1, 1), (5, 1, 7), ()]:
        small = np.random.default_rng(7).random(shape) < 0.7
        full = np.broadcast_to(small, (5, 6, 7)).copy()
        wanted = function(*given, axis=axis, where=full)
        same_bits(function(*given, axis=axis, where=small), wanted, str(shape))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_broadcast_input(function, dtype):
    """Strides of zero, along the classes and across them."""
    axes = [{}] if function in ELEMENTWISE else [{"axis": a} for a in (None, 0, 1)]
    for shape in [(50,), (4, 1), (1, 1), ()]:
        small = arguments(function, shape, dtype)
        broad = [np.broadcast_to(array, (4, 50)) for array in small]
        full = [array.copy() for array in broad]
        for axis in axes:
            same_bits(
                np.asarray(function(*broad, **axis)), np.asarray(function(*full, **axis)), str(axis)
            )


@pytest.mark.parametrize("function", FUNCTIONS)
def test_windows_into_one_vector(function):
    """Rows that overlap one another are only read."""
    windows = [
        np.lib.stride_tricks.sliding_window_view(array, 7)
        for array in arguments(function, 30, SINGLE)
    ]
    for axis in [{}] if function in ELEMENTWISE else [{"axis": 0}, {"axis": 1}]:
        wanted = function(*(array.copy() for array in windows), **axis)
        same_bits(function(*windows, **axis), wanted)


# The answer's own layout --------------------------------------------------------------------------


def rooms(shape, dtype):
    """(its name, all of it, the part for an answer of the shape (a, b, c))."""
    for name, size, part in [
        ("contiguous", shape, np.s_[:]),
        ("strided", [2 * n for n in shape], np.s_[::2, 1::2, ::2]),
        ("reversed", shape, np.s_[::-1, :, ::-1]),
        ("part of a table", [n + 3 for n in shape], np.s_[1:-2, 2:-1, :-3]),
    ]:
        whole = np.full(size, 7, dtype)
        yield name, whole, whole[part]
    whole = np.full(shape[::-1], 7, dtype)
    yield "Fortran", whole, whole.T
    whole = np.full((shape[2], shape[0], shape[1]), 7, dtype)
    yield "transposed", whole, whole.transpose(1, 2, 0)


def unaligned_rooms(shape, dtype):
    """(its name, an array of sevens that no kernel can write to)."""
    yield "field of records", records(np.full(shape, 7, dtype))
    space = b"?" + np.full(shape, 7, dtype).tobytes()
    yield "unaligned", np.frombuffer(bytearray(space), dtype, offset=1).reshape(shape)


@pytest.mark.parametrize("function", [f for f in FUNCTIONS if f is not softly.logsumexp])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_answer_is_written_into_any_layout_and_nowhere_else(function, dtype):
    shape = (5, 6, 50)
    axes = [{}] if function in ELEMENTWISE else [{"axis": a} for a in (None, 0, 1, 2, (0, 2))]
    for axis in axes:
        wanted = function(*arguments(function, shape, dtype), **axis)
        for name, whole, out in rooms(shape, dtype):
            given = arguments(function, shape, dtype)
            assert function(*given, **axis, out=out) is out
            same_bits(np.ascontiguousarray(out), wanted, name)
            out[...] = 7
            assert (whole == 7).all(), f"{name}: written beside the answer"
        for name, whole, out in rooms(shape, dtype):  # in place
            first, *rest = arguments(function, shape, dtype)
            out[...] = first
            function(out, *rest, **axis, out=out)
            same_bits(np.ascontiguousarray(out), wanted, f"{name}, in place")
            out[...] = 7
            assert (whole == 7).all(), f"{name}: written beside the answer"


@pytest.mark.parametrize("function", OVER_AN_AXIS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_wherever_in_a_line_of_memory_a_row_begins(function, dtype):
    """Rows are walked from the start of a line; the row before is written on the way."""
    for rows, classes in [(3, 49), (4, 64), (3, 70), (2, 1000)]:
        given = arguments(function, (rows, classes), dtype)
        wanted = np.asarray(function(*given, axis=1))
        for begin, end in [(0, 5), (1, 1), (3, 14), (8, 0), (13, 2), (15, 15)]:
            moved = [inside_of_sevens(array, begin)[1] for array in given]
            same_bits(np.asarray(function(*moved, axis=1)), wanted, f"begins at {begin}")
            whole, out = inside_of_sevens(wanted, end)
            same_bits(function(*moved, axis=1, out=out), wanted, f"written at {end}")
            out[...] = 7
            assert (whole == 7).all(), f"written at {end}: beside the answer"


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_out_that_is_not_aligned_is_refused(function, dtype):
    shape = (5, 6) if function is softly.logsumexp else (5, 6, 7)
    for name, out in unaligned_rooms(shape, dtype):
        with pytest.raises(ValueError, match=r"\bout\b.*aligned"):
            function(*arguments(function, (5, 6, 7), dtype), **last_axis(function), out=out)
        assert (out == 7).all(), name


def test_logsumexp_is_written_into_any_layout():
    given = arguments(softly.logsumexp, (5, 6, 7, 8))
    wanted = softly.logsumexp(*given, axis=2)
    for name, whole, out in rooms((5, 6, 8), DOUBLE):
        assert softly.logsumexp(*given, axis=2, out=out) is out
        same_bits(np.ascontiguousarray(out), wanted, name)
        out[...] = 7
        assert (whole == 7).all(), f"{name}: written beside the answer"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_answer_is_the_callers_own(function):
    """Writable, and no view of the input."""
    given = arguments(function, (3, 4))
    for axis in [last_axis(function)] if function in ELEMENTWISE else [{"axis": 0}, {"axis": 1}]:
        answer = function(*given, **axis)
        assert not any(np.shares_memory(answer, array) for array in given)
        answer[...] = 0


# Memory -------------------------------------------------------------------------------------------


# Prints the bytes each call adds to the most the process ever held, by name, for inputs of 64 MB.
# A first call on a few numbers has started the threads.
PEAKS = """
import json, resource, sys
import numpy as np, softly

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

rng = np.random.default_rng(0)
table = rng.random((1000, 16_000), dtype=np.float32)
softly.softmax(table[:100, :1000], axis=0)
found = {}
for name, x, axis in [
    ("columns", table, 0),
    ("rows", table, 1),
    ("a middle axis", table.reshape(100, 10, 16_000), 1),
    ("transposed rows", table.T, 1),
    ("every second column", table[:, ::2], 0),
]:
    for function in (softly.softmax, softly.log_softmax, softly.softmax_inverse):
        before = peak()
        function(x, axis=axis, out=x)
        found[f"{function.__name__}, {name}, in place"] = peak() - before
    before = peak()
    softly.softmax(x, axis=axis, out=x, where=True, temperature=2.0)
    found[f"options, {name}, in place"] = peak() - before
    before = peak()
    softly.logsumexp(x, axis=axis)
    found[f"logsumexp, {name}"] = peak() - before
    before = peak()
    softly.softmax_vjp(x, x, axis=axis, out=x)
    found[f"softmax_vjp, {name}, in place"] = peak() - before
before = peak()
answer = softly.softmax(table, axis=0)
found["allocated"] = peak() - before
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read as Linux gives it")
@pytest.mark.skipif(not chosen.name.startswith("native"), reason="the reference holds copies")
def test_no_hidden_copy_of_any_axis():
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    size = 64_000_000
    assert found.pop("allocated") < size * 1.2  # nothing, where the pages of an earlier one do
    assert {name: more for name, more in found.items() if more > size / 8} == {}
