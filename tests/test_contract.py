"""The numerical contract, clause by clause (docs: "The numerical contract").

Through the primitives of each kernel module, so that the compiled kernels and their
definition in NumPy are held to the same words; threads and forks through the public
functions, in child processes.
"""

import functools
import hashlib
import itertools
import math
import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

import oracle

DTYPES = [np.float32, np.float64]
# One entry, a few, around 1, 2, 4 and 8 vectors of 8 or 16 lanes, and more than a block.
CLASSES = [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 1000]
MANY = 4097
MILLION = 1_000_000

# Tolerances, in units in the last place (ulp) of the exact answer for the rounded differences
# z - max(z). NumPy's exponential, which the reference uses, is worse than 1 ulp in float32.
#
# Contract, clause 3: a probability is within 2 ulp.
PROBABILITY = {"reference": 3, "native": 2}
# log p = (z - max) - log1p(rest): both terms have one sign, so relative errors do not grow.
# Exponential 1, sum 1, log1p 1, product and difference 1/2 each: 4 units, each of which is
# up to two ulp, as an ulp is between eps / 2 and eps of the number.
LOGARITHM = 8
# The rounding of each probability is within clause 3, but their errors are as often up as
# down; what is left is the error they share, that of the sum.
SUM = 4


def name_of(kernels):
    return kernels.__name__.rpartition(".")[2]


def call(primitive, rows):
    """The primitive's answer for rows (N, K), or for a vector."""
    before = rows.copy()
    reduces = primitive.__name__ == "logsumexp"
    out = np.full(len(rows) if reduces else rows.shape, 7, rows.dtype)
    primitive(rows, out)
    assert rows.tobytes() == before.tobytes(), "the input was written to"
    return out


def call_cross_entropy(kernels, rows, target, scale=None, grad=True):
    loss = np.full(len(rows), 7, rows.dtype)
    grad = np.full_like(rows, 7) if grad else None
    target = np.asarray(target, dtype=np.intp)
    kernels.cross_entropy(rows, target, scale, loss, grad)
    return loss, grad


def row_of(scores, dtype):
    return np.array([scores], dtype=dtype)


def same_bits(a, b):
    """Equal to the bit, except that a NaN is a NaN."""
    nan = np.isnan(a)
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    np.testing.assert_array_equal(nan, np.isnan(b))
    bits = {4: np.uint32, 8: np.uint64}[a.itemsize]
    np.testing.assert_array_equal(
        np.where(nan, 0, a.view(bits) if a.ndim else a[None].view(bits)[0]),
        np.where(nan, 0, b.view(bits) if b.ndim else b[None].view(bits)[0]),
    )


@functools.cache
def hard_rows(classes, dtype):
    rows = oracle.hard_rows(classes, dtype)
    if classes == MANY:  # the oracle is slow
        rows = {name: rows[name] for name in ("plain", "deep", "brink", "ties", "certain")}
    return rows


@functools.cache
def exact(function, name, classes, dtype):
    """The oracle's answer for the rounded differences of a hard row."""
    return getattr(oracle, function)(oracle.rounded_difference(hard_rows(classes, dtype)[name]))


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


# 1, 2, 3: range, sum, accuracy -------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [*CLASSES, MANY])
def test_probabilities_are_in_range_and_sum_to_one(kernels, classes, dtype):
    for name, row in oracle.hard_rows(classes, dtype).items():
        p = call(kernels.softmax, row[None])[0]
        assert ((p >= 0) & (p <= 1)).all(), name
        assert not np.signbit(p).any(), name
        assert abs(math.fsum(p) - 1) <= SUM * np.finfo(dtype).eps, name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["plain", "deep", "certain", "equal"])
def test_a_million_probabilities_sum_to_one(kernels, kind, dtype):
    row = np.full(MILLION, 0.3, dtype) if kind == "equal" else million(dtype, kind)[0]
    p = call(kernels.softmax, row[None])[0]
    assert abs(math.fsum(p) - 1) <= SUM * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [*CLASSES, MANY])
def test_softmax_accuracy(kernels, classes, dtype):
    for name, row in hard_rows(classes, dtype).items():
        p = call(kernels.softmax, row[None])
        worst = oracle.worst_ulps(p, exact("softmax", name, classes, dtype), dtype)
        assert worst <= PROBABILITY[name_of(kernels)], name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [*CLASSES, MANY])
def test_log_softmax_accuracy(kernels, classes, dtype):
    for name, row in hard_rows(classes, dtype).items():
        log_p = call(kernels.log_softmax, row[None])
        worst = oracle.worst_ulps(log_p, exact("log_softmax", name, classes, dtype), dtype)
        assert worst <= LOGARITHM, name
        assert (log_p <= 0).all(), name


def assert_logsumexp_close(actual, row, log_total, dtype):
    """max + log_total may cancel: the unit is that of the larger of the two terms."""
    top = oracle.mp.mpf(float(row.max()))
    unit = oracle.ulp(max(abs(top), log_total), dtype)
    assert abs(oracle.mp.mpf(float(actual)) - (top + log_total)) <= LOGARITHM * unit
    assert actual >= row.max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [*CLASSES, MANY])
def test_logsumexp_accuracy(kernels, classes, dtype):
    for name, row in hard_rows(classes, dtype).items():
        actual = call(kernels.logsumexp, row[None])[0]
        assert_logsumexp_close(actual, row, exact("logsumexp", name, classes, dtype), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["plain", "deep", "certain"])
def test_accuracy_with_a_million_classes(kernels, kind, dtype):
    row, index, scores, copies = million(dtype, kind)
    difference = oracle.rounded_difference(scores)
    first = np.unique(index, return_index=True)[1]
    for function, tolerance in (
        ("softmax", PROBABILITY[name_of(kernels)]),
        ("log_softmax", LOGARITHM),
    ):
        answer = call(getattr(kernels, function), row[None])[0]
        same_bits(answer, answer[first][index])
        wanted = getattr(oracle, function)(difference, copies)
        assert oracle.worst_ulps(answer[first], wanted, dtype) <= tolerance, function

    actual = call(kernels.logsumexp, row[None])[0]
    assert_logsumexp_close(actual, row, oracle.logsumexp(difference, copies), dtype)


@functools.cache
def sigmoid_points(dtype):
    rng = np.random.default_rng(11)
    info = np.finfo(dtype)
    deepest = float(np.log(info.smallest_subnormal.astype(np.float64)))
    size = 10 ** rng.uniform(np.log10(float(info.smallest_subnormal)) + 1, 3, size=500)
    x = np.concatenate(
        [
            [0, info.smallest_subnormal, info.tiny, info.eps, 1, -deepest, info.max],
            size,
            rng.uniform(0, 50, size=500),
            rng.uniform(-0.84 * deepest, -1.02 * deepest, size=500),  # subnormal or zero
        ]
    )
    return np.concatenate([x, -x]).astype(dtype)


@functools.cache
def exact_sigmoid(function, dtype):
    return [getattr(oracle, function)(x) for x in sigmoid_points(dtype)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_sigmoid_accuracy(kernels, dtype):
    p = call(kernels.sigmoid, sigmoid_points(dtype))
    worst = oracle.worst_ulps(p, exact_sigmoid("sigmoid", dtype), dtype)
    assert worst <= PROBABILITY[name_of(kernels)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_sigmoid_accuracy(kernels, dtype):
    log_p = call(kernels.log_sigmoid, sigmoid_points(dtype))
    assert oracle.worst_ulps(log_p, exact_sigmoid("log_sigmoid", dtype), dtype) <= LOGARITHM


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", CLASSES)
def test_cross_entropy_accuracy(kernels, classes, dtype):
    """The loss is a logarithm, the gradient a probability; only the latter takes the scale.

    At the target the gradient is p - 1: to a unit of 1 here, to full accuracy under clause 7.
    """
    rng = np.random.default_rng([3, classes])
    named = {name: row for name, row in hard_rows(classes, dtype).items() if name != "huge"}
    rows = np.array(list(named.values()))
    # The likeliest class is the target of half of the rows, a random one of the others.
    target = np.where(
        np.arange(len(rows)) % 2, rows.argmax(axis=1), rng.integers(classes, size=len(rows))
    )
    scale = rng.choice(np.array([0, 0.1, 1, 3], dtype=dtype), size=len(rows))
    probability = PROBABILITY[name_of(kernels)]
    for weights in (None, scale):
        loss, grad = call_cross_entropy(kernels, rows, target, weights)
        for i, name in enumerate(named):
            t, w = target[i], oracle.mp.mpf(1 if weights is None else float(weights[i]))
            if w == 0:
                assert loss[i] == 0
                assert not grad[i].any()
                continue
            p = exact("softmax", name, classes, dtype)
            log_p = exact("log_softmax", name, classes, dtype)
            assert oracle.ulps(loss[i], -log_p[t], dtype) <= LOGARITHM, name
            at_target = oracle.mp.mpf(float(grad[i, t])) - w * (p[t] - 1)
            assert abs(at_target) <= (probability + 1) * w * float(np.finfo(dtype).eps), name
            others = np.delete(grad[i], t)
            if others.size:
                wanted = [w * value for k, value in enumerate(p) if k != t]
                # A unit of p is up to two of w p, plus the rounding of the product.
                worst = oracle.worst_ulps(others, wanted, dtype)
                assert worst <= (probability if weights is None else 2 * probability + 1), name


# 4: order ----------------------------------------------------------------------------------


def assert_ordered(kernels, rows, answers):
    """Larger score, no smaller answer; equal scores, equal bits."""
    order = np.argsort(rows, axis=1, kind="stable")
    rows = np.take_along_axis(rows, order, axis=1)
    answers = np.take_along_axis(answers, order, axis=1)
    lower, upper = answers[:, :-1], answers[:, 1:]
    tied = rows[:, :-1] == rows[:, 1:]
    assert (lower[tied] == upper[tied]).all(), "equal scores, unequal answers"
    if name_of(kernels) == "reference" and rows.dtype == np.float32:
        # NumPy's own float32 exponential steps back by one unit at some places.
        upper = np.nextafter(upper, np.float32(np.inf))
    assert (lower <= upper).all(), "a larger score got a smaller answer"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [*CLASSES, MANY])
@pytest.mark.parametrize("function", ["softmax", "log_softmax"])
def test_order(kernels, function, classes, dtype):
    rows = np.array(list(oracle.hard_rows(classes, dtype).values()))
    assert_ordered(kernels, rows, call(getattr(kernels, function), rows))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", ["softmax", "log_softmax"])
def test_order_of_neighbouring_numbers(kernels, function, dtype):
    """Runs of scores one unit in the last place apart, down to where exp is zero."""
    rng = np.random.default_rng(13)
    bits = {4: np.uint32, 8: np.uint64}[np.dtype(dtype).itemsize]
    deepest = 104 if dtype == np.float32 else 746
    starts = np.concatenate([rng.uniform(1e-3, deepest, 400), 2.0 ** np.arange(-30, 6)])
    # From just below the start, so that powers of two and their exponent change are crossed.
    runs = starts.astype(dtype).view(bits)[:, None] - bits(1000) + np.arange(3000, dtype=bits)
    rows = np.concatenate([np.zeros((len(starts), 1), dtype), -runs.view(dtype)], axis=1)
    assert_ordered(kernels, rows, call(getattr(kernels, function), rows))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [*CLASSES, MANY])
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", CLASSES)
def test_an_exact_shift_changes_no_bit(kernels, classes, dtype):
    rng = np.random.default_rng([19, classes])
    rows = (rng.integers(-(2**9), 2**9, size=(40, classes)) / 32).astype(dtype)
    rows[rng.random(rows.shape) < 0.1] = -np.inf
    target = rng.integers(classes, size=40)
    shifts = np.array([2.0**14, -(2.0**13), 1 / 32, -317.25], dtype)
    if dtype == np.float64:
        shifts = np.append(shifts, 2.0**46)
    loss, grad = call_cross_entropy(kernels, rows, target)
    for shift in shifts:
        moved = rows + shift
        assert ((moved - shift) == rows).all()  # the shift is exact
        same_bits(call(kernels.softmax, moved), call(kernels.softmax, rows))
        same_bits(call(kernels.log_softmax, moved), call(kernels.log_softmax, rows))
        moved_loss, moved_grad = call_cross_entropy(kernels, moved, target)
        same_bits(moved_loss, loss)
        same_bits(moved_grad, grad)


# 6: infinities and NaN -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [*CLASSES, MANY])
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [*CLASSES, MANY])
def test_plus_infinities_share_the_row(kernels, classes, dtype):
    rng = np.random.default_rng([29, classes])
    tame, huge = rng.normal(size=classes), rng.choice([-1, 0.1, 1], size=classes)
    huge = huge * float(np.finfo(dtype).max)
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
        assert oracle.ulps(loss[0], oracle.mp.log(m), dtype) <= 1
        np.testing.assert_allclose(
            grad[0], p - np.eye(classes)[target[0]], rtol=0, atol=np.finfo(dtype).eps
        )
        if m < classes:
            target = np.flatnonzero(~winner)[:1]
            loss, grad = call_cross_entropy(kernels, row[None], target)
            assert loss[0] == np.inf
            assert grad[0, target[0]] == -1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", CLASSES)
def test_infinity_wherever_it_stands(kernels, classes, dtype):
    """The maximum so far may be rescaled as the row is read: inf - inf must not come of it."""
    rng = np.random.default_rng([30, classes])
    largest = float(np.finfo(dtype).max)
    for fill in (-largest, -largest / 17, -np.inf, 0, largest, 1e30 * rng.normal(size=classes)):
        for place in {0, classes - 1, *rng.integers(classes, size=6).tolist()}:
            row = np.full((1, classes), fill).astype(dtype)
            row[0, place] = np.inf
            only = (np.arange(classes) == place).astype(dtype)[None]
            np.testing.assert_array_equal(call(kernels.softmax, row), only)
            np.testing.assert_array_equal(call(kernels.logsumexp, row), [np.inf])
            with np.errstate(divide="ignore"):
                np.testing.assert_array_equal(call(kernels.log_softmax, row), np.log(only))
            loss, grad = call_cross_entropy(kernels, row, [place])
            assert loss[0] == 0
            assert not grad.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", CLASSES)
def test_a_row_of_minus_infinities_has_no_answer(kernels, classes, dtype):
    row = np.full((1, classes), -np.inf, dtype)
    assert np.isnan(call(kernels.softmax, row)).all()
    assert np.isnan(call(kernels.log_softmax, row)).all()
    assert call(kernels.logsumexp, row)[0] == -np.inf
    loss, grad = call_cross_entropy(kernels, row, [classes - 1])
    assert np.isnan(loss).all()
    assert np.isnan(grad).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [*CLASSES, MANY])
def test_nan_spoils_its_own_row_and_no_other(kernels, classes, dtype):
    rng = np.random.default_rng([31, classes])
    clean = rng.normal(size=(19, classes)).astype(dtype)
    clean[3] = -np.inf
    clean[12, -1] = np.inf
    target = rng.integers(classes, size=len(clean))
    # Everywhere in turn where K is small; first, last and some between where it is not.
    places = {0, classes - 1, *rng.integers(classes, size=6).tolist()}
    for place in places if classes > 17 else range(classes):
        spoilt = clean.copy()
        bad = [1, 8, 17]
        spoilt[8] = np.inf  # NaN beats infinity
        spoilt[17] = -np.inf  # and a row of nothing
        spoilt[bad, place] = np.nan
        good = np.setdiff1d(np.arange(len(clean)), bad)
        for function in ("softmax", "log_softmax", "logsumexp"):
            answer = call(getattr(kernels, function), spoilt)
            assert np.isnan(answer[bad]).all(), (function, place)
            same_bits(answer[good], call(getattr(kernels, function), clean)[good])
        loss, grad = call_cross_entropy(kernels, spoilt, target)
        assert np.isnan(loss[bad]).all()
        assert np.isnan(grad[bad]).all()
        clean_loss, clean_grad = call_cross_entropy(kernels, clean, target)
        same_bits(loss[good], clean_loss[good])
        same_bits(grad[good], clean_grad[good])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sigmoids_at_infinity(kernels, dtype):
    x = np.array([np.inf, -np.inf, np.nan, 0, -0.0], dtype)
    same_bits(call(kernels.sigmoid, x), np.array([1, 0, np.nan, 0.5, 0.5], dtype))
    log_p = call(kernels.log_sigmoid, x)
    assert log_p[0] == 0
    assert log_p[1] == -np.inf
    assert np.isnan(log_p[2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_weight_is_exactly_zero(kernels, dtype):
    """Whatever the row holds: a NaN times zero would be NaN."""
    for classes in (1, 2, 16, 33, 1000):
        rows = np.zeros((6, classes), dtype)
        rows[0, 0] = np.nan
        rows[1] = np.inf
        rows[2] = -np.inf
        rows[3, -1] = -np.inf
        rows[4, 0] = np.inf
        scale = np.array([0, 0, 0, 0, 0, 2], dtype)
        target = np.full(6, classes - 1)
        loss, grad = call_cross_entropy(kernels, rows, target, scale)
        assert (loss[:5] == 0).all()
        assert (grad[:5] == 0).all()
        assert oracle.ulps(loss[5], oracle.mp.log(classes), dtype) <= LOGARITHM
        np.testing.assert_allclose(grad[5, :-1], 2 / classes, rtol=4 * np.finfo(dtype).eps, atol=0)


# 7: near certainty ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [2, 3, 8, 17, 64, 1000])
def test_near_certainty_keeps_relative_accuracy(kernels, classes, dtype):
    """The likeliest class leads by 1 to 80 (float64: 690): log p down to -1e-35 (-1e-300)."""
    rng = np.random.default_rng([37, classes])
    for lead in [1, 5, 12, 17, 20, 36, 40, 80] + [300, 690] * (dtype == np.float64):
        row = rng.uniform(-1, 0, size=classes).astype(dtype)
        best = int(rng.integers(classes))
        row[best] = lead
        difference = oracle.rounded_difference(row)
        wanted = oracle.log_softmax(difference)[best]
        log_p = call(kernels.log_softmax, row[None])[0, best]
        loss, grad = call_cross_entropy(kernels, row[None], [best])
        assert oracle.ulps(log_p, wanted, dtype) <= LOGARITHM, lead
        assert oracle.ulps(loss[0], -wanted, dtype) <= LOGARITHM, lead
        # p - 1 at the target, without the subtraction
        assert oracle.ulps(grad[0, best], oracle.mp.expm1(wanted), dtype) <= LOGARITHM, lead


# 8: same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 2, 7, 16, 17, 1000])
@pytest.mark.parametrize("classes", [*CLASSES, MANY])
def test_a_row_has_the_same_bits_alone_and_in_any_batch(kernels, classes, count, dtype):
    rng = np.random.default_rng([41, classes, count])
    rows = (3 * rng.normal(size=(count, classes))).astype(dtype)
    target = rng.integers(classes, size=count)
    scale = rng.uniform(0.5, 2, size=count).astype(dtype)
    alone = range(count) if count <= 17 else rng.integers(count, size=17)
    turn = rng.permutation(count)
    for function in ("softmax", "log_softmax", "logsumexp"):
        primitive = getattr(kernels, function)
        batch = call(primitive, rows)
        same_bits(call(primitive, rows), batch)
        same_bits(call(primitive, rows[turn]), batch[turn])
        for i in alone:
            same_bits(call(primitive, rows[i : i + 1].copy()), batch[i : i + 1])
    loss, grad = call_cross_entropy(kernels, rows, target, scale)
    turned_loss, turned_grad = call_cross_entropy(kernels, rows[turn], target[turn], scale[turn])
    same_bits(turned_loss, loss[turn])
    same_bits(turned_grad, grad[turn])
    for i in alone:
        one = slice(i, i + 1)
        one_loss, one_grad = call_cross_entropy(kernels, rows[one].copy(), target[one], scale[one])
        same_bits(one_loss, loss[one])
        same_bits(one_grad, grad[one])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_million_classes_have_the_same_bits_alone_and_in_a_batch(kernels, dtype):
    row = million(dtype, "plain")[0]
    rows = np.array([row[::-1], row])
    for function in ("softmax", "log_softmax", "logsumexp"):
        primitive = getattr(kernels, function)
        same_bits(call(primitive, rows)[1:], call(primitive, row[None]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 2, 7, 16, 17, 1000, 100_003])
def test_an_entry_has_the_same_sigmoid_alone_and_among_others(kernels, size, dtype):
    x = (5 * np.random.default_rng(43).normal(size=size)).astype(dtype)
    for function in ("sigmoid", "log_sigmoid"):
        primitive = getattr(kernels, function)
        many = call(primitive, x)
        for i in {0, size // 2, size - 1}:
            same_bits(call(primitive, x[i : i + 1].copy()), many[i : i + 1])
        same_bits(call(primitive, x[::-1].copy()), many[::-1].copy())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 2, 3, 8, 17, 64, 1000, MANY])
def test_cross_entropy_in_place_without_gradient_and_with_unit_scale(kernels, classes, dtype):
    """The gradient may be written over the scores; asking for less changes no bit."""
    rng = np.random.default_rng([47, classes])
    rows = (3 * rng.normal(size=(23, classes))).astype(dtype)
    rows[4, 0] = np.nan
    rows[9] = -np.inf
    rows[15, -1] = np.inf
    target = rng.integers(classes, size=len(rows))
    for scale in (None, rng.choice(np.array([0, 1, 0.3], dtype), size=len(rows))):
        loss, grad = call_cross_entropy(kernels, rows, target, scale)
        bare, _ = call_cross_entropy(kernels, rows, target, scale, grad=False)
        same_bits(bare, loss)
        over, in_place = rows.copy(), np.empty_like(loss)
        kernels.cross_entropy(over, target, scale, in_place, over)
        same_bits(in_place, loss)
        same_bits(over, grad)
    plain = call_cross_entropy(kernels, rows, target)
    ones = call_cross_entropy(kernels, rows, target, np.ones(len(rows), dtype))
    same_bits(plain[0], ones[0])
    same_bits(plain[1], ones[1])


def test_an_empty_batch_is_no_work(kernels):
    for dtype in DTYPES:
        rows = np.empty((0, 5), dtype)
        for function in ("softmax", "log_softmax", "logsumexp"):
            call(getattr(kernels, function), rows)
        call_cross_entropy(kernels, rows, [])
        call(kernels.sigmoid, np.empty(0, dtype))
        call(kernels.log_sigmoid, np.empty(0, dtype))


# One digest over many cases, large enough that threads share them.
DIGEST = """
import hashlib
import itertools
import numpy as np
import softly

def answers():
    rng = np.random.default_rng(53)
    for dtype in (np.float32, np.float64):
        for shape in [(1000, 1000), (7, 100_003), (2, 1_000_000), (100_003, 3), (50_001, 17)]:
            rows = (3 * rng.standard_normal(shape, dtype=np.float32)).astype(dtype)
            rows[1, 2] = -np.inf
            target = rng.integers(shape[1], size=shape[0])
            weight = rng.uniform(size=shape[0])
            yield softly.softmax(rows, axis=1)
            yield softly.log_softmax(rows, axis=1)
            yield softly.logsumexp(rows, axis=1)
            for reduction in ("mean", "sum", "none"):
                yield from softly.cross_entropy(
                    rows, target, sample_weight=weight, reduction=reduction, return_grad=True
                )
        x = rng.normal(size=300_007).astype(dtype)
        yield softly.sigmoid(x)
        yield softly.log_sigmoid(x)
        yield softly.logit(abs(x) % 1)

digest = hashlib.sha256()
for answer in answers():
    digest.update(np.ascontiguousarray(answer).tobytes())
print(digest.hexdigest())
"""

# A process that has used the threads forks; the child must neither hang nor answer otherwise.
FORK = """
import os
import signal
import numpy as np
import softly

rows = np.random.default_rng(59).normal(size=(2000, 1000))
before = softly.softmax(rows, axis=1)
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if np.array_equal(softly.softmax(rows, axis=1), before) else 3)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
"""


def start(script, threads, kernel):
    environment = os.environ | {"SOFTLY_THREADS": str(threads), "SOFTLY_KERNELS": kernel}
    # A fork beside living threads is what is tested, not what Python thinks of it.
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(child):
    out, err = child.communicate(timeout=50)
    assert child.returncode == 0, err
    return out.strip()


def test_one_thread_and_two_give_the_same_bits(kernels):
    children = [start(DIGEST, threads, name_of(kernels)) for threads in (1, 2)]
    one, two = map(finish, children)
    assert len(one) == len(hashlib.sha256().hexdigest())
    assert one == two


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes(kernels):
    finish(start(FORK, 2, name_of(kernels)))


def test_concurrent_callers_do_not_meet(kernels):
    rng = np.random.default_rng(61)
    batches = [rng.normal(size=(300, 500)) for _ in range(4)]
    wanted = [call(kernels.softmax, rows) for rows in batches]
    wrong = []

    def work(rows, answer):
        for _ in range(10):
            if call(kernels.softmax, rows).tobytes() != answer.tobytes():
                wrong.append(rows)

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(batches, wanted, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# 9: relations --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_classes_are_the_sigmoid_of_the_difference(kernels, dtype):
    """Both are within a bound of one exact answer, so within twice the bound of each other."""
    rng = np.random.default_rng(67)
    rows = (rng.normal(size=(5000, 2)) * 10 ** rng.uniform(-3, 2, size=(5000, 1))).astype(dtype)
    difference = rows[:, 0] - rows[:, 1]
    np.testing.assert_array_max_ulp(
        call(kernels.softmax, rows)[:, 0].copy(),
        call(kernels.sigmoid, difference),
        maxulp=2 * PROBABILITY[name_of(kernels)],
    )
    np.testing.assert_array_max_ulp(
        call(kernels.log_softmax, rows)[:, 0].copy(),
        call(kernels.log_sigmoid, difference),
        maxulp=2 * LOGARITHM,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [2, 3, 16, 17, 1000])
def test_the_gradient_is_softmax_minus_target(kernels, classes, dtype):
    rng = np.random.default_rng([71, classes])
    rows = (3 * rng.normal(size=(50, classes))).astype(dtype)
    target = rng.integers(classes, size=50)
    loss, grad = call_cross_entropy(kernels, rows, target)
    eps = np.finfo(dtype).eps
    wanted = call(kernels.softmax, rows).astype(np.float64) - np.eye(classes)[target]
    np.testing.assert_allclose(grad, wanted, rtol=2 * 3 * eps, atol=eps)
    assert max(abs(math.fsum(row)) for row in grad) <= SUM * eps
    log_p = call(kernels.log_softmax, rows)[np.arange(50), target]
    np.testing.assert_array_max_ulp(loss, -log_p, maxulp=2 * LOGARITHM)


@pytest.mark.parametrize("dtype", DTYPES)
def test_centred_log_probabilities_undo_softmax(kernels, dtype):
    rng = np.random.default_rng(73)
    rows = (3 * rng.normal(size=(50, 17))).astype(dtype)
    log_p = np.log(call(kernels.softmax, rows).astype(np.float64))
    scores = rows.astype(np.float64)
    np.testing.assert_allclose(
        log_p - log_p.mean(axis=1, keepdims=True),
        scores - scores.mean(axis=1, keepdims=True),
        rtol=0,
        atol=30 * np.finfo(dtype).eps,  # differences up to some 20, each rounded
    )


def test_no_warnings_even_where_every_one_is_an_error(kernels):
    """NumPy's floating-point errors raised, not only warned of, by the caller's choice."""
    rows = np.array([[np.inf, -np.inf, 1e308], [-1e308, 1e308, 0], [-np.inf] * 3, [np.nan, 1, 2]])
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        for function in ("softmax", "log_softmax", "logsumexp"):
            call(getattr(kernels, function), rows)
        call_cross_entropy(kernels, rows, [0, 1, 2, 0], np.array([1.0, 0, 2, 1e-300]))
        for function in ("sigmoid", "log_sigmoid"):
            call(getattr(kernels, function), rows.ravel())
