"""cross_entropy: against the oracle, against PyTorch, at the edges, and its errors."""

import math
import re

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
import softly

REDUCTIONS = ["mean", "sum", "none"]
FLOATS = [np.float16, np.float32, np.float64]
LOGARITHM = 8  # ulp, as in test_contract.py


def batch(count, classes, dtype=np.float64, seed=0):
    rng = np.random.default_rng([seed, count, classes])
    logits = (3 * rng.normal(size=(count, classes))).astype(dtype)
    return logits, rng.integers(classes, size=count), rng.uniform(0.1, 2, size=count)


def to_float(values):
    return np.array([float(value) for value in np.ravel(values)]).reshape(np.shape(values))


def exact_reduced(logits, target, weight, reduction):
    """The oracle's (value, gradient), reduced in exact arithmetic."""
    losses, gradients = oracle.cross_entropy(logits, target, weight)
    over = 1
    if reduction == "mean":
        over = len(losses) if weight is None else oracle.mp.fsum(map(float, weight))
    gradients = to_float([[g / over for g in row] for row in gradients])
    if reduction == "none":
        return to_float(losses), gradients
    return float(oracle.mp.fsum(losses) / over), gradients


# Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_value_and_gradient_agree_with_the_oracle(reduction, weighted, dtype):
    for count, classes in [(1, 1), (1, 2), (7, 3), (17, 10), (5, 65), (2, 1000)]:
        logits, target, weight = batch(count, classes, dtype)
        weight = weight if weighted else None
        value, grad = softly.cross_entropy(
            logits, target, sample_weight=weight, reduction=reduction, return_grad=True
        )
        wanted, wanted_grad = exact_reduced(logits, target, weight, reduction)
        # Each loss is within 8 ulp, and z - max is rounded once; sums of one sign add none.
        eps = float(np.finfo(dtype).eps)
        np.testing.assert_allclose(value, wanted, rtol=12 * eps, atol=4 * eps)
        assert grad.dtype == dtype
        assert grad.shape == logits.shape
        scale = np.abs(wanted_grad).max() + float(np.finfo(dtype).tiny)
        np.testing.assert_allclose(grad, wanted_grad, rtol=24 * eps, atol=4 * eps * scale)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_gradient_is_there_only_when_asked_and_changes_no_value(reduction, weighted, dtype):
    logits, target, weight = batch(33, 17, dtype)
    weight = weight if weighted else None
    kwargs = {"sample_weight": weight, "reduction": reduction}
    value = softly.cross_entropy(logits, target, **kwargs)
    with_grad, _ = softly.cross_entropy(logits, target, **kwargs, return_grad=True)
    np.testing.assert_array_equal(value, with_grad)
    if reduction == "none":
        assert value.shape == target.shape
        assert value.dtype.kind == "f"
    else:
        assert isinstance(value, float | np.floating)


def test_defaults_are_the_mean_without_gradient():
    logits, target, _ = batch(9, 4)
    losses = softly.cross_entropy(logits, target, reduction="none")
    value = softly.cross_entropy(logits, target)
    assert value == softly.cross_entropy(logits, target, reduction="mean")
    assert value == pytest.approx(math.fsum(losses) / 9, rel=1e-15)
    assert softly.cross_entropy(logits, target, reduction="sum") == pytest.approx(
        math.fsum(losses), rel=1e-15
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_near_certainty_keeps_relative_accuracy(dtype):
    logits = np.zeros((2, 10), dtype)
    logits[:, 3] = 40
    value = softly.cross_entropy(logits, [3, 3])
    assert oracle.ulps(value, -oracle.log_softmax(logits[0])[3], np.dtype(dtype)) <= LOGARITHM


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_mean_of_many_equal_losses_is_that_loss(dtype):
    """A sum in float32, one by one, would be wrong in the fourth digit."""
    losses = softly.cross_entropy(np.zeros((1, 10), dtype), [3], reduction="none")
    value = softly.cross_entropy(np.zeros((300_000, 10), dtype), np.full(300_000, 3))
    assert abs(value - float(losses[0])) <= 2 * np.finfo(dtype).eps * value


def test_a_half_sum_does_not_overflow():
    """100,000 losses of some 2.3: the sum is past float16's 65504, the mean is not."""
    logits, target = np.zeros((100_000, 10), np.float16), np.zeros(100_000, int)
    value, grad = softly.cross_entropy(logits, target, return_grad=True)
    assert value == pytest.approx(math.log(10), rel=1e-3)
    # 1e-5 / 10 and 1e-5 * 0.9 are subnormal in float16
    np.testing.assert_allclose(grad[:, 1:], 1e-6, rtol=0, atol=float(np.finfo(np.float16).tiny))


# Shapes and types -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (6,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_any_leading_shape(shape, reduction):
    rng = np.random.default_rng(3)
    logits, target = rng.normal(size=(*shape, 5)), rng.integers(5, size=shape)
    weight = rng.uniform(size=shape)
    value, grad = softly.cross_entropy(
        logits, target, sample_weight=weight, reduction=reduction, return_grad=True
    )
    flat, flat_grad = softly.cross_entropy(
        logits.reshape(-1, 5),
        target.reshape(-1),
        sample_weight=weight.reshape(-1),
        reduction=reduction,
        return_grad=True,
    )
    assert np.shape(value) == (shape if reduction == "none" else ())
    np.testing.assert_array_equal(np.ravel(value), np.ravel(flat))
    assert grad.shape == logits.shape
    np.testing.assert_array_equal(grad.reshape(-1, 5), flat_grad)


@pytest.mark.parametrize("dtype", [*"bBhHiIlLqQ"])
def test_any_integer_target(dtype):
    logits, target, _ = batch(20, 7)
    wanted = softly.cross_entropy(logits, target, reduction="none")
    np.testing.assert_array_equal(
        softly.cross_entropy(logits, target.astype(dtype), reduction="none"), wanted
    )


def test_lists_and_integer_logits():
    value, grad = softly.cross_entropy([[0, 1, 2], [3, 0, 0]], [2, 0], return_grad=True)
    assert grad.dtype == np.float64
    wanted = softly.cross_entropy(np.array([[0.0, 1, 2], [3, 0, 0]]), np.array([2, 0]))
    assert value == wanted


def test_any_layout_gives_the_same_bits_and_is_left_alone():
    logits, target, weight = batch(12, 9)
    kwargs = {"reduction": "none", "return_grad": True}
    loss, grad = softly.cross_entropy(logits, target, sample_weight=weight, **kwargs)
    wide = np.full((24, 27), np.nan)
    wide[::2, ::3] = logits
    frozen = logits.copy()
    frozen.flags.writeable = False
    layouts = [
        np.asfortranarray(logits),
        wide[::2, ::3],
        np.flip(np.flip(logits).copy()),
        frozen,
        logits.astype(logits.dtype.newbyteorder()),
    ]
    for same in layouts:
        for index, weights in [
            (target, weight),
            (np.repeat(target, 2)[::2], np.repeat(weight, 2)[::2]),
            (target.astype(">i2"), weight.astype(np.float32).astype(np.float64)),
        ]:
            got_loss, got_grad = softly.cross_entropy(same, index, sample_weight=weights, **kwargs)
            np.testing.assert_allclose(got_loss, loss, rtol=1e-6)
            if np.array_equal(weights, weight):
                np.testing.assert_array_equal(got_loss, loss)
                np.testing.assert_array_equal(got_grad, grad)
            np.testing.assert_array_equal(same, logits, err_msg="the input was written to")
            assert not np.shares_memory(got_grad, same)


def test_half_is_computed_in_single_and_rounded_once():
    logits, target, _ = batch(40, 33, np.float16)
    for reduction in REDUCTIONS:
        _, half = softly.cross_entropy(logits, target, reduction=reduction, return_grad=True)
        _, single = softly.cross_entropy(
            logits.astype(np.float32), target, reduction=reduction, return_grad=True
        )
        np.testing.assert_array_equal(half, single.astype(np.float16))


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


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_row_of_zero_weight_is_not_there(reduction, dtype):
    logits, target, weight = batch(9, 5, dtype)
    logits[2] = np.nan
    logits[5, 0] = np.inf
    logits[7] = -np.inf
    weight[[2, 5, 7]] = 0
    there = weight > 0
    value, grad = softly.cross_entropy(
        logits, target, sample_weight=weight, reduction=reduction, return_grad=True
    )
    wanted, wanted_grad = softly.cross_entropy(
        logits[there],
        target[there],
        sample_weight=weight[there],
        reduction=reduction,
        return_grad=True,
    )
    if reduction == "none":
        assert (value[~there] == 0).all()
        value = value[there]
    np.testing.assert_allclose(value, wanted, rtol=4 * float(np.finfo(dtype).eps))
    assert (grad[~there] == 0).all()
    np.testing.assert_array_equal(grad[there], wanted_grad)


def test_integer_weights_count_rows():
    logits, target, _ = batch(6, 4)
    count = np.array([1, 0, 3, 2, 1, 0])
    for reduction in ("mean", "sum"):
        value = softly.cross_entropy(logits, target, sample_weight=count, reduction=reduction)
        wanted = softly.cross_entropy(
            np.repeat(logits, count, axis=0), np.repeat(target, count), reduction=reduction
        )
        assert value == pytest.approx(wanted, rel=1e-14)


def test_weights_all_zero():
    logits, target, _ = batch(4, 3)
    logits[1] = np.nan
    weight = np.zeros(4)
    value, grad = softly.cross_entropy(
        logits, target, sample_weight=weight, reduction="sum", return_grad=True
    )
    assert value == 0
    assert not grad.any()
    softly.cross_entropy(logits, target, sample_weight=weight, return_grad=True)  # no warning


def test_weights_of_any_size():
    """The mean does not depend on the unit in which the weights are given."""
    logits, target, weight = batch(8, 5)
    wanted = softly.cross_entropy(logits, target, sample_weight=weight)
    for unit in (1e-200, 1e-30, 1e30, 1e200):
        value, grad = softly.cross_entropy(
            logits, target, sample_weight=unit * weight, return_grad=True
        )
        assert value == pytest.approx(wanted, rel=1e-13)
        assert np.isfinite(grad).all()
        assert np.abs(grad).max() > 1e-6


@pytest.mark.parametrize("dtype", FLOATS)
def test_an_empty_batch(dtype):
    logits, target = np.empty((0, 5), dtype), np.empty(0, int)
    value, grad = softly.cross_entropy(logits, target, return_grad=True)
    assert math.isnan(value)
    assert grad.shape == (0, 5)
    assert grad.dtype == dtype
    assert softly.cross_entropy(logits, target, reduction="sum") == 0
    assert softly.cross_entropy(logits, target, reduction="none").shape == (0,)
    assert math.isnan(softly.cross_entropy(logits, target, sample_weight=np.empty(0)))


# Against PyTorch ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_pytorch_agrees(reduction, dtype):
    torch = pytest.importorskip("torch")
    for count, classes in [(1, 1), (7, 3), (64, 10), (33, 1000)]:
        logits, target, _ = batch(count, classes, dtype, seed=4)
        value, grad = softly.cross_entropy(logits, target, reduction=reduction, return_grad=True)
        scores = torch.tensor(logits, requires_grad=True)
        wanted = torch.nn.functional.cross_entropy(
            scores, torch.tensor(target), reduction=reduction
        )
        wanted.sum().backward()
        eps = float(np.finfo(dtype).eps)
        # PyTorch takes softmax and logarithm in the type, one after the other.
        np.testing.assert_allclose(value, wanted.detach().numpy(), rtol=50 * eps, atol=20 * eps)
        np.testing.assert_allclose(grad, scores.grad.numpy(), rtol=50 * eps, atol=5 * eps)


def test_pytorch_agrees_on_an_empty_batch():
    torch = pytest.importorskip("torch")
    scores, target = torch.empty(0, 5), torch.empty(0, dtype=torch.int64)
    for reduction in REDUCTIONS:
        wanted = torch.nn.functional.cross_entropy(scores, target, reduction=reduction).numpy()
        value = softly.cross_entropy(scores.numpy(), target.numpy(), reduction=reduction)
        np.testing.assert_array_equal(value, wanted)


# Properties of the gradient -------------------------------------------------------------------


@st.composite
def problems(draw):
    count, classes = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    logits = draw(hnp.arrays(np.float64, (count, classes), elements=st.floats(-15, 15)))
    target = draw(hnp.arrays(np.int64, count, elements=st.integers(0, classes - 1)))
    weight = draw(st.none() | hnp.arrays(np.float64, count, elements=st.floats(0.125, 8)))
    return logits, target, weight


@given(problems(), st.sampled_from(REDUCTIONS))
def test_the_gradient_sums_to_zero_along_each_row(problem, reduction):
    logits, target, weight = problem
    _, grad = softly.cross_entropy(
        logits, target, sample_weight=weight, reduction=reduction, return_grad=True
    )
    for row in grad:
        assert abs(math.fsum(row)) <= 4 * np.finfo(float).eps * np.abs(row).max()


@given(problems(), st.sampled_from(REDUCTIONS))
def test_the_gradient_is_that_of_the_value(problem, reduction):
    """Central differences: an error of h^2 / 6 times the third derivative, and rounding / h."""
    logits, target, weight = problem

    def total(scores):
        value = softly.cross_entropy(scores, target, sample_weight=weight, reduction=reduction)
        return math.fsum(np.ravel(value))

    _, grad = softly.cross_entropy(
        logits, target, sample_weight=weight, reduction=reduction, return_grad=True
    )
    h = 2.0**-14
    for place in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[place] = h
        slope = (total(logits + step) - total(logits - step)) / (2 * h)
        # Losses of at most 35 times weights of at most 8, five of them.
        assert abs(slope - grad[place]) <= 1e-8


@given(problems())
def test_no_loss_is_negative(problem):
    logits, target, _ = problem
    losses = softly.cross_entropy(logits, target, reduction="none")
    assert (losses >= 0).all()


# Errors ---------------------------------------------------------------------------------------


def expect_target_error(logits, target, message):
    with pytest.raises((ValueError, IndexError)) as error:
        softly.cross_entropy(logits, target)
    assert message in str(error.value)


def test_a_target_out_of_range_is_named():
    logits = np.zeros((20, 10))
    target = np.zeros(20, int)
    target[17], target[19] = 12, -1
    expect_target_error(logits, target, "target[17] is 12, but the logits have 10 classes (0..9)")
    target[17] = 10
    expect_target_error(logits, target, "target[17] is 10, but the logits have 10 classes (0..9)")
    target[3] = -1
    expect_target_error(logits, target, "target[3] is -1, but the logits have 10 classes (0..9)")


def test_a_target_out_of_range_is_named_by_its_flat_index():
    target = np.zeros((4, 5), int)
    target[3, 2] = 12
    expect_target_error(
        np.zeros((4, 5, 10)), target, "target[17] is 12, but the logits have 10 classes (0..9)"
    )


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
        (255, np.uint8),
        (-128, np.int8),
    ],
)
def test_a_target_that_would_wrap_round_is_named_as_it_came(value, dtype):
    target = np.array([0, value], dtype)
    expect_target_error(
        np.zeros((2, 3)), target, f"target[1] is {value}, but the logits have 3 classes (0..2)"
    )


def test_a_target_must_be_integers():
    for target in ([0.0, 1.0], np.zeros(2, np.float32), ["0", "1"], [0, None], [0j, 1]):
        with pytest.raises(TypeError, match=r"\btarget\b"):
            softly.cross_entropy(np.zeros((2, 3)), target)


def test_logits_must_be_real():
    for logits in (np.zeros((2, 3), complex), np.full((2, 3), "a"), np.full((2, 3), None)):
        with pytest.raises(TypeError, match=r"\blogits\b"):
            softly.cross_entropy(logits, [0, 1])


@pytest.mark.parametrize(
    ("logits", "target"), [((4, 5), (3,)), ((4, 5), (4, 5)), ((4, 5), ()), ((2, 3, 5), (6,))]
)
def test_shapes_that_do_not_match_are_both_named(logits, target):
    with pytest.raises(ValueError, match=re.escape(str(logits))) as error:
        softly.cross_entropy(np.zeros(logits), np.zeros(target, int))
    assert str(target) in str(error.value)


def test_no_classes_or_no_class_axis_is_an_error():
    with pytest.raises(ValueError, match=r"\w"):
        softly.cross_entropy(np.empty((3, 0)), np.zeros(3, int))
    with pytest.raises(ValueError, match=r"\w"):
        softly.cross_entropy(np.float64(1), 0)


def test_weights_must_be_sound():
    logits, target, weight = batch(4, 3)
    for wrong in (-1, -1e-300, np.nan, np.inf, -np.inf):
        weight[2] = wrong
        with pytest.raises(ValueError, match=r"\bsample_weight\b"):
            softly.cross_entropy(logits, target, sample_weight=weight)
    with pytest.raises(ValueError, match=r"\bsample_weight\b") as error:
        softly.cross_entropy(logits, target, sample_weight=np.ones(3))
    assert "(3,)" in str(error.value)
    assert "(4,)" in str(error.value)
    for wrong in (np.ones(4, complex), ["a"] * 4, np.full(4, None)):
        with pytest.raises(TypeError, match=r"\bsample_weight\b"):
            softly.cross_entropy(logits, target, sample_weight=wrong)


def test_an_unknown_reduction_is_an_error():
    with pytest.raises(ValueError, match=r"\bmedian\b"):
        softly.cross_entropy(np.zeros((1, 2)), [0], reduction="median")


def test_options_are_named():
    with pytest.raises(TypeError):
        softly.cross_entropy(np.zeros((1, 2)), [0], None)
