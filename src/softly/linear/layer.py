"""A linear layer as it came in, and what leaves it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softly import arrays
from softly.arrays import Array, Leave

Rows = slice | NDArray[np.intp]


class LinearGradients(NamedTuple):
    """Of the value, each of the shape, type and library of what it belongs to."""

    features: Any
    weight: Any
    bias: Any  # None where there is none


@dataclass(frozen=True)
class Layer:
    """Features, weight and bias as they came in."""

    features: Batch
    weight: Array
    bias: Array | None
    leave: dict[str, Leave | None]

    @classmethod
    def of(cls, features: Any, weight: Any, bias: Any) -> Layer:
        given = {"features": features, "weight": weight}
        if bias is not None:
            given["bias"] = bias
        for name, x in given.items():
            if arrays.is_foreign(x):
                raise TypeError(
                    f"{name} is a {type(x).__module__}.{type(x).__name__}, but the product is "
                    "taken of arrays of NumPy or PyTorch on the CPU; cross_entropy takes any"
                )
            if arrays.is_tensor(x) != arrays.is_tensor(features):
                raise TypeError(
                    f"features is a {type(features).__name__} and {name} a {type(x).__name__}, "
                    "but all arrays of a call need one library"
                )
        entered = {name: arrays.enter(x, name) for name, x in given.items()}
        x, w = entered["features"][0], entered["weight"][0]
        b = entered["bias"][0] if "bias" in entered else None
        if w.ndim != 2 or x.ndim == 0 or x.shape[-1] != w.shape[1] or w.shape[0] == 0:
            raise ValueError(
                f"features have shape {x.shape} and weight {w.shape}, but they need (..., D) and "
                "(K, D), with at least one class"
            )
        if b is not None and b.shape != w.shape[:1]:
            raise ValueError(
                f"bias has shape {b.shape}, but for weight of shape {w.shape} it needs "
                f"{w.shape[:1]}, a number for each class"
            )
        return cls(Batch(x), w, b, {name: leave for name, (_, leave) in entered.items()})

    @property
    def lead(self) -> tuple[int, ...]:
        return self.features.lead

    @property
    def n_classes(self) -> int:
        return int(self.weight.shape[0])

    @property
    def depth(self) -> int:
        return int(self.weight.shape[1])

    @property
    def working(self) -> np.dtype[Any]:
        """The type computed in."""
        types = {arrays.computed(x.dtype) for x in (self.features, self.weight)}
        return arrays.FLOAT64 if arrays.FLOAT64 in types else arrays.FLOAT32

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the scores, had they been asked for."""
        same = self.features.dtype == self.weight.dtype
        return self.weight.dtype if same else self.working

    def left(self, name: str, answer: Array) -> Any:
        """An answer of the type and library of the array of this name."""
        leave = self.leave[name]
        return answer if leave is None else leave(answer)


class Batch:
    """The rows of an array, whatever number of axes it has before its last."""

    def __init__(self, array: Array) -> None:
        *lead, columns = array.shape
        self.lead, self.dtype = tuple(lead), array.dtype
        self.row_bytes = columns * array.itemsize
        steps = [(n, s) for n, s in zip(lead, array.strides[:-1], strict=True) if n != 1]
        as_one = all(s == n * t for (_, s), (n, t) in pairwise(steps))
        self._array = array
        self.matrix = array.reshape(int(np.prod(lead)), columns) if as_one else None

    def __getitem__(self, rows: Rows) -> Array:
        if isinstance(rows, slice):
            assert self.matrix is not None
            return self.matrix[rows]
        if self.matrix is None:
            return self._array[np.unravel_index(rows, self.lead)]
        return self.matrix[: len(rows)] if self.matrix.strides[0] == 0 else self.matrix[rows]
