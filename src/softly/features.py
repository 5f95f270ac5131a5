"""Typed columns to a feature matrix, by scikit-learn's own transformers.

Numbers are scaled to mean 0 and variance 1, a missing one is the mean and is marked in a column
of its own; categories become one column each, the rare and the unseen share one; texts become
TF-IDF weights of their words. So every row of a later table has an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from softly.errors import TableError
from softly.kernels import threads
from softly.kernels.blas import one_blas_thread

__all__ = ["Matrix", "feature_names", "fit", "logits", "transform"]

# SciPy has no types: for mypy this is Any, for a reader it is what it says.
Matrix: TypeAlias = "NDArray[np.float32] | sp.csr_matrix"
Array: TypeAlias = NDArray[Any]
Rows: TypeAlias = "NDArray[np.intp] | None"

_CHUNK = 32_768  # rows turned into float64 at a time; the matrix itself is float32
_CACHED = 2048  # rows whose numbers stay in the cache from one step to the next
_MOST_WORDS = 50_000


def fit(typed: pl.DataFrame, kinds: Mapping[str, str], rows: Rows = None) -> ColumnTransformer:
    """Learn scales, categories and words from the typed columns of a training table.

    Parameters
    ----------
    typed : polars.DataFrame
        What `softly.tables.Schema.apply` gives.
    kinds : mapping
        Each typed column's kind: "number", "category" or "text".
    rows : ndarray of int, optional
        The rows to learn from; all if not given.

    Raises
    ------
    TableError
        If a text column holds no words.
    """
    numbers = [name for name, kind in kinds.items() if kind == "number"]
    categories = [name for name, kind in kinds.items() if kind == "category"]
    texts = [name for name, kind in kinds.items() if kind == "text"]
    parts: list[tuple[str, Any, Any]] = []
    if numbers:
        parts.append(("number", _numbers(typed.select(numbers), rows), numbers))
    if categories:
        columns = _picked(typed.select(categories), rows)
        encoder = _categories(columns.height).fit(columns)
        parts.append(("category", encoder, categories))
    for name in texts:
        words = _words(_picked(typed.select(name), rows)[name])
        parts.append((f"text {name}", words, name))
    # Fitted and frozen one by one: ColumnTransformer.fit would transform the whole table, too,
    # and throw the result away. From some first rows it learns its columns and the output's kind.
    transformer = ColumnTransformer([(name, FrozenEstimator(p), c) for name, p, c in parts])
    return transformer.fit(typed.head(_CHUNK))


def transform(transformer: ColumnTransformer, typed: pl.DataFrame, rows: Rows = None) -> Matrix:
    """The feature matrix of typed columns, float32: dense, or CSR where words make it sparse.

    Parameters
    ----------
    transformer : ColumnTransformer
        What `fit` gave.
    typed : polars.DataFrame
    rows : ndarray of int, optional
        The rows wanted, in this order; all if not given.
    """
    chunks = (transformer.transform(chunk) for chunk in _chunks(typed, rows))
    return _stacked(chunks, typed.height if rows is None else len(rows))


def logits(
    transformer: ColumnTransformer, typed: pl.DataFrame, coef: Array, intercept: Array
) -> Array:
    """The logits of a linear classifier for typed columns, without the matrix of features.

    The scaling of numbers is folded into the coefficients. All is float64: a float32 product of
    matrices has other last bits for few rows than for many, and an answer must not depend on the
    rows beside it.

    Parameters
    ----------
    transformer : ColumnTransformer
        What `fit` gave.
    typed : polars.DataFrame, N rows
    coef : ndarray of float64, shape (K, D)
        For the D columns that `transform` gives.
    intercept : ndarray of float64, shape (K,)

    Returns
    -------
    ndarray of float64, shape (N, K)
    """
    total: Array = np.tile(intercept, (typed.height, 1))
    for part, frozen, columns in transformer.transformers_:
        if part == "remainder":
            continue
        weights = coef[:, transformer.output_indices_[part]].T
        if part == "number":
            total += _number_logits(frozen.estimator, typed.select(columns), weights)
        else:
            total += frozen.transform(typed[columns]).astype(np.float64) @ weights
    return total


def _number_logits(pipeline: Pipeline, columns: pl.DataFrame, weights: Array) -> Array:
    scaler, imputer = pipeline["scaler"], pipeline["imputer"]
    folded = weights[: columns.width] / scaler.scale_[:, np.newaxis]
    marked = weights[columns.width :]
    numbers = columns.to_numpy()
    total = np.empty((columns.height, weights.shape[1]))

    def block(first: int, last: int) -> None:
        values = numbers[first:last].astype(np.float64) - scaler.mean_
        part = np.matmul(values, folded, out=total[first:last])
        # Only rows where a number is missing come out as NaN: there it is the mean, and marked.
        rows = np.flatnonzero(np.isnan(part[:, 0]))
        some, missing = values[rows], np.isnan(values[rows])
        some[missing] = 0
        part[rows] = some @ folded + missing[:, imputer.indicator_.features_] @ marked

    starts = range(0, columns.height, _CACHED)
    with one_blas_thread:
        threads.run([partial(block, first, first + _CACHED) for first in starts])
    return total


def feature_names(transformer: ColumnTransformer) -> list[str]:
    """What each column of the matrix stands for, in words."""
    names: list[str] = []
    for part, frozen, columns in transformer.transformers_:
        fitted = getattr(frozen, "estimator", frozen)
        if part == "number":
            missing = fitted["imputer"].indicator_.features_
            names += columns
            names += [f"{columns[i]} (missing)" for i in missing]
        elif part == "category":
            names += _category_names(fitted, columns)
        elif part.startswith("text "):
            names += [f"{columns}: {word}" for word in fitted.get_feature_names_out()]
    return names


def _picked(frame: pl.DataFrame, rows: Rows) -> pl.DataFrame:
    return frame if rows is None else frame[rows]


def _chunks(frame: pl.DataFrame, rows: Rows) -> Iterator[pl.DataFrame]:
    if rows is None:
        yield from frame.iter_slices(_CHUNK)
    else:
        for first in range(0, len(rows), _CHUNK):
            yield frame[rows[first : first + _CHUNK]]


def _numbers(columns: pl.DataFrame, rows: Rows) -> Pipeline:
    """Scaled first, so that the mean that stands for a missing number is 0."""
    imputer = SimpleImputer(
        strategy="constant", fill_value=0.0, add_indicator=True, keep_empty_features=True
    )
    scalers = []
    missing = np.zeros((1, columns.width))
    for j, series in enumerate(columns):
        values = (series if rows is None else series[rows]).to_numpy()[:, np.newaxis]
        with np.errstate(invalid="ignore"):  # no number at all: the mean is NaN, and then 0
            scalers.append(StandardScaler().fit(values))
        missing[0, j] = np.nan if np.isnan(values).any() else 0
    # All that the imputer learns is in which columns numbers are missing: one row tells it.
    return Pipeline([("scaler", _joined(scalers, columns)), ("imputer", imputer.fit(missing))])


def _joined(scalers: list[StandardScaler], columns: pl.DataFrame) -> StandardScaler:
    """One scaler of many, each fitted on one column.

    One fit on all columns would copy the table as float64, and `partial_fit` on blocks of rows
    forgets a column in which a block holds no number.
    """
    named = pl.DataFrame(np.zeros((1, columns.width)), schema=columns.columns)
    scaler = StandardScaler().fit(named)  # learns the columns' names; all else comes now
    scaler.n_samples_seen_ = np.array([np.max(s.n_samples_seen_) for s in scalers])
    for learned in ("mean_", "var_", "scale_"):
        setattr(scaler, learned, np.concatenate([getattr(s, learned) for s in scalers]))
    return scaler


def _categories(rows: int) -> OneHotEncoder:
    return OneHotEncoder(
        handle_unknown="infrequent_if_exist",
        min_frequency=max(2, min(20, rows // 100)),
        dtype=np.float32,
    )


def _words(texts: pl.Series) -> TfidfVectorizer:
    vectorizer = TfidfVectorizer(
        sublinear_tf=True,
        min_df=2 if len(texts) >= 100 else 1,
        max_features=_MOST_WORDS,
        token_pattern=r"(?u)\b\w+\b",
        dtype=np.float32,
    )
    try:
        return vectorizer.fit(texts)
    except ValueError as error:
        raise TableError(
            f"column '{texts.name}' was taken for text, but holds no word twice: say "
            f"--column '{texts.name}=category', or --drop '{texts.name}'"
        ) from error


def _category_names(encoder: OneHotEncoder, columns: list[str]) -> Iterator[str]:
    infrequent = encoder.infrequent_categories_
    for column, values, rare in zip(columns, encoder.categories_, infrequent, strict=True):
        rare_values = set() if rare is None else set(rare)
        for value in values:
            if value not in rare_values:
                yield f"{column} (missing)" if value is None else f"{column} = {value}"
        if rare_values:
            yield f"{column} = (rare)"


def _stacked(chunks: Iterator[Any], rows: int) -> Matrix:
    first = next(chunks)
    if sp.issparse(first):
        parts = [first, *chunks]
        return sp.vstack(parts, format="csr", dtype=np.float32)
    matrix = np.empty((rows, first.shape[1]), np.float32)
    matrix[: len(first)] = first
    at = len(first)
    for chunk in chunks:
        matrix[at : at + len(chunk)] = chunk
        at += len(chunk)
    return matrix
