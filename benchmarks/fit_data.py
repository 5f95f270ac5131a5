"""The data sets of `fit`, what is minimised on them, and the one routine that says how far it is.

Everything is of more than two classes, so that all libraries have a coefficient for each class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks.measure import DATA

Array = NDArray[Any]

_BLOCK = 1 << 22  # numbers of X that are float64 at once


@dataclass(frozen=True)
class Problem:
    """Data and a penalty: scikit-learn's objective, C sum CE + penalty, divided by C times N."""

    X: Any  # ndarray in C order, or CSR
    y: NDArray[np.int64]
    C: float
    l1_ratio: float

    @cached_property
    def n_classes(self) -> int:
        return int(self.y.max()) + 1

    @property
    def strength(self) -> float:
        """What the penalty is multiplied by once the loss is a mean."""
        return 1 / (self.C * len(self.y))

    def objective(self, coef: Array, intercept: Array) -> float:
        """The mean loss with its penalty, in float64, whatever the types of data and answer."""
        coef, intercept = np.asarray(coef, float), np.asarray(intercept, float)
        total = 0.0
        for features, target in self.blocks():
            scores = features @ coef.T + intercept
            scores -= scores.max(axis=1, keepdims=True)
            wanted = scores[np.arange(len(target)), target].sum()
            total += float(np.log(np.exp(scores, out=scores).sum(axis=1)).sum() - wanted)
        return total / len(self.y) + self.strength * self.penalty(coef)

    def penalty(self, coef: Array) -> float:
        square, size = float(np.vdot(coef, coef)), float(np.abs(coef).sum())
        return (1 - self.l1_ratio) / 2 * square + self.l1_ratio * size

    def blocks(self) -> Iterator[tuple[Any, NDArray[np.int64]]]:
        """Rows in float64, some at a time."""
        n, d = self.X.shape
        step = n if sp.issparse(self.X) else max(1, _BLOCK // d)
        for start in range(0, n, step):
            some = slice(start, start + step)
            yield self.X[some].astype(float, copy=False), self.y[some]

    def few(self) -> Problem:
        """A few rows with every class among them, for warming up."""
        _, first = np.unique(self.y, return_index=True)
        rows = np.union1d(first, np.arange(min(200, len(self.y))))
        return Problem(self.X[rows], self.y[rows], self.C, self.l1_ratio)


def problem(data: str, C: float, l1_ratio: float) -> Problem:
    X, y = LOADERS[data]()
    y = y.astype(np.int64)
    return Problem(X, y - y.min(), C, l1_ratio)


def _covtype() -> tuple[Any, Array]:
    data = np.load(DATA / "covtype.npz")
    return data["X"].astype(float, order="C"), data["y"]


def _standardised(load: Callable[[], tuple[Any, Array]]) -> tuple[Any, Array]:
    X, y = load()
    X -= X.mean(axis=0)
    X /= X.std(axis=0)
    return X, y


def _letter() -> tuple[Any, Array]:
    data = np.load(DATA / "letter.npz")
    return data["X"].astype(float, order="C"), data["y"]


def _mnist(dtype: type) -> tuple[Any, Array]:
    data = np.load(DATA / "mnist.npz")
    X = data["X_train"].astype(dtype)
    X /= 255
    return X, data["y_train"]


def _banking77() -> tuple[Any, Array]:
    data = np.load(DATA / "banking77_minilm.npz")
    return data["X"].astype(np.float32), data["y"]


def _news20() -> tuple[Any, Array]:
    data = np.load(DATA / "news20_tfidf.npz")
    parts = (data["data"], data["indices"], data["indptr"])
    return sp.csr_matrix(parts, shape=tuple(data["shape"])), data["y"]


LOADERS: dict[str, Callable[[], tuple[Any, Array]]] = {
    "covtype": lambda: _standardised(_covtype),
    "covtype-raw": _covtype,
    "mnist-float32": lambda: _mnist(np.float32),
    "mnist-float64": lambda: _mnist(np.float64),
    "letter": lambda: _standardised(_letter),
    "banking77": _banking77,
    "news20": _news20,
}
