"""Labelled tables to logits and targets, batch by batch, with a count of what is left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from softly import tables
from softly.errors import TableError

if TYPE_CHECKING:
    from softly.models import Model

Array = NDArray[Any]


@dataclass
class LeftOut:
    """Rows that no model can be scored on.

    Attributes
    ----------
    unlabelled : int
        Rows without a label.
    unknown : dict of str to int
        Classes the model never saw, and how many rows had them.
    """

    unlabelled: int = 0
    unknown: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Some rows of a table whose classes the model knows.

    Attributes
    ----------
    frame : polars.DataFrame
        All rows of the batch, those left out among them.
    place : ndarray of int, shape (N,)
        Where each of the scored rows stands in it.
    first_row : int
        How many rows of the table came before.
    logits : ndarray, shape (N, K)
    target : ndarray of int, shape (N,)
    """

    frame: pl.DataFrame
    place: NDArray[np.intp]
    first_row: int
    logits: Array
    target: NDArray[np.int64]


def scored(model: Model, frames: Iterable[pl.DataFrame], left_out: LeftOut) -> Iterator[Batch]:
    """The rows of labelled tables that can be scored; `left_out` counts the others.

    Raises
    ------
    TableError
        If the target is not there, or in the end no row could be scored.
    """
    known = {name: i for i, name in enumerate(model.classes)}
    first_row = rows = 0
    for frame in frames:
        if model.schema.target not in frame.columns:
            raise TableError(
                f"there is no column '{model.schema.target}' in the table; the model "
                "predicts it, so rows need it to be scored"
            )
        labels, missing = tables.labels(frame, model.schema.target)
        target = np.array([known.get(label, -1) for label in labels], dtype=np.int64)
        for label in labels[(target < 0) & ~missing]:
            left_out.unknown[str(label)] = left_out.unknown.get(str(label), 0) + 1
        left_out.unlabelled += int(missing.sum())
        place = np.flatnonzero(target >= 0)
        logits = model.logits(frame, first_row)[place]
        yield Batch(frame, place, first_row, logits, target[place])
        first_row += len(frame)
        rows += len(place)
    if not rows:
        raise TableError(
            f"no row can be scored: none has a class in '{model.schema.target}' that the model "
            f"knows ({', '.join(model.classes[:8])}{', ...' if len(known) > 8 else ''})"
        )
