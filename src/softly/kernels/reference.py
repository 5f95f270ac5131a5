"""What every primitive is: its formula over any array library, in a few lines each.

Pure functions over the array API standard: any axis, new arrays, and no decision taken by a value,
so that they run lazily (Dask), traced (JAX) and under autograd, also where scores tie. They
define what the compiled kernels compute, serve every library but NumPy as they are, and NumPy
through `fallback` where nothing is compiled.

Each library computes in the type it is given; halves in float32, rounded once; integers in the
library's own float. NumPy takes its sums in wider types.

`axis` is an int, a tuple, or None for all entries; `temperature` T a number, or an array of length
1 along the axes; `where` is False for entries that do not take part, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from math import inf, nan
from typing import Any

import numpy as np

from softly.kernels.terms import Terms

Array = Any
Axis = int | tuple[int, ...] | None


def _floating(function: Callable[..., Any]) -> Callable[..., Any]:
    """The answers in the type of the first array, or in the library's float for integers."""

    @wraps(function)
    def computed(x: Array, *args: Any, **kwargs: Any) -> Any:
        dtype, working = _dtypes(x)
        answers = function(_cast(x, working), *args, **kwargs)
        if isinstance(answers, tuple):
            return tuple(_cast(answer, dtype) for answer in answers)
        return _cast(answers, dtype)

    return computed


@_floating
def softmax(x: Array, axis: Axis = None, *, temperature: Any = 1.0, where: Any = None) -> Array:
    """p = exp(d) / sum exp(d), d = (z - max z) / T."""
    _, _, ties, rest, exps = _reduce(x, axis, temperature, where)
    return exps / (ties + rest)


@_floating
def log_softmax(x: Array, axis: Axis = None, *, temperature: Any = 1.0, where: Any = None) -> Array:
    """log p = d - log sum exp(d)."""
    xp = _namespace(x)
    _, d, ties, rest, _ = _reduce(x, axis, temperature, where)
    return d - xp.log1p(ties - 1 + rest)


@_floating
def logsumexp(
    x: Array,
    axis: Axis = None,
    *,
    keepdims: bool = False,
    temperature: Any = 1.0,
    where: Any = None,
) -> Array:
    """log sum exp(z / T) = max z / T + log sum exp(d)."""
    top, _, ties, rest, _ = _reduce(x, axis, temperature, where)
    value = _log_total(top, ties, rest, temperature)
    return value if keepdims else _without(value, axis)


@_floating
def signed_logsumexp(
    x: Array,
    b: Array,
    axis: Axis = None,
    *,
    keepdims: bool = False,
    temperature: Any = 1.0,
    where: Any = None,
) -> tuple[Array, Array]:
    """log |s| and the sign of s = sum b exp(z / T); entries of weight 0 do not take part."""
    xp = _namespace(x)
    b = _masked(_cast(b, x.dtype) + xp.zeros_like(x), where, 0.0)
    # Infinities of one sign make infinity; of both, NaN.
    b = xp.where((x == inf) & (b != 0), _extreme(b), b)
    top, d, _, _, exps = _reduce(x, axis, temperature, b != 0)
    greatest = d == 0
    ties = _long_sum(xp.where(greatest, b, 0.0), axis)
    rest = _long_sum(xp.where(greatest | (b == 0), 0.0, b * exps), axis)
    sign = xp.sign(ties + rest)
    size = xp.abs(ties + rest)
    near = size > 0.5  # then log(size) is taken without rounding what makes size differ from 1
    above = xp.log1p(xp.where(near, sign * ties - 1 + sign * rest, 0.0))
    log_size = xp.where(near, above, xp.log(xp.where(near | (size == 0), 1.0, size)))
    value = _divided(_wide(top), temperature) + xp.where(size == 0, -inf, log_size)
    nothing = top == -inf
    value, sign = xp.where(nothing, -inf, value), xp.where(nothing, 0.0, sign)
    return (value, sign) if keepdims else (_without(value, axis), _without(sign, axis))


@_floating
def softmax_inverse(
    p: Array, axis: Axis = None, *, temperature: Any = 1.0, where: Any = None
) -> Array:
    """T (log p - mean log p), the mean over p > 0; -inf where p = 0."""
    xp = _namespace(p)
    p = _wide(_masked(p, where, 0.0))
    possible = p != 0
    # Relative to the greatest, so that equal probabilities have exactly equal logarithms.
    top = xp.max(p, axis=axis, keepdims=True)
    positive = p > 0
    logs = xp.where(positive, xp.log(xp.where(positive, p, 1.0)), nan)
    logs = logs - xp.log(xp.where(top > 0, top, 1.0))
    count = _sum(_cast(possible, p.dtype), axis)
    mean = _sum(xp.where(possible, logs, 0.0), axis) / xp.where(count == 0, 1.0, count)
    t = temperature + xp.zeros_like(top)
    hot = t == inf
    scores = xp.where(hot, _extreme(logs - mean), (logs - mean) * xp.where(hot, 1.0, t))
    return xp.where(possible, scores, -inf)


@_floating
def softmax_vjp(
    p: Array, g: Array, axis: Axis = None, *, temperature: Any = 1.0, where: Any = None
) -> Array:
    """p (g - sum p g) / T: the gradient, and as the Jacobian is symmetric, the tangent too."""
    g = _wide(_masked(_cast(g, p.dtype), where, 0.0))
    p = _wide(_masked(p, where, 0.0))
    return _masked(_divided(p * (g - _sum(p * g, axis)), temperature), where, 0.0)


@_floating
def log_softmax_vjp(
    log_p: Array, g: Array, axis: Axis = None, *, temperature: Any = 1.0, where: Any = None
) -> Array:
    """(g - p sum g) / T."""
    xp = _namespace(log_p)
    g = _wide(_masked(_cast(g, log_p.dtype), where, 0.0))
    p = xp.exp(_wide(_masked(log_p, where, -inf)))
    return _masked(_divided(g - p * _sum(g, axis), temperature), where, 0.0)


@_floating
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), by exp(-|x|), which cannot overflow."""
    xp = _namespace(x)
    e = xp.exp(_wide(xp.where(x < 0, x, -x)))
    return xp.where(x < 0, e, 1.0) / (1 + e)


@_floating
def log_sigmoid(x: Array) -> Array:
    """min(x, 0) - log(1 + exp(-|x|))."""
    xp = _namespace(x)
    e = xp.exp(_wide(xp.where(x < 0, x, -x)))
    return xp.where(x < 0, x, 0.0) - xp.log1p(e)


@_floating
def logit(p: Array) -> Array:
    """log(p / (1 - p)); NaN outside [0, 1]."""
    xp = _namespace(p)
    inside = (p > 0) & (p < 1)
    q = _wide(xp.where(inside, p, 0.5))
    # Near 1/2 both logarithms are near each other: there 2 q - 1 is exact, and so is this.
    near = xp.abs(q - 0.5) < 0.25
    middle = 2 * xp.atanh(xp.where(near, 2 * q - 1, 0.0))
    value = xp.where(near, middle, xp.log(q) - xp.log1p(-q))
    return xp.where(p == 0, -inf, xp.where(p == 1, inf, xp.where(inside, value, nan)))


def cross_entropy(
    logits: Array, axis: int, terms: Terms, gradient: bool = True
) -> tuple[Array, Array | None]:
    """The loss of each row, and scale times its gradient (None if not asked for).

    L = sum_j a_j (1 - p_j)^focal (-log p_j) + z_loss lse^2, a_j being how much class j is wanted.
    A row of scale 0, one that is ignored, and one that wants nothing are exactly 0 in both,
    whatever they hold. The loss is in the type computed in, the gradient in that of the logits.

    The terms' arrays are of the logits' library: `index` and `share` of shape (..., m), `scale`
    and `temperature` of the rows' shape or numbers.
    """
    xp = _namespace(logits)
    dtype, working = _dtypes(logits)
    z = _cast(logits, working)
    if terms.cap is not None:
        bent = xp.tanh(_wide(z) / terms.cap)
        z = terms.cap * bent
    scale, temperature = _column(terms.scale, axis), _column(terms.temperature, axis)
    top, d, ties, rest, exps = _reduce(z, axis, temperature, terms.where)
    total = ties + rest
    p = exps / total
    others = (ties - exps + rest) / total  # 1 - p, accurate where p is near 1
    cost = xp.log1p(ties - 1 + rest) - d  # -log p
    lse = _log_total(top, ties, rest, temperature)
    has_z = not isinstance(terms.z_loss, int | float) or terms.z_loss != 0  # an array may have any

    a = _wanted(p, axis, terms)
    dead = ((_sum(a, axis) == 0) & (terms.z_loss == 0)) | (scale == 0)
    if terms.index is not None and terms.ignore_index is not None:
        dead = dead | _column(terms.index[..., 0] == terms.ignore_index, axis)

    weight = a * others**terms.focal if terms.focal else a
    # A class not wanted costs nothing, even at -log 0.
    loss = _sum(weight * xp.where(a == 0, 0.0, cost), axis)
    if has_z:
        loss = loss + terms.z_loss * lse**2
    loss = _without(xp.where(dead, 0.0, loss), axis)
    if not gradient:
        return loss, None

    pull = weight  # minus the derivative of a class's term by its own log p
    if terms.focal:
        # -p log p / (1 - p), which goes to 0 and to 1 at the ends
        ratio = p * xp.where(p == 0, 0.0, cost) / xp.where(others == 0, 1.0, others)
        pull = weight * (1 + terms.focal * xp.where(others == 0, 1.0, ratio))
    pulls = _sum(pull, axis)
    # p pulls - pull, for the class most wanted without the subtraction
    grad = xp.where(2 * pull > pulls, (pulls - pull) - others * pulls, p * pulls - pull)
    if has_z:
        grad = grad + 2 * terms.z_loss * p * xp.where(p == 0, 0.0, lse)
    grad = _divided(grad, temperature)
    if terms.cap is not None:
        grad = grad * (1 - bent**2)
    grad = xp.where(dead, 0.0, _masked(grad * scale, terms.where, 0.0))
    return loss, _cast(grad, dtype)


def _wanted(p: Array, axis: int, terms: Terms) -> Array:
    """a = w ((1 - smoothing) q + smoothing / K), K being the number of classes allowed."""
    xp = _namespace(p)
    ones = xp.ones_like(p)
    line = tuple(n if i == axis % p.ndim else 1 for i, n in enumerate(p.shape))
    if terms.soft is not None:
        q = _cast(terms.soft, p.dtype)
    else:
        assert terms.index is not None
        classes = xp.reshape(xp.arange(p.shape[axis], **_where_it_is(p)), line)
        q = xp.zeros_like(p)
        for j in range(terms.index.shape[-1]):
            there = _column(_cast(terms.index[..., j], classes.dtype), axis) == classes
            part = ones if terms.share is None else ones * _column(terms.share[..., j], axis)
            q = q + xp.where(there, part, 0.0)
    if terms.smoothing:
        allowed = _masked(ones, terms.where, 0.0)
        count = _sum(allowed, axis)
        even = allowed / xp.where(count == 0, 1.0, count)
        q = (1 - terms.smoothing) * q + terms.smoothing * even
    return q if terms.class_weight is None else q * xp.reshape(terms.class_weight, line)


def _reduce(
    x: Array, axis: Axis, temperature: Any, where: Any
) -> tuple[Array, Array, Array, Array, Array]:
    """max z; d = (z - max z) / T; how many are 0; the sum of the other exp(d); all exp(d).

    The sum is split so that log(ties + rest) = log1p(ties - 1 + rest) keeps full relative
    accuracy where one class is nearly certain. In a row that holds +inf, those share the whole;
    a row of only -inf, or with a NaN, has no answer.
    """
    xp = _namespace(x)
    z = _masked(x, where, -inf)
    if not _usual(temperature):  # T = inf: all that count are equal, however far apart
        z = xp.where(xp.isfinite(z) & (temperature == inf), 0.0, z)
    top = xp.max(z, axis=axis, keepdims=True)
    shared = xp.where(z == inf, xp.zeros_like(z), -inf)
    z = xp.where(xp.isfinite(top), z, xp.where(top == inf, shared, nan))
    d = _divided(z - xp.where(xp.isfinite(top), top, 0.0), temperature)
    exps = xp.exp(_wide(d))
    greatest = d == 0
    ties = _sum(_cast(greatest, exps.dtype), axis)
    rest = _long_sum(xp.where(greatest, 0.0, exps), axis)
    return top, d, ties, rest, exps


def _log_total(top: Array, ties: Array, rest: Array, temperature: Any) -> Array:
    """log sum exp(z / T), given `_reduce`'s answers."""
    xp = _namespace(top)
    value = _divided(_wide(top), temperature) + xp.log1p(ties - 1 + rest)
    return xp.where(top == -inf, -inf, value)


def _divided(x: Array, temperature: Any) -> Array:
    """x / T and its limits: 0 / 0 is 0, and what is infinite stays so at T = inf."""
    if _usual(temperature):
        return x if temperature == 1 else x / temperature
    xp = _namespace(x)
    t = temperature + xp.zeros_like(x)
    quotient = x / xp.where((t > 0) & (t < inf), t, 1.0)
    quotient = xp.where(t == 0, _extreme(x), quotient)
    return xp.where((t == inf) & xp.isfinite(x), 0.0, quotient)


def _extreme(x: Array) -> Array:
    """x times infinity, where 0 stays 0."""
    xp = _namespace(x)
    return xp.where(x > 0, inf, xp.where(x < 0, -inf, x))


def _masked(x: Array, where: Any, value: float) -> Array:
    return x if where is None else _namespace(x).where(where, x, value)


def _sum(x: Array, axis: Axis) -> Array:
    return _namespace(x).sum(x, axis=axis, keepdims=True)


def _long_sum(x: Array, axis: Axis) -> Array:
    """The sum, NumPy's in its widest type: right to the last digit for a million classes."""
    return _cast(_sum(_cast(x, np.longdouble), axis), x.dtype) if _numpy(x) else _sum(x, axis)


def _wide(x: Array) -> Array:
    """What exponentials are taken of: float64 in NumPy, elsewhere what it is."""
    return _cast(x, np.float64) if _numpy(x) else x


def _dtypes(x: Array) -> tuple[Any, Any]:
    """The type of the answers, and the one to compute in."""
    xp = _namespace(x)
    dtype = x.dtype if xp.isdtype(x.dtype, "real floating") else xp.asarray(0.0).dtype
    return dtype, xp.float32 if xp.finfo(dtype).bits < 32 else dtype


def _cast(x: Array, dtype: Any) -> Array:
    return x.astype(dtype, copy=False) if _numpy(x) else _namespace(x).astype(x, dtype, copy=False)


def _numpy(x: Any) -> bool:
    return isinstance(x, np.ndarray | np.generic)


def _namespace(x: Array) -> Any:
    # NumPy follows the standard itself; its wrapper would load most of NumPy's tools.
    if _numpy(x):
        return np
    from array_api_compat import array_namespace

    return array_namespace(x)


def _where_it_is(x: Array) -> dict[str, Any]:
    if _numpy(x):
        return {}
    from array_api_compat import device

    return {"device": device(x)}


def _column(rows: Any, axis: int) -> Any:
    """What there is for each row, to go with the classes; a number stays one."""
    return rows if isinstance(rows, int | float) else _namespace(rows).expand_dims(rows, axis=axis)


def _without(x: Array, axis: Axis) -> Array:
    axes = tuple(range(x.ndim)) if axis is None else axis
    return _namespace(x).squeeze(x, axis=axes)


def _usual(temperature: Any) -> bool:
    """A number for which plain division will do; of an array that is not asked."""
    return isinstance(temperature, int | float) and 0 < temperature < inf
