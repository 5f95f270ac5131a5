"""softmax over rows of float32, beside SciPy, PyTorch and a copy of the same bytes."""

from __future__ import annotations

import numpy as np
import scipy.special
import torch

import softly
from benchmarks.measure import interleaved, table
from softly.kernels import threads

SHAPES = ((2048, 32000), (200000, 10), (200000, 3), (200000, 30), (100000, 100))


def run() -> str:
    torch.set_num_threads(threads.count())
    rows = []
    for n, k in SHAPES:
        x = np.random.default_rng(0).normal(scale=3, size=(n, k)).astype(np.float32)
        t = torch.from_numpy(x)
        exact = scipy.special.softmax(x[:100].astype(np.float64), axis=1)
        for result in (softly.softmax(x[:100], axis=1), torch.softmax(t[:100], 1).numpy()):
            np.testing.assert_allclose(result, exact, rtol=1e-5)
        times = interleaved(
            {
                "softly": lambda x=x: softly.softmax(x, axis=1),
                "scipy": lambda x=x: scipy.special.softmax(x, axis=1),
                "torch": lambda t=t: torch.softmax(t, 1),
                "copy": lambda x=x: x.copy(),
            },
            repeats=7 if n * k > 10_000_000 else 25,
        )
        ours = times["softly"]
        rows.append(
            [
                f"{n} x {k}",
                f"{ours * 1e3:.2f} ms",
                f"{times['scipy'] / ours:.1f} x",
                f"{times['torch'] / ours:.1f} x",
                f"{times['copy'] / ours:.2f}",
            ]
        )
    note = (
        f"float32, {threads.count()} threads for softly and PyTorch, output allocated by each; the "
        "bound is one thread's `x.copy()`, the same bytes in and out."
    )
    return (
        table(["shape", "softly", "SciPy takes", "PyTorch takes", "of the copy's speed"], rows)
        + f"\n\n{note}"
    )
