"""softmax, its family and their gradients, with SciPy's signatures.

What they promise (range, sum, accuracy, order, infinities, same bits) is written in
docs/guarantees.md and tested in tests/test_contract.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from softly import arrays
from softly.arrays import Array, Axis
from softly.kernels import chosen as kernels
from softly.kernels import memory


def softmax(
    x: Any, axis: Axis = None, *, temperature: Any = 1.0, where: Any = None, out: Any = None
) -> Any:
    r"""Turn scores into probabilities.

    .. math:: p_i = \exp(z_i / T) / \sum_j \exp(z_j / T)

    Parameters
    ----------
    x : array_like
        Scores (logits) of any real type. Integers are read as float64. Arrays of PyTorch on
        the CPU are read where they lie; those of other array libraries stay on their device.
    axis : int, tuple of ints, or None
        The axis, or axes, whose entries share a probability of 1. None, as in SciPy,
        means all entries of the array; rows of classes want ``axis=-1``.
    temperature : float or array_like
        T, at least 0: a number, or one for each row (of the shape of `x` without `axis`, or
        with length 1 there). Below 1 it sharpens, above 1 it flattens. 0 gives the limit, the
        whole to the greatest score (shared among ties); ``inf`` the same share to all.
    where : array_like of bool, optional
        Broadcastable to `x`. Entries that are False take no part, whatever they hold: their
        probability is 0.
    out : array, optional
        Where to write the answer: of its shape and dtype, `x` itself or memory of its own.

    Returns
    -------
    array
        The shape, dtype and library of `x`. Every entry lies in [0, 1]; a greater score never
        has a smaller probability. Scores of ``-inf`` have probability 0, those of
        ``+inf`` share 1 among them; only ``-inf``, or a NaN, gives NaN.

    Raises
    ------
    TypeError
        If `x` is complex or holds no numbers, `where` no booleans, or `out` another type.
    numpy.exceptions.AxisError
        If `axis` is out of range.
    ValueError
        If there is no entry to share the probability among, `temperature` is negative or NaN,
        shapes do not fit, or `out` overlaps an input in part.

    References
    ----------
    Bridle, "Probabilistic interpretation of feedforward classification network
    outputs", 1990, equation 4.

    Examples
    --------
    >>> import softly
    >>> softly.softmax([2.0, 1.0, 0.1]).round(3)
    array([0.659, 0.242, 0.099])
    >>> softly.softmax([2.0, 1.0, 0.1], temperature=0.5).round(3)
    array([0.864, 0.117, 0.019])
    >>> softly.softmax([2.0, 1.0, 0.1], where=[True, True, False]).round(3)
    array([0.731, 0.269, 0.   ])
    """
    if where is None and type(temperature) is float and temperature == 1.0:
        answer = kernels.quick_softmax(x, axis, out)
        if answer is not None:
            return answer
    return _along(kernels.softmax, "x", x, axis, temperature, where, out)


def log_softmax(
    x: Any, axis: Axis = None, *, temperature: Any = 1.0, where: Any = None, out: Any = None
) -> Any:
    r"""Logarithms of the probabilities, accurate where a probability is near 0 or 1.

    .. math:: \log p_i = z_i / T - \log \sum_j \exp(z_j / T)

    Parameters
    ----------
    x, axis, temperature, where, out
        As in `softmax`. Entries left out by `where` get ``-inf``.

    Returns
    -------
    array
        The shape, dtype and library of `x`, every entry at most 0.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As in `softmax`.

    Examples
    --------
    >>> import softly
    >>> softly.log_softmax([100.0, 0.0])
    array([-3.72007598e-44, -1.00000000e+02])
    """
    if where is None and type(temperature) is float and temperature == 1.0:
        answer = kernels.quick_log_softmax(x, axis, out)
        if answer is not None:
            return answer
    return _along(kernels.log_softmax, "x", x, axis, temperature, where, out)


def logsumexp(
    x: Any,
    axis: Axis = None,
    b: Any = None,
    keepdims: bool = False,
    return_sign: bool = False,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    out: Any = None,
) -> Any:
    r"""The logarithm of a sum of exponentials, which neither overflows nor vanishes.

    .. math:: \log \sum_j b_j \exp(z_j / T)

    Parameters
    ----------
    x : array_like
        Real numbers of any type. Integers are read as float64.
    axis : int, tuple of ints, or None
        The axis, or axes, summed over. None, as in SciPy, means all.
    b : array_like, optional
        Weights, broadcastable to `x`, which may be negative. Entries of weight 0 take no part.
    keepdims : bool
        Keep the axes summed over, with length 1.
    return_sign : bool
        Also return the sign of the sum; the value is then the logarithm of its size.
        Without it the logarithm of a negative sum is NaN.
    temperature, where, out
        As in `softmax`; at temperature 0 the value is ``inf`` or ``-inf`` unless the greatest
        score is 0. `out` has the shape of the value.

    Returns
    -------
    value : array or scalar
        ``-inf`` where all entries are ``-inf``, ``inf`` where one is ``+inf``.
    sign : array or scalar
        1, -1, or 0 for a sum of 0; only with ``return_sign=True``.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As in `softmax`.

    Examples
    --------
    >>> import softly
    >>> float(softly.logsumexp([1000.0, 1000.0]))
    1000.6931471805599
    >>> value, sign = softly.logsumexp([1.0, 2.0], b=[1.0, -1.0], return_sign=True)
    >>> round(float(value), 4), float(sign)
    (1.5413, -1.0)
    """
    if arrays.is_foreign(x):
        _refuse_out(out, x)
        return _foreign_logsumexp(x, axis, b, keepdims, return_sign, temperature, where)
    arrays.require_one_library(x, {"b": b, "temperature": temperature, "where": where}, "x")
    values, leave = arrays.enter(x, "x")
    axes = arrays.axes_of(values, axis)
    t = arrays.temperature_of(temperature, values.shape, axes, values.dtype)
    mask = arrays.mask_of(where, values.shape)
    kept = tuple(1 if i in axes else n for i, n in enumerate(values.shape))
    shape = kept if keepdims else arrays.rows_shape(values.shape, axes)
    if out is not None:
        memory_ = arrays.buffer_of(
            out, shape, values.dtype, x, {}, {"x": values, "where": mask, "temperature": t}
        )
    answers = np.empty(int(np.prod(shape)), values.dtype)
    sign = None
    if b is None and not return_sign:
        kernels.logsumexp(values, answers, axes, t, mask)
    else:
        answers, sign = _weighted_logsumexp(values, b, axes, t, mask)
        if not return_sign:
            answers[sign < 0] = np.nan
        answers = arrays.narrowed(answers, values.dtype)
        sign = arrays.narrowed(sign, values.dtype).reshape(shape)
    value = answers.reshape(shape)
    if out is not None:
        memory_[...] = value
    given = _given(value, leave) if out is None else out
    return given if sign is None or not return_sign else (given, _given(sign, leave))


def softmax_inverse(
    p: Any, axis: Axis = None, *, temperature: Any = 1.0, where: Any = None, out: Any = None
) -> Any:
    r"""Scores whose `softmax` is given probabilities: centred log-probabilities.

    .. math:: z_i = T (\log p_i - \frac{1}{K} \sum_j \log p_j)

    Parameters
    ----------
    p : array_like
        Probabilities of any real type; they need not sum to 1.
    axis, where, out
        As in `softmax`.
    temperature : float or array_like
        As in `softmax`, but above 0 and finite: at its limits nothing is left to undo.

    Returns
    -------
    array
        The shape, dtype and library of `p`. Scores of positive probability have mean 0; a
        probability of 0 gives ``-inf``; a negative one makes its row NaN.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As in `softmax`.

    References
    ----------
    Aitchison, "The statistical analysis of compositional data", 1982, section 5: the centred
    log-ratio.

    Examples
    --------
    >>> import softly
    >>> z = softly.softmax_inverse([0.7, 0.2, 0.1])
    >>> z.round(3)
    array([ 1.066, -0.187, -0.88 ])
    >>> softly.softmax(z).round(3)
    array([0.7, 0.2, 0.1])
    """
    if not arrays.is_foreign(temperature):
        t = arrays.widened(arrays.enter(temperature, "temperature")[0])
        if ((t == 0) | np.isinf(t)).any():
            raise ValueError(
                f"temperature is {temperature}, but here it must be positive and finite"
            )
    return _along(kernels.softmax_inverse, "p", p, axis, temperature, where, out)


def softmax_vjp(
    p: Any,
    g: Any,
    axis: Axis = None,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    out: Any = None,
) -> Any:
    r"""Carry a gradient back through `softmax`: a vector times its Jacobian.

    .. math:: \partial \ell / \partial z_i = p_i (g_i - \sum_j p_j g_j) / T

    Parameters
    ----------
    p : array_like
        What `softmax` gave.
    g : array_like
        The gradient with respect to `p`, of the same shape.
    axis, temperature, where, out
        As given to `softmax`; entries left out by `where` get exactly 0. At temperature
        ``inf`` the gradient is 0.

    Returns
    -------
    array
        The gradient with respect to the scores: the shape, dtype and library of `p`.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As in `softmax`, and if the shapes of `p` and `g` differ.

    Examples
    --------
    >>> import softly
    >>> p = softly.softmax([2.0, 1.0, 0.1])
    >>> softly.softmax_vjp(p, [1.0, 0.0, 0.0]).round(3)
    array([ 0.225, -0.16 , -0.065])
    """
    return _along(kernels.softmax_vjp, "p", p, axis, temperature, where, out, ("g", g))


def softmax_jvp(
    p: Any,
    t: Any,
    axis: Axis = None,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    out: Any = None,
) -> Any:
    r"""How the probabilities move when the scores do: the Jacobian of `softmax` times a vector.

    .. math:: \dot p_i = p_i (\dot z_i - \sum_j p_j \dot z_j) / T

    The Jacobian is symmetric, so this is the same map as `softmax_vjp`.

    Parameters
    ----------
    p : array_like
        What `softmax` gave.
    t : array_like
        The direction in which the scores move, of the same shape.
    axis, temperature, where, out
        As in `softmax_vjp`.

    Returns
    -------
    array
        The direction in which the probabilities move; its entries sum to 0.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As in `softmax_vjp`.

    Examples
    --------
    >>> import softly
    >>> p = softly.softmax([2.0, 1.0, 0.1])
    >>> softly.softmax_jvp(p, [0.1, 0.1, 0.1]).round(3) + 0.0
    array([0., 0., 0.])
    """
    return _along(kernels.softmax_vjp, "p", p, axis, temperature, where, out, ("t", t))


def log_softmax_vjp(
    log_p: Any,
    g: Any,
    axis: Axis = None,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    out: Any = None,
) -> Any:
    r"""Carry a gradient back through `log_softmax`.

    .. math:: \partial \ell / \partial z_i = (g_i - p_i \sum_j g_j) / T

    Parameters
    ----------
    log_p : array_like
        What `log_softmax` gave.
    g : array_like
        The gradient with respect to `log_p`, of the same shape.
    axis, temperature, where, out
        As in `softmax_vjp`.

    Returns
    -------
    array
        The gradient with respect to the scores: the shape, dtype and library of `log_p`.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As in `softmax_vjp`.

    Examples
    --------
    >>> import softly
    >>> log_p = softly.log_softmax([2.0, 1.0, 0.1])
    >>> softly.log_softmax_vjp(log_p, [-1.0, 0.0, 0.0]).round(3)  # of -log p[0]: p - onehot
    array([-0.341,  0.242,  0.099])
    """
    return _along(kernels.log_softmax_vjp, "log_p", log_p, axis, temperature, where, out, ("g", g))


def sigmoid(x: Any, *, out: Any = None) -> Any:
    r"""The probability of "yes" for a score: softmax of two classes.

    .. math:: \sigma(x) = 1 / (1 + \exp(-x))

    Parameters
    ----------
    x : array_like
        Scores of any real type. Integers are read as float64.
    out : array, optional
        Where to write the answer: of its shape and dtype, `x` itself or memory of its own.

    Returns
    -------
    array or scalar
        The shape, dtype and library of `x`, every entry in [0, 1].

    Raises
    ------
    TypeError
        If `x` is complex or holds no numbers.
    ValueError
        If `out` does not fit.

    Examples
    --------
    >>> import softly
    >>> softly.sigmoid([-1000.0, 0.0, 2.0]).round(3)
    array([0.   , 0.5  , 0.881])
    """
    return _elementwise("sigmoid", x, "x", out)


def log_sigmoid(x: Any, *, out: Any = None) -> Any:
    r"""The logarithm of `sigmoid`, accurate at both ends.

    .. math:: \log \sigma(x) = \min(x, 0) - \log(1 + \exp(-|x|))

    Parameters
    ----------
    x, out
        As in `sigmoid`.

    Returns
    -------
    array or scalar
        The shape, dtype and library of `x`, every entry at most 0.

    Raises
    ------
    TypeError, ValueError
        As in `sigmoid`.

    Examples
    --------
    >>> import softly
    >>> softly.log_sigmoid([-1000.0, 0.0, 50.0])
    array([-1.00000000e+03, -6.93147181e-01, -1.92874985e-22])
    """
    return _elementwise("log_sigmoid", x, "x", out)


def logit(p: Any, *, out: Any = None) -> Any:
    r"""The score whose `sigmoid` is a probability: the log of its odds.

    .. math:: \mathrm{logit}(p) = \log(p / (1 - p))

    Parameters
    ----------
    p : array_like
        Probabilities of any real type.
    out : array, optional
        As in `sigmoid`.

    Returns
    -------
    array or scalar
        The shape, dtype and library of `p`: ``-inf`` at 0, ``inf`` at 1, NaN outside [0, 1].

    Raises
    ------
    TypeError, ValueError
        As in `sigmoid`.

    Examples
    --------
    >>> import softly
    >>> softly.logit([0.0, 0.5, 0.75])
    array([      -inf, 0.        , 1.09861229])
    """
    return _elementwise("logit", p, "p", out)


def _along(
    kernel: Callable[..., None],
    name: str,
    x: Any,  # the scores, or what takes their place
    axis: Axis,
    temperature: Any,
    where: Any,
    out: Any,
    second: tuple[str, Any] | None = None,  # a gradient or a direction, by its name
) -> Any:
    if type(x) is not np.ndarray and arrays.is_foreign(x):
        _refuse_out(out, x)
        return _foreign(kernel.__name__, name, x, axis, temperature, where, second)
    values, leave = arrays.enter(x, name)
    axes = arrays.axes_of(values, axis, name)
    t = arrays.temperature_of(temperature, values.shape, axes, values.dtype)
    if out is None and where is None and second is None and type(t) is float:
        answer = memory.empty_like(values)
        kernel(values, answer, axes, t, None)
        return answer if leave is None else leave(answer)
    beside = {"temperature": temperature, "where": where}
    arrays.require_one_library(x, beside | dict([second] if second else []), name)
    mask = arrays.mask_of(where, values.shape)
    sources = {name: values}
    if second:
        sources[second[0]] = arrays.enter_as(second[1], values, values.shape, second[0], name)
    if out is None:
        answer = memory.empty_like(values)
    else:
        others = {"where": mask, "temperature": t}
        answer = arrays.buffer_of(out, values.shape, values.dtype, x, sources, others)
    kernel(*sources.values(), answer, axes, t, mask)
    if out is not None:
        return out
    return answer if leave is None else leave(answer)


def _elementwise(primitive: str, x: Any, name: str, out: Any) -> Any:
    if arrays.is_foreign(x):
        from softly.kernels import reference

        _refuse_out(out, x)
        arrays.require_real(x, name)
        return getattr(reference, primitive)(x)
    values, leave = arrays.enter(x, name)
    if out is not None:
        target = arrays.buffer_of(out, values.shape, values.dtype, x, {name: values}, {})
    if not values.flags.forc:
        values = values.copy()
    answer = memory.empty_like(values)
    if primitive == "logit":
        answer[...] = _logit(values)
    else:
        kernel: Callable[[Array, Array], None] = getattr(kernels, primitive)
        kernel(values.ravel(order="K"), answer.ravel(order="K"))
    if out is not None:
        target[...] = answer
        return out
    return _given(answer, leave)


def _given(answer: Array, leave: arrays.Leave | None) -> Any:
    """As an array of the caller's library; NumPy's of no dimensions as scalars."""
    return answer[()] if leave is None else leave(answer)


def _logit(values: Array) -> Array:
    from softly.kernels import reference

    with np.errstate(all="ignore"):
        return arrays.narrowed(reference.logit(arrays.widened(values)), values.dtype)


def _weighted_logsumexp(
    values: Array, b: Any, axes: tuple[int, ...], t: float | Array, mask: Array | None
) -> tuple[Array, Array]:
    from softly.kernels import reference

    x = arrays.widened(values)
    weight = np.ones((), x.dtype) if b is None else arrays.widened(arrays.enter(b, "b")[0])
    try:
        weight = np.broadcast_to(weight, x.shape)
    except ValueError:
        raise ValueError(
            f"b has shape {weight.shape}, which does not broadcast to x's {x.shape}"
        ) from None
    if isinstance(t, np.ndarray):
        t = t.reshape([1 if i in axes else n for i, n in enumerate(x.shape)])
    with np.errstate(all="ignore"):
        value, sign = reference.signed_logsumexp(x, weight, axes, temperature=t, where=mask)
    return value.reshape(-1), sign.reshape(-1)


# Other array libraries ---------------------------------------------------------------------


def _refuse_out(out: Any, x: Any) -> None:
    if out is not None:
        library = type(x).__module__.partition(".")[0]
        raise TypeError(f"out is for arrays of NumPy and PyTorch on the CPU; x is one of {library}")


def _foreign(
    primitive: str,
    name: str,
    x: Any,
    axis: Axis,
    temperature: Any,
    where: Any,
    second: tuple[str, Any] | None,
) -> Any:
    from softly.kernels import reference

    arrays.require_real(x, name)
    axes = arrays.axes_of(x, axis, name)
    beside = {"temperature": temperature, "where": where}
    arrays.require_one_library(x, beside | dict([second] if second else []), name)
    arrays.require_mask(where, x.shape)
    t = arrays.foreign_temperature(temperature, x, axes)
    sources = [x]
    if second:
        other, y = second
        if y.shape != x.shape:
            raise ValueError(
                f"{other} has shape {y.shape}, but it needs {name}'s, which is {x.shape}"
            )
        sources.append(y)
    return getattr(reference, primitive)(*sources, axis=axes, temperature=t, where=where)


def _foreign_logsumexp(
    x: Any, axis: Axis, b: Any, keepdims: bool, return_sign: bool, temperature: Any, where: Any
) -> Any:
    from softly.kernels import reference

    arrays.require_one_library(x, {"b": b, "temperature": temperature, "where": where}, "x")
    arrays.require_real(x, "x")
    axes = arrays.axes_of(x, axis)
    arrays.require_mask(where, x.shape)
    t = arrays.foreign_temperature(temperature, x, axes)
    if b is None and not return_sign:
        return reference.logsumexp(x, axes, keepdims=keepdims, temperature=t, where=where)
    from array_api_compat import array_namespace

    xp = array_namespace(x)
    weight = xp.ones_like(x) if b is None else b
    value, sign = reference.signed_logsumexp(
        x, weight, axes, keepdims=keepdims, temperature=t, where=where
    )
    return (value, sign) if return_sign else xp.where(sign < 0, np.nan, value)
