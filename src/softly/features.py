"""Typed columns to a feature matrix, by scikit-learn's own transformers.

Numbers are scaled to mean 0 and variance 1, a missing one is the mean and is marked in a column
of its own; categories become one column each, the rare and the unseen share one; texts become
TF-IDF weights of their words. So every row of a later table has an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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

from softly.files import TableError

__all__ = ["feature_names", "fit", "transform"]

Matrix = NDArray[np.float32] | sp.csr_matrix

_CHUNK = 32_768  # rows turned into float64 at a time; the matrix itself is float32
_MOST_WORDS = 50_000


def fit(typed: pl.DataFrame, kinds: Mapping[str, str]) -> ColumnTransformer:
    """Learn scales, categories and words from the typed columns of a training table.

    Parameters
    ----------
    typed : polars.DataFrame
        What `softly.tables.Schema.apply` gives.
    kinds : mapping
        Each typed column's kind: "number", "category" or "text".

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
        parts.append(("number", _numbers(typed.select(numbers)), numbers))
    if categories:
        encoder = _categories(typed.height).fit(typed.select(categories))
        parts.append(("category", encoder, categories))
    parts += [(f"text {name}", _words(typed[name]), name) for name in texts]
    # Fitted and frozen one by one: ColumnTransformer.fit would transform the whole table, too,
    # and throw the result away. From some first rows it learns its columns and the output's kind.
    transformer = ColumnTransformer([(name, FrozenEstimator(p), c) for name, p, c in parts])
    return transformer.fit(typed.head(_CHUNK))


def transform(transformer: ColumnTransformer, typed: pl.DataFrame) -> Matrix:
    """The feature matrix of typed columns, float32: dense, or CSR where words make it sparse."""
    chunks = (transformer.transform(chunk) for chunk in typed.iter_slices(_CHUNK))
    return _stacked(chunks, typed.height)


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


def _numbers(columns: pl.DataFrame) -> Pipeline:
    """Scaled first, so that the mean that stands for a missing number is 0."""
    scaler = StandardScaler()
    missing = np.zeros((1, columns.width))
    for chunk in columns.iter_slices(_CHUNK):
        values = chunk.to_numpy()
        scaler.partial_fit(chunk)
        missing[0, np.isnan(values).any(axis=0)] = np.nan
    # All that the imputer learns is in which columns numbers are missing: one row tells it.
    imputer = SimpleImputer(
        strategy="constant", fill_value=0.0, add_indicator=True, keep_empty_features=True
    ).fit(missing)
    return Pipeline([("scaler", scaler), ("imputer", imputer)])


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
