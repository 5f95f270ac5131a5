"""softmax and log_softmax beside PyTorch, SciPy, JAX, plain NumPy, and a copy of the bytes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import ml_dtypes
import numpy as np
import scipy.special
import torch

import softly
from benchmarks.side_by_side import (
    Case,
    Setting,
    Shape,
    copies,
    measured,
    normal,
    print_rows,
    tables,
)

jax.config.update("jax_enable_x64", True)
GIVEN, ALLOCATED = "output given", "output allocated"


def numpy_softmax(x: Any, axis: int) -> Any:
    e = x - x.max(axis, keepdims=True)
    np.exp(e, out=e)
    e /= e.sum(axis, keepdims=True)
    return e


def numpy_log_softmax(x: Any, axis: int) -> Any:
    z = x - x.max(axis, keepdims=True)
    z -= np.log(np.exp(z).sum(axis, keepdims=True))
    return z


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    jitted = jax.jit(function, static_argnums=1)
    return lambda x, axis: jitted(x, axis).block_until_ready()


FUNCTIONS: dict[str, dict[str, Callable[..., Any]]] = {
    "softmax": {
        "softly": softly.softmax,
        "PyTorch": torch.softmax,
        "SciPy": scipy.special.softmax,
        "JAX": compiled(jax.nn.softmax),
        "NumPy": numpy_softmax,
    },
    "log_softmax": {
        "softly": softly.log_softmax,
        "PyTorch": torch.log_softmax,
        "SciPy": scipy.special.log_softmax,
        "JAX": compiled(jax.nn.log_softmax),
        "NumPy": numpy_log_softmax,
    },
}


def function(name: str, axis: int, dtype: str = "float32") -> Callable[[Shape], Setting]:
    """A function along an axis, the output given or allocated."""
    f = FUNCTIONS[name]

    def make(shape: Shape) -> Setting:
        x = normal(shape).astype(dtype, copy=False)
        out = np.zeros_like(x)
        t, t_out = torch.from_numpy(x), torch.from_numpy(out)
        works = {
            ("softly", GIVEN): partial(f["softly"], x, axis, out=out),
            ("softly", ALLOCATED): partial(f["softly"], x, axis),
            ("PyTorch", GIVEN): partial(f["PyTorch"], t, axis, out=t_out),
            ("PyTorch", ALLOCATED): partial(f["PyTorch"], t, axis),
            ("SciPy", ""): partial(f["SciPy"], x, axis),
            ("JAX", ""): partial(f["JAX"], jax.numpy.asarray(x), axis),
            ("NumPy", ""): partial(f["NumPy"], x, axis),
            **copies(x, out),
        }
        return Setting(works, lambda mode: f["SciPy"](x.astype(np.float64), axis))

    return make


def halves(shape: Shape) -> Setting:
    """softmax of rows of the two half types beside our own of float32, outputs given."""
    f = FUNCTIONS["softmax"]
    x = normal(shape)
    out = np.zeros_like(x)
    sources = {"": x}
    works = {("our float32", ""): partial(f["softly"], x, 1, out=out)}
    for name, dtype in (("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)):
        sources[name] = half = x.astype(dtype)
        room = np.zeros_like(half)
        t = torch.from_numpy(x).to(getattr(torch, name))
        works |= {
            ("softly", name): partial(f["softly"], half, 1, out=room),
            ("PyTorch", name): partial(f["PyTorch"], t, 1, out=torch.zeros_like(t)),
            ("JAX", name): partial(f["JAX"], jax.numpy.asarray(half), 1),
            **copies(half, room, name),
        }
    return Setting(works, lambda mode: f["SciPy"](sources[mode].astype(float), 1), tolerance=0.02)


def both(**bars: float) -> dict[str, dict[str, float]]:
    return {GIVEN: bars, ALLOCATED: bars}


LONG = "Long rows, out of cache"
SHORT = "Short rows"
AXES = "Other axes"
ONE = "One call of 10 float64 numbers"
HALVES = "Half types, output given"
TYPES = ("float16", "bfloat16")
CASES = [
    *(
        Case(LONG, name, function(name, 1), shape, {GIVEN: {"copy": 0.9}, ALLOCATED: {}})
        for name in FUNCTIONS
        for shape in ((65536, 1000), (2048, 32000), (512, 131072), (64, 1_000_000))
    ),
    *(
        Case(SHORT, "softmax", function("softmax", 1), (200_000, classes), both(PyTorch=times))
        for classes, times in ((3, 8), (10, 8), (30, 3))
    ),
    *(
        Case(
            AXES,
            f"softmax over axis {axis} of",
            function("softmax", axis),
            shape,
            both(PyTorch=3, copy=0.6),
            cut=cut,
        )
        for shape, axis, cut in (
            ((1000, 65536), 0, 1),
            ((8, 21, 512, 512), 1, 2),
            ((64, 1000, 1024), 1, 0),
        )
    ),
    Case(
        ONE,
        "softmax of",
        function("softmax", 0, "float64"),
        (10,),
        both(**{"SciPy": 10, "1.5 µs": 1}),
        pace={"number": 3000},
        limits={("1.5 µs", ""): 1.5e-6},
    ),
    *(
        Case(HALVES, "softmax", halves, shape, {name: {"our float32": 1.6} for name in TYPES})
        for shape in ((65536, 1000), (2048, 32000))
    ),
]

NOTE = """\
Ratios: how many times softly's time the others take, medians taken in turns; float32 unless said. \
The bound, "copy": the same bytes from the input into a warm output by the same threads, by \
`np.copyto` split over them or by PyTorch's `copy_`, whichever is faster. SciPy, JAX and NumPy \
allocate their output; SciPy and NumPy have one thread. A bar is the least ratio."""


def run(only: str = "") -> str:
    return f"{tables(measured('functions', only))}\n\n{NOTE}"


if __name__ == "__main__":
    print_rows(CASES, *sys.argv[1:])
