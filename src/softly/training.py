"""A table to a trained model with its held-out scores."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from softly import features, tables
from softly.classifier import SoftmaxClassifier
from softly.files import TableError
from softly.models import Model
from softly.report import Evaluation, evaluate
from softly.solvers import Pass
from softly.tables import Schema


@dataclass(frozen=True)
class Training:
    """A trained model and what is to be said about its training.

    Attributes
    ----------
    model : Model
    evaluation : Evaluation
        On the rows held out.
    rows : int
        How many rows the model was trained on.
    unlabelled : int
        How many rows had no target, and were left out.
    converged : bool
        Whether the solver reached its tolerance.
    """

    model: Model
    evaluation: Evaluation
    rows: int
    unlabelled: int
    converged: bool


def train(
    frame: pl.DataFrame,
    schema: Schema,
    *,
    test: float | pl.DataFrame = 0.2,
    seed: int = 0,
    C: float = 1.0,
    max_iter: int = 100,
    on_pass: Callable[[Pass], None] | None = None,
) -> Training:
    """Train a softmax classifier on a table and score it on rows it did not see.

    Parameters
    ----------
    frame : polars.DataFrame
        The training table.
    schema : Schema
        What its columns hold, from `softly.tables.infer`.
    test : float or polars.DataFrame
        The share of rows to hold out, the same of each class, or a table to score on.
    seed : int
        Which rows are held out.
    C, max_iter
        As for `SoftmaxClassifier`.
    on_pass : callable, optional
        Is given each pass over the data.

    Raises
    ------
    TableError
        If the labels or the columns are not fit to be trained on.
    """
    labels, missing = tables.labels(frame, schema.target)
    unlabelled = int(missing.sum())
    if unlabelled:
        frame, labels = frame.filter(~pl.Series(missing)), labels[~missing]
    tables.check_classes(labels, schema.target)
    if isinstance(test, pl.DataFrame):
        train_rows, test_frame, test_labels = None, test, tables.labels(test, schema.target)[0]
    else:
        train_rows, test_rows = _split(labels, test, seed)
        test_frame, test_labels = frame[test_rows], labels[test_rows]
        frame, labels = frame[train_rows], labels[train_rows]
    typed = schema.apply(frame)
    del frame
    transformer = features.fit(typed, schema.typed_kinds())
    matrix = features.transform(transformer, typed)
    del typed
    classifier = SoftmaxClassifier(C=C, max_iter=max_iter, verbose=on_pass or False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        classifier.fit(matrix, labels)
    classifier.verbose = False
    _, counts = np.unique(labels, return_counts=True)
    model = Model(schema, transformer, classifier, frequencies=counts / counts.sum())
    evaluation = evaluate(model, [test_frame])
    return Training(
        model=replace(model, scores=evaluation.to_dict()),
        evaluation=evaluation,
        rows=len(labels),
        unlabelled=unlabelled,
        converged=not any(issubclass(w.category, ConvergenceWarning) for w in caught),
    )


def _split(
    labels: NDArray[np.str_], share: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    rows, n_classes = len(labels), len(np.unique(labels))
    held_out = int(np.ceil(share * rows))
    if min(held_out, rows - held_out) < n_classes:
        raise TableError(
            f"holding out {share:.0%} of {rows} rows leaves {min(held_out, rows - held_out)} rows "
            f"on one side for {n_classes} classes: gather more rows, or give --test FILE"
        )
    first, second = train_test_split(
        np.arange(rows), test_size=share, stratify=labels, random_state=seed
    )
    return np.sort(first), np.sort(second)
