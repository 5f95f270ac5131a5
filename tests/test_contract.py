"""The numerical contract, clause by clause (docs: "The numerical contract").

Through the primitives of each kernel module, so that the compiled kernels and their definition in
NumPy are held to the same words, for every type, with the rows lying as rows and as columns.
The exponential alone is in test_exponential.py, threads and processes in test_processes.py.
"""

import functools
import itertools
import math
import warnings

import numpy as np
import pytest

import oracle
from family import DOUBLE, FLOATS, HALVES, SINGLE, same_bits
from softly.kernels.terms import Terms

# One entry, a few, around the vectors of 8 and 16 lanes, and around the 48 classes up to which
# rows are worked on side by side.
CLASSES = [1, 2, 3, 7, 8, 15, 16, 17, 33, 47, 48, 49, 65, 100, 1000]
MANY = 4097
MILLION = 1_000_000

OF_SCORES = ["softmax", "log_softmax", "logsumexp"]
OF_PROBABILITIES = ["softmax_inverse", "softmax_vjp"]
DERIVATIVES = ["softmax_vjp", "log_softmax_vjp"]
OVER_ROWS = [*OF_SCORES, *OF_PROBABILITIES, "log_softmax_vjp"]

# Tolerances, in units in the last place (ulp) of the exact answer for the rounded differences
# z - max(z).
#
# Contract, clause 3.
PROBABILITY = 2
# log p = (z - max) - log1p(rest): both terms have one sign, so relative errors do not grow.
# Exponential 1, sum 1, log1p 1, product and difference 1/2 each: 4 units, each of which is
# up to two ulp, as an ulp is between eps / 2 and eps of the number.
LOGARITHM = 8
# The rounding of each probability is within clause 3, but their errors are as often up as
# down; what is left is the error they share, that of the sum.
SUM = 4
# A half type's answer is rounded once, to the nearest, from float32, which has 13 or more bits
# beyond it.
HALF = 0.51

of_every_type = pytest.mark.parametrize("dtype", FLOATS, ids=str)
of_every_size = pytest.mark.parametrize("classes", [*CLASSES, MANY])


def computed(dtype):
    """The type that is computed in."""
    return DOUBLE if dtype == DOUBLE else SINGLE


def within(units, dtype):
    return HALF if dtype in HALVES else units


# Calling the kernels -----------------------------------------------------------------------


def bits(array):
    """What the kernels take for an array: of bfloat16, its bits."""
    halves = array is not None and array.dtype not in (np.float16, np.float32, np.float64)
    return array.view(np.uint16) if halves else array


def laid(array, axis):
    """The same rows, with the classes along that axis, in one piece."""
    return array if array is None else np.ascontiguousarray(array if axis else array.T)


def call(primitive, *given, temperature=1.0, where=None):
    """The primitive's answer for rows (N, K); for columns it is the same, to the bit."""
    rows, columns = (along(primitive, given, axis, temperature, where) for axis in (1, 0))
    same_bits(columns, rows, f"{primitive.__name__} of columns")
    return rows


def along(primitive, given, axis, temperature, where):
    given = [laid(array, axis) for array in given]
    before = [array.copy() for array in given]
    reduces = primitive.__name__ == "logsumexp"
    shape = given[0].shape
    out = np.full(shape[1 - axis] if reduces else shape, 7, given[0].dtype)
    primitive(*map(bits, given), bits(out), (axis,), temperature, laid(where, axis))
    for array, copy in zip(given, before, strict=True):
        assert array.tobytes() == copy.tobytes(), "the input was written to"
    return out if reduces or axis else np.ascontiguousarray(out.T)


def call_each(primitive, x):
    """The primitive's answer for each number of a vector."""
    out = np.full_like(x, 7)
    primitive(bits(x), bits(out))
    return out


def call_cross_entropy(kernels, rows, target, scale=1.0, *, gradient=True, **options):
    """(loss, gradient) for hard targets; as rows and as columns the same, to the bit."""
    target = np.asarray(target, np.intp)[:, None]
    found = []
    for axis in (1, 0):
        scores = laid(rows, axis)
        terms = Terms(index=target, scale=scale, **options)
        loss = np.full(len(rows), 7, computed(rows.dtype))
        grad = np.full_like(scores, 7) if gradient else None
        kernels.cross_entropy(bits(scores), axis, terms, loss, bits(grad))
        found.append((loss, laid(grad, axis)))
    (loss, grad), (loss_of_columns, grad_of_columns) = found
    same_bits(loss_of_columns, loss)
    if gradient:
        same_bits(grad_of_columns, grad)
    return loss, grad


def example(function, rows, seed=0):
    """What the function is called with, from rows of scores: probabilities, a direction."""
    rng = np.random.default_rng([seed, *rows.shape])
    scores = rows.astype(np.float64)
    if function in OF_PROBABILITIES:
        scores = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    elif function in DERIVATIVES:
        scores = -abs(scores)
    given = [scores.astype(rows.dtype)]
    if function in DERIVATIVES:
        given.append(rng.normal(size=rows.shape).astype(rows.dtype))
    return given


# The rows ----------------------------------------------------------------------------------


@functools.cache
def hard_rows(classes, dtype):
    rows = oracle.hard_rows(classes, dtype)
    if classes == MANY:  # the oracle is slow
        rows = {name: rows[name] for name in ("plain", "brink", "certain")}
    return rows


def together(rows):
    """Named rows as one batch."""
    return np.array(list(rows.values()))


@functools.cache
def exact(function, name, classes, dtype):
    """The oracle's answer for the rounded differences of a hard row."""
    row = hard_rows(classes, dtype)[name].astype(computed(dtype))
    return getattr(oracle, function)(oracle.rounded_difference(row))


@functools.cache
def million(dtype, kind):
    """A row of a million entries with a thousand scores: (row, index, scores, copies).

    row = scores[index], and each score occurs copies times.
    """
    rng = np.random.default_rng(5)
    scores = {
        "plain": 2 * rng.normal(size=1000),
        "deep": np.concatenate([[0], rng.uniform(-14, -13, size=999)]),
        "certain": np.concatenate([[40], rng.normal(size=999)]),
    }[kind].astype(dtype)
    copies = np.full(1000, 1000)
    copies[:2] = 1, 1999
    index = rng.permutation(np.repeat(np.arange(1000), copies))
    return scores[index], index, scores, copies


def every_half(dtype):
    """All bit patterns of a half type, but those of NaN: rising from 0, then falling from -0."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    infinity = np.array(np.inf, dtype).view(np.uint16)
    return bits[bits & 0x7FFF <= infinity].view(dtype)


def not_numbers(count, dtype, seed=0):
    """NaN of any payload and sign."""
    bits = {2: np.uint16, 4: np.uint32, 8: np.uint64}[np.dtype(dtype).itemsize]
    payload = np.random.default_rng(seed).integers(0, 64, size=count, dtype=bits)
    nan = np.full(count, np.nan).astype(dtype).view(bits) | payload
    nan[::2] |= bits(1 << (8 * nan.itemsize - 1))
    return nan.view(dtype)


# 1, 2, 3: range, sum, accuracy -------------------------------------------------------------


def assert_sums_to_one(p, name=""):
    """Of halves each is rounded on its own: to half a unit, which for small ones is much."""
    dtype, p = p.dtype, p.astype(np.float64)
    bound = SUM * np.finfo(computed(dtype)).eps
    if dtype in HALVES:
        info = oracle.finfo(dtype)
        least = float(info.smallest_subnormal)
        bound += HALF * np.maximum(2.0 ** np.floor(np.log2(p + least)) * info.eps, least).sum()
    assert abs(math.fsum(p) - 1) <= bound, name


@of_every_type
@of_every_size
def test_probabilities_are_in_range_and_sum_to_one(kernels, classes, dtype):
    rows = oracle.hard_rows(classes, dtype)
    for name, p in zip(rows, call(kernels.softmax, together(rows)), strict=True):
        assert ((p >= 0) & (p <= 1)).all(), name
        assert not np.signbit(p).any(), name
        assert_sums_to_one(p, name)


@of_every_type
def test_a_million_probabilities_sum_to_one(kernels, dtype):
    """Equal ones; others under accuracy."""
    assert_sums_to_one(call(kernels.softmax, np.full((1, MILLION), 0.3, dtype))[0])


def assert_accurate(kernels, function, units, classes, dtype):
    rows = hard_rows(classes, dtype)
    answers = call(getattr(kernels, function), together(rows))
    for name, answer in zip(rows, answers, strict=True):
        worst = oracle.worst_ulps(answer, exact(function, name, classes, dtype), dtype)
        assert worst <= within(units, dtype), name


@of_every_type
@of_every_size
def test_softmax_accuracy(kernels, classes, dtype):
    assert_accurate(kernels, "softmax", PROBABILITY, classes, dtype)


@of_every_type
@of_every_size
def test_log_softmax_accuracy(kernels, classes, dtype):
    assert_accurate(kernels, "log_softmax", LOGARITHM, classes, dtype)


@of_every_type
@of_every_size
def test_no_probability_is_above_one(kernels, classes, dtype):
    assert (call(kernels.log_softmax, together(hard_rows(classes, dtype))) <= 0).all()


def assert_logsumexp_close(actual, row, log_total):
    """max + log_total may cancel: the unit is that of the larger of the two terms."""
    dtype, top = row.dtype, oracle.mp.mpf(float(row.max()))
    exact = top + log_total
    bound = LOGARITHM * oracle.ulp(max(abs(top), log_total), computed(dtype))
    if dtype in HALVES:
        bound += oracle.ulp(exact, dtype) / 2
    if abs(exact) + bound < float(oracle.finfo(dtype).max):
        assert abs(oracle.mp.mpf(float(actual)) - exact) <= bound
    assert actual >= row.max()


@of_every_type
@of_every_size
def test_logsumexp_accuracy(kernels, classes, dtype):
    rows = hard_rows(classes, dtype)
    answers = call(kernels.logsumexp, together(rows))
    for (name, row), answer in zip(rows.items(), answers, strict=True):
        assert_logsumexp_close(answer, row, exact("logsumexp", name, classes, dtype))


@of_every_type
@pytest.mark.parametrize("kind", ["plain", "deep", "certain"])
def test_accuracy_with_a_million_classes(kernels, kind, dtype):
    row, index, scores, copies = million(dtype, kind)
    difference = oracle.rounded_difference(scores.astype(computed(dtype)))
    first = np.unique(index, return_index=True)[1]
    for function, units in (("softmax", PROBABILITY), ("log_softmax", LOGARITHM)):
        answer = call(getattr(kernels, function), row[None])[0]
        same_bits(answer, answer[first][index])
        wanted = getattr(oracle, function)(difference, copies)
        worst = oracle.worst_ulps(answer[first], wanted, dtype)
        assert worst <= within(units, dtype), function
        if function == "softmax":
            assert_sums_to_one(answer)

    actual = call(kernels.logsumexp, row[None])[0]
    assert_logsumexp_close(actual, row, oracle.logsumexp(difference, copies))


@functools.cache
def sigmoid_points(dtype):
    rng = np.random.default_rng(11)
    info = oracle.finfo(dtype)
    deepest = math.log(float(info.smallest_subnormal))
    size = 10 ** rng.uniform(math.log10(float(info.smallest_subnormal)) + 1, 3, size=500)
    ends = [0, info.smallest_subnormal, info.tiny, info.eps, 1, -deepest, info.max]
    x = np.concatenate(
        [
            np.array(ends, np.float64),
            size,
            rng.uniform(0, 50, size=500),
            rng.uniform(-0.84 * deepest, -1.02 * deepest, size=500),  # subnormal or zero
        ]
    )
    return np.concatenate([x, -x]).astype(dtype)


@functools.cache
def exact_sigmoid(function, dtype):
    return [getattr(oracle, function)(x) for x in sigmoid_points(dtype)]


@of_every_type
def test_sigmoid_accuracy(kernels, dtype):
    p = call_each(kernels.sigmoid, sigmoid_points(dtype))
    worst = oracle.worst_ulps(p, exact_sigmoid("sigmoid", dtype), dtype)
    assert worst <= within(PROBABILITY, dtype)


@of_every_type
def test_log_sigmoid_accuracy(kernels, dtype):
    log_p = call_each(kernels.log_sigmoid, sigmoid_points(dtype))
    worst = oracle.worst_ulps(log_p, exact_sigmoid("log_sigmoid", dtype), dtype)
    assert worst <= within(LOGARITHM, dtype)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_half_is_rounded_from_single(kernels, dtype):
    """Every bit pattern: widened, worked on, rounded to the nearest, ties to even."""
    x = every_half(dtype)
    for function in ("sigmoid", "log_sigmoid"):
        single = call_each(getattr(kernels, function), x.astype(np.float32))
        same_bits(call_each(getattr(kernels, function), x), single.astype(dtype), function)
    # Each number beside its neighbours, and beside others.
    numbers = x[np.isfinite(x)]
    for rows in (numbers.reshape(-1, 32), numbers.reshape(64, -1).T, numbers.reshape(2, -1)):
        for function in OF_SCORES:
            single = call(getattr(kernels, function), rows.astype(np.float32))
            rounded = call(getattr(kernels, function), np.ascontiguousarray(rows))
            with np.errstate(over="ignore"):
                same_bits(rounded, single.astype(dtype), function)


@of_every_type
@pytest.mark.parametrize("classes", CLASSES)
def test_cross_entropy_accuracy(kernels, classes, dtype):
    """The loss is a logarithm, the gradient a probability; only the latter takes the scale.

    A half's loss is in float32. At the target the gradient is p - 1, accurate for p near 1 too.
    """
    rng = np.random.default_rng([3, classes])
    named = {name: row for name, row in hard_rows(classes, dtype).items() if name != "huge"}
    rows = together(named)
    # The likeliest class is the target of half of the rows, a random one of the others.
    best = rows.astype(np.float64).argmax(axis=1)
    target = np.where(np.arange(len(rows)) % 2, best, rng.integers(classes, size=len(rows)))
    weights = rng.choice(np.array([0, 0.1, 1, 3], computed(dtype)), size=len(rows))
    for scale in (1.0, weights):
        loss, grad = call_cross_entropy(kernels, rows, target, scale)
        for i, name in enumerate(named):
            t, w = target[i], oracle.mp.mpf(float(np.broadcast_to(scale, len(rows))[i]))
            if w == 0:
                assert loss[i] == 0
                assert not grad[i].any()
                continue
            p = exact("softmax", name, classes, dtype)
            log_p = exact("log_softmax", name, classes, dtype)
            assert oracle.ulps(loss[i], -log_p[t], computed(dtype)) <= LOGARITHM, name
            at_target = oracle.ulps(grad[i, t], w * oracle.mp.expm1(log_p[t]), dtype)
            assert at_target <= within(LOGARITHM, dtype), name
            others = np.delete(grad[i], t)
            if others.size:
                wanted = [w * value for k, value in enumerate(p) if k != t]
                # A unit of p is up to two of w p, plus the rounding of the product.
                units = PROBABILITY if w == 1 else 2 * PROBABILITY + 1
                assert oracle.worst_ulps(others, wanted, dtype) <= within(units, dtype), name


# 4: order ----------------------------------------------------------------------------------


def assert_ordered(rows, answers, steps_back=False):
    """Larger score, no smaller answer (but by a unit); equal scores, equal bits."""
    rows, answers = rows.astype(np.float64), answers.astype(np.float64)
    order = np.argsort(rows, axis=-1, kind="stable")
    rows = np.take_along_axis(rows, order, axis=-1)
    answers = np.take_along_axis(answers, order, axis=-1)
    lower, upper = answers[..., :-1], answers[..., 1:]
    tied = rows[..., :-1] == rows[..., 1:]
    assert (lower[tied] == upper[tied]).all(), "equal scores, unequal answers"
    upper = np.nextafter(upper, np.inf) if steps_back else upper
    assert (lower <= upper).all(), "a larger score got a smaller answer"


@of_every_type
@of_every_size
@pytest.mark.parametrize("function", ["softmax", "log_softmax"])
def test_order(kernels, function, classes, dtype):
    rows = together(oracle.hard_rows(classes, dtype))
    for temperature in (1.0, 0.3, 7.0):
        answers = call(getattr(kernels, function), rows, temperature=temperature)
        assert_ordered(rows, answers)


def neighbours(dtype, deepest):
    """Runs of numbers one unit in the last place apart, which rise from some number below 0."""
    rng = np.random.default_rng(13)
    bits = {4: np.uint32, 8: np.uint64}[np.dtype(dtype).itemsize]
    starts = np.concatenate([rng.uniform(1e-3, deepest, 400), 2.0 ** np.arange(-30, 6)])
    # From just below the start, so that powers of two and their exponent change are crossed.
    runs = starts.astype(dtype).view(bits)[:, None] - bits(1000) + np.arange(3000, dtype=bits)
    return -runs.view(dtype)


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE], ids=str)
@pytest.mark.parametrize("function", ["softmax", "log_softmax"])
def test_order_of_neighbouring_numbers(kernels, function, dtype):
    """Down to where exp is zero."""
    runs = neighbours(dtype, 104 if dtype == SINGLE else 746)
    rows = np.concatenate([np.zeros((len(runs), 1), dtype), runs], axis=1)
    assert_ordered(rows, call(getattr(kernels, function), rows))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("function", ["softmax", "log_softmax"])
def test_order_of_every_half(kernels, function, dtype):
    """All numbers of the type in one row, and those below 0 beside a 0."""
    x = every_half(dtype)
    x = x[np.isfinite(x)]
    for row in (x, np.append(x[x < 0], np.zeros(1, dtype))):
        assert_ordered(row, call(getattr(kernels, function), row[None])[0])


@of_every_type
@pytest.mark.parametrize("function", ["sigmoid", "log_sigmoid"])
def test_order_of_the_sigmoid(kernels, function, dtype):
    if dtype in HALVES:
        x = every_half(dtype)
    else:
        runs = neighbours(dtype, 110 if dtype == SINGLE else 750)
        x = np.concatenate([runs, -runs], axis=None)
    # In float64 there is nothing wider to work in: only the compiled sigmoid mends its rounding.
    mended = function == "sigmoid" and kernels.name != "reference"
    steps_back = dtype == DOUBLE and not mended
    assert_ordered(x, call_each(getattr(kernels, function), x), steps_back)


@of_every_type
@of_every_size
@pytest.mark.parametrize("function", ["softmax", "log_softmax"])
def test_ties_are_ties_wherever_they_stand(kernels, function, classes, dtype):
    """The first lane, the last lane and the entries left over share one exponential."""
    rng = np.random.default_rng([17, classes])
    scores = np.array([-80, -20.3, -3.7, -0.6, -1e-3, 0.0], dtype)
    rows = rng.choice(scores, size=(20, classes))
    answers = call(getattr(kernels, function), rows)
    for row, answer in zip(rows, answers, strict=True):
        assert all(np.unique(answer[row == score]).size <= 1 for score in scores)


# 5: shift ----------------------------------------------------------------------------------


@of_every_type
@of_every_size
def test_an_exact_shift_changes_no_bit(kernels, classes, dtype):
    rng = np.random.default_rng([19, classes])
    # The whole of a sum has to fit into 8 bits of bfloat16, 11 of float16, and so on.
    free = int(oracle.finfo(dtype).nmant) - 3
    unit = 2.0 ** -min(5, free // 2)
    rows = (rng.integers(-8, 8, size=(24, classes)) * unit).astype(dtype)
    rows[rng.random(rows.shape) < 0.1] = -np.inf
    target = rng.integers(classes, size=len(rows))
    shifts = np.array([2.0**free, -(2.0 ** (free - 1)), 1, -(2.0 ** (free - 2)) - 3]) * unit
    loss, grad = call_cross_entropy(kernels, rows, target)
    for shift in shifts.astype(dtype):
        moved = rows + shift
        assert ((moved - shift) == rows).all()  # the shift is exact
        same_bits(call(kernels.softmax, moved), call(kernels.softmax, rows))
        same_bits(call(kernels.log_softmax, moved), call(kernels.log_softmax, rows))
        moved_loss, moved_grad = call_cross_entropy(kernels, moved, target)
        same_bits(moved_loss, loss)
        same_bits(moved_grad, grad)


# 6: infinities and NaN -----------------------------------------------------------------------


@of_every_type
@of_every_size
def test_minus_infinity_is_exactly_impossible(kernels, classes, dtype):
    rng = np.random.default_rng([23, classes])
    row = rng.normal(size=classes).astype(dtype)
    hole = rng.random(classes) < 0.5
    hole[rng.integers(classes)] = False
    row[hole] = -np.inf
    p = call(kernels.softmax, row[None])[0]
    assert (p[hole] == 0).all()
    assert not np.signbit(p).any()
    log_p = call(kernels.log_softmax, row[None])[0]
    assert (log_p[hole] == -np.inf).all()
    assert np.isfinite(log_p[~hole]).all()
    assert np.isfinite(call(kernels.logsumexp, row[None])).all()
    if hole.any():
        target = np.flatnonzero(hole)[:1]
        loss, grad = call_cross_entropy(kernels, row[None], target)
        assert loss[0] == np.inf
        assert grad[0, target[0]] == -1
        same_bits(np.delete(grad[0], target), np.delete(p, target))


@of_every_type
@of_every_size
def test_plus_infinities_share_the_row(kernels, classes, dtype):
    rng = np.random.default_rng([29, classes])
    tame, huge = rng.normal(size=classes), rng.choice([-1, 0.1, 1], size=classes)
    huge = huge * float(oracle.finfo(dtype).max)
    for m, others in itertools.product(
        {1, min(2, classes), min(3, classes), classes}, (tame, huge)
    ):
        row = others.astype(dtype)
        row[rng.random(classes) < 0.2] = -np.inf
        winner = np.zeros(classes, bool)
        winner[rng.permutation(classes)[:m]] = True
        row[winner] = np.inf
        p = call(kernels.softmax, row[None])[0]
        assert oracle.worst_ulps(p[winner], [oracle.mp.mpf(1) / m] * m, dtype) <= 1
        assert (p[~winner] == 0).all()
        log_p = call(kernels.log_softmax, row[None])[0]
        assert oracle.worst_ulps(log_p[winner], [-oracle.mp.log(m)] * m, dtype) <= 1
        assert (log_p[~winner] == -np.inf).all()
        assert call(kernels.logsumexp, row[None])[0] == np.inf

        target = np.flatnonzero(winner)[:1]
        loss, grad = call_cross_entropy(kernels, row[None], target)
        assert oracle.ulps(loss[0], oracle.mp.log(m), computed(dtype)) <= 1
        wanted = p.astype(np.float64) - np.eye(classes)[target[0]]
        eps = float(oracle.finfo(dtype).eps)
        np.testing.assert_allclose(grad[0].astype(np.float64), wanted, rtol=0, atol=eps)
        if m < classes:
            target = np.flatnonzero(~winner)[:1]
            loss, grad = call_cross_entropy(kernels, row[None], target)
            assert loss[0] == np.inf
            assert grad[0, target[0]] == -1


@of_every_type
@pytest.mark.parametrize("classes", CLASSES)
def test_infinity_wherever_it_stands(kernels, classes, dtype):
    """inf - inf must not come of it, whatever the others are."""
    rng = np.random.default_rng([30, classes])
    largest = float(oracle.finfo(dtype).max)
    fills = [-largest, -largest / 17, -np.inf, 0, largest]
    for fill in (*fills, min(1e30, largest / 8) * rng.normal(size=classes)):
        places = np.array([0, classes - 1, *rng.integers(classes, size=6)])
        rows = np.full((len(places), classes), fill).astype(dtype)
        rows[np.arange(len(places)), places] = np.inf
        only = np.arange(classes) == places[:, None]
        np.testing.assert_array_equal(call(kernels.softmax, rows), only.astype(dtype))
        assert (call(kernels.logsumexp, rows) == np.inf).all()
        log_p = call(kernels.log_softmax, rows)
        assert (log_p == np.where(only, 0, -np.inf)).all()
        loss, grad = call_cross_entropy(kernels, rows, places)
        assert not loss.any()
        assert not grad.any()


@of_every_type
@of_every_size
def test_a_row_of_minus_infinities_has_no_answer(kernels, classes, dtype):
    row = np.full((1, classes), -np.inf, dtype)
    assert np.isnan(call(kernels.softmax, row)).all()
    assert np.isnan(call(kernels.log_softmax, row)).all()
    assert call(kernels.logsumexp, row)[0] == -np.inf
    loss, grad = call_cross_entropy(kernels, row, [classes - 1])
    assert np.isnan(loss).all()
    assert np.isnan(grad).all()


@of_every_type
@of_every_size
def test_nan_spoils_its_own_row_and_no_other(kernels, classes, dtype):
    rng = np.random.default_rng([31, classes])
    clean = rng.normal(size=(19, classes)).astype(dtype)
    clean[3] = -np.inf
    clean[12, -1] = np.inf
    target = rng.integers(classes, size=len(clean))
    # Everywhere in turn where K is small; first, last and some between where it is not.
    places = {0, classes - 1, *rng.integers(classes, size=2).tolist()}
    answers = {f: call(getattr(kernels, f), clean) for f in OF_SCORES}
    clean_loss, clean_grad = call_cross_entropy(kernels, clean, target)
    bad = [1, 8, 17]
    good = np.setdiff1d(np.arange(len(clean)), bad)
    for place in places if classes > 8 else range(classes):
        spoilt = clean.copy()
        spoilt[8] = np.inf  # NaN beats infinity
        spoilt[17] = -np.inf  # and a row of nothing
        spoilt[bad, place] = not_numbers(len(bad), dtype)
        for function in OF_SCORES:
            answer = call(getattr(kernels, function), spoilt)
            assert np.isnan(answer[bad]).all(), (function, place)
            same_bits(answer[good], answers[function][good])
        loss, grad = call_cross_entropy(kernels, spoilt, target)
        assert np.isnan(loss[bad]).all()
        assert np.isnan(grad[bad]).all()
        same_bits(loss[good], clean_loss[good])
        same_bits(grad[good], clean_grad[good])


@of_every_type
@pytest.mark.parametrize("classes", [1, 2, 3, 8, 17, 48, 49, 100])
@pytest.mark.parametrize("function", [*OF_PROBABILITIES, "log_softmax_vjp"])
def test_nan_spoils_its_own_row_of_probabilities(kernels, function, classes, dtype):
    rows = np.random.default_rng([37, classes]).normal(size=(19, classes)).astype(dtype)
    given = example(function, rows)
    clean = call(getattr(kernels, function), *given)
    bad = [1, 8, 18]
    for array in given:
        kept = array.copy()
        array[bad, classes // 2] = not_numbers(len(bad), dtype)
        answer = call(getattr(kernels, function), *given)
        spoilt = answer[bad]
        # The gradient of a log-probability is spoilt where it stands, if not by its sum.
        assert np.isnan(spoilt[:, classes // 2]).all()
        if array is given[-1] or function == "softmax_vjp":
            assert np.isnan(spoilt).all()
        same_bits(np.delete(answer, bad, axis=0), np.delete(clean, bad, axis=0))
        array[...] = kept


@of_every_type
def test_sigmoids_at_infinity(kernels, dtype):
    x = np.array([np.inf, -np.inf, 0, -0.0], dtype)
    same_bits(call_each(kernels.sigmoid, x), np.array([1, 0, 0.5, 0.5], dtype))
    log_p = call_each(kernels.log_sigmoid, x)
    assert log_p[0] == 0
    assert log_p[1] == -np.inf


@of_every_type
@pytest.mark.parametrize("function", ["sigmoid", "log_sigmoid"])
def test_the_sigmoid_of_nan_is_nan(kernels, function, dtype):
    """Whatever its sign and payload, and the number beside it is what it was."""
    x = np.zeros(100, dtype)
    x[::3] = not_numbers(34, dtype)
    answer = call_each(getattr(kernels, function), x)
    np.testing.assert_array_equal(np.isnan(answer), np.isnan(x))


@of_every_type
@pytest.mark.parametrize("classes", [1, 2, 16, 33, 48, 49, 1000])
def test_zero_weight_is_exactly_zero(kernels, classes, dtype):
    """Whatever the row holds: a NaN times zero would be NaN."""
    rows = np.zeros((6, classes), dtype)
    rows[0, 0] = np.nan
    rows[1] = np.inf
    rows[2] = -np.inf
    rows[3, -1] = -np.inf
    rows[4, 0] = np.inf
    scale = np.array([0, 0, 0, 0, 0, 2], computed(dtype))
    loss, grad = call_cross_entropy(kernels, rows, np.full(6, classes - 1), scale)
    assert (loss[:5] == 0).all()
    assert (grad[:5] == 0).all()
    assert oracle.ulps(loss[5], oracle.mp.log(classes), computed(dtype)) <= LOGARITHM
    share = oracle.mp.mpf(2) / classes
    assert all(oracle.ulps(g, share, dtype) <= LOGARITHM for g in grad[5, :-1])
    # An ignored row is one of zero weight, and its target is no class.
    target = np.where(scale == 0, -100, classes - 1)
    ignored = call_cross_entropy(kernels, rows, target, 2.0, ignore_index=-100)
    same_bits(ignored[0], loss)
    same_bits(ignored[1], grad)


@of_every_type
@pytest.mark.parametrize("classes", [2, 3, 8, 17, 33, 48, 49, 100, 1000])
@pytest.mark.parametrize("function", OVER_ROWS)
def test_what_is_masked_is_not_there(kernels, function, classes, dtype):
    """As if its score were -inf, its probability and gradient 0, whatever stands there."""
    rng = np.random.default_rng([41, classes])
    rows = (3 * rng.normal(size=(21, classes))).astype(dtype)
    where = rng.random(rows.shape) < 0.6
    where[np.arange(21), rng.integers(classes, size=21)] = True
    given = example(function, rows)
    empty = [-np.inf] if function in [*OF_SCORES, "log_softmax_vjp"] else [0]
    empty += [0] * (len(given) - 1)
    each = rng.choice(np.array([0.5, 1, 3], computed(dtype)), size=len(rows))
    for temperature in (1.0, each):
        absent = [np.where(where, a, np.array(e, dtype)) for a, e in zip(given, empty, strict=True)]
        wanted = call(getattr(kernels, function), *absent, temperature=temperature)
        spoilt = [array.copy() for array in given]
        for array in spoilt:
            array[~where] = rng.choice(
                np.array([np.nan, np.inf, 7, -np.inf], dtype), (~where).sum()
            )
        found = call(getattr(kernels, function), *spoilt, temperature=temperature, where=where)
        if function in DERIVATIVES:
            assert (found[~where] == 0).all()
            found, wanted = (np.where(where, a, np.zeros(1, dtype)) for a in (found, wanted))
        same_bits(found, wanted)


# 7: near certainty ---------------------------------------------------------------------------


@of_every_type
@pytest.mark.parametrize("classes", [2, 3, 8, 17, 48, 49, 64, 1000])
def test_near_certainty_keeps_relative_accuracy(kernels, classes, dtype):
    """The likeliest class leads by 1 to 80 (float64: 690): log p down to -1e-35 (-1e-300)."""
    rng = np.random.default_rng([43, classes])
    leads = [1, 5, 12, 17, 20, 36, 40, 80] + [300, 690] * (dtype == np.float64)
    rows = rng.uniform(-1, 0, size=(len(leads), classes)).astype(dtype)
    best = rng.integers(classes, size=len(leads))
    rows[np.arange(len(leads)), best] = np.array(leads, dtype)
    log_p = call(kernels.log_softmax, rows)
    loss, grad = call_cross_entropy(kernels, rows, best)
    for i, lead in enumerate(leads):
        difference = oracle.rounded_difference(rows[i].astype(computed(dtype)))
        wanted = oracle.log_softmax(difference)[best[i]]
        assert oracle.ulps(log_p[i, best[i]], wanted, dtype) <= within(LOGARITHM, dtype), lead
        assert oracle.ulps(loss[i], -wanted, computed(dtype)) <= LOGARITHM, lead
        # p - 1 at the target, without the subtraction
        at_target = oracle.ulps(grad[i, best[i]], oracle.mp.expm1(wanted), dtype)
        assert at_target <= within(LOGARITHM, dtype), lead


# 8: same bits --------------------------------------------------------------------------------


def part_of(primitive, given, rows, each, where):
    """The answer for some rows, as a batch of their own."""
    return call(
        primitive, *(array[rows] for array in given), temperature=each[rows], where=where[rows]
    )


@of_every_type
@of_every_size
@pytest.mark.parametrize("function", OVER_ROWS)
def test_a_row_has_the_same_bits_alone_and_in_any_batch(kernels, function, classes, dtype):
    """In another order too, and with a temperature and a mask of its own."""
    rng = np.random.default_rng([47, classes])
    count = 100 if classes <= 100 else 40
    given = example(function, (3 * rng.normal(size=(count, classes))).astype(dtype))
    each = rng.choice(np.array([0.5, 1, 3], computed(dtype)), size=count)
    where = rng.random((count, classes)) < 0.9
    primitive = getattr(kernels, function)
    batch = part_of(primitive, given, slice(None), each, where)
    plain = call(primitive, *given)
    parts = [rng.permutation(count), *(slice(n) for n in (1, 2, 17, 33))]
    parts += [slice(i, i + 1) for i in rng.integers(count, size=3)]
    for rows in parts:
        same_bits(part_of(primitive, given, rows, each, where), batch[rows])
        same_bits(call(primitive, *(array[rows] for array in given)), plain[rows])


@of_every_type
@of_every_size
def test_a_loss_has_the_same_bits_alone_and_in_any_batch(kernels, classes, dtype):
    rng = np.random.default_rng([53, classes])
    count = 100 if classes <= 100 else 40
    rows = (3 * rng.normal(size=(count, classes))).astype(dtype)
    target = rng.integers(classes, size=count)
    scale = rng.uniform(0.5, 2, size=count).astype(computed(dtype))
    options = {"smoothing": 0.1, "z_loss": 0.01, "focal": 1.5, "cap": 5.0}
    for chosen in ({}, options):
        loss, grad = call_cross_entropy(kernels, rows, target, scale, **chosen)
        for part in (rng.permutation(count), slice(1), slice(2), slice(17), slice(7, 8)):
            one = call_cross_entropy(kernels, rows[part], target[part], scale[part], **chosen)
            same_bits(one[0], loss[part])
            same_bits(one[1], grad[part])


@pytest.mark.parametrize("dtype", [FLOATS[1], SINGLE], ids=str)
def test_a_million_classes_have_the_same_bits_alone_and_in_a_batch(kernels, dtype):
    """Eight rows: enough that as columns they are worked on side by side."""
    row = million(dtype, "plain")[0]
    rows = np.array([row[::-1], row, *[np.roll(row, i) for i in range(6)]])
    for function in OF_SCORES:
        primitive = getattr(kernels, function)
        same_bits(call(primitive, rows)[1:2], call(primitive, row[None]))


@of_every_type
@pytest.mark.parametrize("size", [1, 2, 7, 16, 17, 1000, 100_003])
def test_an_entry_has_the_same_sigmoid_alone_and_among_others(kernels, size, dtype):
    x = (5 * np.random.default_rng(59).normal(size=size)).astype(dtype)
    for function in ("sigmoid", "log_sigmoid"):
        primitive = getattr(kernels, function)
        many = call_each(primitive, x)
        for i in {0, size // 2, size - 1}:
            same_bits(call_each(primitive, x[i : i + 1].copy()), many[i : i + 1])
        same_bits(call_each(primitive, x[::-1].copy()), many[::-1].copy())


@of_every_type
@pytest.mark.parametrize("classes", [1, 2, 3, 8, 17, 48, 49, 64, 1000, MANY])
def test_cross_entropy_in_place_without_gradient_and_with_unit_scale(kernels, classes, dtype):
    """The gradient may be written over the scores; asking for less changes no bit."""
    rng = np.random.default_rng([61, classes])
    rows = (3 * rng.normal(size=(23, classes))).astype(dtype)
    rows[4, 0] = np.nan
    rows[9] = -np.inf
    rows[15, -1] = np.inf
    target = rng.integers(classes, size=len(rows))
    index = target[:, None]
    for scale in (1.0, rng.choice(np.array([0, 1, 0.3], computed(dtype)), size=len(rows))):
        loss, grad = call_cross_entropy(kernels, rows, target, scale)
        bare, _ = call_cross_entropy(kernels, rows, target, scale, gradient=False)
        same_bits(bare, loss)
        for axis in (1, 0):
            over, in_place = laid(rows, axis).copy(), np.empty_like(loss)
            terms = Terms(index=index, scale=scale)
            kernels.cross_entropy(bits(over), axis, terms, in_place, bits(over))
            same_bits(in_place, loss)
            same_bits(laid(over, axis), grad)
    plain = call_cross_entropy(kernels, rows, target)
    ones = call_cross_entropy(kernels, rows, target, np.ones(len(rows), computed(dtype)))
    same_bits(plain[0], ones[0])
    same_bits(plain[1], ones[1])


@of_every_type
@pytest.mark.parametrize("classes", [1, 3, 17, 48, 49, 1000])
@pytest.mark.parametrize("function", OVER_ROWS)
def test_in_place(kernels, function, classes, dtype):
    rows = np.random.default_rng([67, classes]).normal(size=(23, classes)).astype(dtype)
    given = example(function, rows)
    primitive = getattr(kernels, function)
    wanted = call(primitive, *given)
    if function == "logsumexp":
        return
    for axis, which in itertools.product((1, 0), range(len(given))):
        arrays = [laid(array, axis).copy() for array in given]
        primitive(*map(bits, arrays), bits(arrays[which]), (axis,), 1.0, None)
        same_bits(laid(arrays[which], axis), wanted)


@of_every_type
def test_an_empty_batch_is_no_work(kernels, dtype):
    rows = np.empty((0, 5), dtype)
    for function in OVER_ROWS:
        call(getattr(kernels, function), *[rows] * (2 if function in DERIVATIVES else 1))
    call_cross_entropy(kernels, rows, [])
    call_each(kernels.sigmoid, np.empty(0, dtype))
    call_each(kernels.log_sigmoid, np.empty(0, dtype))


# 9: relations --------------------------------------------------------------------------------


def assert_near(actual, wanted, units):
    """To so many units in the last place; halves, rounded once each, to one."""
    dtype = actual.dtype
    spacing = np.maximum(abs(wanted.astype(np.float64)) * float(oracle.finfo(dtype).eps),
                         float(oracle.finfo(dtype).smallest_subnormal))  # fmt: skip
    apart = abs(actual.astype(np.float64) - wanted.astype(np.float64)) / spacing
    assert apart.max() <= (1 if dtype in HALVES else units)


@of_every_type
def test_two_classes_are_the_sigmoid_of_the_difference(kernels, dtype):
    """Both are within a bound of one exact answer, so within twice the bound of each other."""
    rng = np.random.default_rng(71)
    rows = (rng.normal(size=(5000, 2)) * 10 ** rng.uniform(-3, 2, size=(5000, 1))).astype(dtype)
    difference = rows[:, 0] - rows[:, 1]
    if dtype in HALVES:  # else it is rounded to the type, which softmax does not do
        wide = rows.astype(np.float32)
        kept = difference.astype(np.float32) == wide[:, 0] - wide[:, 1]
        rows, difference = rows[kept], difference[kept]
    p, log_p = (call(f, rows)[:, 0] for f in (kernels.softmax, kernels.log_softmax))
    assert_near(p, call_each(kernels.sigmoid, difference), 2 * PROBABILITY)
    assert_near(log_p, call_each(kernels.log_sigmoid, difference), 2 * LOGARITHM)


@of_every_type
@pytest.mark.parametrize("classes", [2, 3, 16, 17, 48, 49, 1000])
def test_the_gradient_is_softmax_minus_target(kernels, classes, dtype):
    rng = np.random.default_rng([73, classes])
    rows = (3 * rng.normal(size=(50, classes))).astype(dtype)
    target = rng.integers(classes, size=50)
    loss, grad = call_cross_entropy(kernels, rows, target)
    eps, grad = float(oracle.finfo(dtype).eps), grad.astype(np.float64)
    wanted = call(kernels.softmax, rows).astype(np.float64) - np.eye(classes)[target]
    np.testing.assert_allclose(grad, wanted, rtol=2 * 3 * eps, atol=eps)
    if dtype not in HALVES:
        assert max(abs(math.fsum(row)) for row in grad) <= SUM * eps
    log_p = call(kernels.log_softmax, rows.astype(computed(dtype)))[np.arange(50), target]
    np.testing.assert_array_max_ulp(loss, -log_p, maxulp=2 * LOGARITHM)


@of_every_type
@pytest.mark.parametrize("classes", [2, 3, 17, 48, 49, 300])
def test_soft_targets_pull_by_their_shares(kernels, classes, dtype):
    """The gradient is softmax - q, the loss -sum q log p; a one-hot row is the hard target."""
    rng = np.random.default_rng([79, classes])
    rows = (3 * rng.normal(size=(30, classes))).astype(dtype)
    shares = rng.exponential(size=rows.shape)
    shares = (shares / shares.sum(axis=1, keepdims=True)).astype(computed(dtype))
    target = rng.integers(classes, size=30)
    p, log_p = (call(f, rows.astype(np.float64)) for f in (kernels.softmax, kernels.log_softmax))
    eps = float(oracle.finfo(dtype).eps)
    for soft in (shares, np.eye(classes, dtype=computed(dtype))[target]):
        for axis in (1, 0):
            scores = laid(rows, axis)
            loss, grad = np.empty(30, computed(dtype)), np.empty_like(scores)
            terms = Terms(soft=laid(soft, axis))
            kernels.cross_entropy(bits(scores), axis, terms, loss, bits(grad))
            total = soft.astype(np.float64).sum(axis=1, keepdims=True)
            found = laid(grad, axis).astype(np.float64)
            np.testing.assert_allclose(found, p * total - soft, rtol=4 * eps, atol=4 * eps)
            wanted = -(soft * log_p).sum(axis=1)
            rtol = 20 * np.finfo(computed(dtype)).eps
            np.testing.assert_allclose(loss, wanted, rtol=rtol)


@of_every_type
@pytest.mark.parametrize("classes", [1, 2, 17, 48, 49, 300])
def test_centred_log_probabilities_undo_softmax(kernels, classes, dtype):
    rng = np.random.default_rng([83, classes])
    # Small probabilities of halves have few digits.
    spread = 0.3 if dtype in HALVES else 3
    rows = (spread * rng.normal(size=(50, classes))).astype(dtype)
    p = call(kernels.softmax, rows)
    found = call(kernels.softmax_inverse, p).astype(np.float64)
    scores = rows.astype(np.float64)
    wanted = scores - scores.mean(axis=1, keepdims=True)
    # Differences up to some 20 are rounded; so is p, and a rounding by eps moves log p by eps.
    eps = float(oracle.finfo(dtype).eps)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=10 * spread * eps)


@of_every_type
def test_derivatives_in_numbers(kernels, dtype):
    """p (g - sum p g) and g - p sum g, exact where all the numbers are."""
    p = np.array([[0.5, 0.25, 0.25], [1, 0, 0]], dtype)
    g = np.array([[2, -4, 8], [3, 5, 7]], dtype)
    wanted = np.array([[0, -1.5, 1.5], [0, 0, 0]], dtype)
    np.testing.assert_array_equal(call(kernels.softmax_vjp, p, g), wanted)
    log_p = np.array([[0, -np.inf, -np.inf]], dtype)
    g = np.array([[2, -4, 8]], dtype)
    found = call(kernels.log_softmax_vjp, log_p, g, temperature=2.0)
    np.testing.assert_array_equal(found, np.array([[-2, -2, 4]], dtype))


# Quietly -------------------------------------------------------------------------------------


def test_no_warnings_even_where_every_one_is_an_error(kernels):
    """NumPy's floating-point errors raised, not only warned of, by the caller's choice."""
    rows = np.array([[np.inf, -np.inf, 1e308], [-1e308, 1e308, 0], [-np.inf] * 3, [np.nan, 1, 2]])
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        for function in OVER_ROWS:
            call(getattr(kernels, function), *[rows] * (2 if function in DERIVATIVES else 1))
        call_cross_entropy(kernels, rows, [0, 1, 2, 0], np.array([1.0, 0, 2, 1e-300]))
        for function in ("sigmoid", "log_sigmoid"):
            call_each(getattr(kernels, function), rows.ravel())


# What the losses ask besides -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_targets_are_surveyed(kernels, dtype):
    """How many count, and the first that is no class."""
    target = np.arange(100_000).astype("i8") % 100
    target[[7, 70_000]] = 120
    signed = np.dtype(dtype).kind == "i"
    target[:3] = -100 if signed else 99
    ignored = -100 if signed else 99
    count = 100_000 - (target == ignored).sum()
    target = target.astype(dtype)
    assert kernels.survey(target, 100, ignored) == (count, 7)
    target[7] = 0
    assert kernels.survey(target, 100, ignored) == (count, 70_000)
    assert kernels.survey(target, 121, ignored) == (count, None)
    if signed:
        assert kernels.survey(target, 121, None) == (100_000, 0)


@of_every_type
@pytest.mark.parametrize("classes", [1, 3, 48, 49, 300])
@pytest.mark.parametrize("spoil", [-0.25, np.nan, np.inf, 0.5])
def test_the_first_unsound_soft_target(kernels, classes, spoil, dtype):
    soft = np.full((40, classes), 1 / classes).astype(dtype)
    scale = np.ones(40, computed(dtype))
    tolerance = 1e-2 if dtype in HALVES else 1e-3
    for axis in (1, 0):
        assert kernels.first_unsound(bits(laid(soft, axis)), axis, 1.0, tolerance) is None
        wrong = soft.copy()
        wrong[[5, 23], -1] += np.array(spoil, dtype)
        scale[5] = 0  # not looked at
        assert kernels.first_unsound(bits(laid(wrong, axis)), axis, 1.0, tolerance) == 5
        assert kernels.first_unsound(bits(laid(wrong, axis)), axis, scale, tolerance) == 23


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE], ids=str)
@pytest.mark.parametrize("size", [0, 1, 17, 1_000_003])
def test_the_total(kernels, size, dtype):
    x = np.random.default_rng(89).normal(size=size).astype(dtype) + dtype.type(1)
    np.testing.assert_allclose(kernels.total(x), math.fsum(x), rtol=1e-12)
