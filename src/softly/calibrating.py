"""Files of logits and labels to a calibration, with what it is worth on held-out rows."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softly import targets
from softly.calibration import Calibrator, from_probabilities, load_calibration, with_first
from softly.errors import TableError
from softly.functions import softmax
from softly.metrics import Predictions
from softly.outputs import replacing
from softly.resampling import Comparison, compare_predictions
from softly.scalings import usable
from softly.selection import cross_fit

Array = NDArray[Any]

SAID = (
    "log_loss",
    "brier_score",
    "accuracy",
    "calibration_error",
    "class_calibration_error",
    "smooth_calibration_error",
)


@dataclass(frozen=True)
class Calibrating:
    """A calibration of logits, and what it is worth.

    Attributes
    ----------
    calibrator : Calibrator
    rows : int
    measures : dict of str to Comparison
        Before and after, each row calibrated by what the other folds' rows told.
    absent : list of str
        Classes that no row is of: nothing was learnt of them.
    are_probabilities : bool
        Whether that is what was calibrated.
    """

    calibrator: Calibrator
    rows: int
    measures: dict[str, Comparison]
    absent: list[str]
    are_probabilities: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and text, ready for JSON."""
        model = self.calibrator
        return {
            "rows": self.rows,
            "method": model.method_,
            "reason": model.reason_,
            "candidates": {name: asdict(c) for name, c in model.candidates_.items()},
            "measures": {name: asdict(c) for name, c in self.measures.items()},
            "absent_classes": self.absent,
        }


def read_array(path: str | os.PathLike[str]) -> Array:
    """The array of a NumPy file; no code from it is run.

    Raises
    ------
    TableError
        If there is none.
    """
    try:
        with open(path, "rb") as file:
            array = np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise TableError(f"there is no file '{path}'") from error
    except OSError as error:
        raise TableError(f"'{path}' cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if "Object arrays" in str(error):
            raise TableError(
                f"'{path}' holds Python objects, which may run code: save plain numbers, or text "
                "(array.astype(float), array.astype(str))"
            ) from error
        raise TableError(
            f"'{path}' holds no array: a .npy file, as numpy.save writes it, is needed"
        ) from error
    if not isinstance(array, np.ndarray):
        raise TableError(
            f"'{path}' holds several arrays: save the one that is meant as a .npy file"
        )
    return array


def calibrate(
    scores: Array,
    y: Array,
    *,
    method: str = "auto",
    are_probabilities: bool = False,
    classes: list[str] | None = None,
) -> Calibrating:
    """Fit a calibration, and measure it on rows that it was not fitted to.

    Raises
    ------
    TableError
        If the arrays do not fit together or are not what they are said to be.
    """
    if scores.ndim != 2:
        raise TableError(
            f"the scores have shape {scores.shape}, but (N, K) is needed: a row of K scores each; "
            "or (N, 1), those of the second of two classes"
        )
    labels = None
    if classes is not None:
        y, labels = named(np.ravel(y), classes)
    try:
        logits = from_probabilities(scores) if are_probabilities else scores
        model = Calibrator(method, classes=labels).fit(logits, y)
        logits = with_first(np.asarray(logits, np.float64))
        _, target = targets.columns_of(np.ravel(y), logits.shape[1], model.classes_)
    except (ValueError, TypeError) as error:
        raise on_the_command_line(error) from error
    sound = usable(logits, target)
    logits, target = logits[sound], target[sound]
    fits = model.cross_fit_ or cross_fit(logits, target, np.ones(len(target)), model.method_)
    after = fits.log_probabilities(logits)
    before, then = (Predictions(softmax(z, axis=1), target, z) for z in (logits, after))
    return Calibrating(
        calibrator=model,
        rows=len(target),
        measures=compare_predictions(before, then, SAID),
        absent=[str(label) for label in np.delete(model.classes_, target).tolist()],
        are_probabilities=are_probabilities,
    )


def named(y: Array, classes: list[str]) -> tuple[Array, Array]:
    """The rows' labels and those of the columns, as they were written.

    Where rows have numbers and the columns have names, the numbers are those of the columns, from
    0 on.

    Raises
    ------
    TableError
        If they do not fit together.
    """
    if y.dtype.kind not in "iu":
        return y, np.array(classes, dtype=np.str_)
    try:
        return y, np.array(classes, dtype=y.dtype)
    except (ValueError, OverflowError):
        pass
    names = np.array(classes, dtype=np.str_)
    stray = y[(y < 0) | (y >= len(names))]
    if len(stray):
        raise TableError(
            f"the labels hold {stray[0]}, but the {len(names)} classes that are named have the "
            f"numbers 0 to {len(names) - 1}"
        )
    return names[y], names


def save(done: Calibrating, path: str | os.PathLike[str]) -> None:
    """Write the calibration's file, whole or not at all: its JSON, and what it is given.

    Raises
    ------
    TableError
        If it cannot be written.
    """
    text = done.calibrator.to_json(are_probabilities=done.are_probabilities)
    with replacing(path) as file:
        file.write_text(text, encoding="utf-8")


def load(path: str | os.PathLike[str]) -> Calibrator:
    """The calibrator of a file.

    Raises
    ------
    TableError
        If it is none.
    """
    try:
        return load_calibration(path)
    except FileNotFoundError as error:
        raise TableError(f"there is no file '{path}'") from error
    except OSError as error:
        raise TableError(f"'{path}' cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise TableError(str(error)) from error


def probabilities(model: Calibrator, scores: Array) -> Array:
    """Calibrated probabilities, shape (N, K).

    Raises
    ------
    TableError
        If the scores are not those of the model's classes.
    """
    try:
        return model.predict_proba(scores)
    except (ValueError, TypeError) as error:
        raise on_the_command_line(error, _REMEDIES_OF_APPLYING) from error


# What to do, in Python and in the command's words.
_REMEDIES_OF_APPLYING = {
    "softly.from_probabilities(p) makes them": "this calibration was made of logits",
    "softly.softmax makes probabilities of them": "give it their softmax, of which it was made",
}
_REMEDIES = {
    "softly.from_probabilities(p) makes them": "say --probabilities, if that is what they are",
    "softly.softmax makes probabilities of them": "leave out --probabilities",
    "by classes=[...]": "by --classes",
}


def on_the_command_line(error: Exception, remedies: Mapping[str, str] = _REMEDIES) -> TableError:
    """The sentence of an error, with a remedy that whoever types a command has."""
    sentence = str(error)
    for in_python, said in remedies.items():
        sentence = sentence.replace(in_python, said)
    return TableError(sentence)
