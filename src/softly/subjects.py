"""What a report is about: scores of rows whose classes are known, from a model or from arrays."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from softly import targets
from softly.calibration import refuse_no_logits, with_first
from softly.evaluation import weights
from softly.functions import softmax
from softly.scoring import Batch, LeftOut, scored

if TYPE_CHECKING:
    from softly.models import Model

Array = NDArray[Any]

MISTAKES = 10  # shown with their rows
_WEIGHTS = 4  # of each class
_COLUMNS = 4  # of a mistake's row
_LONGEST = 80  # letters of a cell


@dataclass(frozen=True)
class Subject:
    """Scores of rows, and what is true.

    Attributes
    ----------
    source : list of str
        The names of the files that it comes from.
    logits : ndarray, shape (N, K)
    target : ndarray of int, shape (N,)
    classes : list of str
    frequencies : ndarray, shape (K,)
        How frequent the classes are, for who guesses by nothing else.
    are_trained : bool
        Whether those are the frequencies in training, and not those of the rows.
    number : ndarray of int, shape (N,)
        The rows' numbers: those of a table count from 1, those of an array from 0.
    left_out : LeftOut
    columns : list of str
        Of which `cells` tells.
    cells : dict of int to list of str
        What stands in the rows of the most confident mistakes, by the rows' numbers.
    weights : dict of str to list of (str, float), optional
        The features that weigh most for each class, of a model of ours.
    """

    source: list[str]
    logits: Array
    target: NDArray[np.int64]
    classes: list[str]
    frequencies: NDArray[np.float64]
    are_trained: bool
    number: NDArray[np.int64]
    left_out: LeftOut = field(default_factory=LeftOut)
    columns: list[str] = field(default_factory=list)
    cells: dict[int, list[str]] = field(default_factory=dict)
    weights: dict[str, list[tuple[str, float]]] | None = None


def of_model(model: Model, frames: Iterable[pl.DataFrame], source: list[str]) -> Subject:
    """A model, on labelled tables.

    Raises
    ------
    TableError
        If the target is not there or no row can be scored.
    """
    left_out, columns = LeftOut(), _telling(model)
    logits, target, number = [], [], []
    worst: list[tuple[float, int, list[str]]] = []  # the surest last
    for batch in scored(model, frames, left_out):
        logits.append(batch.logits)
        target.append(batch.target)
        number.append(batch.first_row + batch.place + 1)
        worst = heapq.nlargest(MISTAKES, worst + _mistakes(batch, columns))
    return Subject(
        source,
        np.concatenate(logits),
        np.concatenate(target),
        model.classes,
        model.frequencies,
        are_trained=True,
        number=np.concatenate(number),
        left_out=left_out,
        columns=columns,
        cells={row: cells for _, row, cells in worst},
        weights=weights(model, _WEIGHTS),
    )


def _telling(model: Model) -> list[str]:
    """Columns by which a person tells rows apart: an identifier, then what is learnt of."""
    names = [c.name for c in model.schema.columns if c.kind == "identifier"][:1]
    return [*names, *(c.name for c in model.schema.used)][:_COLUMNS]


def _mistakes(batch: Batch, columns: list[str]) -> list[tuple[float, int, list[str]]]:
    """The most confident ones of a batch: how sure, the row, and what stands there."""
    wrong = np.flatnonzero(batch.logits.argmax(axis=1) != batch.target)
    sure = softmax(batch.logits[wrong], axis=1).max(axis=1)
    there = [name for name in columns if name in batch.frame.columns]
    found = []
    for i in np.argsort(-sure, kind="stable")[:MISTAKES]:
        row = batch.frame.row(int(batch.place[wrong[i]]), named=True)
        cells = [_cell(row[name]) if name in there else "" for name in columns]
        found.append((float(sure[i]), batch.first_row + int(batch.place[wrong[i]]) + 1, cells))
    return found


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return shortened(f"{value:.10g}" if isinstance(value, float) else str(value), _LONGEST)


def shortened(text: str, most: int) -> str:
    """With an ellipsis in the place of what is too much."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def of_logits(logits: Array, y: Array, source: list[str], *, classes: Any = None) -> Subject:
    """Any model, by its logits of some rows.

    Raises
    ------
    ValueError
        If the arrays do not fit together or are not what they are said to be.
    """
    scores, y = (x[:, 0] if x.ndim == 2 and x.shape[1] == 1 else x for x in (logits, y))
    scores = scores[:, None] if scores.ndim == 1 else scores
    if scores.ndim != 2 or scores.dtype.kind not in "buif" or not scores.size:
        raise ValueError(
            f"the scores have shape {logits.shape} and type {logits.dtype}, but numbers of shape "
            "(N, K) are needed: a row of K scores each; or (N, 1), those of the second of two "
            "classes"
        )
    if y.ndim != 1 or len(y) != len(scores):
        raise ValueError(
            f"the labels have shape {y.shape}, but ({len(scores)},) is needed: one for each of the "
            f"{len(scores):,} rows of scores"
        )
    if y.dtype.kind == "S":
        y = y.astype(np.str_)
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError("the labels hold NaN or infinity, but each row needs a class")
    if scores.dtype not in (np.float32, np.float64):
        scores = scores.astype(np.float64 if scores.dtype.kind in "ui" else np.float32)
    scores = with_first(scores)
    refuse_no_logits(scores)
    labels, target = targets.columns_of(y, scores.shape[1], classes)
    return Subject(
        source,
        scores,
        target,
        [str(label) for label in labels.tolist()],
        np.bincount(target, minlength=len(labels)) / len(target),
        are_trained=False,
        number=np.arange(len(target)),
    )
