"""The softmax family as its tests see it: the functions, and arguments to call each with."""

import hashlib

import ml_dtypes
import numpy as np

import softly

HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
FLOATS = [*HALVES, SINGLE, DOUBLE]

OF_SCORES = [softly.softmax, softly.log_softmax, softly.logsumexp]
DERIVATIVES = [softly.softmax_vjp, softly.softmax_jvp, softly.log_softmax_vjp]
OVER_AN_AXIS = [*OF_SCORES, softly.softmax_inverse, *DERIVATIVES]
ELEMENTWISE = [softly.sigmoid, softly.log_sigmoid, softly.logit]
FUNCTIONS = [*OVER_AN_AXIS, *ELEMENTWISE]

OF_PROBABILITIES = [softly.softmax_inverse, softly.softmax_vjp, softly.softmax_jvp, softly.logit]


def names(function):
    """What the function calls its arrays."""
    first = "log_p" if function is softly.log_softmax_vjp else "x"
    if function in OF_PROBABILITIES:
        first = "p"
    if function not in DERIVATIVES:
        return [first]
    return [first, "t" if function is softly.softmax_jvp else "g"]


def arguments(function, shape, dtype=DOUBLE, seed=0):
    """Scores, probabilities or their logarithms; for a derivative, a direction as well."""
    rng = np.random.default_rng([seed, *np.atleast_1d(np.array(shape, int))])
    draw = {
        "x": lambda: 3 * rng.normal(size=shape),
        "p": lambda: rng.uniform(size=shape),
        "log_p": lambda: -3 * abs(rng.normal(size=shape)),
    }
    drawn = [draw.get(name, lambda: rng.normal(size=shape))() for name in names(function)]
    return [np.asarray(array).astype(dtype) for array in drawn]


def last_axis(function):
    """The keyword arguments that ask for rows along the last axis."""
    return {} if function in ELEMENTWISE else {"axis": -1}


def temperatures(function):
    """Some that the function takes; the inverse of softmax has no limits."""
    return [0.3, 1, 4] if function is softly.softmax_inverse else [0, 0.3, 1, 4, np.inf]


def by_rows(function, given, axis, temperature=1.0, where=None):
    """The answer by way of contiguous rows, the layout that the oracle checks.

    A temperature is a number, or an array of one per row.
    """
    shape = given[0].shape
    axes = range(len(shape)) if axis is None else np.atleast_1d(axis)
    axes = sorted(a % len(shape) for a in axes)
    last = range(len(shape) - len(axes), len(shape))
    left = [n for a, n in enumerate(shape) if a not in axes]
    together = [shape[a] for a in axes]

    def rows(array):
        moved = np.moveaxis(np.broadcast_to(array, shape), axes, last)
        return np.ascontiguousarray(moved).reshape(-1, np.prod(together, dtype=int))

    given = [rows(array.astype(array.dtype.newbyteorder("="))) for array in given]
    temperature = temperature if np.isscalar(temperature) else np.reshape(temperature, -1)
    where = None if where is None else rows(where)
    answer = function(*given, axis=1, temperature=temperature, where=where)
    if function is softly.logsumexp:
        return answer.reshape(left)
    return np.moveaxis(answer.reshape(left + together), last, axes)


def same_bits(actual, wanted, message=""):
    """Equal to the bit, the sign of zero included, except that a NaN is a NaN."""
    assert actual.dtype == wanted.dtype, message
    assert actual.shape == wanted.shape, message
    bits = f"u{actual.itemsize}"
    nan = np.isnan(actual)
    np.testing.assert_array_equal(nan, np.isnan(wanted), err_msg=message)
    actual, wanted = (
        np.where(nan, 0, np.ascontiguousarray(array).view(bits).reshape(array.shape))
        for array in (actual, wanted)
    )
    np.testing.assert_array_equal(actual, wanted, err_msg=message)


def inside_of_sevens(array, begin):
    """A copy that begins so many numbers into a line of 64 bytes, and all around it."""
    whole = np.full(array.size + 64, 7, array.dtype)
    begin += -whole.ctypes.data % 64 // array.itemsize
    part = whole[begin : begin + array.size].reshape(array.shape)
    part[...] = array
    return whole, part


def answers():
    """Every function and the loss, by name; most arrays large enough that threads share them."""
    found = {}
    rng = np.random.default_rng(53)
    for dtype in (np.dtype(np.float16), SINGLE, DOUBLE):
        for shape, axis in [((200, 700), 1), ((700, 200), 0), ((30, 17, 300), 1), ((50_000, 3), 1)]:
            left = [n for a, n in enumerate(shape) if a != axis]
            where = rng.random(shape) < 0.9
            for function in OVER_AN_AXIS:
                given = arguments(function, shape, dtype)
                given[0][..., 2] = -np.inf if function in OF_SCORES else 0
                temperature = rng.choice(temperatures(function), size=left)
                name = f"{function.__name__} {dtype} {shape}"
                found[name] = function(*given, axis=axis)
                found[f"{name} with options"] = function(
                    *given, axis=axis, temperature=temperature, where=where
                )
        for function in ELEMENTWISE:
            found[f"{function.__name__} {dtype}"] = function(*arguments(function, 70_001, dtype))
        found |= {f"{name} {dtype}": value for name, value in losses(dtype).items()}
    return found


def digests():
    """What tells two processes' answers apart, by name; a NaN is a NaN."""
    return {
        name: hashlib.sha256(np.where(np.isnan(value), np.nan, value).tobytes()).hexdigest()
        for name, value in answers().items()
    }


def losses(dtype):
    rng = np.random.default_rng(59)
    logits = rng.normal(size=(500, 700)).astype(dtype)
    target = rng.integers(700, size=500)
    options = {
        "plain": {},
        "weighted": {
            "sample_weight": rng.uniform(size=500),
            "class_weight": rng.uniform(size=700),
            "label_smoothing": 0.1,
            "z_loss": 1e-4,
        },
        "tempered": {"temperature": 0.7, "logit_cap": 30.0, "focal": 2.0, "reduction": "sum"},
    }
    found = {}
    for name, chosen in options.items():
        value, grad = softly.cross_entropy(logits, target, return_grad=True, **chosen)
        found[f"cross_entropy {name}"] = np.asarray(value)
        found[f"gradient {name}"] = grad
    return found
