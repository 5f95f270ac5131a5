"""linear_cross_entropy: the loss of features @ weight.T + bias, without all those scores.

Held to cross_entropy of the product on batches of any size, to the oracle on small ones, and
to its memory budget by what the process and NumPy really took.
"""

import json
import math
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import oracle
import softly

try:
    from ml_dtypes import bfloat16
except ImportError:  # its tests are left out then
    HALVES = [np.dtype(np.float16)]
else:
    HALVES = [np.dtype(np.float16), np.dtype(bfloat16)]

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
FLOATS = [*HALVES, SINGLE, DOUBLE]
KINDS = ["hard", "dense", "sparse"]
REDUCTIONS = ["mean", "sum", "none"]
MIB = 2**20

each_type = pytest.mark.parametrize("dtype", FLOATS, ids=str)


def layer(count, size, classes, dtype=DOUBLE, seed=0):
    """Features, weight and bias of which scores of some -10 to 10 come."""
    rng = np.random.default_rng([seed, count, size, classes])
    features = rng.normal(size=(count, size))
    weight = 3 / math.sqrt(size) * rng.normal(size=(classes, size))
    return [a.astype(dtype) for a in (features, weight, rng.normal(size=classes))]


def to_float(values):
    return np.array([float(v) for v in np.ravel(np.array(values, object))]).reshape(
        np.shape(values)
    )


def same_bits(actual, wanted, message=""):
    actual, wanted = np.asarray(actual), np.asarray(wanted)
    assert actual.dtype == wanted.dtype, message
    np.testing.assert_array_equal(actual, wanted, message)


def same_answers(actual, wanted, message=""):
    """Of (value, gradients) pairs."""
    same_bits(actual[0], wanted[0], message)
    for name in ("features", "weight", "bias"):
        same_bits(getattr(actual[1], name), getattr(wanted[1], name), message)


def in_two_steps(features, weight, target, bias=None, **options):
    """What the fused loss is to be: in float64, every score held at once."""
    features, weight = features.astype(np.float64), weight.astype(np.float64)
    scores = features @ weight.T
    if bias is not None:
        scores += bias.astype(np.float64)
    value, grad = softly.cross_entropy(scores, target, **options, return_grad=True)
    rows = grad.reshape(-1, grad.shape[-1])
    gradients = grad @ weight, rows.T @ features.reshape(len(rows), -1), rows.sum(axis=0)
    return value, gradients


def assert_close(actual, wanted, unit, dtype, message=""):
    """Within units of the largest entry; and of each entry where it was rounded to half."""
    assert actual.dtype == dtype, message
    assert actual.shape == wanted.shape, message
    rtol = 0.51 * float(oracle.finfo(dtype).eps) if dtype in HALVES else 0
    atol = unit * max(abs(wanted).max(initial=0), 1e-6)
    if dtype in HALVES:
        atol += float(oracle.finfo(dtype).smallest_subnormal)
    np.testing.assert_allclose(actual.astype(np.float64), wanted, rtol, atol, err_msg=message)


def assert_agrees(features, weight, target, bias, wanted, units=64, **options):
    """Value and gradients, within units in the last place of the type computed in."""
    dtype = features.dtype
    unit = units * float(np.finfo(DOUBLE if dtype == DOUBLE else SINGLE).eps)
    value, grads = softly.linear_cross_entropy(
        features, weight, target, bias, **options, return_grad=True
    )
    wanted, wanted_grads = wanted
    if options.get("reduction") == "none":
        assert_close(value, np.asarray(wanted), unit, dtype, "value")
    else:
        assert isinstance(value, float)
        assert value == pytest.approx(float(wanted), rel=unit)
    for name, theirs in zip(("features", "weight", "bias"), wanted_grads, strict=True):
        ours = getattr(grads, name)
        if name == "bias" and bias is None:
            assert ours is None
        else:
            assert_close(ours, theirs, unit, dtype, name)
    alone = softly.linear_cross_entropy(features, weight, target, bias, **options)
    np.testing.assert_array_equal(alone, value)


# Values ---------------------------------------------------------------------------------------


@each_type
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["nothing", "all", *oracle.loss_options(1, 1)])
def test_small_layers_agree_with_the_oracle(name, kind, dtype):
    count, size, classes = 4, 3, 5
    features, weight, bias = layer(count, size, classes, dtype)
    everything = oracle.loss_options(count, classes)
    options = {"nothing": {}, "all": everything}.get(name)
    options = {name: everything[name]} if options is None else options
    target = oracle.targets(kind, count, classes, dtype, allowed=options.get("where"))
    parameters = features, weight, target
    for reduction, b in (("mean", bias), ("none", bias), ("sum", None)):
        given = {**options, "reduction": reduction}
        value, *gradients = oracle.linear_cross_entropy(*parameters, b, **given)
        wanted = to_float(value), [to_float(g) for g in gradients]
        assert_agrees(*parameters, b, wanted, **given)


@each_type
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fused", [False, True])
def test_layers_agree_with_the_loss_of_the_product(fused, kind, dtype):
    for count, size, classes in [(1, 1, 1), (1, 7, 2), (65, 1, 3), (130, 33, 49), (50, 64, 1003)]:
        features, weight, bias = layer(count, size, classes, dtype)
        options = oracle.loss_options(count, classes) if fused else {}
        target = oracle.targets(kind, count, classes, dtype, allowed=options.get("where"))
        for reduction, b in (("mean", bias), ("none", None), ("sum", bias)):
            given = {**options, "reduction": reduction}
            wanted = in_two_steps(features, weight, target, b, **given)
            assert_agrees(features, weight, target, b, wanted, units=200, **given)


@hypothesis.given(st.data())
def test_any_options_together_agree_with_the_loss_of_the_product(data):
    draw = data.draw
    count, size, classes = (draw(st.integers(1, n)) for n in (9, 5, 12))
    dtype, kind = draw(st.sampled_from(FLOATS)), draw(st.sampled_from(KINDS))
    features, weight, bias = layer(count, size, classes, dtype, seed=draw(st.integers(0, 9)))
    everything = oracle.loss_options(count, classes)
    options = {name: everything[name] for name in draw(st.sets(st.sampled_from([*everything])))}
    options["reduction"] = draw(st.sampled_from(REDUCTIONS))
    target = oracle.targets(kind, count, classes, dtype, allowed=options.get("where"))
    if kind == "hard":
        target[draw(st.lists(st.integers(0, count - 1)))] = -100
    bias = draw(st.sampled_from([bias, None]))
    wanted = in_two_steps(features, weight, target, bias, **options)
    if math.isnan(np.sum(wanted[0])):  # everything is ignored
        assert options["reduction"] == "mean"
        value, grads = softly.linear_cross_entropy(
            features, weight, target, bias, **options, return_grad=True
        )
        assert math.isnan(value)
        assert not any(g.any() for g in (grads.features, grads.weight))
    else:
        assert_agrees(features, weight, target, bias, wanted, **options)


def test_the_gradients_are_those_of_the_value():
    """Central differences in each of the three arguments."""
    arrays = layer(3, 4, 5)
    options = oracle.loss_options(3, 5)
    for kind in KINDS:
        target = oracle.targets(kind, 3, 5, allowed=options["where"])

        def value(features, weight, bias, target=target):
            return softly.linear_cross_entropy(features, weight, target, bias, **options)

        _, grads = softly.linear_cross_entropy(
            *arrays[:2], target, arrays[2], **options, return_grad=True
        )
        h = 2.0**-14
        for at, name in enumerate(("features", "weight", "bias")):
            for place in np.ndindex(arrays[at].shape):
                above, below = ([a.copy() for a in arrays] for _ in range(2))
                above[at][place] += h
                below[at][place] -= h
                slope = (value(*above) - value(*below)) / (2 * h)
                assert abs(slope - getattr(grads, name)[place]) <= 1e-7


def test_defaults_are_those_of_cross_entropy():
    features, weight, bias = layer(9, 4, 6)
    target = oracle.targets("hard", 9, 6)
    neutral = {
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
        "memory_budget": 64 * MIB,
    }
    value = softly.linear_cross_entropy(features, weight, target, bias)
    assert softly.linear_cross_entropy(features, weight, target, bias=bias, **neutral) == value
    scores = features @ weight.T + bias
    assert value == pytest.approx(softly.cross_entropy(scores, target), rel=1e-14)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_is_worked_on_in_single(dtype):
    """The scores too: rounding them to half would be wrong in the third digit.

    And the sums over rows: thousands of halves added up in half would stop growing.
    """
    features, weight, bias = layer(3000, 64, 10, dtype)
    target = oracle.targets("hard", 3000, 10)
    wanted = in_two_steps(features, weight, target, bias, reduction="sum")
    assert_agrees(features, weight, target, bias, wanted, reduction="sum")
    _, grads = softly.linear_cross_entropy(
        np.ones((4096, 1), dtype),
        np.zeros((2, 1), dtype),
        np.zeros(4096, int),
        reduction="sum",
        return_grad=True,
    )
    np.testing.assert_array_equal(grads.weight.astype(float), [[-2048], [2048]])


# Shapes, types and layouts --------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (6,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_any_leading_shape(kind, shape):
    count = math.prod(shape)
    features, weight, bias = layer(count, 3, 5)
    options = oracle.loss_options(count, 5)
    target = oracle.targets(kind, count, 5, allowed=options["where"])

    def shaped(array):
        return array.reshape((*shape, *array.shape[1:]))

    by_row = {name: shaped(options[name]) for name in ("sample_weight", "temperature", "where")}
    same = tuple(map(shaped, target)) if kind == "sparse" else shaped(target)
    for reduction in REDUCTIONS:
        kwargs = {"reduction": reduction, "return_grad": True}
        flat, flat_grads = softly.linear_cross_entropy(
            features, weight, target, bias, **options, **kwargs
        )
        value, grads = softly.linear_cross_entropy(
            shaped(features), weight, same, bias, **{**options, **by_row}, **kwargs
        )
        assert np.shape(value) == (shape if reduction == "none" else ())
        np.testing.assert_allclose(np.ravel(value), np.ravel(flat), rtol=1e-14)
        assert grads.features.shape == (*shape, 3)
        np.testing.assert_allclose(grads.features, shaped(flat_grads.features), rtol=1e-13)
        np.testing.assert_allclose(grads.weight, flat_grads.weight, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(grads.bias, flat_grads.bias, rtol=1e-12, atol=1e-15)


@each_type
def test_any_layout_is_understood_and_left_alone(dtype):
    given = layer(20, 7, 9, dtype)
    target = oracle.targets("hard", 20, 9)
    wanted = softly.linear_cross_entropy(*given[:2], target, given[2], return_grad=True)

    def strided(a):
        return np.repeat(a, 2, axis=-1)[..., ::2]

    def flipped(a):
        return np.flip(np.flip(a).copy())

    def frozen(a):
        a = a.copy()
        a.flags.writeable = False
        return a

    for change in (np.asfortranarray, strided, flipped, frozen):
        features, weight, bias = map(change, given)
        value, grads = softly.linear_cross_entropy(
            features, weight, change(target), bias, return_grad=True
        )
        assert value == pytest.approx(wanted[0], rel=1e-6)
        for name, now, then in zip(
            ("features", "weight", "bias"), (features, weight, bias), given, strict=True
        ):
            np.testing.assert_array_equal(now, then, f"{name} was written to")
            ours = getattr(grads, name)
            assert ours.flags.writeable
            assert not np.shares_memory(ours, now)
            assert_close(ours, getattr(wanted[1], name).astype(float), 1e-5, dtype)


def test_integers_and_lists():
    value, grads = softly.linear_cross_entropy(
        [[1, 2], [3, 4]], [[1, 0], [0, 1], [1, 1]], [0, 2], [0, 1, 0], return_grad=True
    )
    scores = np.array([[1.0, 3, 3], [3, 5, 7]])
    assert value == pytest.approx(softly.cross_entropy(scores, [0, 2]), rel=1e-15)
    assert {g.dtype for g in (grads.features, grads.weight, grads.bias)} == {DOUBLE}


@pytest.mark.parametrize("code", [*"bBhHiIlLqQ"])
def test_any_integer_target(code):
    features, weight, bias = layer(20, 3, 7)
    target = oracle.targets("hard", 20, 7)
    value = softly.linear_cross_entropy(features, weight, target.astype(code), bias)
    assert value == softly.linear_cross_entropy(features, weight, target, bias)


# Rows that count for nothing ------------------------------------------------------------------


@each_type
@pytest.mark.parametrize("how", ["ignored", "sample_weight", "class_weight", "no share"])
def test_rows_that_count_for_nothing_never_enter_the_product(how, dtype):
    """NaN in their features reaches no sum; what is left is as if they were not there."""
    features, weight, bias = layer(300, 8, 20, dtype)
    dead = np.random.default_rng(1).random(300) < 0.7
    dead[[0, -1]] = True
    target = oracle.targets("hard", 300, 20) % 19
    options = {}
    if how == "ignored":
        target[dead] = -100
    elif how == "sample_weight":
        options["sample_weight"] = np.where(dead, 0, 1.5)
    elif how == "class_weight":
        target[dead] = 19
        options["class_weight"] = np.append(np.linspace(0.5, 2, 19), 0)
    else:
        shares = np.where(dead[:, None], 0, np.full((300, 2), 0.5)).astype(dtype)
        target = (np.stack([target, target], axis=1), shares)
    features[dead] = np.where(np.arange(8) % 2, np.nan, np.inf).astype(dtype)
    some = tuple(t[~dead] for t in target) if how == "no share" else target[~dead]
    cut = {k: v[~dead] if k == "sample_weight" else v for k, v in options.items()}
    for reduction in REDUCTIONS:
        if how == "no share" and reduction == "mean":
            continue  # its rows count in the mean
        kwargs = {"reduction": reduction, "return_grad": True}
        value, grads = softly.linear_cross_entropy(
            features, weight, target, bias, **options, **kwargs
        )
        wanted, wanted_grads = softly.linear_cross_entropy(
            features[~dead], weight, some, bias, **cut, **kwargs
        )
        assert (grads.features[dead] == 0).all()
        unit = 1e-14 if dtype == DOUBLE else 1e-5
        if reduction == "none":
            assert (value[dead] == 0).all()
            assert_close(value[~dead], wanted.astype(float), unit, dtype)
        else:
            assert value == pytest.approx(wanted, rel=unit)
        for ours, theirs in (
            (grads.features[~dead], wanted_grads.features),
            (grads.weight, wanted_grads.weight),
            (grads.bias, wanted_grads.bias),
        ):
            # Both were rounded to half.
            np.testing.assert_allclose(
                ours.astype(float),
                theirs.astype(float),
                rtol=1.01 * float(oracle.finfo(dtype).eps) if dtype in HALVES else 0,
                atol=unit * abs(theirs.astype(float)).max(),
            )


@each_type
def test_nothing_left_to_average(dtype):
    for count in (0, 5):
        features, weight, bias = layer(count, 3, 4, dtype)
        features[...] = np.nan
        target = np.full(count, -100)
        for empty, mean in (("nan", math.nan), ("zero", 0.0)):
            value, grads = softly.linear_cross_entropy(
                features, weight, target, bias, empty=empty, return_grad=True
            )
            np.testing.assert_equal(value, mean)
            for array, grad in zip(
                (features, weight, bias), (grads.features, grads.weight, grads.bias), strict=True
            ):
                assert grad.shape == array.shape
                assert grad.dtype == dtype
                assert (grad == 0).all()
        assert softly.linear_cross_entropy(features, weight, target, reduction="sum") == 0
        losses = softly.linear_cross_entropy(features, weight, target, reduction="none")
        assert losses.shape == (count,)
        assert losses.dtype == dtype


def test_nan_spoils_its_own_row_and_no_other():
    """Its loss and its gradient; the weight's gradient is a sum over all rows."""
    features, weight, bias = layer(50, 6, 30)
    target = oracle.targets("hard", 50, 30)
    wanted, wanted_grads = softly.linear_cross_entropy(
        features, weight, target, bias, reduction="none", return_grad=True
    )
    features[7, 2] = np.nan
    losses, grads = softly.linear_cross_entropy(
        features, weight, target, bias, reduction="none", return_grad=True
    )
    others = np.arange(50) != 7
    assert np.isnan(losses[7])
    assert np.isnan(grads.features[7]).all()
    np.testing.assert_allclose(losses[others], wanted[others], rtol=1e-13)
    np.testing.assert_allclose(grads.features[others], wanted_grads.features[others], rtol=1e-10)
    assert math.isnan(softly.linear_cross_entropy(features, weight, target, bias))


def test_a_class_without_a_chance():
    """A bias of -inf: probability 0, and nothing of its weight moves."""
    features, weight, bias = layer(10, 3, 5)
    bias[2] = -np.inf
    target = oracle.targets("hard", 10, 5, allowed=np.tile(np.arange(5) != 2, (10, 1)))
    value, grads = softly.linear_cross_entropy(features, weight, target, bias, return_grad=True)
    keep = np.arange(5) != 2
    few = np.where(target > 2, target - 1, target)
    assert value == pytest.approx(
        softly.linear_cross_entropy(features, weight[keep], few, bias[keep]), rel=1e-14
    )
    assert (grads.weight[2] == 0).all()
    assert grads.bias[2] == 0
    assert np.isfinite(grads.features).all()


# The memory budget ----------------------------------------------------------------------------


def smallest_budget(*arguments, **options):
    """What the refusal of a budget of one byte names as the least."""
    with pytest.raises(ValueError, match="memory_budget") as raised:
        softly.linear_cross_entropy(*arguments, **options, memory_budget=1)
    named = [int(n.replace(",", "")) for n in re.findall(r"(\d[\d,]*) bytes", str(raised.value))]
    assert named, f"no number of bytes in: {raised.value}"
    return max(named)


@each_type
@pytest.mark.parametrize("return_grad", [False, True])
def test_a_tiny_budget_is_refused_and_the_least_is_named(return_grad, dtype):
    features, weight, bias = layer(100, 16, 300, dtype)
    target = oracle.targets("hard", 100, 300)
    arguments = features, weight, target, bias
    least = smallest_budget(*arguments, return_grad=return_grad)
    wanted = softly.linear_cross_entropy(*arguments)
    value = softly.linear_cross_entropy(*arguments, memory_budget=least, return_grad=return_grad)
    value = value[0] if return_grad else value
    assert abs(value - wanted) <= 2 * np.spacing(np.float32(wanted))
    for wrong in (least - 1, 0, -1):
        with pytest.raises(ValueError, match="memory_budget") as raised:
            softly.linear_cross_entropy(*arguments, memory_budget=wrong, return_grad=return_grad)
        assert str(least) in str(raised.value).replace(",", "")
        assert str(wrong) in str(raised.value).replace(",", "")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.dtype(np.float16), SINGLE, DOUBLE], ids=str)
def test_the_value_does_not_depend_on_the_budget(kind, dtype):
    count, size, classes = 400, 24, 2000
    features, weight, bias = layer(count, size, classes, dtype)
    options = oracle.loss_options(count, classes)
    target = oracle.targets(kind, count, classes, dtype, allowed=options["where"])
    arguments = features, weight, target, bias
    least = smallest_budget(*arguments, return_grad=True)
    budgets = {max(least, budget) for budget in (least + least // 3, MIB, 3_000_011, 2**40)}
    for kwargs in ({"reduction": "sum"}, options):
        answers = [
            softly.linear_cross_entropy(
                *arguments, **kwargs, memory_budget=budget, return_grad=True
            )
            for budget in (least, *sorted(budgets))
        ]
        values = np.array([value for value, _ in answers])
        assert np.ptp(values) <= 2 * np.spacing(np.float32(values.max()))
        grads = answers[-1][1]
        for _, other in answers[:-1]:
            for name in ("features", "weight", "bias"):
                ours, theirs = (getattr(g, name).astype(float) for g in (other, grads))
                unit = 1e-13 if dtype == DOUBLE else 1e-5
                info = oracle.finfo(dtype)
                # Once rounded, two near numbers may be neighbours, subnormal ones too.
                atol = unit * abs(theirs).max() + 1.01 * float(info.smallest_subnormal)
                np.testing.assert_allclose(ours, theirs, 1.01 * float(info.eps), atol)


def test_losses_of_rows_hardly_depend_on_the_budget():
    """Each is a sum of products, which blocks of another shape may add up in another order."""
    features, weight, bias = layer(500, 40, 2000, SINGLE)
    arguments = features, weight, oracle.targets("hard", 500, 2000), bias
    least = smallest_budget(*arguments)
    losses = [
        softly.linear_cross_entropy(*arguments, reduction="none", memory_budget=budget)
        for budget in (least, MIB, 64 * MIB)
        if budget >= least
    ]
    for other in losses[1:]:
        np.testing.assert_allclose(other, losses[0], rtol=1e-5, atol=1e-5)


# What one call takes: the highest resident size of the process and NumPy's highest allocation,
# each beyond what was held before. Threads and BLAS's own room are there before it.
MEASURE = """
import json
import sys
import tracemalloc
import numpy as np
import softly

count, size, classes, budget = 2048, 64, 16384, int(sys.argv[1])
dtype, kind, return_grad = sys.argv[2], sys.argv[3], sys.argv[4] == "True"
if dtype == "bfloat16":
    from ml_dtypes import bfloat16 as dtype
rng = np.random.default_rng(0)
features = rng.standard_normal((count, size), dtype=np.float32).astype(dtype)
weight = (0.1 * rng.standard_normal((classes, size), dtype=np.float32)).astype(dtype)
target = rng.integers(classes, size=count)
options = {"memory_budget": budget, "return_grad": return_grad}
if kind == "sparse":
    target = target[:, None] + np.zeros((1, 3), int), np.full((count, 3), 0.3, np.float32)
if kind == "all options":
    target[::5] = -100
    options |= {
        "class_weight": rng.uniform(size=classes),
        "sample_weight": rng.uniform(size=count),
        "label_smoothing": 0.1,
        "z_loss": 0.01,
        "logit_cap": 30.0,
        "temperature": rng.uniform(0.5, 2, size=count),
        "where": rng.random(classes) < 1.1,
        "focal": 1.5,
    }

def resident(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))

np.ones((8, size), np.float32) @ np.ones((size, classes), np.float32)
softly.softmax(np.zeros((100, 1000)), axis=1)
softly.linear_cross_entropy(features[:9], weight[:3], np.zeros(9, int), return_grad=True)

open("/proc/self/clear_refs", "w").write("5")  # forgets the highest so far
before = resident("VmRSS")
answer = softly.linear_cross_entropy(features, weight, target, **options)
peak = resident("VmHWM") - before

grads = [answer[1].features, answer[1].weight] if return_grad else []
gradients = sum(g.nbytes for g in grads)
del answer, grads
tracemalloc.start()
softly.linear_cross_entropy(features, weight, target, **options)
print(json.dumps([tracemalloc.get_traced_memory()[1] - gradients, peak - gradients]))
"""


def can_reset_the_peak():
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def child(script, *arguments, **environment):
    process = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


@pytest.mark.skipif(not can_reset_the_peak(), reason="the system does not tell a call's peak")
@pytest.mark.parametrize(
    ("budget", "dtype", "kind", "return_grad"),
    [
        (16 * MIB, "float32", "hard", True),
        (16 * MIB, "float32", "hard", False),
        (40 * MIB, "float32", "all options", True),
        (16 * MIB, "float16", "all options", True),
        pytest.param(
            *(24 * MIB, "bfloat16", "sparse", True),
            marks=pytest.mark.skipif(len(HALVES) < 2, reason="no bfloat16"),
        ),
        (40 * MIB, "float64", "sparse", True),
    ],
)
def test_the_budget_is_kept(budget, dtype, kind, return_grad):
    """All scores at once would be 128 MiB of float32."""
    allocated, resident = json.loads(child(MEASURE, budget, dtype, kind, return_grad))
    assert allocated <= budget + MIB / 4  # Python's own objects
    # What NumPy did not see; BLAS packs what it multiplies, and freed pages lie between others.
    assert resident <= 1.25 * budget + 6 * MIB


# Same bits ------------------------------------------------------------------------------------


RUN = """
import hashlib
import sys
import numpy as np
import softly
sys.path.insert(0, sys.argv[1])
import oracle

def digest():
    sha = hashlib.sha256()
    for count, size, classes in [(2000, 20, 30), (200, 130, 3003)]:
        rng = np.random.default_rng(0)
        features, weight = rng.normal(size=(count, size)), rng.normal(size=(classes, size)) / size
        options = oracle.loss_options(count, classes)
        for kind in ("hard", "sparse"):
            target = oracle.targets(kind, count, classes, allowed=options["where"])
            for dtype in (np.float16, np.float32, np.float64):
                for budget in (4 * 2**20, 64 * 2**20):
                    layer = features.astype(dtype), weight.astype(dtype)
                    value, grads = softly.linear_cross_entropy(
                        *layer, target, **options, memory_budget=budget, return_grad=True
                    )
                    sha.update(np.float64(value).tobytes())
                    sha.update(grads.features.tobytes() + grads.weight.tobytes())
    return sha.hexdigest()

first = digest()
assert first == digest(), "one run, two answers"
print(first)
"""


def test_the_same_bits_run_after_run():
    """The threads that the sums are split over meet in another order each time."""
    runs = [child(RUN, os.path.dirname(oracle.__file__), SOFTLY_THREADS="2") for _ in range(2)]
    assert runs[0] == runs[1]


def test_concurrent_callers_get_their_own_answers():
    layers = [layer(200, 30, 400 + i, SINGLE) for i in range(4)]
    targets = [oracle.targets("hard", 200, 400)] * 4

    def answer(i):
        features, weight, bias = layers[i]
        return softly.linear_cross_entropy(features, weight, targets[i], bias, return_grad=True)

    wanted = [answer(i) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for i, got in enumerate(pool.map(answer, [*range(4)] * 5)):
            same_answers(got, wanted[i % 4])


# PyTorch, its tensors and other libraries -----------------------------------------------------


def as_tensor(array):
    torch = pytest.importorskip("torch")
    if array.dtype in HALVES[1:]:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def as_array(tensor):
    torch = pytest.importorskip("torch")
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(HALVES[1])
    return tensor.numpy()


@each_type
def test_tensors_give_tensors_with_the_same_bits(dtype):
    torch = pytest.importorskip("torch")
    features, weight, bias = layer(40, 6, 30, dtype)
    target = oracle.targets("hard", 40, 30)
    tensors = [as_tensor(a) for a in (features, weight, target, bias)]
    for reduction in REDUCTIONS:
        kwargs = {"reduction": reduction, "return_grad": True}
        wanted, theirs = softly.linear_cross_entropy(features, weight, target, bias, **kwargs)
        value, ours = softly.linear_cross_entropy(*tensors, **kwargs)
        if reduction == "none":
            assert isinstance(value, torch.Tensor)
            value = as_array(value)
        same_bits(value, wanted)
        for name in ("features", "weight", "bias"):
            grad = getattr(ours, name)
            assert isinstance(grad, torch.Tensor)
            same_bits(as_array(grad), getattr(theirs, name), name)


def test_a_tensor_that_requires_a_gradient_is_to_be_detached():
    torch = pytest.importorskip("torch")
    arguments = {
        "features": torch.ones(2, 3),
        "weight": torch.ones(4, 3),
        "target": torch.tensor([0, 1]),
        "bias": torch.ones(4),
    }
    for name in ("features", "weight", "bias"):
        tracked = arguments | {name: arguments[name].clone().requires_grad_()}
        with pytest.raises(TypeError, match=r"detach\(\)") as error:
            softly.linear_cross_entropy(**tracked)
        assert name in str(error.value)


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE], ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_pytorch_agrees(reduction, dtype):
    torch = pytest.importorskip("torch")
    features, weight, bias = layer(60, 16, 100, dtype)
    target = oracle.targets("hard", 60, 100)
    target[::7] = -100
    class_weight = np.random.default_rng(1).uniform(0.5, 2, size=100).astype(dtype)
    theirs = [torch.tensor(a, requires_grad=True) for a in (features, weight, bias)]
    wanted = torch.nn.functional.cross_entropy(
        torch.nn.functional.linear(*theirs),
        torch.tensor(target),
        weight=torch.tensor(class_weight),
        label_smoothing=0.1,
        reduction=reduction,
    )
    wanted.sum().backward()
    value, grads = softly.linear_cross_entropy(
        features,
        weight,
        target,
        bias,
        class_weight=class_weight,
        label_smoothing=0.1,
        reduction=reduction,
        return_grad=True,
    )
    unit = 200 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(value, wanted.detach().numpy(), rtol=unit, atol=unit)
    for grad, leaf in zip((grads.features, grads.weight, grads.bias), theirs, strict=True):
        assert_close(grad, leaf.grad.numpy(), unit, dtype)


@pytest.mark.parametrize("library", ["array_api_strict", "jax.numpy"])
def test_other_libraries_are_refused(library):
    xp = pytest.importorskip(library)
    features, weight = (xp.asarray(np.ones(s, np.float32)) for s in [(2, 3), (4, 3)])
    target = xp.asarray(np.zeros(2, np.int32))
    with pytest.raises(TypeError, match="features"):
        softly.linear_cross_entropy(features, weight, target)


# Errors ---------------------------------------------------------------------------------------


def refused(error, features, weight, target, *parts, bias=None, **options):
    """The call raises, and its message has all parts."""
    for return_grad in (False, True):
        with pytest.raises(error) as raised:
            softly.linear_cross_entropy(
                features, weight, target, bias, **options, return_grad=return_grad
            )
        for part in parts:
            assert part in str(raised.value), str(raised.value)


def test_shapes_that_do_not_match_are_named():
    target = np.zeros(4, int)
    for features, weight in [((4, 3), (5, 2)), ((4, 3), (3, 5)), ((3,), (5, 2)), ((4, 0), (5, 3))]:
        given = np.ones(features), np.ones(weight), np.zeros(features[:-1], int)
        refused(ValueError, *given, "features", str(features), "weight", str(weight))
    features, weight = np.ones((4, 3)), np.ones((5, 3))
    for shape in [(3,), (1, 5, 3), ()]:
        refused(ValueError, features, np.ones(shape), target, "weight", str(shape))
    refused(ValueError, np.float64(1), weight, 0, "features")
    for shape in [(4,), (5, 1), (1, 5), ()]:
        refused(
            ValueError, features, weight, target, "bias", str(shape), "(5,)", bias=np.ones(shape)
        )
    for shape in [(3,), (4, 1), (4, 5), ()]:
        refused(ValueError, features, weight, np.zeros(shape, int), "target", str(shape))
    refused(ValueError, features, weight, np.full((4, 4), 0.25), "target", "(4, 4)")
    refused(ValueError, features, weight, (np.zeros((3, 2), int), np.zeros((3, 2))), "target")
    refused(ValueError, features, np.ones((0, 3)), target, "weight", "(0, 3)")


def test_a_target_out_of_range_is_named():
    features, weight = np.ones((20, 3)), np.ones((10, 3))
    target = np.zeros(20, int)
    target[17] = 12
    refused(ValueError, features, weight, target, "target[17] is 12", "10 classes (0..9)")
    indices, shares = target[:, None], np.ones((20, 1))
    refused(ValueError, features, weight, (indices, shares), "target", "17", "12", "10 classes")


def test_what_is_no_number_is_a_type_error():
    arguments = {
        "features": np.ones((2, 3)),
        "weight": np.ones((4, 3)),
        "target": np.array([0, 1]),
        "bias": np.ones(4),
    }
    for name, right in arguments.items():
        for dtype in (complex, str, object):
            wrong = arguments | {name: right.astype(dtype)}
            with pytest.raises(TypeError, match=name):
                softly.linear_cross_entropy(**wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reduction", "median"),
        ("empty", "one"),
        ("label_smoothing", 1.5),
        ("z_loss", -0.5),
        ("focal", math.nan),
        ("logit_cap", 0.0),
        ("temperature", -0.5),
        ("class_weight", np.ones(3)),
        ("class_weight", np.full(4, -1.0)),
        ("sample_weight", np.ones(3)),
        ("sample_weight", np.full(2, np.nan)),
        ("where", np.ones(3, bool)),
        ("memory_budget", -5),
    ],
)
def test_an_option_out_of_range_is_named(name, value):
    refused(ValueError, np.ones((2, 3)), np.ones((4, 3)), [0, 1], name, **{name: value})


def test_options_are_named():
    with pytest.raises(TypeError):
        softly.linear_cross_entropy(np.ones((1, 2)), np.ones((3, 2)), [0], None, None)
    with pytest.raises(TypeError):
        softly.linear_cross_entropy(np.ones((1, 2)), np.ones((3, 2)), [0], axis=0)
