"""A trained model: what it needs to answer for a table, and its file, without pickle."""

from __future__ import annotations

import io
import os
import platform
import warnings
import zipfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import skops.io
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import InconsistentVersionWarning

import softly
from softly import features
from softly.classifier import SoftmaxClassifier
from softly.files import TableError, replacing
from softly.tables import Schema

Array = NDArray[Any]

# What skops does not trust by itself; scikit-learn's imputer holds the dtype it was fitted with.
_TRUSTED = ["softly.classifier.SoftmaxClassifier", "numpy.dtype"]
_FORMAT = 1


@dataclass(frozen=True)
class Model:
    """A classifier with all that turns a table into its features.

    Attributes
    ----------
    schema : Schema
        What the columns of the training table held.
    transformer : ColumnTransformer
        Typed columns to features.
    classifier : SoftmaxClassifier
    frequencies : ndarray of float64, shape (K,)
        The share of each class in training: what always guessing would say.
    scores : dict
        What `softly.report.Evaluation.to_dict` said of the held-out rows.
    versions : dict of str
        What the model was made with.
    """

    schema: Schema
    transformer: ColumnTransformer
    classifier: SoftmaxClassifier
    frequencies: NDArray[np.float64]
    scores: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: made_with())

    @property
    def classes(self) -> list[str]:
        """The classes' labels, in the order of all probabilities."""
        return [str(c) for c in self.classifier.classes_]

    def log_probabilities(self, frame: pl.DataFrame, first_row: int = 0) -> Array:
        """Logarithms of the classes' probabilities for the rows of a table.

        Parameters
        ----------
        frame : polars.DataFrame
            With the columns of the training table.
        first_row : int
            How many rows came before: errors count from there.

        Returns
        -------
        ndarray of float32, shape (N, K)

        Raises
        ------
        TableError
            If a column is missing or holds what it did not hold in training.
        """
        typed = self.schema.apply(frame, first_row)
        matrix = features.transform(self.transformer, typed)
        return self.classifier.predict_log_proba(matrix)


def made_with() -> dict[str, str]:
    """The versions of everything a model's answers depend on."""
    import scipy
    import sklearn

    return {
        "softly": softly.__version__,
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "polars": pl.__version__,
        "python": platform.python_version(),
    }


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model file, whole or not at all.

    Raises
    ------
    TableError
        If it cannot be written.
    """
    content = skops.io.dumps(
        {
            "format": _FORMAT,
            "schema": model.schema.to_dict(),
            "transformer": model.transformer,
            "classifier": model.classifier,
            "frequencies": model.frequencies,
            "scores": model.scores,
            "versions": model.versions,
        },
        compression=zipfile.ZIP_DEFLATED,
    )
    with replacing(path) as file, file.open("wb") as opened:
        opened.write(content)


def load(path: str | os.PathLike[str]) -> Model:
    """Read a model file. No code from it is run.

    Raises
    ------
    TableError
        If the file is absent, damaged, no model, or holds any type but scikit-learn's and
        softly's.
    """
    try:
        with open(path, "rb") as opened:
            content = opened.read()
    except OSError as error:
        raise TableError(f"'{path}' cannot be read: {error.strerror or error}") from error
    fields = _fields(content, path)
    versions = fields["versions"]
    if fields["format"] > _FORMAT:
        raise TableError(
            f"'{path}' was made by softly {versions.get('softly')}, and this is softly "
            f"{softly.__version__}: install that version or a later one"
        )
    return Model(
        schema=Schema.from_dict(fields["schema"]),
        transformer=fields["transformer"],
        classifier=fields["classifier"],
        frequencies=fields["frequencies"],
        scores=fields["scores"],
        versions=versions,
    )


def _fields(content: bytes, path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a model file holds, if it is a model file and nothing else."""
    damaged = f"'{path}' is no model, or was cut short or altered: train it again"
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.testzip() is not None:
                raise TableError(damaged)
        foreign = set(skops.io.get_untrusted_types(data=content)) - set(_TRUSTED)
    except TableError:
        raise
    except Exception as error:  # a damaged file may break the reader anywhere
        raise TableError(damaged) from error
    if foreign:
        raise TableError(
            f"'{path}' is refused: it holds {', '.join(sorted(foreign))}, and a softly model "
            "holds only scikit-learn's types and softly's"
        )
    try:
        with warnings.catch_warnings():
            # The command compares the versions itself, and says so once.
            warnings.simplefilter("ignore", InconsistentVersionWarning)
            fields = skops.io.loads(content, trusted=_TRUSTED)
    except Exception as error:
        raise TableError(damaged) from error
    expected = {
        "format": int,
        "schema": dict,
        "transformer": ColumnTransformer,
        "classifier": SoftmaxClassifier,
        "frequencies": np.ndarray,
        "scores": dict,
        "versions": dict,
    }
    if not isinstance(fields, dict) or not all(
        isinstance(fields.get(name), kind) for name, kind in expected.items()
    ):
        raise TableError(f"'{path}' is a skops file, but no softly model")
    return fields
