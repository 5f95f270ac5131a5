"""A trained model: what it needs to answer for a table, and its file, without pickle."""

from __future__ import annotations

import io
import json
import os
import platform
import sys
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import InconsistentVersionWarning

import softly
from softly import features
from softly.classifier import SoftmaxClassifier
from softly.errors import TableError
from softly.outputs import replacing
from softly.tables import Schema

Array = NDArray[Any]


class _NoTorch:
    """Keeps torch from being imported.

    skops walks through all of scikit-learn, which imports torch where there is one: a second and
    more of every run, for nothing that a model of ours holds.
    """

    def find_spec(self, name: str, *_: Any) -> None:
        if name == "torch":
            raise ModuleNotFoundError("torch is not needed here", name=name)


_no_torch = _NoTorch()
sys.meta_path.insert(0, _no_torch)
try:
    import skops.io
finally:
    sys.meta_path.remove(_no_torch)

# What skops does not trust by itself; scikit-learn's imputer holds the dtype it was fitted with.
_TRUSTED = ["softly.classifier.SoftmaxClassifier", "numpy.dtype"]
_FORMAT = 1
# A member of the file beside those of skops: which format it has, known before all else.
_MARK = "softly.json"


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
        What `softly.evaluation.Evaluation.to_dict` said of the held-out rows.
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

    def logits(self, frame: pl.DataFrame, first_row: int = 0) -> Array:
        """The logits of every class for the rows of a table.

        A class is predicted from these, and not from probabilities: rounding may make two of
        those the same.

        Parameters
        ----------
        frame : polars.DataFrame
            With the columns of the training table.
        first_row : int
            How many rows came before: errors count from there.

        Returns
        -------
        ndarray of float32, shape (N, K)
            Of two classes the first has logit 0.

        Raises
        ------
        TableError
            If a column is missing or holds what it did not hold in training.
        """
        typed = self.schema.apply(frame, first_row)
        coef = self.classifier.coef_.astype(np.float64)
        logits = features.logits(self.transformer, typed, coef, self.classifier.intercept_)
        if len(coef) == 1:
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        return logits.astype(np.float32)


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
    content = io.BytesIO(
        skops.io.dumps(
            {
                "schema": model.schema.to_dict(),
                "transformer": model.transformer,
                "classifier": model.classifier,
                "frequencies": model.frequencies,
                "scores": model.scores,
                "versions": model.versions,
            },
            compression=zipfile.ZIP_DEFLATED,
        )
    )
    with zipfile.ZipFile(content, "a") as archive:
        mark = {"format": _FORMAT, "softly": softly.__version__}
        archive.writestr(_MARK, json.dumps(mark))
    with replacing(path) as file:
        file.write_bytes(content.getvalue())


def load(path: str | os.PathLike[str]) -> Model:
    """Read a model file. No code from it is run.

    Raises
    ------
    TableError
        If the file is absent, damaged, no model, or holds any type but scikit-learn's and
        softly's.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise TableError(f"there is no model file '{path}'") from error
    except OSError as error:
        raise TableError(f"'{path}' cannot be read: {error.strerror or error}") from error
    if not content.startswith(b"PK"):
        raise TableError(f"'{path}' is no softly model: name a file that `softly train` wrote")
    try:
        _check_mark(content, path)
        _check_types(content, path)
        with warnings.catch_warnings():
            # The command compares the versions itself, and says so once.
            warnings.simplefilter("ignore", InconsistentVersionWarning)
            fields = skops.io.loads(content, trusted=_TRUSTED)
        return _model(fields)
    except (TableError, MemoryError):
        raise
    except Exception as error:  # a damaged file may break the reader anywhere
        raise TableError(
            f"'{path}' is a damaged model, cut short or altered: copy it anew, or train it again"
        ) from error


def _check_mark(content: bytes, path: str | os.PathLike[str]) -> None:
    """Refuse what is no model of ours, or of a later softly, before anything of it is built."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if archive.testzip() is not None:
            raise zipfile.BadZipFile
        if _MARK not in archive.namelist():
            raise TableError(f"'{path}' is no softly model: name a file that `softly train` wrote")
        mark = json.loads(archive.read(_MARK))
    if mark["format"] > _FORMAT:
        raise TableError(
            f"'{path}' was made by softly {mark['softly']}, and this is softly "
            f"{softly.__version__}: install that version or a later one"
        )


def _check_types(content: bytes, path: str | os.PathLike[str]) -> None:
    foreign = set(skops.io.get_untrusted_types(data=content)) - set(_TRUSTED)
    if foreign:
        raise TableError(
            f"'{path}' is refused: it holds {', '.join(sorted(foreign))}, and a softly model "
            "holds only scikit-learn's types and softly's; train it anew if you do not know why"
        )


def _model(fields: dict[str, Any]) -> Model:
    """The model of a file's fields; whatever is not as `save` wrote it raises."""
    model = Model(**fields | {"schema": Schema.from_dict(fields["schema"])})
    expected = (
        (model.transformer, ColumnTransformer),
        (model.classifier, SoftmaxClassifier),
        (model.frequencies, np.ndarray),
        (model.scores, dict),
        (model.versions, dict),
    )
    if not all(isinstance(value, kind) for value, kind in expected):
        raise TypeError("a field of another type than softly writes")
    if len(model.classes) != len(model.frequencies):
        raise ValueError("classes and their frequencies differ in number")
    return model
