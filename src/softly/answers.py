"""Tables to tables of predictions, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from softly.errors import TableError
from softly.functions import softmax
from softly.models import Model

Array = NDArray[Any]


def answers(
    model: Model,
    frames: Iterable[pl.DataFrame],
    *,
    top_k: int | None = None,
    keep: Sequence[str] = (),
) -> Iterator[pl.DataFrame]:
    """The predictions of a model for a stream of tables.

    Parameters
    ----------
    model : Model
    frames : iterable of polars.DataFrame
    top_k : int, optional
        Give the best K classes and their probabilities only.
    keep : sequence of str
        Columns carried over from the tables, before the answers.

    Yields
    ------
    polars.DataFrame
        ``prediction``, ``probability``, then ``p_<class>`` for every class; with `top_k`
        ``prediction_2``, ``probability_2`` and so on instead.

    Raises
    ------
    TableError
        If a table does not fit the model, or a kept column is absent or named as an answer is.
    """
    labels = pl.Series(model.classes)
    first_row = 0
    for frame in frames:
        for name in keep:
            if name not in frame.columns:
                raise TableError(f"there is no column '{name}' to keep")
        logits = model.logits(frame, first_row)
        first_row += frame.height
        columns = {name: frame[name] for name in keep}
        found = _best(logits, labels, top_k) if top_k else _all(logits, labels)
        for name, values in found.items():
            if name in columns:
                raise TableError(f"the kept column '{name}' is named as an answer is: rename it")
            columns[name] = values
        yield pl.DataFrame(columns)


def _all(logits: Array, labels: pl.Series) -> dict[str, pl.Series]:
    best = logits.argmax(axis=1)
    p = softmax(logits, axis=1)
    return {
        "prediction": labels.gather(best),
        "probability": pl.Series(p[np.arange(len(best)), best]),
        **{f"p_{label}": pl.Series(p[:, j]) for j, label in enumerate(labels)},
    }


def _best(logits: Array, labels: pl.Series, k: int) -> dict[str, pl.Series]:
    order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    p = np.take_along_axis(softmax(logits, axis=1), order, axis=1)
    columns = {}
    for j in range(order.shape[1]):
        rank = "" if j == 0 else f"_{j + 1}"
        columns[f"prediction{rank}"] = labels.gather(order[:, j])
        columns[f"probability{rank}"] = pl.Series(p[:, j])
    return columns
