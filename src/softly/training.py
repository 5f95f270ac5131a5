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
from sklearn.model_selection import StratifiedKFold, train_test_split

from softly import features, tables
from softly.classifier import SoftmaxClassifier
from softly.classifier_cv import SearchStep, SoftmaxClassifierCV
from softly.errors import TableError
from softly.evaluation import Evaluation, evaluate
from softly.features import Matrix
from softly.models import Model
from softly.solvers.result import Pass
from softly.tables import Schema
from softly.targets import shuffled_by_class

_BATCH = 65_536  # rows scored at a time
_FOLDS = 5
_CALIBRATED_ON = 0.2  # of the training rows
# Rows that C is chosen on. It says how large the coefficients are, not how many rows there are, so
# that a sample shows it, in a time that has a bound.
_SEARCH_ROWS = 20_000


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
class Search:
    """How C was chosen.

    Attributes
    ----------
    C : float
        The one chosen.
    Cs : list of float
        Those tried.
    log_loss, standard_error : list of float
        Of each C, by cross-validation.
    folds : int
    rows : int
        How many rows the folds share.
    """

    C: float
    Cs: list[float]
    log_loss: list[float]
    standard_error: list[float]
    folds: int
    rows: int


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
    search : Search or None
        None where C was given, or the rows were too few to choose it.
    calibrated_on : int
        How many rows were kept from the fit to calibrate on.
    """

    model: Model
    evaluation: Evaluation
    rows: int
    unlabelled: int
    converged: bool
    search: Search | None = None
    calibrated_on: int = 0


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
    C: float | None = None,
    max_iter: int = 100,
    calibrate: str | None = None,
    on_step: Callable[[Pass | SearchStep], None] | None = None,
) -> Training:
    """Train a softmax classifier and score it on rows it did not see.

    Parameters
    ----------
    prepared : Prepared
    C : float, optional
        As for `SoftmaxClassifier`; if none is given, the one of ten that has the best log loss by
        cross-validation in five folds of the rows, or of 20,000 of them, of every class its share.
    max_iter : int
        As for `SoftmaxClassifier`.
    calibrate : str, optional
        As for `SoftmaxClassifier.calibrate`: how probabilities are calibrated, on a fifth of the
        rows that is kept from the fit.
    on_step : callable, optional
        Is given each step of the search for C, then each pass of the fit over the data.
    """
    kept = _kept_apart(prepared.target) if calibrate else np.zeros(len(prepared.target), bool)
    if calibrate and not kept.any():
        raise TableError(
            f"{len(kept)} rows are too few to calibrate on a fifth of them: a class with five rows "
            "is needed; leave out --calibrate, or gather more rows"
        )
    search = _search(prepared, kept, max_iter, on_step) if C is None else None
    classifier = SoftmaxClassifier(
        C=search.C if search else C or 1.0, max_iter=max_iter, verbose=on_step or False
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        classifier.fit(prepared.matrix, prepared.target, None if not calibrate else 1.0 - kept)
    classifier.verbose = False  # the callable is not for the model file
    if kept.any():
        classifier.calibrate(prepared.matrix[kept], prepared.target[kept], method=calibrate)
    classifier.classes_ = prepared.classes  # fitted on places in them, for sorting text is slow
    frequencies = np.bincount(prepared.target) / len(prepared.target)
    model = Model(prepared.schema, prepared.transformer, classifier, frequencies)
    evaluation = evaluate(model, prepared.test.iter_slices(_BATCH))
    return Training(
        model=replace(model, scores=evaluation.to_dict()),
        evaluation=evaluation,
        rows=len(prepared.target) - int(kept.sum()),
        calibrated_on=int(kept.sum()),
        unlabelled=prepared.unlabelled,
        converged=not any(issubclass(w.category, ConvergenceWarning) for w in caught),
        search=search,
    )


def _kept_apart(target: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Rows to calibrate on, by chance: of every class its share, and never all of it."""
    count = np.bincount(target)
    place = np.arange(len(target)) - np.repeat(np.cumsum(count) - count, count)
    kept = np.zeros(len(target), bool)
    kept[shuffled_by_class(target)] = place < np.repeat(
        (_CALIBRATED_ON * count).astype(np.intp), count
    )
    return kept


def _search(
    prepared: Prepared,
    kept: NDArray[np.bool_],
    max_iter: int,
    on_step: Callable[[Pass | SearchStep], None] | None,
) -> Search | None:
    """Choose C by rows that are not kept; None if they do not leave each fold two classes."""
    free = np.flatnonzero(~kept)
    rows = free[_stratified(prepared.target[free], _SEARCH_ROWS)]
    target = prepared.target[rows]
    counts = np.sort(np.bincount(target, minlength=len(prepared.classes)))
    if counts[-2] < 2:
        return None
    folds = min(_FOLDS, int(counts[-1]))
    matrix = prepared.matrix if len(rows) == len(prepared.target) else prepared.matrix[rows]
    search = SoftmaxClassifierCV(
        # Shuffled, as the rows held out are: tables come in some order.
        cv=StratifiedKFold(folds, shuffle=True, random_state=0),
        max_iter=max_iter,
        verbose=on_step or False,
    )
    with warnings.catch_warnings():
        # Of a class with fewer rows than folds, and of fits that stopped short: C is good enough.
        warnings.simplefilter("ignore", UserWarning)
        search.fit(matrix, target)
    return Search(
        C=search.C_,
        Cs=search.Cs_.tolist(),
        log_loss=(-search.mean_scores_[0]).tolist(),
        standard_error=search.standard_errors_[0].tolist(),
        folds=folds,
        rows=len(rows),
    )


def _stratified(target: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """All rows, or so many of them, of every class its share, in the order of the table."""
    if len(target) <= most:
        return np.arange(len(target))
    by_class = np.argsort(target, kind="stable")
    return np.sort(by_class[np.linspace(0, len(target) - 1, most).astype(np.intp)])


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
