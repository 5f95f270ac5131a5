"""What a cross-entropy is made of, checked and in the kernels' types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Terms:
    """Targets and options of N rows of K classes, as every kernel takes them.

    Numbers are of the compute type: float64 for float64 logits, else float32.
    """

    index: Array | None = None  # (N, m) of any integer type: the classes wanted
    share: Array | None = None  # (N, m): how much of each; None: 1
    soft: Array | None = None  # the logits' shape, any float type the kernels read: dense targets
    ignore_index: int | None = None  # rows with this class count for nothing (m = 1)
    class_weight: Array | None = None  # (K,)
    scale: float | Array = 1.0  # of the gradient; a number or (N,); rows of 0 count for nothing
    smoothing: float = 0.0
    z_loss: float = 0.0
    cap: float | None = None
    temperature: float | Array = 1.0  # a number or (N,)
    where: Array | None = None  # bool, broadcast to the logits' shape: the classes allowed
    focal: float = 0.0
