"""What only the compiled kernels have: ranges of rows, answers written past the cache, levels."""

import itertools

import numpy as np
import pytest

import softly
from family import FLOATS, HALVES, same_bits

native = pytest.importorskip("softly.kernels.native", reason="nothing was compiled")
_native = native._native

PAST_CACHES = 64 << 20  # bytes from which answers are written past the caches
ROWS = 203  # of so large an array, as many as are worked on
LAYOUTS = {
    "long rows": 8191,
    "short rows": 37,
    "shortest rows": 3,
    "columns": 7,
    "tall columns": 101,
}


def bits(array):
    """What the kernels take for an array: of bfloat16, its bits."""
    return array.view(np.uint16) if array.dtype == HALVES[1] else array


def room(shape, dtype, offset=0):
    """Zeros (which take no memory yet) that begin so many numbers behind a multiple of 64 bytes."""
    size = int(np.prod(shape)) * dtype.itemsize
    space = np.zeros(size + 128 + offset * dtype.itemsize, np.uint8)
    start = -space.ctypes.data % 64 + offset * dtype.itemsize
    return space[start : start + size].view(dtype).reshape(shape)


class Large:
    """An array just too large for the caches, of which some rows are worked on."""

    def __init__(self, layout, dtype):
        self.classes = LAYOUTS[layout]
        self.axis = 0 if "columns" in layout else 1
        n = PAST_CACHES // (self.classes * dtype.itemsize) + 50
        n += -n % 64  # columns that begin at multiples of 64 bytes, if the first does
        self.shape = (self.classes, n) if self.axis == 0 else (n, self.classes)
        self.x = room(self.shape, dtype)
        few = np.random.default_rng(0).normal(scale=4, size=(ROWS, self.classes)).astype(dtype)
        few[[5, 77], 1] = np.nan, np.inf
        self.rows(self.x)[...] = few

    def rows(self, array):
        """The rows that are worked on."""
        return array[:ROWS] if self.axis else array[:, :ROWS].T

    def small(self):
        """They alone, as they lie."""
        few = self.rows(self.x)
        return few.copy() if self.axis else few.T.copy().T


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_answers_written_past_the_cache_have_the_same_bits(name, layout, dtype):
    kernel, large = getattr(_native, name), Large(layout, dtype)
    wanted = large.small()
    kernel(bits(wanted), bits(wanted), (1,), 1.0, None, 0, -1)
    for offset in (0, 1, 5):
        out = room(large.shape, dtype, offset)
        kernel(bits(large.x), bits(out), (large.axis,), 1.0, None, 0, ROWS)
        same_bits(large.rows(out), wanted, f"{offset} numbers off")


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wanted", [1, 2])
def test_gradients_written_past_the_cache_have_the_same_bits(layout, wanted, dtype):
    """Where one class a row is wanted it is set on the way, more are set after."""
    large = Large(layout, dtype)
    computed = np.dtype(np.float64 if dtype == np.float64 else np.float32)

    def compute(logits, grad, axis):
        n = logits.shape[1 - axis]
        loss, scale, shares = (room(shape, computed) for shape in (n, n, (n, wanted)))
        index = room((n, wanted), np.dtype(np.int32))
        scale[:ROWS] = np.arange(ROWS) % 3
        shares[:ROWS] = 1 / wanted
        index[:ROWS] = np.outer(np.arange(ROWS), range(1, wanted + 1)) % large.classes
        _native.cross_entropy(
            *(bits(logits), (axis,), loss, bits(grad), index, shares, None, None, None, scale),
            *(0.0, 0.0, 0.0, 0.0, 1.0, None, 0, ROWS),
        )
        return loss[:ROWS]

    gradient = large.small()
    loss = compute(gradient, gradient, 1)
    for offset in (0, 1, 5):
        out = room(large.shape, dtype, offset)
        same_bits(compute(large.x, out, large.axis), loss)
        same_bits(large.rows(out), gradient, f"{offset} numbers off")


@pytest.mark.parametrize("classes", [5, 100])
@pytest.mark.parametrize("offset", range(0, 64, 8))
def test_memory_that_is_not_aligned(classes, offset):
    """And nothing beside the answer is touched."""
    wanted = np.random.default_rng(1).normal(size=(33, classes))
    space = np.zeros(wanted.nbytes + 128, np.uint8)
    rows = space[offset : offset + wanted.nbytes].view(np.float64).reshape(wanted.shape)
    rows[:] = wanted
    answer = np.full(wanted.size + 2, 7.0)
    _native.softmax(rows, answer[1:-1].reshape(wanted.shape), (1,), 1.0, None, 0, -1)
    assert answer[0] == answer[-1] == 7
    expected = np.empty_like(wanted)
    _native.softmax(wanted, expected, (1,), 1.0, None, 0, -1)
    np.testing.assert_array_equal(answer[1:-1].reshape(wanted.shape), expected)


@pytest.mark.parametrize("classes", [3, 48, 49, 1000])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_large_constant_in_the_upstream_gradient_cancels(classes, axis):
    """sum p g is exact to far more than a float: what all of g shares leaves the rest accurate."""
    rng = np.random.default_rng(classes)
    p = softly.softmax(rng.normal(size=(64, classes)).astype(np.float32), axis=1)
    g = (rng.normal(size=p.shape) + 1000).astype(np.float32)
    wide, upstream = p.astype(float), g.astype(float)
    exact = wide * (upstream - (wide * upstream).sum(axis=1, keepdims=True))
    given = (p, g) if axis else (p.T.copy(), g.T.copy())
    answer = softly.softmax_vjp(*given, axis=axis)
    np.testing.assert_allclose(answer if axis else answer.T, exact, rtol=3e-7)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("classes", [3, 48, 60])
@pytest.mark.parametrize("axis", [0, 1])
def test_rows_outside_the_range_are_left_alone(axis, classes, dtype):
    """Wherever a range begins and ends, which may be in the middle of a tile."""
    x = np.random.default_rng(2).normal(size=(40, classes)).astype(dtype)
    wanted = np.empty_like(x)
    _native.softmax(bits(x), bits(wanted), (1,), 1.0, None, 0, -1)
    x = x if axis else x.T.copy()
    for start, stop in itertools.combinations([0, 1, 3, 16, 17, 33, 39, 40], 2):
        out = np.full_like(x, 7)
        _native.softmax(bits(x), bits(out), (axis,), 1.0, None, start, stop)
        rows = out if axis else out.T
        same_bits(np.ascontiguousarray(rows[start:stop]), wanted[start:stop])
        assert (rows[:start] == 7).all()
        assert (rows[stop:] == 7).all()


@pytest.mark.parametrize(("start", "stop"), [(0, 11), (6, 5), (11, 11)])
def test_a_range_that_is_none(start, stop):
    rows = np.zeros((10, 3))
    with pytest.raises(ValueError, match="the range of rows is out of range"):
        _native.softmax(rows, rows.copy(), (1,), 1.0, None, start, stop)


def test_arrays_that_do_not_match():
    """Whoever calls has checked; this is what keeps a slip from writing anywhere."""
    rows = np.zeros((10, 3))
    out = np.zeros((10, 3))
    each = np.ones(10)
    for wrong in (np.zeros((10, 4)), np.zeros((9, 3)), np.zeros(30)):
        with pytest.raises(ValueError, match="all arrays need one shape"):
            _native.softmax(rows, wrong, (1,), 1.0, None, 0, -1)
    with pytest.raises(ValueError, match="out needs the type of x"):
        _native.softmax(rows, np.zeros((10, 3), np.float32), (1,), 1.0, None, 0, -1)
    with pytest.raises(ValueError, match="an array of floats is needed"):
        _native.softmax(np.zeros((10, 3), int), out, (1,), 1.0, None, 0, -1)
    with pytest.raises(ValueError, match="an axis is out of range"):
        _native.softmax(rows, out, (2,), 1.0, None, 0, -1)
    for wrong in (each[:9], each.astype(np.float32)):
        with pytest.raises(ValueError, match="need the compute type, and one a row"):
            _native.softmax(rows, out, (1,), wrong, None, 0, -1)
    with pytest.raises(ValueError, match="out needs one number a row"):
        _native.logsumexp(rows, each[:9], (1,), 1.0, None, 0, -1)
    read_only = out.copy()
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="an array that may be written is needed"):
        _native.softmax(rows, read_only, (1,), 1.0, None, 0, -1)


def test_a_level_that_is_none():
    with pytest.raises(ValueError, match="SOFTLY_CPU is 'v9', but this processor has"):
        _native.use("v9")
    assert _native.use(native.level) == native.level
