"""The only gate: which array library is this, is the input sound, what type has the answer.

Arrays that the kernels read come out as NumPy arrays over the same memory: float16, float32,
float64, or uint16 for the bits of bfloat16, which NumPy itself does not have. Those of a library
that keeps its numbers elsewhere (JAX, Dask, a GPU) are `foreign`: `kernels.reference` computes
with them as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.exceptions import AxisError
from numpy.lib.array_utils import normalize_axis_tuple
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Axis = int | tuple[int, ...] | None
Leave = Callable[[Array], Any]  # makes an answer one of the caller's library

FLOAT16, FLOAT32, FLOAT64 = (np.dtype(f) for f in (np.float16, np.float32, np.float64))
BFLOAT16 = np.dtype(np.uint16)  # its bits
_DIRECT = (FLOAT64, FLOAT32, FLOAT16)


def enter(x: Any, name: str) -> tuple[Array, Leave | None]:
    """The numbers as the kernels read them, and how an answer leaves (None: as it is)."""
    if type(x) is np.ndarray:
        dtype = x.dtype
        if (dtype is FLOAT64 or dtype is FLOAT32 or dtype is FLOAT16) and x.flags.aligned:
            return x, None
    if is_tensor(x):
        return _tensor_memory(x, name), _as_tensor
    array = np.asarray(x)
    dtype = array.dtype.newbyteorder("=")
    if dtype.name == "bfloat16":
        return _aligned(array).view(np.uint16), lambda bits: bits.view(dtype)
    if dtype in _DIRECT:
        return _aligned(array.astype(dtype, copy=False)), None
    if dtype.kind in "iub":
        return array.astype(np.float64), None
    raise TypeError(
        f"{name} holds {dtype.name} values, but real numbers are needed: "
        "float16, bfloat16, float32, float64, or integers"
    )


def enter_as(x: Any, like: Array, shape: tuple[int, ...], name: str, other: str) -> Array:
    """A second array of the first one's shape, in the first one's type."""
    values = enter(x, name)[0]
    if values.shape != shape:
        raise ValueError(
            f"{name} has shape {values.shape}, but it needs {other}'s, which is {shape}"
        )
    return values if values.dtype == like.dtype else _converted(values, like.dtype)


def computed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type that numbers of this type are computed in."""
    return FLOAT64 if dtype == FLOAT64 else FLOAT32


def widened(values: Array) -> Array:
    """Numbers that the kernels read, in the type they are computed in."""
    if values.dtype == BFLOAT16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(computed(values.dtype), copy=False)


def narrowed(values: Array, dtype: np.dtype[Any]) -> Array:
    """Rounded once, to the nearest, ties to even."""
    if dtype != BFLOAT16:
        with np.errstate(over="ignore"):
            return values.astype(dtype, copy=False)
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(values), np.uint32(0x7FC0), rounded).astype(np.uint16)


def _converted(values: Array, dtype: np.dtype[Any]) -> Array:
    return narrowed(widened(values), dtype)


def require_real(x: Any, name: str) -> None:
    """Real numbers in an array of another library."""
    from array_api_compat import array_namespace

    xp = array_namespace(x)
    real = xp.isdtype(x.dtype, ("real floating", "integral", "bool"))
    if not real and "float" not in str(x.dtype):  # bfloat16 is in no standard
        raise TypeError(f"{name} holds {x.dtype} values, but real numbers are needed")


def _aligned(array: Array) -> Array:
    return array if array.flags.aligned else array.copy()


# Libraries --------------------------------------------------------------------------------


def is_tensor(x: Any) -> bool:
    """A PyTorch tensor whose memory the kernels can read."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor) and x.device.type == "cpu"


def is_foreign(x: Any) -> bool:
    """An array of a library that is neither NumPy nor PyTorch on the CPU."""
    kind = type(x)
    if kind in (list, float) or isinstance(x, np.ndarray | np.generic):
        return False
    root = kind.__module__.partition(".")[0]
    if root == "torch":
        return not is_tensor(x) and hasattr(x, "device")
    return root in ("dask", "cupy", "jax") or hasattr(x, "__array_namespace__")


def require_one_library(first: Any, others: dict[str, Any], name: str) -> None:
    """All arrays beside a foreign one must be of its library, and none may beside others."""
    home = _library(first)
    for other, x in others.items():
        if x is None or isinstance(x, bool | int | float | np.generic):
            continue
        if _library(x) != home and not (isinstance(x, list | tuple) and home == "PyTorch"):
            raise TypeError(
                f"{name} is an array of {home}, but {other} is one of {_library(x)}: "
                "all arrays of a call need one library"
            )


def _library(x: Any) -> str:
    if is_foreign(x):
        root = type(x).__module__.partition(".")[0]
        return "jax" if root == "jaxlib" else root
    return "PyTorch" if is_tensor(x) else "NumPy"


def _tensor_memory(x: Any, name: str) -> Array:
    import torch

    if x.requires_grad:
        raise TypeError(
            f"{name} is a tensor that requires gradients, which are not tracked here: pass "
            f"{name}.detach(), and get the gradients by the *_vjp functions or return_grad"
        )
    if x.dtype == torch.bfloat16:
        bits: Array = x.view(torch.uint16).numpy()
        return bits
    if x.dtype.is_complex or x.is_sparse or x.is_quantized:
        raise TypeError(
            f"{name} is a tensor of {x.dtype}, {x.layout}, but dense real numbers are needed"
        )
    array: Array = x.numpy()
    return array.astype(np.float64) if array.dtype.kind in "iub" else array


def _as_tensor(array: Array) -> Any:
    import torch

    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if array.dtype == BFLOAT16 else tensor


def beside(x: Any) -> Any:
    """An array that is not the main one (a mask, targets), as NumPy's."""
    if is_tensor(x):
        return enter(x, "array")[0] if x.is_floating_point() else x.numpy()
    return np.asarray(x)


# What goes with the scores -----------------------------------------------------------------


def axes_of(values: Array, axis: Axis, name: str = "x") -> tuple[int, ...]:
    """The axes whose entries share a probability of 1, in order; there must be an entry."""
    n = values.ndim
    if type(axis) is int and -n <= axis < n:
        axes: tuple[int, ...] = (axis % n,)
    elif axis is None:
        axes = tuple(range(n))
    else:
        try:
            axes = tuple(sorted(normalize_axis_tuple(axis, n, "axis")))
        except TypeError:
            raise TypeError(
                f"axis is {axis!r}, but an integer, a tuple of integers or None is needed"
            ) from None
        except AxisError:
            raise AxisError(
                f"axis {axis} is out of range for {name} of shape {values.shape}"
            ) from None
    if 0 in values.shape and any(values.shape[a] == 0 for a in axes):
        raise ValueError(
            f"{name} has shape {values.shape}: along axis {axis} there is no entry, "
            "but at least one class is needed"
        )
    return axes


def rows_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for i, n in enumerate(shape) if i not in axes)


def temperature_of(
    temperature: Any, shape: tuple[int, ...], axes: tuple[int, ...], dtype: np.dtype[Any]
) -> float | Array:
    """A number, or one for each row in C order, in the type computed in."""
    if type(temperature) is float and temperature == 1.0:
        return temperature
    if type(temperature) is float or type(temperature) is int:
        number = float(temperature)
        if not number >= 0:
            raise ValueError(f"temperature is {temperature}, but it must be 0 or more")
        with np.errstate(over="ignore"):
            return float(computed(dtype).type(number))
    given = widened(enter(temperature, "temperature")[0])
    if given.ndim == 0:
        return temperature_of(float(given), shape, axes, dtype)
    kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
    rows = rows_shape(shape, axes)
    if given.shape not in (kept, rows):
        raise ValueError(
            f"temperature has shape {given.shape}, but a number is needed, or one for each row: "
            f"shape {rows} or {kept}"
        )
    bad = np.flatnonzero(~(given >= 0))
    if len(bad):
        raise ValueError(f"temperature[{bad[0]}] is {given.flat[bad[0]]}, but it must be 0 or more")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(given.reshape(-1), computed(dtype))


def require_mask(where: Any, shape: tuple[int, ...]) -> None:
    """Booleans of another library that broadcast to the scores, or None."""
    if where is None:
        return
    if "bool" not in str(where.dtype):
        raise TypeError(f"where holds {where.dtype} values, but booleans are needed")
    try:
        fits = np.broadcast_shapes(where.shape, shape) == tuple(shape)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"where has shape {where.shape}, which does not broadcast to the scores' {shape}"
        )


def foreign_temperature(temperature: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """A number that was checked, or an array of another library with length 1 along the axes."""
    if isinstance(temperature, int | float):
        return temperature_of(float(temperature), x.shape, axes, FLOAT64)
    from array_api_compat import array_namespace

    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    if temperature.shape not in (kept, rows_shape(x.shape, axes), ()):
        raise ValueError(
            f"temperature has shape {temperature.shape}, but a number is needed, or one for each "
            f"row: shape {rows_shape(x.shape, axes)} or {kept}"
        )
    return array_namespace(x).reshape(temperature, kept if temperature.ndim else ())


def mask_of(where: Any, shape: tuple[int, ...]) -> Array | None:
    """Which entries take part, broadcast to the scores' shape; None: all do."""
    if where is None:
        return None
    mask = beside(where)
    if mask.dtype != np.bool_:
        raise TypeError(f"where holds {mask.dtype.name} values, but booleans are needed")
    try:
        return np.broadcast_to(mask, shape)
    except ValueError:
        raise ValueError(
            f"where has shape {mask.shape}, which does not broadcast to the scores' {shape}"
        ) from None


def buffer_of(
    out: Any,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    x: Any,
    inputs: dict[str, Any],
    others: dict[str, Any],
    name: str = "out",
) -> Array:
    """The memory of `out`, if it has this shape and type and may be written.

    It may be one of the `inputs`, entry by entry, but overlap nothing else.
    """
    tensor = is_tensor(x)
    if tensor != is_tensor(out) or not (tensor or isinstance(out, np.ndarray)):
        kind = "PyTorch tensor" if tensor else "NumPy array"
        raise TypeError(f"{name} is a {type(out).__name__}, but the answer is a {kind}")
    if out.dtype is not dtype:
        wanted = "bfloat16" if dtype == BFLOAT16 else dtype.name
        came = str(out.dtype).removeprefix("torch.")
        if came != wanted:
            raise TypeError(f"{name} holds {came} values, but the answer is of {wanted}")
    if tuple(out.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(out.shape)}, but the answer has {shape}")
    if not tensor and not (out.flags.aligned and out.dtype.isnative):
        raise ValueError(f"{name} must be aligned, and in the byte order of this machine")
    memory = enter(out, name)[0]
    if not memory.flags.writeable:
        raise ValueError(f"{name} is read-only")
    shared = (n > 1 for s, n in zip(memory.strides, memory.shape, strict=True) if s == 0)
    if memory.size and any(shared):
        raise ValueError(f"{name} has entries that share memory")
    for other, array in (inputs | others).items():
        if not isinstance(array, np.ndarray) or not np.may_share_memory(memory, array):
            continue
        if not (other in inputs and _same(memory, array)) and _overlap(memory, array):
            itself = f" {other} itself or" if other in inputs else ""
            raise ValueError(f"{name} overlaps {other}: it must be{itself} other memory altogether")
    return memory


def _same(a: Array, b: Array) -> bool:
    places = [(x.ctypes.data, x.shape, x.strides, x.dtype) for x in (a, b)]
    return places[0] == places[1]


def _overlap(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=1000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def integers(x: ArrayLike, name: str) -> NDArray[np.integer[Any]]:
    """Whole numbers, of the type they have."""
    array: Array = beside(x)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} holds {array.dtype.name} values, but integers are needed")
    return array


def weights(x: Any, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    """Weights of a given shape: finite and not negative, as float64."""
    array = widened(enter(x, name)[0]).astype(np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, but shape {shape} is needed")
    bad = ~(np.isfinite(array) & (array >= 0))
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{name}[{at}] is {array.flat[at]}, but weights must be finite and not negative"
        )
    return array
