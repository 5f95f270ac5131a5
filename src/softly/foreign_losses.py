"""cross_entropy for arrays of any other library: the definition, without a look at any value.

Nothing here asks what an array holds, so that it may be lazy (Dask), traced (JAX) or on a GPU.
What cannot be looked at cannot be checked: targets out of range want nothing.
"""

from __future__ import annotations

from dataclasses import replace
from math import nan
from typing import Any

from array_api_compat import array_namespace, device

from softly import arrays
from softly.kernels import reference
from softly.kernels.terms import Terms
from softly.losses import check_options, is_sparse


def cross_entropy(
    logits: Any, target: Any, axis: int, options: dict[str, Any], return_grad: bool, grad_out: Any
) -> Any:
    """As `softly.cross_entropy`; reduced values are arrays of no dimensions."""
    if grad_out is not None:
        raise TypeError("grad_out is for arrays of NumPy and PyTorch on the CPU")
    o = options
    words = (o["reduction"], o["empty"])
    check_options(o["label_smoothing"], o["z_loss"], o["logit_cap"], o["focal"], *words)
    arrays.require_real(logits, "logits")
    (axis,) = arrays.axes_of(logits, axis, "logits")
    names = ("class_weight", "sample_weight", "temperature", "where")
    parts = target if isinstance(target, tuple) else (target,)
    beside = {name: o[name] for name in names} | {"target": parts[0], "target[1]": parts[-1]}
    arrays.require_one_library(logits, beside, "logits")
    arrays.require_mask(o["where"], logits.shape)
    xp = array_namespace(logits)
    rows = arrays.rows_shape(logits.shape, (axis,))
    temperature = arrays.foreign_temperature(o["temperature"], logits, (axis,))
    if not isinstance(temperature, float):
        temperature = xp.reshape(temperature, rows)
    terms = Terms(
        class_weight=o["class_weight"],
        smoothing=o["label_smoothing"],
        cap=o["logit_cap"],
        temperature=temperature,
        where=o["where"],
        focal=o["focal"],
        **_wanted(xp, target, logits, rows, o["ignore_index"]),
    )
    weight, over, over_rows = _weights(xp, logits, terms, rows, o)
    if o["reduction"] != "mean":
        over = over_rows = xp.ones_like(over)
    divisor = xp.where(over == 0, 1.0, over)
    scale = xp.where(over == 0, 0.0, weight / divisor)
    z_loss = o["z_loss"] and o["z_loss"] * xp.where(over_rows == 0, 1.0, over / over_rows)
    terms = replace(terms, scale=scale, z_loss=z_loss)
    loss, grad = reference.cross_entropy(logits, axis, terms, return_grad)
    value = xp.astype(loss * xp.astype(weight, loss.dtype), logits.dtype)
    if o["reduction"] != "none":
        nothing = nan if o["empty"] == "nan" else 0.0
        value = xp.where(over == 0, nothing, xp.sum(value) / divisor)
    return (value, grad) if return_grad else value


def _wanted(
    xp: Any, target: Any, logits: Any, rows: tuple[int, ...], ignore_index: int
) -> dict[str, Any]:
    if is_sparse(target, len(rows)):
        return {"index": target[0], "share": target[1]}
    if not xp.isdtype(target.dtype, "integral"):
        if target.shape != logits.shape:
            raise ValueError(
                f"target has shape {target.shape}, but soft targets need the logits' "
                f"shape {logits.shape}"
            )
        return {"soft": target}
    if target.shape != rows:
        raise ValueError(
            f"logits have shape {logits.shape} and target {target.shape}, but the target needs "
            f"shape {rows}, the logits' without their axis of classes"
        )
    return {"index": xp.expand_dims(target, axis=-1), "ignore_index": ignore_index}


def _weights(
    xp: Any, logits: Any, terms: Terms, rows: tuple[int, ...], options: dict[str, Any]
) -> tuple[Any, Any, Any]:
    """The weight of each row, their sum, and the sum with the weights of the rows' classes."""
    dtype = xp.float32 if xp.finfo(logits.dtype).bits < 32 else logits.dtype
    weight = xp.ones(rows, dtype=dtype, device=device(logits))
    if options["sample_weight"] is not None:
        if options["sample_weight"].shape != rows:
            raise ValueError(
                f"sample_weight has shape {options['sample_weight'].shape}, but {rows} is needed"
            )
        weight = xp.astype(options["sample_weight"], dtype)
    if terms.ignore_index is None or terms.index is None:
        return weight, xp.sum(weight), xp.sum(weight)
    target = terms.index[..., 0]
    weight = xp.where(target == terms.ignore_index, 0.0, weight)
    if terms.class_weight is None:
        return weight, xp.sum(weight), xp.sum(weight)
    known = xp.where(target == terms.ignore_index, xp.zeros_like(target), target)
    by_class = xp.reshape(xp.take(terms.class_weight, xp.reshape(known, (-1,))), rows)
    return weight, xp.sum(weight * by_class), xp.sum(weight)
