"""cross_entropy: against the oracle, against PyTorch, at the edges, and its errors.

The rows of logits are softly's to compute and the oracle's to check; every other layout, type
and reduction is held to the bits of those.
"""

import math
import os
import subprocess
import sys

import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import strategies as st

import oracle
import softly
from family import inside_of_sevens
from softly.kernels import chosen as kernels

try:
    from ml_dtypes import bfloat16
except ImportError:  # its tests are left out then
    HALVES = [np.dtype(np.float16)]
else:
    HALVES = [np.dtype(np.float16), np.dtype(bfloat16)]

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
FLOATS = [*HALVES, SINGLE, DOUBLE]
each_type = pytest.mark.parametrize("dtype", FLOATS, ids=str)
KINDS = ["hard", "dense", "sparse"]
REDUCTIONS = ["mean", "sum", "none"]
INTEGERS = [*"bBhHiIlLqQ"]

LOGARITHM = 8  # ulp, as in test_contract.py
# Units in the last place of the terms added up; NumPy's own exponential is worth a few more.
TERMS = 12 if kernels.name.startswith("native") else 24

OPTIONS = {
    "nothing": {},
    "smoothing of everything": {"label_smoothing": 1.0},
    "cooler": {"temperature": 0.3},
    "uniform": {"temperature": math.inf},
    "tight cap": {"logit_cap": 0.5},
    "strong z_loss": {"z_loss": 3.0},
    "focal of a half": {"focal": 0.5},
    "focal of one": {"focal": 1.0},
    "focal of five": {"focal": 5.0},
}


def batch(count, classes, dtype=DOUBLE, seed=0):
    rng = np.random.default_rng([seed, count, classes])
    logits = (3 * rng.normal(size=(count, classes))).astype(dtype)
    return logits, rng.integers(classes, size=count), rng.uniform(0.1, 2, size=count)


def compute_type(dtype):
    return DOUBLE if dtype == DOUBLE else SINGLE


def eps_of(dtype):
    """One unit in the last place of 1, in the type that is computed in."""
    return float(np.finfo(compute_type(dtype)).eps)


def to_float(values):
    return np.array([float(v) for v in np.ravel(np.array(values, object))]).reshape(
        np.shape(values)
    )


def same_bits(actual, wanted, message=""):
    """Equal to the bit, the sign of zero aside, except that a NaN is a NaN."""
    actual, wanted = np.asarray(actual), np.asarray(wanted)
    assert actual.dtype == wanted.dtype, message
    assert actual.shape == wanted.shape, message
    equal = (actual == wanted) | (np.isnan(actual) & np.isnan(wanted))
    assert equal.all(), message


def same_answers(actual, wanted, message=""):
    """Of (value, gradient) pairs."""
    same_bits(actual[0], wanted[0], message)
    same_bits(actual[1], wanted[1], message)


# The oracle itself ----------------------------------------------------------------------------


H = oracle.mp.mpf(10) ** -14


def slope(function, row, k):
    """Central differences with 50 digits: an error of some h^2 times the third derivative."""
    mp = oracle.mp
    row = [mp.mpf(float(z)) for z in row]
    above, below = ([*row[:k], row[k] + h, *row[k + 1 :]] for h in (H, -H))
    return (function(above) - function(below)) / (2 * H)


def assert_slopes(function, row, gradient):
    for k, g in enumerate(gradient):
        assert abs(slope(function, row, k) - g) <= 1e-20 * (1 + abs(g))


@pytest.mark.parametrize("temperature", [1, 0.7, 3])
@pytest.mark.parametrize("where", [None, [True, False, True, True]])
def test_the_oracles_derivatives_are_slopes(temperature, where):
    mp, rng = oracle.mp, np.random.default_rng(1)
    row, g = rng.normal(size=4), rng.normal(size=4)
    options = {"temperature": temperature, "where": where}

    def weighted(function):
        allowed = [True] * 4 if where is None else where
        return lambda z: mp.fsum(
            float(w) * v for w, v, a in zip(g, function(z, **options), allowed, strict=True) if a
        )

    p, log_p = oracle.softmax(row, **options), oracle.log_softmax(row, **options)
    assert_slopes(weighted(oracle.softmax), row, oracle.softmax_vjp(p, g, **options))
    assert_slopes(weighted(oracle.log_softmax), row, oracle.log_softmax_vjp(log_p, g, **options))
    assert_slopes(lambda z: oracle.logsumexp(z, **options), row, [q / temperature for q in p])
    moved = [
        oracle.softmax([mp.mpf(z) + h * t for z, t in zip(row, g, strict=True)], **options)
        for h in (H, -H)
    ]
    tangent = oracle.softmax_jvp(p, g, **options)
    for above, below, exact in zip(*moved, tangent, strict=True):
        assert abs((above - below) / (2 * H) - exact) <= 1e-20
    again = oracle.softmax(oracle.softmax_inverse(p, **options), **options)
    assert all(abs(a - b) < 1e-40 for a, b in zip(p, again, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_oracles_losses_have_these_gradients(kind, reduction):
    mp = oracle.mp
    logits, *_ = batch(3, 4)
    everything = oracle.loss_options(3, 4)
    target = oracle.targets(kind, 3, 4, allowed=everything["where"])
    single = [{name: value} for name, value in everything.items()]
    for options in [{}, *single, {"focal": 0.5, "z_loss": 0.3}, everything]:

        def total(scores, options=options):
            rows = [scores[i : i + 4] for i in (0, 4, 8)]
            value, _ = oracle.cross_entropy(rows, target, reduction=reduction, **options)
            return mp.fsum(value) if reduction == "none" else value

        _, gradients = oracle.cross_entropy(logits, target, reduction=reduction, **options)
        assert_slopes(total, logits.ravel(), [g for row in gradients for g in row])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_oracles_linear_losses_have_these_gradients(reduction):
    mp, rng = oracle.mp, np.random.default_rng(2)
    arrays = [rng.normal(size=shape) for shape in [(2, 3), (4, 3), (4,)]]
    options = {**oracle.loss_options(2, 4), "reduction": reduction}
    target = oracle.targets("hard", 2, 4, allowed=options["where"])

    def total(numbers):
        features, weight, bias = numbers[:6], numbers[6:18], numbers[18:]
        features = [features[i : i + 3] for i in range(0, 6, 3)]
        weight = [weight[i : i + 3] for i in range(0, 12, 3)]
        value = oracle.linear_cross_entropy(features, weight, target, bias, **options)[0]
        return mp.fsum(value) if reduction == "none" else value

    features, weight, bias = arrays
    _, *gradients = oracle.linear_cross_entropy(features, weight, target, bias, **options)
    flat = np.concatenate([np.ravel(a) for a in arrays])
    assert_slopes(total, flat, [g for a in gradients for g in np.ravel(np.array(a, object))])


# Values ---------------------------------------------------------------------------------------


def bounds(parts, logits, options):
    """How far a row's loss and its gradient may be from the exact ones: units of what is added.

    z'' - max is rounded, so each log p_j is off by a unit of the largest difference.
    """
    eps, gamma = TERMS * eps_of(logits.dtype), options.get("focal", 0)
    z_loss, cap = options.get("z_loss", 0), options.get("logit_cap") or math.inf
    temperature = np.broadcast_to(options.get("temperature", 1), len(parts))
    loss, grad = np.zeros((2, len(parts)))
    for i, part in enumerate(parts):
        scores = np.nan_to_num(logits[i].astype(np.float64), posinf=0, neginf=0)
        reach = 1 + min(abs(scores).max(), cap) / temperature[i]
        weight, wanted = float(part.sample_weight), float(sum(part.wanted))
        level = 1 + abs(float(part.logsumexp))
        level = level if math.isfinite(level) else 0
        loss[i] = weight * (wanted * (1 + gamma) * reach + z_loss * level * (level + reach))
        grad[i] = weight * reach * (wanted * (1 + gamma) ** 2 + 2 * z_loss * level)
        grad[i] *= 1 + 1 / temperature[i]
    return eps * loss, eps * grad


def assert_close(actual, wanted, bound, dtype):
    """Within the bound, and what rounding once to a half type adds; the same where not finite."""
    actual, wanted = np.asarray(actual).astype(np.float64), to_float(wanted)
    assert actual.shape == wanted.shape
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(actual[~finite], wanted[~finite])
    if dtype in HALVES:
        info = oracle.finfo(dtype)
        smallest = float(info.smallest_subnormal)
        bound = bound + 0.51 * np.maximum(float(info.eps) * abs(wanted), smallest)
    bound = np.broadcast_to(bound, wanted.shape)[finite]
    error = abs(actual[finite] - wanted[finite])
    assert (error <= bound).all(), (actual, wanted, error, bound)


def assert_agrees(logits, target, **options):
    """Value and gradient of every reduction are the oracle's."""
    dtype = logits.dtype
    parts = oracle.loss_rows(logits, target, **options)
    hard = oracle.is_hard(target)
    loss_bound, grad_bound = bounds(parts, logits, options)
    dead = np.array([part.dead for part in parts])
    for reduction in REDUCTIONS:
        over = 1.0
        if reduction == "mean":
            over = float(sum(p.sample_weight * (p.class_weight if hard else 1) for p in parts))
            if over == 0 and not dead.all():
                continue  # smoothing alone gives a loss, divided by nothing
            over = min(over, float(sum(part.sample_weight for part in parts))) or 1.0
        wanted, wanted_grad = oracle.reduced(parts, hard, reduction)
        value, grad = softly.cross_entropy(
            logits, target, **options, reduction=reduction, return_grad=True
        )
        if reduction == "none":
            assert value.dtype == dtype
            assert_close(value, wanted, loss_bound, dtype)
            assert (value[dead] == 0).all()
        else:
            assert isinstance(value, float)
            # Losses of any size: infinite ones have no bound of their own.
            total = (loss_bound.sum() + eps_of(dtype) * abs(float(wanted) * over)) / over
            assert_close(value, wanted, total, DOUBLE)
        assert grad.dtype == dtype
        assert (grad[dead] == 0).all()
        lost = np.array([oracle.mp.isnan(part.entropy) for part in parts])  # then nothing else
        allowed = np.broadcast_to(True if (m := options.get("where")) is None else m, grad.shape)
        asked = ~lost[:, None] | allowed
        bound = np.broadcast_to(grad_bound[:, None] / over, grad.shape)
        assert_close(grad[asked], to_float(wanted_grad)[asked], bound[asked], dtype)


@each_type
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*OPTIONS, *oracle.loss_options(1, 1)])
def test_each_option_agrees_with_the_oracle(name, kind, dtype):
    for count, classes in [(5, 7), (2, 33)]:
        logits, *_ = batch(count, classes, dtype)
        options = OPTIONS.get(name)
        if options is None:
            options = {name: oracle.loss_options(count, classes)[name]}
        target = oracle.targets(kind, count, classes, dtype, allowed=options.get("where"))
        assert_agrees(logits, target, **options)


@each_type
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [1, 2, 3, 7, 48, 49, 100, 1000])
def test_all_options_at_once_agree_with_the_oracle(classes, kind, dtype):
    count = 1 if classes > 100 else 4
    logits, *_ = batch(count, classes, dtype)
    options = oracle.loss_options(count, classes)
    target = oracle.targets(kind, count, classes, dtype, allowed=options["where"])
    assert_agrees(logits, target, **options)
    assert_agrees(logits, oracle.targets(kind, count, classes, dtype))


@st.composite
def situations(draw):
    """(logits, target, options): any of them, ignored and masked and infinite entries too."""
    dtype, kind = draw(st.sampled_from(FLOATS)), draw(st.sampled_from(KINDS))
    count, classes = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    shape = (count, classes)

    def array(shape, elements):
        return draw(hnp.arrays(np.float64, shape, elements=elements))

    def maybe(values):
        return draw(st.none() | values)

    amount = st.sampled_from([0, 0.25, 0.5, 1, 2.5])
    options = {
        "class_weight": array(classes, amount) if draw(st.booleans()) else None,
        "sample_weight": array(count, amount) if draw(st.booleans()) else None,
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0])),
        "z_loss": draw(st.sampled_from([0.0, 1e-4, 0.5])),
        "logit_cap": maybe(st.sampled_from([2.0, 30.0])),
        "temperature": draw(
            st.sampled_from([1.0, 0.5, 4.0, math.inf])
            | hnp.arrays(np.float64, count, elements=st.sampled_from([0.75, 1, 2, math.inf]))
        ),
        "where": maybe(hnp.arrays(bool, shape)),
        "focal": draw(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.7])),
        "ignore_index": draw(st.sampled_from([-100, 0, 255])),
    }
    if options["where"] is not None:
        options["where"][~options["where"].any(axis=1), draw(st.integers(0, classes - 1))] = True

    logits = array(shape, st.floats(-20, 20, width=16)).astype(dtype)
    if options["logit_cap"] is None:
        logits[
            draw(hnp.arrays(bool, shape, elements=st.sampled_from([False] * 7 + [True])))
        ] = -np.inf
        if options["z_loss"] == 0:
            rare = st.sampled_from([False] * 15 + [True])
            logits[draw(hnp.arrays(bool, shape, elements=rare))] = np.inf
            logits[draw(hnp.arrays(bool, shape, elements=rare))] = np.nan

    if kind == "hard":
        of = st.integers(0, classes - 1) | st.just(options["ignore_index"])
        target = draw(hnp.arrays(np.int64, count, elements=of))
        return logits, target, options
    share_type = draw(st.sampled_from([dtype, DOUBLE, SINGLE]))
    if kind == "dense":
        shares = array(shape, amount)
        shares[shares.sum(axis=1) == 0, draw(st.integers(0, classes - 1))] = 1
        return logits, (shares / shares.sum(axis=1, keepdims=True)).astype(share_type), options
    m = draw(st.integers(1, 4))
    indices = draw(hnp.arrays(np.int64, (count, m), elements=st.integers(0, classes - 1)))
    shares = array((count, m), amount)
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1)
    return logits, (indices, shares.astype(share_type)), options


@hypothesis.given(situations())
@hypothesis.settings(max_examples=300)
def test_any_options_together_agree_with_the_oracle(situation):
    logits, target, options = situation
    dead = [part.dead for part in oracle.loss_rows(logits, target, **options)]
    logits[dead, ::2] = np.nan  # whatever a dead row holds
    assert_agrees(logits, target, **options)


@pytest.mark.parametrize("kind", KINDS)
@each_type
def test_the_gradient_is_there_only_when_asked_and_changes_no_value(kind, dtype):
    logits, *_ = batch(33, 17, dtype)
    options = oracle.loss_options(33, 17)
    target = oracle.targets(kind, 33, 17, dtype, allowed=options["where"])
    for reduction in REDUCTIONS:
        for kwargs in ({}, options):
            value = softly.cross_entropy(logits, target, **kwargs, reduction=reduction)
            with_grad, _ = softly.cross_entropy(
                logits, target, **kwargs, reduction=reduction, return_grad=True
            )
            np.testing.assert_array_equal(value, with_grad)
            assert np.shape(value) == ((33,) if reduction == "none" else ())


def test_defaults_are_the_mean_without_gradient():
    logits, target, _ = batch(9, 4)
    losses = softly.cross_entropy(logits, target, reduction="none")
    value = softly.cross_entropy(logits, target)
    assert isinstance(value, float)
    assert value == softly.cross_entropy(logits, target, reduction="mean")
    assert value == pytest.approx(math.fsum(losses) / 9, rel=1e-15)
    assert softly.cross_entropy(logits, target, reduction="sum") == pytest.approx(
        math.fsum(losses), rel=1e-15
    )
    neutral = {
        "axis": -1,
        "class_weight": None,
        "sample_weight": None,
        "ignore_index": -100,
        "label_smoothing": 0.0,
        "z_loss": 0.0,
        "logit_cap": None,
        "temperature": 1.0,
        "where": None,
        "focal": 0.0,
        "reduction": "mean",
        "empty": "nan",
        "return_grad": False,
        "grad_out": None,
    }
    assert softly.cross_entropy(logits, target, **neutral) == value


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("focal", [0, 0.5, 1, 2])
def test_near_certainty_keeps_relative_accuracy(focal, kind, dtype):
    """-log p down to 1e-17, and (1 - p)^gamma of it."""
    for lead in (5, 12, 20, 40):
        logits = np.zeros((2, 10), dtype)
        logits[:, 3] = lead
        target = {
            "hard": np.array([3, 3]),
            "dense": np.eye(10, dtype=dtype)[[3, 3]],
            "sparse": (np.array([[3], [3]]), np.ones((2, 1), dtype)),
        }[kind]
        value, grad = softly.cross_entropy(logits, target, focal=focal, return_grad=True)
        wanted, gradients = oracle.cross_entropy(logits, target, reduction="mean", focal=focal)
        # A power is exp(gamma log(1 - p)), whose exponent is rounded: a unit of gamma * lead.
        limit = LOGARITHM * (1 + focal) + focal * lead
        assert oracle.ulps(value, wanted, dtype) <= limit, lead
        if kind == "hard":
            worst = oracle.worst_ulps(grad, [g for row in gradients for g in row], dtype)
            assert worst <= limit + 2 * LOGARITHM * (focal > 0), lead


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE], ids=str)
def test_a_mean_of_many_equal_losses_is_that_loss(dtype):
    """A sum in float32, one by one, would be wrong in the fourth digit."""
    losses = softly.cross_entropy(np.zeros((1, 10), dtype), [3], reduction="none")
    value = softly.cross_entropy(np.zeros((300_000, 10), dtype), np.full(300_000, 3))
    assert abs(value - float(losses[0])) <= 2 * np.finfo(dtype).eps * value


def test_a_half_sum_does_not_overflow():
    """100,000 losses of some 2.3: the sum is past float16's 65504, the mean is not."""
    logits, target = np.zeros((100_000, 10), np.float16), np.zeros(100_000, int)
    value, grad = softly.cross_entropy(logits, target, return_grad=True)
    assert value == pytest.approx(math.log(10), rel=1e-6)
    # 1e-5 / 10 and 1e-5 * 0.9 are subnormal in float16
    np.testing.assert_allclose(grad[:, 1:], 1e-6, rtol=0, atol=float(np.finfo(np.float16).tiny))
    total = softly.cross_entropy(logits, target, reduction="sum")
    assert total == pytest.approx(100_000 * math.log(10), rel=1e-6)


# Targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", INTEGERS)
def test_any_integer_target(dtype):
    logits, target, _ = batch(20, 7)
    kwargs = {"reduction": "none", "return_grad": True, "label_smoothing": 0.1}
    wanted = softly.cross_entropy(logits, target, **kwargs)
    for order in "=<>":
        index = target.astype(np.dtype(dtype).newbyteorder(order))
        same_answers(softly.cross_entropy(logits, index, **kwargs), wanted)
        same_answers(softly.cross_entropy(logits, np.repeat(index, 2)[::2], **kwargs), wanted)
    shares = np.full((20, 1), 0.75)
    kwargs["class_weight"] = np.arange(7.0)
    same_answers(
        softly.cross_entropy(logits, (target[:, None].astype(dtype), shares), **kwargs),
        softly.cross_entropy(logits, (target[:, None], shares), **kwargs),
    )


def test_lists_and_integer_logits():
    value, grad = softly.cross_entropy([[0, 1, 2], [3, 0, 0]], [2, 0], return_grad=True)
    assert grad.dtype == np.float64
    logits = np.array([[0.0, 1, 2], [3, 0, 0]])
    assert value == softly.cross_entropy(logits, np.array([2, 0]))
    one_hot = [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    assert softly.cross_entropy(logits, one_hot) == pytest.approx(value, rel=1e-14)
    sparse = ([[2, 1], [0, 1]], [[1.0, 0.0], [1.0, 0.0]])
    assert softly.cross_entropy(logits, sparse) == pytest.approx(value, rel=1e-14)
    weights = {"class_weight": [1, 2, 1], "sample_weight": [0.5, 2]}
    assert math.isfinite(softly.cross_entropy(logits, [2, 0], **weights, where=[True, False, True]))


@each_type
def test_one_hot_and_a_list_of_one_are_the_class(dtype):
    """Three ways to say the same; each is within its bound of one exact answer."""
    logits, target, _ = batch(20, 7, dtype)
    eps = 16 * eps_of(dtype)
    options = oracle.loss_options(20, 7)
    options["where"][np.arange(20), target] = True
    for kwargs in ({}, options):
        kwargs = {**kwargs, "reduction": "sum", "return_grad": True}
        value, grad = softly.cross_entropy(logits, target, **kwargs)
        one_hot = np.eye(7, dtype=dtype)[target]
        listed = (target[:, None], np.ones((20, 1), dtype))
        for same in (one_hot, listed):
            again, again_grad = softly.cross_entropy(logits, same, **kwargs)
            assert again == pytest.approx(value, rel=eps)
            rtol = max(eps, float(oracle.finfo(dtype).eps))
            np.testing.assert_allclose(again_grad.astype(float), grad.astype(float), rtol, eps)


@each_type
@pytest.mark.parametrize("share_type", FLOATS, ids=str)
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_shares_of_any_type_mean_the_numbers_they_are(kind, share_type, dtype):
    logits, *_ = batch(6, 9, dtype)
    target = oracle.targets(kind, 6, 9, share_type)
    assert_agrees(logits, target, label_smoothing=0.1)


def test_sparse_targets_add_up_and_may_be_incomplete():
    logits, *_ = batch(3, 6)
    indices = np.array([[1, 1, 4], [0, 2, 5], [3, 3, 3]])
    shares = np.array([[0.25, 0.5, 0.25], [0.5, 0, 0.25], [0.25, 0.25, 0.25]])
    dense = np.zeros((3, 6))
    np.add.at(dense, (np.arange(3)[:, None], indices), shares)
    dense[1, 1], dense[2, 1] = 0.25, 0.25  # the missing share, to a class
    kwargs = {"reduction": "none", "return_grad": True}
    losses, grad = softly.cross_entropy(logits, (indices, shares), **kwargs)
    whole, whole_grad = softly.cross_entropy(logits, dense, **kwargs)
    log_p = softly.log_softmax(logits, axis=1)
    missing = np.array([0, 0.25, 0.25])
    np.testing.assert_allclose(losses, whole + missing * log_p[:, 1], rtol=1e-13)
    wanted = whole_grad - missing[:, None] * (np.exp(log_p) - np.eye(6)[1])
    np.testing.assert_allclose(grad, wanted, rtol=1e-13, atol=1e-15)


def test_a_pair_of_vectors_is_the_sparse_target_of_one_row():
    logits = np.array([0.5, 1.5, -1.0])
    value, grad = softly.cross_entropy(
        logits, (np.array([0, 1]), np.array([0.25, 0.75])), return_grad=True
    )
    wanted, wanted_grad = softly.cross_entropy(logits, [0.25, 0.75, 0.0], return_grad=True)
    assert value == pytest.approx(wanted, rel=1e-14)
    np.testing.assert_allclose(grad, wanted_grad, rtol=1e-14)


# Shapes, axes and layouts ---------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (6,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_any_leading_shape(reduction, kind, shape):
    count = math.prod(shape)
    logits, *_ = batch(count, 5)
    options = oracle.loss_options(count, 5)
    target = oracle.targets(kind, count, 5, allowed=options["where"])
    kwargs = {"reduction": reduction, "return_grad": True}
    flat, flat_grad = softly.cross_entropy(logits, target, **options, **kwargs)
    shaped = {
        name: options[name].reshape((*shape, *options[name].shape[1:]))
        for name in ("sample_weight", "temperature", "where")
    }
    parts = target if isinstance(target, tuple) else (target,)
    parts = tuple(part.reshape((*shape, *part.shape[1:])) for part in parts)
    value, grad = softly.cross_entropy(
        logits.reshape(*shape, 5),
        parts if isinstance(target, tuple) else parts[0],
        **{**options, **shaped},
        **kwargs,
    )
    assert np.shape(value) == (shape if reduction == "none" else ())
    np.testing.assert_array_equal(np.ravel(value), np.ravel(flat))
    assert grad.shape == (*shape, 5)
    same_bits(grad.reshape(-1, 5), flat_grad)


def with_axis(array, axis):
    """The same numbers with the last axis moved, contiguous in memory as they then are."""
    return np.ascontiguousarray(np.moveaxis(array, -1, axis))


@each_type
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [1, 2, 3, 7, 48, 49, 100])
def test_any_axis_gives_the_same_bits(classes, kind, dtype):
    logits, *_ = batch(20, classes, dtype)
    options = oracle.loss_options(20, classes)
    target = oracle.targets(kind, 20, classes, dtype, allowed=options["where"])
    rows = (4, 5)

    def shaped(array):
        return array.reshape(*rows, *array.shape[1:])

    logits = shaped(logits)
    target = tuple(map(shaped, target)) if kind == "sparse" else shaped(target)
    for name in ("sample_weight", "temperature", "where"):
        options[name] = shaped(options[name])
    for kwargs in ({}, options):
        kwargs = {**kwargs, "reduction": "none", "return_grad": True}
        loss, grad = softly.cross_entropy(logits, target, **kwargs)
        for axis in (0, 1, -2, 2, -3):
            moved = dict(kwargs)
            if "where" in moved:
                moved["where"] = with_axis(moved["where"], axis)
            same = with_axis(target, axis) if kind == "dense" else target
            for scores in (with_axis(logits, axis), np.moveaxis(logits, -1, axis)):
                got = softly.cross_entropy(scores, same, axis=axis, **moved)
                same_answers(got, (loss, np.moveaxis(grad, -1, axis)), (axis, scores.strides))
            if "temperature" in moved:
                moved["temperature"] = np.expand_dims(moved["temperature"], axis)
                got = softly.cross_entropy(with_axis(logits, axis), same, axis=axis, **moved)
                same_answers(got, (loss, np.moveaxis(grad, -1, axis)), axis)


def layouts(logits):
    """The same numbers, differently laid out in memory."""
    yield "Fortran", np.asfortranarray(logits)
    wide = np.full((2 * logits.shape[0], 3 * logits.shape[1]), np.nan, logits.dtype)
    wide[::2, ::3] = logits
    yield "strided", wide[::2, ::3]
    yield "rows apart", np.concatenate([logits, logits], axis=1)[:, : logits.shape[1]]
    yield "reversed", np.flip(np.flip(logits).copy())
    yield "classes reversed", np.flip(np.flip(logits, axis=1).copy(), axis=1)
    yield "rows reversed", np.flip(np.flip(logits, axis=0).copy(), axis=0)
    frozen = logits.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen
    shifted = np.frombuffer(b"?" + logits.tobytes(), np.uint8)[1:].view(logits.dtype)
    yield "unaligned", shifted.reshape(logits.shape)
    if logits.dtype.kind == "f":  # ml_dtypes' bfloat16 has one byte order only
        yield "other byte order", logits.astype(logits.dtype.newbyteorder())


@each_type
@pytest.mark.parametrize("kind", KINDS)
def test_any_layout_gives_the_same_bits_and_is_left_alone(kind, dtype):
    for count, classes in [(12, 9), (3, 70)]:
        logits, *_ = batch(count, classes, dtype)
        options = oracle.loss_options(count, classes)
        target = oracle.targets(kind, count, classes, dtype, allowed=options["where"])
        kwargs = {"reduction": "none", "return_grad": True}
        for given in (kwargs, kwargs | options):
            wanted = softly.cross_entropy(logits, target, **given)
            for name, same in layouts(logits):
                got = softly.cross_entropy(same, target, **given)
                same_bits(got[0], wanted[0], name)
                same_bits(got[1], wanted[1], name)
                assert got[1].dtype == dtype, name
                np.testing.assert_array_equal(same, logits, f"{name}: the input was written to")
                assert not np.shares_memory(got[1], same), name


@each_type
@pytest.mark.parametrize("kind", KINDS)
def test_wherever_in_a_line_of_memory_a_row_begins(kind, dtype):
    """Rows are walked from the start of a line; the gradient of the one before is written then."""
    smoothed = {"label_smoothing": 0.1, "z_loss": 0.01}
    for count, classes in [(4, 49), (5, 64), (4, 70)]:
        logits, *_ = batch(count, classes, dtype)
        every = oracle.loss_options(count, classes)
        target = oracle.targets(kind, count, classes, dtype, allowed=every["where"])
        for options in ({}, smoothed, {"class_weight": every["class_weight"]}, every):
            wanted = softly.cross_entropy(logits, target, **options, return_grad=True)
            for begin, end in [(1, 1), (3, 14), (8, 0), (15, 15)]:
                moved = inside_of_sevens(logits, begin)[1]
                whole, grad = inside_of_sevens(logits, end)
                named = f"{sorted(options)}: begins at {begin}, gradient at {end}"
                value, _ = softly.cross_entropy(moved, target, **options, grad_out=grad)
                same_bits(np.asarray(value), np.asarray(wanted[0]), named)
                same_bits(grad, wanted[1], named)
                grad[...] = 7
                assert (whole == 7).all(), f"{named}: written beside the gradient"
                softly.cross_entropy(moved, target, **options, grad_out=moved)
                same_bits(moved, wanted[1], f"{named}, in place")


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_any_layout_of_targets_weights_and_masks(kind):
    logits, *_ = batch(6, 9, SINGLE)
    options = oracle.loss_options(6, 9)
    target = oracle.targets(kind, 6, 9, SINGLE, allowed=options["where"])
    kwargs = {"reduction": "none", "return_grad": True}
    wanted = softly.cross_entropy(logits, target, **options, **kwargs)
    parts = target if isinstance(target, tuple) else (target,)
    every = [*parts, *(v for v in options.values() if isinstance(v, np.ndarray))]
    names = [name for name, value in options.items() if isinstance(value, np.ndarray)]

    def strided(array):
        wide = np.repeat(array, 2, axis=-1)
        return wide[..., ::2]

    def reversed_(array):
        return np.flip(np.flip(array).copy())

    for change in (strided, reversed_, np.asfortranarray):
        changed = [change(array) for array in every]
        before = [array.copy() for array in changed]
        same = tuple(changed[: len(parts)]) if kind == "sparse" else changed[0]
        given = {**options, **dict(zip(names, changed[len(parts) :], strict=True))}
        same_answers(softly.cross_entropy(logits, same, **given, **kwargs), wanted)
        for now, then in zip(changed, before, strict=True):
            np.testing.assert_array_equal(now, then)


def test_a_mask_is_broadcast():
    logits, *_ = batch(6, 5)
    one, column = np.array([True, False, True, True, False]), np.ones((6, 1), bool)
    for mask in (one, one[None], column, np.array(True)):
        full = np.broadcast_to(mask, (6, 5))
        target = oracle.targets("hard", 6, 5, allowed=full)
        kwargs = {"reduction": "none", "return_grad": True, "label_smoothing": 0.2}
        same_answers(
            softly.cross_entropy(logits, target, where=mask, **kwargs),
            softly.cross_entropy(logits, target, where=full.copy(), **kwargs),
        )


def test_broadcast_logits_and_targets():
    """Strides of zero."""
    row, shares = batch(1, 5)[0], oracle.targets("dense", 1, 5)
    logits, target = np.broadcast_to(row, (4, 5)), np.broadcast_to(shares, (4, 5))
    kwargs = {"reduction": "none", "return_grad": True}
    same_answers(
        softly.cross_entropy(logits, target, **kwargs),
        softly.cross_entropy(logits.copy(), target.copy(), **kwargs),
    )
    index = np.broadcast_to(np.array(2), 4)
    same_answers(
        softly.cross_entropy(logits, index, **kwargs),
        softly.cross_entropy(logits.copy(), index.copy(), **kwargs),
    )


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_half_is_computed_in_single_and_rounded_once(kind, dtype):
    for count, classes in [(40, 33), (300, 3), (2, 1000)]:
        logits, *_ = batch(count, classes, dtype)
        options = oracle.loss_options(count, classes)
        target = oracle.targets(kind, count, classes, SINGLE, allowed=options["where"])
        for given in ({}, options):
            for reduction in REDUCTIONS:
                kwargs = {**given, "reduction": reduction, "return_grad": True}
                value, half = softly.cross_entropy(logits, target, **kwargs)
                wanted, single = softly.cross_entropy(logits.astype(SINGLE), target, **kwargs)
                same_bits(half, single.astype(dtype))
                if reduction == "none":
                    same_bits(value, wanted.astype(dtype))
                else:
                    assert value == wanted


# A buffer for the gradient --------------------------------------------------------------------


@each_type
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [0, 1])
def test_the_gradient_in_a_buffer_of_the_callers(axis, kind, dtype):
    """Fresh, strided, reversed, or the logits themselves; NaN in it is overwritten everywhere."""
    for count, classes in [(9, 3), (4, 49), (3, 1000)]:
        logits, *_ = batch(count, classes, dtype)
        options = oracle.loss_options(count, classes)
        options["sample_weight"][1] = 0
        target = oracle.targets(kind, count, classes, dtype, allowed=options["where"])
        logits = np.ascontiguousarray(np.moveaxis(logits, -1, axis))
        options["where"] = np.moveaxis(options["where"], -1, axis)
        target = np.moveaxis(target, -1, axis) if kind == "dense" else target
        for given in ({}, options):
            given = {**given, "axis": axis, "reduction": "sum"}
            wanted = softly.cross_entropy(logits, target, **given, return_grad=True)
            buffers = {name: same for name, same in layouts(logits) if same.flags.writeable}
            buffers.pop("other byte order", None)
            for name, buffer in buffers.items():
                buffer[...] = np.nan
                got = softly.cross_entropy(logits, target, **given, grad_out=buffer)
                assert got[1] is buffer, name
                same_answers(got, wanted, name)
                buffer[...] = logits  # and now in place
                got = softly.cross_entropy(
                    buffer, target, **given, grad_out=buffer, return_grad=True
                )
                assert got[1] is buffer, name
                same_answers(got, wanted, f"{name}, in place")


def test_nothing_beside_a_strided_buffer_is_written():
    logits, target, _ = batch(6, 5)
    wide = np.full((12, 15), 7.0)
    wide[::2, ::3] = logits
    _, grad = softly.cross_entropy(logits, target, return_grad=True)
    softly.cross_entropy(wide[::2, ::3], target, grad_out=(inside := wide[::2, ::3]))
    same_bits(inside, grad)
    inside[...] = 7
    assert (wide == 7).all()


# Same bits ------------------------------------------------------------------------------------


@each_type
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [1, 2, 3, 7, 48, 49, 100, 1000])
def test_a_row_has_the_same_bits_alone_and_in_a_batch(classes, kind, dtype):
    logits, *_ = batch(23, classes, dtype)
    options = oracle.loss_options(23, classes)
    logits[4, 0], logits[9], logits[15, -1] = np.nan, -np.inf, np.inf
    target = oracle.targets(kind, 23, classes, dtype, allowed=options["where"])
    by_row = ("sample_weight", "temperature", "where")

    def some(rows, given):
        part = tuple(p[rows] for p in target) if kind == "sparse" else target[rows]
        cut = {name: value[rows] if name in by_row else value for name, value in given.items()}
        return softly.cross_entropy(
            logits[rows].copy(), part, **cut, reduction="none", return_grad=True
        )

    plain = {name: value for name, value in options.items() if name != "z_loss"}
    for given in ({}, plain, options):
        losses, grad = some(slice(None), given)
        for i in range(23):
            one = slice(i, i + 1)
            same_answers(some(one, given), (losses[one], grad[one]), i)
        turn = np.random.default_rng(3).permutation(23)
        same_answers(some(turn, given), (losses[turn], grad[turn]))


def test_a_large_batch_has_the_bits_of_its_rows():
    """More than the caches hold: answers may be written past them."""
    logits, *_ = batch(1200, 2048, SINGLE)
    options = oracle.loss_options(1200, 2048)
    target = oracle.targets("hard", 1200, 2048, allowed=options["where"])
    for given in ({}, options):
        kwargs = {"reduction": "none", "return_grad": True}
        losses, grad = softly.cross_entropy(logits, target, **given, **kwargs)
        for i in (0, 1, 599, 1199):
            one = slice(i, i + 1)
            cut = {
                name: value[one] if np.shape(value)[:1] == (1200,) else value
                for name, value in given.items()
            }
            got = softly.cross_entropy(logits[one], target[one], **cut, **kwargs)
            same_answers(got, (losses[one], grad[one]), i)
        over = logits.copy()
        got = softly.cross_entropy(over, target, **given, reduction="none", grad_out=over)
        same_answers(got, (losses, grad))


# One digest over many cases, large enough that threads share them.
DIGEST = """
import hashlib
import sys
import numpy as np
import softly
sys.path.insert(0, sys.argv[1])
import oracle

digest = hashlib.sha256()
for count, classes in [(20_001, 3), (3001, 49), (301, 1000), (2, 100_003)]:
    options = oracle.loss_options(count, classes)
    scores = 3 * np.random.default_rng(0).standard_normal((count, classes), dtype=np.float32)
    for kind in ("hard", "dense", "sparse"):
        target = oracle.targets(kind, count, classes, np.float32, allowed=options["where"])
        for dtype in (np.float16, np.float32, np.float64):
            logits = scores.astype(dtype)
            for given in ({}, options):
                value, grad = softly.cross_entropy(logits, target, **given, return_grad=True)
                digest.update(np.float64(value).tobytes() + grad.tobytes())
        columns = np.asfortranarray(scores).T
        given = options | {"where": options["where"].T, "axis": 0, "reduction": "none"}
        target = target.T if kind == "dense" else target
        losses, grad = softly.cross_entropy(columns, target, **given, return_grad=True)
        digest.update(losses.tobytes() + np.ascontiguousarray(grad).tobytes())
print(digest.hexdigest())
"""


def test_one_thread_and_two_give_the_same_bits():
    children = [
        subprocess.Popen(
            [sys.executable, "-c", DIGEST, os.path.dirname(oracle.__file__)],
            env={**os.environ, "SOFTLY_THREADS": str(threads)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for threads in (1, 2)
    ]
    answers = [child.communicate(timeout=60) for child in children]
    assert [child.returncode for child in children] == [0, 0], answers
    assert answers[0] == answers[1]


# Infinities, weights and empty batches --------------------------------------------------------


def test_impossible_and_infinite_scores():
    inf = np.inf
    logits = np.array(
        [[-inf, 0, 0], [0, -inf, 0], [inf, inf, 0], [inf, inf, 0], [-inf] * 3, [inf, -inf, 1]]
    )
    target = [0, 0, 1, 2, 0, 0]
    losses, grad = softly.cross_entropy(logits, target, reduction="none", return_grad=True)
    np.testing.assert_allclose(losses, [inf, math.log(2), math.log(2), inf, np.nan, 0], rtol=1e-15)
    wanted = [
        [-1, 0.5, 0.5],
        [-0.5, 0, 0.5],
        [0.5, -0.5, 0],
        [0.5, 0.5, -1],
        [np.nan] * 3,
        [0, 0, 0],
    ]
    np.testing.assert_allclose(grad, wanted, rtol=1e-15)
    assert softly.cross_entropy(logits[:4], target[:4]) == inf
    assert softly.cross_entropy(logits[:4], target[:4], reduction="sum") == inf
    assert math.isnan(softly.cross_entropy(logits, target))


@each_type
@pytest.mark.parametrize("focal", [0, 2])
def test_smoothing_onto_an_impossible_class_is_the_limit(focal, dtype):
    """The loss is infinite, the gradient -a_j there; never NaN."""
    logits = np.array([[1, -np.inf, 2, 0], [-np.inf, 3, -np.inf, -np.inf]]).astype(dtype)
    kwargs = {"label_smoothing": 0.25, "focal": focal, "return_grad": True}
    for target in (np.array([2, 1]), np.eye(4, dtype=dtype)[[2, 1]]):
        losses, grad = softly.cross_entropy(logits, target, reduction="none", **kwargs)
        assert (losses == np.inf).all()
        assert np.isfinite(grad).all()
        np.testing.assert_array_equal(grad[np.isinf(logits)], np.full(4, -0.25 / 4, dtype))
        for reduction in ("mean", "sum"):
            assert softly.cross_entropy(logits, target, reduction=reduction, **kwargs)[0] == np.inf
        # Where it is no class at all, nothing is lost.
        where = np.isfinite(logits)
        losses, grad = softly.cross_entropy(logits, target, where=where, reduction="none", **kwargs)
        assert np.isfinite(losses).all()
        assert (grad[~where] == 0).all()
    weight = np.array([1, 0, 1, 1.0])  # what smoothing wants of a class of weight 0 is nothing
    losses = softly.cross_entropy(
        logits[:1], [2], class_weight=weight, label_smoothing=0.25, reduction="none"
    )
    assert np.isfinite(losses).all()


@each_type
@pytest.mark.parametrize("focal", [0, 0.5, 2])
def test_a_share_of_zero_on_an_impossible_class_counts_for_nothing(focal, dtype):
    logits = np.array([[1, -np.inf, 2, 0]]).astype(dtype)
    dense = np.array([[0.5, 0, 0.5, 0]]).astype(dtype)
    sparse = (np.array([[0, 1, 2]]), np.array([[0.5, 0, 0.5]]).astype(dtype))
    kwargs = {"focal": focal, "return_grad": True}
    wanted, wanted_grad = softly.cross_entropy(logits[:, [0, 2, 3]], dense[:, [0, 2, 3]], **kwargs)
    assert np.isfinite(wanted)
    for target in (dense, sparse):
        value, grad = softly.cross_entropy(logits, target, **kwargs)
        assert value == pytest.approx(wanted, rel=8 * eps_of(dtype))
        assert grad[0, 1] == 0
        rtol = float(oracle.finfo(dtype).eps)
        np.testing.assert_allclose(
            grad[0, [0, 2, 3]].astype(float), wanted_grad[0].astype(float), rtol=8 * rtol
        )
    one_hot = np.eye(4, dtype=dtype)[[1]]
    losses, grad = softly.cross_entropy(logits, one_hot, reduction="none", return_grad=True)
    assert losses[0] == np.inf
    assert grad[0, 1] == -1


@each_type
def test_classes_that_are_not_allowed_are_not_there(dtype):
    """Whatever they hold, NaN too: value and gradient are those of the classes left."""
    rng = np.random.default_rng(5)
    for classes in (2, 7, 49, 300):
        logits, *_ = batch(4, classes, dtype)
        keep = rng.random(classes) < 0.6
        keep[rng.integers(classes)] = True
        target = np.flatnonzero(keep)[rng.integers(keep.sum(), size=4)]
        options = {"label_smoothing": 0.1, "z_loss": 0.1, "focal": 1.5, "return_grad": True}
        few = np.cumsum(keep) - 1
        wanted, wanted_grad = softly.cross_entropy(logits[:, keep], few[target], **options)
        for rubbish in (np.nan, np.inf, -np.inf, 1e4):
            spoilt = np.where(keep, logits, dtype.type(rubbish))
            value, grad = softly.cross_entropy(spoilt, target, where=keep, **options)
            assert value == pytest.approx(wanted, rel=32 * eps_of(dtype))
            assert (grad[:, ~keep] == 0).all()
            assert_close(grad[:, keep], wanted_grad, 64 * eps_of(dtype), dtype)
            capped = softly.cross_entropy(
                spoilt, target, where=keep, logit_cap=5.0, temperature=0.5, return_grad=True
            )
            assert np.isfinite(capped[0])
            assert np.isfinite(capped[1]).all()
            assert (capped[1][:, ~keep] == 0).all()


@each_type
def test_a_target_that_is_not_allowed_is_infinitely_wrong(dtype):
    logits = np.log(np.array([[1, 2, 1, 4]])).astype(dtype)
    where = np.array([True, True, True, False])
    dense = np.array([[0, 0, 0.25, 0.75]]).astype(dtype)
    for target, weight in (([3], 1), (dense, 0.75), (([[3, 2]], dense[:, [3, 2]]), 0.75)):
        losses, grad = softly.cross_entropy(
            logits, target, where=where, reduction="none", return_grad=True
        )
        assert losses[0] == np.inf
        wanted = np.array([0.25, 0.5, 0.25 - (1 - weight), 0])
        # -a_j at the class that is out is not written, but pushes the others all the same
        assert_close(grad[0], wanted, 8 * eps_of(dtype) + 4e-3 * (dtype in HALVES), dtype)
        assert grad[0, 3] == 0


def poisoned(dtype, kind):
    """A batch of nine rows, of which 2, 5 and 7 hold what no loss can come of."""
    logits, *_ = batch(9, 5, dtype)
    logits[2] = np.nan
    logits[5, 0] = np.inf
    logits[7] = -np.inf
    return logits, oracle.targets(kind, 9, 5, dtype)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", KINDS)
@each_type
def test_a_row_of_zero_weight_is_not_there(dtype, kind, reduction):
    logits, target = poisoned(dtype, kind)
    options = oracle.loss_options(9, 5)
    del options["where"]
    options["sample_weight"][[2, 5, 7]] = 0
    there = options["sample_weight"] > 0
    for name in ("sample_weight", "everything"):
        given = options if name == "everything" else {name: options[name]}
        kwargs = {"reduction": reduction, "return_grad": True}
        value, grad = softly.cross_entropy(logits, target, **given, **kwargs)
        cut = {n: v[there] if np.shape(v) == (9,) else v for n, v in given.items()}
        some = tuple(t[there] for t in target) if kind == "sparse" else target[there]
        wanted, wanted_grad = softly.cross_entropy(logits[there], some, **cut, **kwargs)
        if reduction == "none":
            assert (value[~there] == 0).all()
            same_bits(value[there], wanted)
        else:
            assert value == pytest.approx(wanted, rel=4 * eps_of(dtype))
        assert (grad[~there] == 0).all()
        assert_close(grad[there], wanted_grad, 2 * eps_of(dtype), dtype)


@each_type
@pytest.mark.parametrize("ignore", [-100, -1, 0, 3, 255, 2**31, -(2**40)])
def test_an_ignored_row_is_not_there(ignore, dtype):
    logits, target = poisoned(dtype, "hard")
    target[target == ignore] = 1
    there = np.ones(9, bool)
    there[[2, 5, 7]] = False
    target[~there] = ignore
    options = oracle.loss_options(9, 5)
    del options["where"]
    for given in ({}, options):
        cut = {n: v[there] if np.shape(v) == (9,) else v for n, v in given.items()}
        for reduction in REDUCTIONS:
            kwargs = {"reduction": reduction, "return_grad": True}
            value, grad = softly.cross_entropy(
                logits, target, **given, **kwargs, ignore_index=ignore
            )
            wanted, wanted_grad = softly.cross_entropy(
                logits[there], target[there], **cut, **kwargs
            )
            if reduction == "none":
                assert (value[~there] == 0).all()
                same_bits(value[there], wanted)
            else:
                assert value == pytest.approx(wanted, rel=4 * eps_of(dtype))
            assert (grad[~there] == 0).all()
            assert_close(grad[there], wanted_grad, 2 * eps_of(dtype), dtype)


@pytest.mark.parametrize(
    ("dtype", "ignore", "value"),
    [
        (np.uint8, -100, 156),
        (np.uint8, 260, 4),
        (np.int8, 255, -1),
        (np.int8, 130, -126),
        (np.uint16, -100, 2**16 - 100),
        (np.int32, 2**32 + 3, 3),
        (np.int64, 2**32, 0),
        (np.int64, 2**64 - 1, -1),
        (np.uint64, -100, 2**64 - 100),
        (np.uint64, -(2**64), 0),
    ],
)
def test_ignore_index_is_the_number_and_not_its_last_bits(dtype, ignore, value):
    target = np.array([1, value], dtype)
    logits, *_ = batch(2, 200)
    if 0 <= value < 200:
        losses = softly.cross_entropy(logits, target, ignore_index=ignore, reduction="none")
        same_bits(losses, softly.cross_entropy(logits, target, reduction="none"))
        assert losses[1] > 0
    else:
        message = rf"target\[1\] is {value}, but the logits have 200 classes"
        with pytest.raises(ValueError, match=message):
            softly.cross_entropy(logits, target, ignore_index=ignore)


def test_an_ignored_class_that_exists_is_ignored_and_shares_are_not():
    logits, target, _ = batch(20, 4)
    losses, grad = softly.cross_entropy(
        logits, target, ignore_index=2, reduction="none", return_grad=True
    )
    assert ((losses == 0) == (target == 2)).all()
    assert ((grad == 0).all(axis=1) == (target == 2)).all()
    for kind in ("dense", "sparse"):
        shares = oracle.targets(kind, 20, 4)
        assert softly.cross_entropy(logits, shares, ignore_index=2) == softly.cross_entropy(
            logits, shares
        )


@each_type
def test_rows_that_want_no_class_are_exactly_zero(dtype):
    """The target's class has weight 0, or the list of shares is all zeros."""
    logits, _ = poisoned(dtype, "hard")
    target = np.array([0, 1, 3, 0, 2, 3, 1, 3, 0])
    weight = np.array([1, 2, 0.5, 0, 1])  # of class 3: rows 2, 5, 7
    dead = target == 3
    sparse = (np.stack([target, target]).T, np.full((9, 2), 0.5).astype(dtype))
    zeros = (sparse[0], np.where(dead[:, None], 0, sparse[1]).astype(dtype))
    one_hot = np.eye(5, dtype=dtype)[target]
    for shares, given in (
        (target, {"class_weight": weight}),
        (one_hot, {"class_weight": weight}),
        (sparse, {"class_weight": weight}),
        (zeros, {}),
    ):
        for reduction in REDUCTIONS:
            value, grad = softly.cross_entropy(
                logits, shares, **given, reduction=reduction, return_grad=True
            )
            assert np.isfinite(np.asarray(value, float)).all()
            assert (grad[dead] == 0).all()
            assert np.isfinite(grad).all()
            if reduction == "none":
                assert (value[dead] == 0).all()
                assert (value[~dead] > 0).all()
    # With a z_loss such a row is not dead: its scores count.
    losses = softly.cross_entropy(logits, target, class_weight=weight, z_loss=0.5, reduction="none")
    assert np.isnan(losses[2])


def test_integer_weights_count_rows():
    logits, target, _ = batch(6, 4)
    count = np.array([1, 0, 3, 2, 1, 0])
    options = {"class_weight": np.arange(1.0, 5), "z_loss": 0.5, "label_smoothing": 0.1}
    for reduction in ("mean", "sum"):
        value = softly.cross_entropy(
            logits, target, sample_weight=count, reduction=reduction, **options
        )
        wanted = softly.cross_entropy(
            np.repeat(logits, count, axis=0),
            np.repeat(target, count),
            reduction=reduction,
            **options,
        )
        assert value == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@each_type
def test_nothing_to_average(kind, dtype):
    """All weights zero, or all rows ignored, or no rows."""
    logits, target = poisoned(dtype, kind)
    none = (np.empty((0, 3), int), np.empty((0, 3))) if kind == "sparse" else target[:0]
    situations = [
        (logits, target, {"sample_weight": np.zeros(9)}),
        (logits[:0], none, {}),
        (logits[:0], none, {"sample_weight": np.empty(0), "where": np.ones(5, bool)}),
    ]
    if kind == "hard":
        situations += [
            (logits, np.full(9, -100), {}),
            (logits, np.full(9, 2), {"ignore_index": 2, "sample_weight": np.ones(9)}),
            (logits, target, {"class_weight": np.zeros(5)}),
        ]
    for scores, wanted, given in situations:
        for options in (given, given | {"label_smoothing": 0.1, "focal": 2.0}):
            kwargs = {**options, "return_grad": True}
            for empty, mean in (("nan", math.nan), ("zero", 0.0)):
                value, grad = softly.cross_entropy(scores, wanted, **kwargs, empty=empty)
                assert isinstance(value, float)
                np.testing.assert_equal(value, mean)
                assert grad.shape == scores.shape
                assert grad.dtype == dtype
                assert (grad == 0).all()
            buffer = np.full_like(scores, 7)
            softly.cross_entropy(scores, wanted, **options, grad_out=buffer)
            assert (buffer == 0).all()
            assert softly.cross_entropy(scores, wanted, **options, reduction="sum") == 0
            losses = softly.cross_entropy(scores, wanted, **options, reduction="none")
            assert losses.shape == (len(scores),)
            assert losses.dtype == dtype
            assert (losses == 0).all()


def test_empty_batches_of_every_shape():
    for shape, axis in [((0, 5), 1), ((5, 0), 0), ((2, 0, 3), 2), ((2, 3, 0), 1), ((0, 0, 4), -1)]:
        logits = np.empty(shape, np.float32)
        rows = np.delete(shape, axis)
        losses, grad = softly.cross_entropy(
            logits, np.empty(rows, int), axis=axis, reduction="none", return_grad=True
        )
        assert losses.shape == tuple(rows)
        assert grad.shape == shape


def test_weights_of_any_size():
    """The mean does not depend on the unit in which the weights are given."""
    logits, target, weight = batch(8, 5)
    wanted, wanted_grad = softly.cross_entropy(
        logits, target, sample_weight=weight, return_grad=True
    )
    for unit in (1e-200, 1e-30, 1e30, 1e200):
        value, grad = softly.cross_entropy(
            logits, target, sample_weight=unit * weight, return_grad=True
        )
        assert value == pytest.approx(wanted, rel=1e-13)
        np.testing.assert_allclose(grad, wanted_grad, rtol=1e-13)


def test_temperature_at_its_ends():
    logits = np.array([[1.0, 3, 3, -np.inf], [0, 2, 1, -1], [0, 2, 1, -1]])
    target = [1, 1, 0]
    kwargs = {"reduction": "none", "return_grad": True}
    losses, grad = softly.cross_entropy(logits, target, temperature=math.inf, **kwargs)
    np.testing.assert_allclose(losses, np.log([3, 4, 4]), rtol=1e-15)
    assert (grad == 0).all()
    losses, grad = softly.cross_entropy(logits, target, temperature=0, **kwargs)
    np.testing.assert_allclose(losses, [math.log(2), 0, np.inf], rtol=1e-15)
    assert (grad[1] == 0).all()  # certain, and right
    mixed = softly.cross_entropy(logits, target, temperature=np.array([0, 1, np.inf]), **kwargs)[0]
    plain = softly.cross_entropy(logits, target, **kwargs)[0]
    np.testing.assert_allclose(mixed, [math.log(2), plain[1], math.log(4)], rtol=1e-15)


def test_no_warnings_even_where_every_one_is_an_error():
    """NumPy's floating-point errors raised, not only warned of, by the caller's choice."""
    logits = np.array([[np.inf, -np.inf, 1e308], [-1e308, 1e308, 0], [-np.inf] * 3, [np.nan, 1, 2]])
    options = oracle.loss_options(4, 3)
    for dtype in FLOATS:
        with np.errstate(all="ignore"):
            scores = logits.astype(dtype)
        for kind in KINDS:
            target = oracle.targets(kind, 4, 3, SINGLE)
            for name, value in {"nothing": 0, "empty": "zero", **options}.items():
                given = {} if name == "nothing" else {name: value}
                with np.errstate(all="raise"):
                    softly.cross_entropy(scores, target, **given, return_grad=True)
            with np.errstate(all="raise"):
                softly.cross_entropy(scores, target, **options, return_grad=True)


# Against PyTorch ------------------------------------------------------------------------------


def pytorch(logits, target, axis=1, **options):
    """PyTorch's (value, gradient); the gradient of the sum where nothing is reduced."""
    torch = pytest.importorskip("torch")
    scores = torch.tensor(np.ascontiguousarray(logits), requires_grad=True)
    if "weight" in options:
        options["weight"] = torch.tensor(options["weight"].astype(logits.dtype))
    value = torch.nn.functional.cross_entropy(
        scores, torch.tensor(np.ascontiguousarray(target)), **options
    )
    value.sum().backward()
    return value.detach().numpy(), scores.grad.numpy()


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE], ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", ["hard", "dense"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignoring", [False, True])
def test_pytorch_agrees(ignoring, weighted, smoothing, kind, reduction, dtype):
    for shape in [(1, 1), (33, 10), (2, 300), (2, 3, 4, 5)]:
        classes = shape[1]
        rows = (shape[0], *shape[2:])
        logits, *_ = batch(math.prod(rows), classes, dtype, seed=4)
        target = oracle.targets(kind, len(logits), classes, dtype, seed=4)
        ours, theirs = {"label_smoothing": smoothing}, {"label_smoothing": smoothing}
        if weighted:
            rng = np.random.default_rng(6)
            ours["class_weight"] = theirs["weight"] = rng.uniform(0.2, 2, size=classes)
        if ignoring and kind == "hard":
            ours["ignore_index"] = theirs["ignore_index"] = -7
            target[1::3] = -7
        logits = np.moveaxis(logits.reshape(*rows, classes), -1, 1)
        target = target.reshape(*rows, *target.shape[1:])
        target = np.moveaxis(target, -1, 1) if kind == "dense" else target
        value, grad = softly.cross_entropy(
            logits, target, axis=1, **ours, reduction=reduction, return_grad=True
        )
        wanted, wanted_grad = pytorch(logits, target, **theirs, reduction=reduction)
        eps = float(np.finfo(dtype).eps)
        # PyTorch takes softmax and logarithm in the type, one after the other.
        np.testing.assert_allclose(value, wanted, rtol=50 * eps, atol=20 * eps)
        np.testing.assert_allclose(grad, wanted_grad, rtol=50 * eps, atol=8 * eps)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_pytorch_agrees_where_nothing_is_left(reduction):
    for logits, target in [
        (np.empty((0, 5), np.float32), np.empty(0, int)),
        (np.ones((3, 5), np.float32), np.full(3, -100)),
    ]:
        value, grad = softly.cross_entropy(logits, target, reduction=reduction, return_grad=True)
        wanted, _ = pytorch(logits, target, reduction=reduction)
        np.testing.assert_array_equal(value, wanted)
        assert (grad == 0).all()


# PyTorch's tensors, and other libraries -------------------------------------------------------


def as_tensor(array):
    torch = pytest.importorskip("torch")
    array = np.ascontiguousarray(array)
    if array.dtype in HALVES[1:]:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def as_array(tensor):
    torch = pytest.importorskip("torch")
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(HALVES[1])
    return tensor.numpy()


@each_type
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_give_tensors_with_the_same_bits(kind, dtype):
    torch = pytest.importorskip("torch")
    for count, classes in [(6, 5), (3, 100)]:
        logits, *_ = batch(count, classes, dtype)
        options = oracle.loss_options(count, classes)
        target = oracle.targets(kind, count, classes, dtype, allowed=options["where"])
        tensors = {
            name: as_tensor(value) if isinstance(value, np.ndarray) else value
            for name, value in options.items()
        }
        wished = tuple(map(as_tensor, target)) if kind == "sparse" else as_tensor(target)
        for given, same in (({}, {}), (options, tensors)):
            for reduction in REDUCTIONS:
                kwargs = {"reduction": reduction, "return_grad": True}
                wanted = softly.cross_entropy(logits, target, **given, **kwargs)
                scores = as_tensor(logits.copy())
                value, grad = softly.cross_entropy(scores, wished, **same, **kwargs)
                assert isinstance(grad, torch.Tensor)
                assert grad.dtype == scores.dtype
                same_bits(as_array(grad), wanted[1])
                if reduction == "none":
                    assert isinstance(value, torch.Tensor)
                    same_bits(as_array(value), wanted[0])
                else:
                    assert value == wanted[0]
                same_bits(as_array(scores), logits)
                columns = scores.T.contiguous().T  # strided
                for buffer in (torch.full_like(scores, 7), torch.full_like(columns, 7)):
                    got = softly.cross_entropy(
                        columns, wished, **same, reduction=reduction, grad_out=buffer
                    )
                    assert got[1] is buffer
                    same_bits(as_array(buffer), wanted[1])
                for over in (scores, columns):
                    got = softly.cross_entropy(
                        over, wished, **same, reduction=reduction, grad_out=over
                    )
                    assert got[1] is over
                    same_bits(as_array(over), wanted[1])


@pytest.mark.parametrize("name", ["uint8", "int8", "int16", "int32", "int64"])
def test_integer_tensors_are_targets(name):
    torch = pytest.importorskip("torch")
    logits, target, _ = batch(20, 7)
    value = softly.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(target).to(getattr(torch, name))
    )
    assert value == softly.cross_entropy(logits, target)


def test_a_tensor_that_requires_a_gradient_is_to_be_detached():
    torch = pytest.importorskip("torch")
    logits = torch.zeros(2, 3, requires_grad=True)
    target = torch.tensor([0, 1])
    with pytest.raises(TypeError, match=r"detach\(\)") as error:
        softly.cross_entropy(logits, target)
    assert "logits" in str(error.value)
    assert softly.cross_entropy(logits.detach(), target) == pytest.approx(math.log(3))


@pytest.mark.parametrize("library", ["array_api_strict", "jax.numpy"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_libraries_compute_the_same_with_their_own(library, kind):
    xp = pytest.importorskip(library)
    logits, *_ = batch(6, 5, SINGLE)
    options = oracle.loss_options(6, 5)
    target = oracle.targets(kind, 6, 5, SINGLE, allowed=options["where"])

    def given(array):
        if array.dtype == np.int64:
            array = array.astype(np.int32)
        return xp.asarray(array.astype(SINGLE) if array.dtype == DOUBLE else array)

    theirs = {n: given(v) if isinstance(v, np.ndarray) else v for n, v in options.items()}
    wished = tuple(map(given, target)) if kind == "sparse" else given(target)
    scores = given(logits)
    for ours, same in (({}, {}), (options, theirs)):
        for reduction in REDUCTIONS:
            kwargs = {"reduction": reduction, "return_grad": True}
            wanted, wanted_grad = softly.cross_entropy(logits, target, **ours, **kwargs)
            value, grad = softly.cross_entropy(scores, wished, **same, **kwargs)
            assert type(grad) is type(scores)
            assert grad.dtype == scores.dtype
            np.testing.assert_allclose(np.asarray(value), wanted, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(np.asarray(grad), wanted_grad, rtol=1e-4, atol=1e-6)
    if kind == "hard":
        # NaN stays where it is, with a mask and a weight of zero too
        spoilt = logits.copy()
        spoilt[2], spoilt[4, 1] = np.nan, np.nan
        target[2], target[4] = -100, 0
        where = ~np.isnan(spoilt)
        where[2] = True
        _, grad = softly.cross_entropy(
            given(spoilt), given(target), where=given(where), return_grad=True
        )
        assert np.isfinite(np.asarray(grad)).all()
        assert (np.asarray(grad)[2] == 0).all()
        with pytest.raises(TypeError, match="grad_out"):
            softly.cross_entropy(scores, wished, grad_out=scores)


# Properties of the gradient -------------------------------------------------------------------


@st.composite
def smooth_situations(draw):
    """(logits, target, options) where the loss is finite and its third derivative not large."""
    kind = draw(st.sampled_from(KINDS))
    count, classes = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    everything = oracle.loss_options(count, classes, seed=draw(st.integers(0, 99)))
    chosen = draw(st.sets(st.sampled_from(sorted(everything))))
    options = {name: everything[name] for name in chosen}
    logits = draw(hnp.arrays(np.float64, (count, classes), elements=st.floats(-8, 8)))
    target = oracle.targets(kind, count, classes, allowed=options.get("where"))
    return logits, target, options


@hypothesis.given(smooth_situations(), st.sampled_from(REDUCTIONS))
def test_the_gradient_is_that_of_the_value(situation, reduction):
    """Central differences: an error of h^2 / 6 times the third derivative, and rounding / h."""
    logits, target, options = situation

    def total(scores):
        value = softly.cross_entropy(scores, target, reduction=reduction, **options)
        return math.fsum(np.ravel(value))

    _, grad = softly.cross_entropy(logits, target, reduction=reduction, **options, return_grad=True)
    h = 2.0**-14
    for place in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[place] = h
        difference = (total(logits + step) - total(logits - step)) / (2 * h)
        # Losses of at most some 40, with weights of at most 2 and 3, four of them; 1 / T^3 is 8.
        assert abs(difference - grad[place]) <= 1e-7


@hypothesis.given(smooth_situations(), st.sampled_from(REDUCTIONS))
def test_the_gradient_sums_to_zero_along_each_row(situation, reduction):
    """A shift of all scores changes no probability; a cap or z_loss feels it."""
    logits, target, options = situation
    options = {k: v for k, v in options.items() if k not in ("z_loss", "logit_cap")}
    _, grad = softly.cross_entropy(logits, target, reduction=reduction, **options, return_grad=True)
    for row in grad:
        assert abs(math.fsum(row)) <= 16 * np.finfo(float).eps * max(np.abs(row).max(), 1e-300)


@hypothesis.given(smooth_situations())
def test_no_loss_is_negative(situation):
    logits, target, options = situation
    losses = softly.cross_entropy(logits, target, reduction="none", **options)
    assert (losses >= 0).all()


# Errors ---------------------------------------------------------------------------------------


def refused(error, logits, target, *parts, **options):
    """The call raises, its message has all parts, and nothing was written."""
    logits = np.asarray(logits)
    in_place = logits.copy()
    real = logits.dtype.kind in "fV" and options.get("grad_out") is None
    buffers = [None, np.full_like(logits, 7), in_place] if real else [None]
    for buffer in buffers:
        scores = in_place if buffer is in_place else logits
        given = options if buffer is None else options | {"grad_out": buffer}
        with pytest.raises(error) as raised:
            softly.cross_entropy(scores, target, **given)
        for part in parts:
            assert part in str(raised.value), str(raised.value)
        if buffer is not None:
            np.testing.assert_array_equal(buffer, logits if buffer is in_place else 7)


def test_a_target_out_of_range_is_named():
    logits = np.zeros((20, 10))
    target = np.zeros(20, int)
    target[17], target[19] = 12, -1
    message = "target[17] is {}, but the logits have 10 classes (0..9)"
    refused(ValueError, logits, target, message.format(12))
    target[17] = 10
    refused(ValueError, logits, target, message.format(10))
    refused(ValueError, logits.T.copy(), target, message.format(10), axis=0)
    refused(ValueError, logits, target, message.format(10), ignore_index=-1)
    target[17] = -100
    refused(ValueError, logits, target, message.format(-100), ignore_index=0)
    target[3] = -1
    refused(ValueError, logits, target, "target[3] is -1, but the logits have 10 classes (0..9)")


def test_a_target_out_of_range_is_found_wherever_it_stands():
    """In blocks, and the first of them is named."""
    for at in (0, 1, 4095, 70_000, 99_999):
        target = np.zeros(100_000, np.int32)
        target[at:] = 3
        with pytest.raises(ValueError, match=rf"target\[{at}\] is 3, but the logits have 3 "):
            softly.cross_entropy(np.zeros((100_000, 3), np.float32), target)


def test_a_target_out_of_range_is_named_by_all_its_indices():
    target = np.zeros((4, 5), int)
    target[3, 2] = 12
    message = "target[3, 2] is 12, but the logits have 10 classes (0..9)"
    refused(ValueError, np.zeros((4, 5, 10)), target, message)
    refused(ValueError, np.zeros((4, 10, 5)), target, message, axis=1)
    refused(ValueError, np.zeros(3), 5, "target is 5, but the logits have 3 classes (0..2)")


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (2**64 - 1, np.uint64),
        (2**64 - 100, np.uint64),
        (2**63, np.uint64),
        (2**32, np.int64),
        (2**32 + 1, np.uint64),
        (-(2**63), np.int64),
        (-(2**32), np.int64),
        (2**32 - 1, np.uint32),
        (-(2**31), np.int32),
        (255, np.uint8),
        (-128, np.int8),
    ],
)
def test_a_target_that_would_wrap_round_is_named_as_it_came(value, dtype):
    target = np.array([0, value], dtype)
    said = f"target[1] is {value}, but the logits have 3 classes (0..2)"
    refused(ValueError, np.zeros((2, 3)), target, said)
    shares = np.ones((2, 1))
    refused(ValueError, np.zeros((2, 3)), (target[:, None], shares), str(value), "3 classes")


def test_a_target_must_be_integers_or_shares():
    logits = np.zeros((2, 3))
    for target in (["0", "1"], [0, None], [0j, 1], np.array([True, False]), np.eye(2, 3) > 0):
        refused(TypeError, logits, target, "target")
    for target in ([0.0, 1.0], np.zeros(2, np.float32)):
        refused((TypeError, ValueError), logits, target, "target")
    shares = np.full((2, 1), 1.0)
    for indices in (np.zeros((2, 1)), np.zeros((2, 1), bool)):
        refused(TypeError, logits, (indices, shares), "target")
    for wrong in (shares.astype(complex), shares.astype(str), np.full((2, 1), None)):
        refused(TypeError, logits, (np.zeros((2, 1), int), wrong), "target")
    refused(TypeError, logits, np.eye(2, 3).astype(complex), "target")


def test_logits_must_be_real():
    for logits in (np.zeros((2, 3), complex), np.full((2, 3), "a"), np.full((2, 3), None)):
        refused(TypeError, logits, [0, 1], "logits")


@pytest.mark.parametrize(
    ("logits", "target"),
    [((4, 5), (3,)), ((4, 5), (4, 5)), ((4, 5), ()), ((2, 3, 5), (6,)), ((4, 5), (4, 1))],
)
def test_shapes_that_do_not_match_are_both_named(logits, target):
    refused(ValueError, np.zeros(logits), np.zeros(target, int), str(logits), str(target))


def test_shares_whose_shape_does_not_match_are_named():
    logits = np.zeros((4, 5))
    for shape in [(4, 4), (5, 4), (1, 5), (4, 5, 1)]:
        refused(ValueError, logits, np.full(shape, 0.2), "(4, 5)", str(shape))
    refused(ValueError, logits, np.full((4, 5), 0.2), "0.8", axis=0)  # what a column adds up to
    index = np.zeros((4, 2), int)
    for shares in [(4, 3), (3, 2), (4,), (4, 2, 1)]:
        refused(ValueError, logits, (index, np.zeros(shares)), "(4, 2)", str(shares))
    refused(ValueError, logits, (index[:3], np.zeros((3, 2))), "(3, 2)", "(4, 5)")


def test_shares_must_be_probabilities():
    logits = np.zeros((20, 4), np.float32)
    right = np.full((20, 4), 0.25)
    for values, said in [
        ([0.5, 0.5, 0.5, -0.5], "-0.5"),
        ([0.5, 0, 0, 0], "0.5"),
        ([0.25, 0.25, 0.25, 0.26], "1.01"),
        ([1, 1, 1, 1], "4"),
        ([0, 0, 0, 0], "0"),
        ([np.nan, 1, 0, 0], "nan"),
        ([np.inf, 0, 0, 0], "inf"),
        ([-0.001, 1, 0.001, 0], "-0.001"),
    ]:
        shares = right.copy()
        shares[17] = values
        refused(ValueError, logits, shares, "target", "17", said)
        # As rows of weight 0 count for nothing, nobody looks at them.
        weight = np.where(np.arange(20) == 17, 0, 1.0)
        _, grad = softly.cross_entropy(logits, shares, sample_weight=weight, return_grad=True)
        assert np.isfinite(grad).all()
        assert (grad[17] == 0).all()


def test_shares_may_be_rounded():
    logits = np.zeros((1, 3))
    for off in (-9e-4, 9e-4):
        softly.cross_entropy(logits, np.array([[0.5, 0.25, 0.25 + off]]))
        softly.cross_entropy(logits, ([[0, 1]], np.array([[0.5, 0.5 + off]])))
    for dtype in HALVES:
        shares = np.full((1, 3), 1 / 3).astype(dtype)
        softly.cross_entropy(logits.astype(dtype), shares)
        softly.cross_entropy(logits.astype(dtype), np.array([[0.5, 0.25, 0.258]]).astype(dtype))
    refused(ValueError, logits, np.array([[0.5, 0.25, 0.252]]), "target")
    refused(ValueError, logits, (np.array([[0, 1]]), np.array([[0.5, 0.502]])), "target")


def test_sparse_shares_must_be_probabilities_of_classes():
    logits = np.zeros((20, 10))
    indices, shares = np.zeros((20, 3), int), np.full((20, 3), 0.25)
    for values, said in [
        ([0.5, 0.5, -0.5], "-0.5"),
        ([0.5, 0.5, 0.5], "1.5"),
        ([np.nan, 0, 0], "nan"),
        ([0, np.inf, 0], "inf"),
    ]:
        wrong = shares.copy()
        wrong[17] = values
        refused(ValueError, logits, (indices, wrong), "target", "17", said)
    for value in (10, -1, 2**40):
        wrong = indices.copy()
        wrong[17, 1] = value
        refused(ValueError, logits, (wrong, shares), "target", "17", f"{value}", "10 classes")
        zero = shares.copy()
        zero[17] = 0
        refused(ValueError, logits, (wrong, zero), "target", f"{value}")


def test_no_classes_or_no_class_axis_is_an_error():
    with pytest.raises(ValueError, match="logits"):
        softly.cross_entropy(np.empty((3, 0)), np.zeros(3, int))
    with pytest.raises(ValueError, match="logits"):
        softly.cross_entropy(np.empty((0, 3)), np.zeros(3, int), axis=0)
    with pytest.raises(ValueError, match=r"\w"):
        softly.cross_entropy(np.float64(1), 0)


def test_an_axis_that_is_not_there():
    for axis in (2, -3):
        refused(np.exceptions.AxisError, np.zeros((2, 3)), [0, 1], axis=axis)
    refused(TypeError, np.zeros((2, 3)), [0, 1], axis=1.0)
    refused(TypeError, np.zeros((2, 3)), [0, 1], axis=(0, 1))
    refused(TypeError, np.zeros((2, 3)), [0, 1], axis=None)


@pytest.mark.parametrize("name", ["sample_weight", "class_weight"])
def test_weights_must_be_sound(name):
    logits, target, weight = batch(4, 4)
    for wrong in (-1, -1e-300, np.nan, np.inf, -np.inf):
        weight[2] = wrong
        refused(ValueError, logits, target, f"{name}[2]", str(wrong), **{name: weight})
    for shape in [(3,), (5,), (4, 1), ()]:
        refused(ValueError, logits, target, name, str(shape), "(4,)", **{name: np.ones(shape)})
    for wrong in (np.ones(4, complex), ["a"] * 4, np.full(4, None)):
        refused(TypeError, logits, target, name, **{name: wrong})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reduction", "median"),
        ("reduction", None),
        ("reduction", "MEAN"),
        ("empty", "one"),
        ("empty", None),
        ("label_smoothing", -0.1),
        ("label_smoothing", 1.5),
        ("label_smoothing", math.nan),
        ("z_loss", -0.5),
        ("z_loss", math.nan),
        ("focal", -0.5),
        ("focal", math.nan),
        ("logit_cap", 0.0),
        ("logit_cap", -3.5),
        ("logit_cap", math.nan),
        ("temperature", -0.5),
        ("temperature", math.nan),
        ("temperature", -math.inf),
    ],
)
def test_an_option_out_of_range_is_named(name, value):
    logits, target, _ = batch(4, 3)
    refused(ValueError, logits, target, name, str(value), **{name: value})


def test_temperatures_of_rows_must_fit_and_be_sound():
    logits, target, _ = batch(4, 3)
    for shape in [(3,), (4, 3), (1, 4), (2, 2)]:
        wrong = np.ones(shape)
        refused(ValueError, logits, target, "temperature", str(shape), temperature=wrong)
    for wrong in (-1.5, np.nan):
        each = np.array([1, 1, wrong, 1])
        refused(ValueError, logits, target, "temperature", str(wrong), temperature=each)
    refused(TypeError, logits, target, "temperature", temperature=1j)
    refused(TypeError, logits, target, "temperature", temperature="warm")


def test_a_mask_must_be_boolean_and_fit():
    logits, target, _ = batch(4, 3)
    for shape in [(4,), (2, 3), (1, 4, 3), (4, 4)]:
        refused(ValueError, logits, target, "where", str(shape), where=np.ones(shape, bool))
    for wrong in (np.ones((4, 3)), np.ones((4, 3), int), np.full((4, 3), "yes")):
        refused(TypeError, logits, target, "where", where=wrong)


def test_a_buffer_must_be_as_the_logits_and_apart_from_them():
    logits, target, _ = batch(6, 4)
    for dtype in (np.float32, np.float16, int, complex, ">f8"):
        wrong = np.full((6, 4), 7, dtype)
        refused(TypeError, logits, target, "grad_out", "float64", grad_out=wrong)
    for shape in [(4, 6), (6, 4, 1), (5, 4), (24,)]:
        wrong = np.full(shape, 7.0)
        refused(ValueError, logits, target, "grad_out", str(shape), "(6, 4)", grad_out=wrong)
    frozen = np.full((6, 4), 7.0)
    frozen.flags.writeable = False
    refused(ValueError, logits, target, "grad_out", "read-only", grad_out=frozen)
    refused(TypeError, logits, target, "grad_out", grad_out=[[0.0] * 4] * 6)
    for wrong in (np.full((3, 4), 7.0, np.float32), np.full((6, 4), 7)):
        before = wrong.copy()
        with pytest.raises((TypeError, ValueError)):
            softly.cross_entropy(logits, target, grad_out=wrong)
        np.testing.assert_array_equal(wrong, before)


def test_a_buffer_may_be_the_logits_but_not_half_of_them():
    pages = np.arange(40.0)
    logits = pages[:24].reshape(6, 4)
    shifted = pages[4:28].reshape(6, 4)
    square, target = pages[:16].reshape(4, 4), np.array([0, 1, 2, 3])
    for scores, buffer in ((logits, shifted), (square, square.T), (square, np.flip(square))):
        before = pages.copy()
        with pytest.raises(ValueError, match="grad_out"):
            softly.cross_entropy(scores, np.arange(len(scores)) % 4, grad_out=buffer)
        np.testing.assert_array_equal(pages, before)
    shares = np.eye(4)
    with pytest.raises(ValueError, match="grad_out"):
        softly.cross_entropy(square, shares, grad_out=shares)
    np.testing.assert_array_equal(shares, np.eye(4))
    # Interleaved, but apart: that is no overlap.
    _, wanted = softly.cross_entropy(square, target, return_grad=True)
    wide = np.empty((4, 8))
    wide[:, ::2] = square
    _, grad = softly.cross_entropy(wide[:, ::2], target, grad_out=wide[:, 1::2])
    same_bits(grad, wanted)
    same_bits(wide[:, ::2], square)


def test_options_are_named():
    with pytest.raises(TypeError):
        softly.cross_entropy(np.zeros((1, 2)), [0], None)
