"""A table to features, and features to a trained model with its held-out scores.

Two steps, so that the table can be let go before the fit, which takes the longest.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from softly import features, tables
from softly.classifier import SoftmaxClassifier
from softly.errors import TableError
from softly.features import Matrix
from softly.models import Model
from softly.report import Evaluation, evaluate
from softly.solvers import Pass
from softly.tables import Schema

_BATCH = 65_536  # rows scored at a time


@dataclass(frozen=True)
class Prepared:
    """Features to train on, and a table to score on.

    Attributes
    ----------
    schema : Schema
    transformer : ColumnTransformer
        Typed columns to features.
    matrix : ndarray or CSR matrix of float32, shape (N, D)
    classes : ndarray of str, shape (K,)
    target : ndarray of int, shape (N,)
        Each row's place in `classes`.
    test : polars.DataFrame
    unlabelled : int
        How many rows had no target, and were left out.
    """

    schema: Schema
    transformer: ColumnTransformer
    matrix: Matrix
    classes: NDArray[np.str_]
    target: NDArray[np.intp]
    test: pl.DataFrame
    unlabelled: int


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


def prepare(
    frame: pl.DataFrame, schema: Schema, *, test: float | pl.DataFrame = 0.2, seed: int = 0
) -> Prepared:
    """Split a table and make features of its training rows.

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

    Raises
    ------
    TableError
        If the labels or the columns are not fit to be trained on, or to be scored.
    """
    labels, missing = tables.labels(frame, schema.target)
    rows = np.flatnonzero(~missing)
    has_test = isinstance(test, pl.DataFrame)
    tables.check_classes(labels[rows], schema.target, to_be_split=not has_test)
    classes, target = np.unique(labels[rows], return_inverse=True)
    del labels
    if isinstance(test, pl.DataFrame):
        _check_test(test, schema, classes)
        chosen = np.arange(len(rows))
    else:
        chosen, held_out = _split(target, classes, test, seed)
        test = frame[rows[held_out]]
    # The rows are picked chunk by chunk: a copy of all would cost as much as the table.
    typed, rows = schema.apply(frame), rows[chosen]
    transformer = features.fit(typed, schema.typed_kinds(), rows)
    return Prepared(
        schema=schema,
        transformer=transformer,
        matrix=features.transform(transformer, typed, rows),
        classes=classes,
        target=target[chosen],
        test=test,
        unlabelled=int(missing.sum()),
    )


def fit(
    prepared: Prepared,
    *,
    C: float = 1.0,
    max_iter: int = 100,
    on_pass: Callable[[Pass], None] | None = None,
) -> Training:
    """Train a softmax classifier and score it on rows it did not see.

    Parameters
    ----------
    prepared : Prepared
    C, max_iter
        As for `SoftmaxClassifier`.
    on_pass : callable, optional
        Is given each pass over the data.
    """
    classifier = SoftmaxClassifier(C=C, max_iter=max_iter, verbose=on_pass or False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        classifier.fit(prepared.matrix, prepared.target)
    classifier.verbose = False  # the callable is not for the model file
    classifier.classes_ = prepared.classes  # fitted on places in them, for sorting text is slow
    frequencies = np.bincount(prepared.target) / len(prepared.target)
    model = Model(prepared.schema, prepared.transformer, classifier, frequencies)
    evaluation = evaluate(model, prepared.test.iter_slices(_BATCH))
    return Training(
        model=replace(model, scores=evaluation.to_dict()),
        evaluation=evaluation,
        rows=len(prepared.target),
        unlabelled=prepared.unlabelled,
        converged=not any(issubclass(w.category, ConvergenceWarning) for w in caught),
    )


def _check_test(test: pl.DataFrame, schema: Schema, classes: NDArray[np.str_]) -> None:
    """Find out before the fit, and not after it, that a table cannot be scored on."""
    try:
        labels, _ = tables.labels(test, schema.target)
        schema.apply(test)
    except TableError as error:
        raise TableError(f"the --test table does not fit: {error}") from error
    if not np.isin(labels, classes).any():
        raise TableError(
            f"no row of the --test table has a class of '{schema.target}' that the training "
            f"table has ({', '.join(classes[:8])}{', ...' if len(classes) > 8 else ''})"
        )


def _split(
    target: NDArray[np.intp], classes: NDArray[np.str_], share: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows to train on and those to hold out, each in the order of the table."""
    rows, n_classes = len(target), len(classes)
    held_out = int(np.ceil(share * rows))
    if min(held_out, rows - held_out) < n_classes:
        raise TableError(
            f"{rows} rows are too few to hold out {share:.0%}: {rows - held_out} to train on and "
            f"{held_out} to score on, where {n_classes} classes need a row each in both; "
            "gather more rows, or give --test FILE"
        )
    first, second = train_test_split(
        np.arange(rows), test_size=held_out, stratify=target, random_state=seed
    )
    counts = np.bincount(target[first], minlength=n_classes)
    if not counts.all():
        raise TableError(
            f"holding out {share:.0%} leaves no row of class '{classes[counts.argmin()]}' to train "
            "on: hold out less, or gather more of its rows"
        )
    return np.sort(first), np.sort(second)
