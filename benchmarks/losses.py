"""Value and gradient of the losses beside PyTorch, SciPy, JAX, plain NumPy, and the bounds."""

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
import torch.nn.functional as F

import softly
from benchmarks.measure import peak_from_here, resident
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
from softly.kernels import chosen as kernels
from softly.kernels import memory, threads
from softly.kernels.terms import Terms

GIVEN, IN_PLACE, ALLOCATED = "gradient given", "in place", "gradient allocated"
BUDGET = 64 * 2**20

# The same work by others, and by definition -------------------------------------------------


def by_pytorch(loss: Callable[..., Any], target: Any, *leaves: Any) -> tuple[Any, ...]:
    for leaf in leaves:
        leaf.grad = None
    value = loss(*leaves, target)
    value.backward()
    return value, *(leaf.grad for leaf in leaves)


def by_scipy(x: Any, target: Any) -> tuple[Any, Any]:
    rows = np.arange(len(x))
    log_p = scipy.special.log_softmax(x, axis=1)
    value = -log_p[rows, target].mean()
    grad = np.exp(log_p, out=log_p)
    grad[rows, target] -= 1
    grad /= len(x)
    return value, grad


def by_numpy(x: Any, target: Any) -> tuple[Any, Any]:
    rows = np.arange(len(x))
    grad = x - x.max(1, keepdims=True)
    wanted = grad[rows, target]
    np.exp(grad, out=grad)
    total = grad.sum(1, keepdims=True)
    value = (np.log(total[:, 0]) - wanted).mean()
    grad /= total * len(x)
    grad[rows, target] -= 1 / len(x)
    return value, grad


def by_jax(x: Any, target: Any) -> Callable[[], Any]:
    def loss(x: Any, target: Any) -> Any:
        log_p = jax.nn.log_softmax(x, axis=1)
        return -jax.numpy.take_along_axis(log_p, target[:, None], axis=1).mean()

    step = jax.jit(jax.value_and_grad(loss))
    x, target = jax.numpy.asarray(x), jax.numpy.asarray(target)
    return lambda: jax.block_until_ready(step(x, target))


def by_definition(x: Any, wanted: Any, z_loss: float = 0.0) -> tuple[Any, Any]:
    """In float64: the mean over rows of -sum wanted log p + z_loss lse^2, and its gradient."""
    x = np.asarray(x, float)
    p, log_p = scipy.special.softmax(x, axis=1), scipy.special.log_softmax(x, axis=1)
    lse = scipy.special.logsumexp(x, axis=1, keepdims=True)
    value = (z_loss * lse[:, 0] ** 2 - (wanted * log_p).sum(1)).mean()
    return value, (p * (wanted.sum(1, keepdims=True) + 2 * z_loss * lse) - wanted) / len(x)


def classes_of(shape: Shape) -> Any:
    return np.random.default_rng(1).integers(shape[-1], size=shape[0])


def one_hot(target: Any, shape: Shape) -> Any:
    wanted = np.zeros(shape)
    wanted[np.arange(len(wanted)), target] = 1
    return wanted


def leaf(x: Any) -> Any:
    return torch.from_numpy(x).requires_grad_()


# Settings -----------------------------------------------------------------------------------


def loss(shape: Shape) -> Setting:
    """Integer targets, no options."""
    x, y = normal(shape), classes_of(shape)
    out, place = np.zeros_like(x), x.copy()
    works = {
        ("softly", GIVEN): partial(softly.cross_entropy, x, y, grad_out=out),
        ("softly", IN_PLACE): partial(softly.cross_entropy, place, y, grad_out=place),
        ("softly", ALLOCATED): partial(softly.cross_entropy, x, y, return_grad=True),
        ("PyTorch", ""): partial(by_pytorch, F.cross_entropy, torch.from_numpy(y), leaf(x)),
        ("SciPy", ""): partial(by_scipy, x, y),
        ("JAX", ""): by_jax(x, y),
        ("NumPy", ""): partial(by_numpy, x, y),
        **copies(x, out),
    }
    before = {("softly", IN_PLACE): partial(np.copyto, place, x)}
    return Setting(works, lambda mode: by_definition(x, one_hot(y, shape)), before=before)


SMOOTH, SOFT, SPARSE = "label smoothing", "soft targets", "sparse targets, 4 a row"
Z, ALL = "z-loss", "label smoothing, soft targets and z-loss"


def options(shape: Shape) -> Setting:
    """Each option alone, and all at once, beside the loss without; gradient given."""
    n, classes = shape
    x, y = normal(shape), classes_of(shape)
    out = np.zeros_like(x)
    soft = softly.softmax(normal(shape, seed=3), axis=1)
    index = np.random.default_rng(2).integers(classes, size=(n, 4))
    share = softly.softmax(normal((n, 4)), axis=1)
    asked: dict[str, tuple[Any, dict[str, float]]] = {
        SMOOTH: (y, {"label_smoothing": 0.1}),
        SOFT: (soft, {}),
        Z: (y, {"z_loss": 1e-4}),
        ALL: (soft, {"label_smoothing": 0.1, "z_loss": 1e-4}),
        SPARSE: ((index, share), {}),
        "": (y, {}),
    }
    ours = {
        mode: partial(softly.cross_entropy, x, target, grad_out=out, **named)
        for mode, (target, named) in asked.items()
    }

    def all_in_pytorch(x: Any, target: Any) -> Any:
        entropy = F.cross_entropy(x, target, label_smoothing=0.1)
        return entropy + 1e-4 * torch.logsumexp(x, 1).square().mean()

    def read_both() -> None:
        part = lambda a, b: np.add(x[a:b], soft[a:b], out=out[a:b])  # noqa: E731
        threads.over_rows(part, n, x.nbytes)

    def truth(mode: str) -> Any:
        target, named = asked[mode]
        wanted = np.zeros(shape)
        if mode == SPARSE:
            np.add.at(wanted, (np.arange(n)[:, None], index), share)
        else:
            wanted = target if target is soft else one_hot(y, shape)
        smoothing = named.get("label_smoothing", 0.0)
        wanted = (1 - smoothing) * wanted + smoothing / classes
        return by_definition(x, wanted, named.get("z_loss", 0.0))

    works = {
        **{("softly", mode): work for mode, work in ours.items() if mode},
        ("without", ""): ours[""],
        ("PyTorch", ALL): partial(by_pytorch, all_in_pytorch, torch.from_numpy(soft), leaf(x)),
        **copies(x, out),
        ("copy, reading targets", SOFT): read_both,
        ("copy, reading targets", ALL): read_both,
    }
    return Setting(works, truth)


def halves(shape: Shape) -> Setting:
    """The two half types beside our own of float32, gradient given."""
    x, y = normal(shape), classes_of(shape)
    sources = {"": x}
    works = {("our float32", ""): partial(softly.cross_entropy, x, y, grad_out=np.zeros_like(x))}
    for name, dtype in (("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)):
        sources[name] = half = x.astype(dtype)
        room = np.zeros_like(half)
        t = torch.from_numpy(x).to(getattr(torch, name)).requires_grad_()
        works |= {
            ("softly", name): partial(softly.cross_entropy, half, y, grad_out=room),
            ("PyTorch", name): partial(by_pytorch, F.cross_entropy, torch.from_numpy(y), t),
            **copies(half, room, name),
        }

    def truth(mode: str) -> Any:
        return by_definition(sources[mode], one_hot(y, shape))

    return Setting(works, truth, tolerance=0.02)


def target_check(shape: Shape) -> Setting:
    """The look at integer targets alone, beside the call that it is a part of."""
    x, y = normal(shape), classes_of(shape)
    out, losses = np.zeros_like(x), np.zeros(len(x), x.dtype)
    terms = Terms(index=y[:, None], ignore_index=-100, scale=1 / len(x))
    works = {
        ("softly", ""): partial(kernels.survey, y, shape[1], -100),
        ("kernel alone", ""): partial(kernels.cross_entropy, x, 1, terms, losses, out),
        ("whole call", ""): partial(softly.cross_entropy, x, y, grad_out=out),
    }
    return Setting(works)


def linear(shape: Shape) -> Setting:
    """Scores that are a product of features and weights: value and both gradients."""
    n, d, classes = shape
    x, w, y = normal((n, d)), normal((classes, d), seed=3), classes_of((n, classes))
    w /= 3 * np.sqrt(d)
    scores, by_x, by_w = np.zeros((n, classes), x.dtype), np.zeros_like(x), np.zeros_like(w)
    chunked = partial(F.linear_cross_entropy, options=torch.nn.LinearCrossEntropyOptions())

    def ours() -> Any:
        value, grads = softly.linear_cross_entropy(x, w, y, return_grad=True, memory_budget=BUDGET)
        return value, grads.features, grads.weight

    def products() -> None:
        np.matmul(x, w.T, out=scores)
        np.matmul(scores, w, out=by_x)
        np.matmul(scores.T, x, out=by_w)

    def truth(mode: str) -> Any:
        wide_x, wide_w = x.astype(float), w.astype(float)
        value, grad = by_definition(wide_x @ wide_w.T, one_hot(y, (n, classes)))
        return value, grad @ wide_w, grad.T @ wide_x

    peaks = {("budget", ""): float(BUDGET)}
    at_once = lambda x, w, y: F.cross_entropy(F.linear(x, w), y)  # noqa: E731
    answers = {"softly": ours} | {
        who: partial(by_pytorch, loss, torch.from_numpy(y), leaf(x), leaf(w))
        for who, loss in (("PyTorch", at_once), ("PyTorch, chunked", chunked))
    }
    works = {
        (who, ""): weighed(work, peaks, (who, ""), x.nbytes + w.nbytes)
        for who, work in answers.items()
    }
    return Setting(works | {("three products", ""): products}, truth, peaks=peaks)


def weighed(
    work: Callable[[], Any], peaks: dict[Any, float], name: Any, gradients: int
) -> Callable[[], Any]:
    """The work, which the first time also tells the memory it held beyond the gradients."""

    def weighing() -> Any:
        if name in peaks:
            return work()
        memory._kept.clear()  # the pages of an earlier answer would not be counted again
        held = resident("VmRSS")
        peak_from_here()
        answer = work()
        peaks[name] = resident("VmHWM") - held - gradients
        return answer

    return weighing


# Cases --------------------------------------------------------------------------------------

SHAPES = ((200_000, 10), (16384, 1000), (2048, 32000), (512, 131_072))


def bars(shape: Shape) -> dict[str, dict[str, float]]:
    small = shape == SHAPES[0]  # it stays in the cache
    copy = {} if small else {"copy": 0.85}
    most = {"PyTorch": 5.0 if small else 10.0, **copy}
    return {GIVEN: most, IN_PLACE: most, ALLOCATED: {"PyTorch": 5.0, **copy}}


TYPES = ("float16", "bfloat16")
LOSS = "cross_entropy, value and gradient"
OPTIONS = "cross_entropy with options, gradient given"
HALVES = "cross_entropy of half types, gradient given"
CHECK = "What the check of the targets costs (first: the check alone)"
LINEAR = "linear_cross_entropy, value and gradients"
CASES = [
    *(Case(LOSS, "cross_entropy", loss, shape, bars(shape)) for shape in SHAPES),
    *(
        Case(
            OPTIONS,
            "cross_entropy",
            options,
            shape,
            {name: {"without": 1 / 1.3} for name in (SMOOTH, SOFT, Z, ALL, SPARSE)},
        )
        for shape in SHAPES
    ),
    *(
        Case(HALVES, "cross_entropy", halves, shape, {name: {"our float32": 1.6} for name in TYPES})
        for shape in ((65536, 1000), (2048, 32000))
    ),
    *(Case(CHECK, "check of", target_check, shape, {"": {"whole call": 50}}) for shape in SHAPES),
    *(
        Case(
            LINEAR,
            "linear_cross_entropy",
            linear,
            (4096, 1024, classes),
            {"": {"three products": 0.85, "PyTorch": 1.1, "PyTorch, chunked": 1.1}},
            threads=counts,
            pace={"warm_up": False, "least": 1, "budget": 10},
        )
        for classes, counts in ((32000, (1, 2)), (131_072, (2,)))
    ),
]

NOTE = """\
Ratios: how many times softly's time (or memory) the others take, medians taken in turns; float32 \
unless said. A bar is the least ratio: 0.769 is 1 / 1.3, and a check that the whole call takes 50 \
times costs 2 %. PyTorch is forward and backward to a leaf whose gradient was freed. SciPy, JAX \
and NumPy allocate the gradient; SciPy and NumPy have one thread. The bound, "copy": the same \
bytes from the logits into a warm gradient by the same threads, by `np.copyto` split over them or \
by PyTorch's `copy_`, whichever is faster; "copy, reading targets" reads the targets on the way \
(`np.add`), since dense ones are as many bytes again. linear_cross_entropy is of N x D x K; "three \
products" are NumPy's, into given memory; memory is the resident peak beyond inputs and gradients, \
beside a budget of 64 MiB; 131072 classes on two threads only."""


def run(only: str = "") -> str:
    return f"{tables(measured('losses', only))}\n\n{NOTE}"


if __name__ == "__main__":
    print_rows(CASES, *sys.argv[1:])
