"""What only the compiled kernels have: levels, ranges of rows, answers written past the cache."""

import subprocess
import sys

import numpy as np
import pytest

native = pytest.importorskip("softly.kernels.native", reason="nothing was compiled")
_native = native._native

# More than the 8 MB from which answers are written past the cache; no row starts aligned.
ROWS, CLASSES = 301, 8191


@pytest.fixture(scope="module", params=[np.float32, np.float64])
def rows(request):
    rng = np.random.default_rng(0)
    rows = rng.normal(scale=4, size=(ROWS, CLASSES)).astype(request.param)
    rows[3, 5] = np.nan
    rows[4, [0, 17]] = np.inf
    rows[5] = -np.inf
    rows[6, ::2] = -np.inf
    return rows


def row_by_row(kernel, rows):
    out = np.empty_like(rows)
    for i in range(len(rows)):
        kernel(rows, out, i, i + 1)
    return out


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_answers_written_past_the_cache_have_the_same_bits(name, rows):
    kernel = getattr(_native, name)
    large = np.empty_like(rows)
    kernel(rows, large, 0, ROWS)
    np.testing.assert_array_equal(large, row_by_row(kernel, rows))
    in_place = rows.copy()
    kernel(in_place, in_place, 0, ROWS)
    np.testing.assert_array_equal(large, in_place)


def test_gradients_written_past_the_cache_have_the_same_bits(rows):
    target = np.arange(ROWS) % CLASSES
    scale = (np.arange(ROWS) % 3).astype(rows.dtype)
    loss, grad = np.empty(ROWS, rows.dtype), np.empty_like(rows)
    _native.cross_entropy(rows, target, scale, loss, grad, 0, ROWS)
    one_by_one, alone = np.empty_like(loss), np.empty_like(grad)
    for i in range(ROWS):
        _native.cross_entropy(rows, target, scale, one_by_one, alone, i, i + 1)
    np.testing.assert_array_equal(loss, one_by_one)
    np.testing.assert_array_equal(grad, alone)
    in_place = rows.copy()
    _native.cross_entropy(in_place, target, scale, loss, in_place, 0, ROWS)
    np.testing.assert_array_equal(grad, in_place)


@pytest.mark.parametrize("classes", [5, 100])
@pytest.mark.parametrize("offset", [0, 1, 4])
def test_memory_that_is_not_aligned(classes, offset):
    """At any byte, and nothing beside the answer is touched."""
    wanted = np.random.default_rng(1).normal(size=(33, classes))
    space = np.zeros(wanted.nbytes + 128, np.uint8)
    rows = space[offset : offset + wanted.nbytes].view(np.float64).reshape(wanted.shape)
    rows[:] = wanted
    answer = np.full(wanted.size + 2, 7.0)
    _native.softmax(rows, answer[1:-1].reshape(wanted.shape), 0, 33)
    assert answer[0] == answer[-1] == 7
    expected = np.empty_like(wanted)
    _native.softmax(wanted, expected, 0, 33)
    np.testing.assert_array_equal(answer[1:-1].reshape(wanted.shape), expected)


def test_rows_outside_the_range_are_left_alone():
    rows = np.zeros((10, 60))
    out = np.full_like(rows, 7)
    _native.softmax(rows, out, 3, 5)
    np.testing.assert_array_equal(out[3:5], 1 / 60)
    assert (out[:3] == 7).all()
    assert (out[5:] == 7).all()


@pytest.mark.parametrize(("start", "stop"), [(0, 11), (6, 5), (11, 11)])
def test_a_range_that_is_none(start, stop):
    rows = np.zeros((10, 3))
    with pytest.raises(ValueError, match="outside the array"):
        _native.softmax(rows, rows.copy(), start, stop)


def test_shapes_that_do_not_match():
    rows = np.zeros((10, 3))
    with pytest.raises(ValueError, match="shape of rows"):
        _native.softmax(rows, np.zeros((10, 4)), 0, 10)
    with pytest.raises(TypeError):
        _native.softmax(rows, np.zeros((10, 3), np.float32), 0, 10)


ANSWERS = """
import numpy as np, softly
rng = np.random.default_rng(0)
for dtype in (np.float32, np.float64):
    for k in (2, 10, 48, 49, 1000):
        x = rng.normal(scale=5, size=(100, k)).astype(dtype)
        print(softly.softmax(x, axis=1).sum(), *softly.log_softmax(x, axis=1)[:, 0])
"""


def test_every_level_gives_the_same_answers(monkeypatch):
    """To the last digits; with a fused multiply-add (v3 and v4) to the last bit."""
    printed = {}
    for level in ("v2", "v3", "v4"):
        monkeypatch.setenv("SOFTLY_CPU", level)
        done = subprocess.run([sys.executable, "-c", ANSWERS], capture_output=True, text=True)
        if "this processor has" in done.stderr:
            continue
        assert done.returncode == 0, done.stderr
        printed[level] = np.array([float(x) for x in done.stdout.split()])
    for numbers in printed.values():
        np.testing.assert_allclose(numbers, next(iter(printed.values())), rtol=1e-6)
    if "v4" in printed:
        np.testing.assert_array_equal(printed["v3"], printed["v4"])
