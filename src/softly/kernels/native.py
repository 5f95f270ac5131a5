"""The compiled kernels behind the signatures of `reference`, rows split over threads."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from softly.kernels import _native, threads

Array = NDArray[np.floating]
level: str = _native.use(os.environ.get("SOFTLY_CPU", ""))
name = f"native, x86-64-{level}" if level != "base" else "native"


def softmax(rows: Array, out: Array) -> None:
    threads.over_rows(lambda a, b: _native.softmax(rows, out, a, b), len(rows), rows.nbytes)


def log_softmax(rows: Array, out: Array) -> None:
    threads.over_rows(lambda a, b: _native.log_softmax(rows, out, a, b), len(rows), rows.nbytes)


def logsumexp(rows: Array, out: Array) -> None:
    threads.over_rows(lambda a, b: _native.logsumexp(rows, out, a, b), len(rows), rows.nbytes)


def cross_entropy(
    rows: Array,
    target: NDArray[np.int64],
    scale: Array | None,
    loss: Array,
    grad: Array | None,
) -> None:
    threads.over_rows(
        lambda a, b: _native.cross_entropy(rows, target, scale, loss, grad, a, b),
        len(rows),
        rows.nbytes,
    )


def sigmoid(x: Array, out: Array) -> None:
    threads.over_rows(lambda a, b: _native.sigmoid(x, out, a, b), len(x), x.nbytes)


def log_sigmoid(x: Array, out: Array) -> None:
    threads.over_rows(lambda a, b: _native.log_sigmoid(x, out, a, b), len(x), x.nbytes)
