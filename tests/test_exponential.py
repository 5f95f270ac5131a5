"""The exponential that every compiled kernel is made of: within 1 ulp, and in order, exactly.

The kernels ask for exp of numbers not above 0 alone. By default a sample of them is tried; with
``pytest --exhaustive`` every float32 there is, and some hundred million neighbours in float64,
which takes a minute or two.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest

import oracle

native = pytest.importorskip("softly.kernels.native", reason="nothing was compiled")
_native = native._native

CHUNK = 1 << 15  # small enough for a cache
FLOAT16, BFLOAT16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
UNSIGNED = {2: np.uint16, 4: np.uint32, 8: np.uint64}
SIGN = {size: 1 << (8 * size - 1) for size in UNSIGNED}
# What is taken off the argument is a multiple of ln 2, to the nearest.
HALF_LN2 = np.log(2) / 2
# Below, exp is subnormal; below, it is 0; below, the argument is not looked at (elementary.h).
THRESHOLDS = {4: [-87.33655, -103.97208, -104], 8: [-708.3964185322641, -745.1332191019412, -750]}


@pytest.fixture(params=["v2", "v3", "v4", "base"])
def level(request):
    """Each of the levels that this processor has."""
    try:
        _native.use(request.param)
    except ValueError as reason:
        pytest.skip(str(reason))
    yield request.param
    _native.use(native.level)


@pytest.fixture
def exhaustive(request):
    if not request.config.getoption("--exhaustive"):
        pytest.skip("takes a minute: asked for by --exhaustive")


def exp(x):
    """The kernels' exponential; bfloat16 goes in and out as its bits."""
    out = np.empty_like(x)
    as_bits = np.uint16 if x.dtype == BFLOAT16 else x.dtype
    _native.exponential(x.view(as_bits), out.view(as_bits), 0, -1)
    return out


def patterns(dtype, start, stop, step=1):
    """The numbers -|x| with these bits beside the sign: they fall, and the last are NaN."""
    size = np.dtype(dtype).itemsize
    return (np.arange(start, stop, step, dtype=UNSIGNED[size]) | UNSIGNED[size](SIGN[size])).view(
        dtype
    )


def around(points, count, dtype):
    """The numbers beside each point, `count` on either side, a row of falling ones each."""
    bits = UNSIGNED[np.dtype(dtype).itemsize]
    middle = np.asarray(points, dtype).view(bits)[:, None]
    return (middle - bits(count) + np.arange(2 * count + 1, dtype=bits)).view(dtype)


def spread_over_threads(work, chunks):
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, chunks))


def worst_ulps(x, answer):
    """The largest distance to exp in float64, in float32's units in the last place."""
    exact = np.exp(x.astype(np.float64))
    binade = (exact.view(np.uint64) & np.uint64(0x7FF0000000000000)).view(np.float64)
    unit = np.maximum(binade * 2.0**-23, 2.0**-149)
    return float((np.abs(answer - exact) / unit).max())


def assert_falls(answer):
    assert (answer[..., 1:] <= answer[..., :-1]).all(), "a larger number has a smaller exponential"


# float32 ------------------------------------------------------------------------------------------


def test_every_float32(level, exhaustive):
    """All 2^32 bit patterns as the kernels ask for them, exp(-|x|): of each 2 with one |x|, one."""
    start = time.perf_counter()
    nan = int(np.float32(np.inf).view(np.uint32)) + 1

    def look(first):
        # One more than the chunk, so that no pair of neighbours is left out.
        x = patterns(np.float32, first, min(first + CHUNK + 1, nan))
        answer = exp(x)
        assert_falls(answer)
        return worst_ulps(x, answer)

    worst = max(spread_over_threads(look, range(0, nan, CHUNK)))

    def look_at_nan(first):
        x = patterns(np.float32, first, min(first + CHUNK, 1 << 31))
        return np.isnan(exp(x)).all() and np.isnan(exp(-x)).all()

    assert all(spread_over_threads(look_at_nan, range(nan, 1 << 31, CHUNK)))
    seconds = time.perf_counter() - start
    print(f"\n{level}: exp within {worst:.4f} ulp and in order on every float32, {seconds:.0f} s")
    assert worst <= 1


def test_a_sample_of_float32(level):
    x = patterns(np.float32, 0, np.float32(np.inf).view(np.uint32), 509)
    answer = exp(x)
    assert_falls(answer)
    assert worst_ulps(x, answer) <= 1
    runs = around(-np.geomspace(1e-9, 104, 2000), 1000, np.float32)
    assert_falls(exp(runs.ravel()).reshape(runs.shape))


def test_float32_beside_every_boundary(level):
    points = [*-HALF_LN2 * np.arange(1, 301), *THRESHOLDS[4]]
    runs = around(points, 5000, np.float32)
    answers = exp(runs.ravel()).reshape(runs.shape)
    assert_falls(answers)
    assert worst_ulps(runs, answers) <= 1


# float64 ------------------------------------------------------------------------------------------


def test_float64_beside_every_boundary(level):
    points = [*-HALF_LN2 * np.arange(1, 2151), *THRESHOLDS[8], np.log(2.0**-1074) - HALF_LN2]
    runs = around(points, 1000, np.float64)
    assert_falls(exp(runs.ravel()).reshape(runs.shape))


def test_float64_is_accurate(level):
    rng = np.random.default_rng(79)
    boundaries = around([*-HALF_LN2 * np.arange(1, 2151, 7), *THRESHOLDS[8]], 2, np.float64).ravel()
    x = np.concatenate([
        boundaries,
        -rng.uniform(0, 746, size=3000),
        -rng.uniform(708, 746, size=500),
        -rng.uniform(0, 1, size=1000),
        -(10.0 ** rng.uniform(-300, 0, size=300)),
        [0.0, -0.0, -np.finfo(np.float64).max, -1e300],
    ])  # fmt: skip
    worst = oracle.worst_ulps(exp(x), [oracle.mp.exp(float(number)) for number in x], np.float64)
    assert worst <= 1


def falling_pairs(seed, count):
    """Random numbers, of any size and spread evenly, and their lower neighbours."""
    rng = np.random.default_rng([83, seed])
    x = -rng.uniform(0, 746, size=count)
    x[: count // 4] = -rng.uniform(0, 1, size=count // 4)
    x[: count // 8] = -np.exp(rng.uniform(-40, 7, size=count // 8))
    return x, np.nextafter(x, -np.inf)


def count_pairs(millions):
    """Looks at so many pairs of neighbours in float64."""

    def look(seed):
        upper, lower = falling_pairs(seed, 1_000_000)
        return (exp(lower) <= exp(upper)).all()

    assert all(spread_over_threads(look, range(millions)))


def test_millions_of_neighbours_in_float64(level):
    count_pairs(4)


def test_hundreds_of_millions_of_neighbours_in_float64(level, exhaustive):
    count_pairs(200)


# Half types ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=str)
def test_every_half(level, dtype):
    """All 2^16 bit patterns as exp(-|x|): the float32 answer, rounded once to the nearest."""
    x = patterns(dtype, 0, 1 << 15)
    answer = exp(x)
    single = exp(x.astype(np.float32))
    number = ~np.isnan(single)
    np.testing.assert_array_equal(answer[number], single.astype(dtype)[number])
    assert np.isnan(answer[~number]).all()
    assert np.isnan(exp(-x)[~number]).all()
    assert_falls(answer[number].astype(np.float32))
    exact = [oracle.mp.exp(float(score)) for score in x[number][::7]]
    assert oracle.worst_ulps(answer[number][::7].astype(float), exact, dtype) <= 0.5001


# Ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ends(level, dtype):
    info = np.finfo(dtype)
    x = np.array([0, -0.0, -info.smallest_subnormal, -info.max, -np.inf, np.nan], dtype)
    np.testing.assert_array_equal(exp(x), [1, 1, 1, 0, 0, np.nan])
    assert not np.signbit(exp(x[:-1])).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_number_has_the_same_exponential_wherever_it_stands(level, dtype):
    """In each lane, and among the numbers left over."""
    x = -np.random.default_rng(89).uniform(0, 90, size=40).astype(dtype)
    alone = np.concatenate([exp(x[i : i + 1].copy()) for i in range(len(x))])
    for stop in range(1, len(x)):
        np.testing.assert_array_equal(exp(x[:stop].copy()), alone[:stop])


def test_levels_with_a_fused_multiply_add_agree_to_the_bit():
    answers = []
    for name in ("v3", "v4"):
        try:
            _native.use(name)
        except ValueError as reason:
            pytest.skip(str(reason))
        answers.append([
            exp(around(-np.geomspace(1e-3, deepest, 500), 500, dtype).ravel())
            for dtype, deepest in ((np.float32, 104), (np.float64, 750))
        ])  # fmt: skip
    _native.use(native.level)
    for ours, theirs in pairwise(answers):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
