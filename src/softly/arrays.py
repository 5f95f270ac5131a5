"""The only gate: is the input sound, and what type does the answer have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]


def floating(x: ArrayLike, name: str) -> tuple[Array, np.dtype[Any]]:
    """The numbers as float32 or float64, and the dtype their answer is to have.

    Half types are worked on in float32 and rounded once; integers give float64.
    """
    array = np.asarray(x)
    dtype = array.dtype.newbyteorder("=")
    if dtype in (np.float32, np.float64):
        return array.astype(dtype, copy=False), dtype
    if dtype == np.float16 or dtype.name == "bfloat16":
        with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN like others
            return array.astype(np.float32), dtype
    if dtype.kind in "iub":
        return array.astype(np.float64), np.dtype(np.float64)
    raise TypeError(
        f"{name} holds {dtype.name} values, but real numbers are needed: "
        "float16, bfloat16, float32, float64, or integers"
    )


def integers(x: ArrayLike, name: str) -> NDArray[np.integer]:
    """Whole numbers, of the type they have."""
    array = np.asarray(x)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} holds {array.dtype.name} values, but integers are needed")
    return array


def weights(x: ArrayLike, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    """Weights of a given shape: finite and not negative, as float64."""
    array = floating(x, name)[0].astype(np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, but shape {shape} is needed")
    bad = ~(np.isfinite(array) & (array >= 0))
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{name}[{at}] is {array.flat[at]}, but weights must be finite and not negative"
        )
    return array
