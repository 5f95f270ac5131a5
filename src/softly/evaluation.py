"""What is said of a trained model, as data: its scores on labelled rows, and what weighs most."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from softly import features, metrics
from softly.functions import softmax
from softly.scoring import LeftOut, scored

if TYPE_CHECKING:
    from softly.models import Model
    from softly.training import Training

Array = NDArray[Any]


@dataclass(frozen=True)
class Scores:
    """The measures of one set of predictions."""

    accuracy: float
    log_loss: float
    brier_score: float
    calibration_error: float


@dataclass(frozen=True)
class Evaluation:
    """How a model did on labelled rows, beside always guessing the training frequencies.

    Attributes
    ----------
    rows : int
        Labelled rows whose class the model knows: those that were scored.
    unlabelled : int
        Rows without a label, left out.
    unknown : dict of str to int
        Classes the model never saw, and how many rows had them; left out.
    classes : list of str
    model, guessing : Scores
    confusion : list of list of int
        A row for each true class, a column for each predicted one.
    """

    rows: int
    unlabelled: int
    unknown: dict[str, int]
    classes: list[str]
    model: Scores
    guessing: Scores
    confusion: list[list[int]]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and text, ready for JSON."""
        return asdict(self)


def evaluate(model: Model, frames: Iterable[pl.DataFrame]) -> Evaluation:
    """Score a model on labelled tables.

    Raises
    ------
    TableError
        If the target is not there or no row can be scored.
    """
    left_out = LeftOut()
    logits, targets = [], []
    for batch in scored(model, frames, left_out):
        logits.append(batch.logits)
        targets.append(batch.target)
    target = np.concatenate(targets)
    every = np.concatenate(logits)
    guess = np.broadcast_to(np.log(model.frequencies).astype(np.float32), every.shape)
    predicted = every.argmax(axis=1)
    return Evaluation(
        rows=len(target),
        unlabelled=left_out.unlabelled,
        unknown=left_out.unknown,
        classes=model.classes,
        model=_scores(every, target),
        guessing=_scores(guess, target),
        confusion=metrics.confusion_matrix(predicted, target, len(model.classes)).tolist(),
    )


def _scores(logits: Array, target: Array) -> Scores:
    of = metrics.Predictions(softmax(logits, axis=1), target, logits)
    return Scores(
        accuracy=metrics.accuracy(of).value(),
        log_loss=metrics.log_loss(of).value(),
        brier_score=metrics.brier_score(of).value(),
        calibration_error=metrics.calibration_error(of).value(),
    )


def weights(model: Model, most: int) -> dict[str, list[tuple[str, float]]]:
    """For each class, the features that weigh most for or against it, heaviest first."""
    names = features.feature_names(model.transformer)
    coef = model.classifier.coef_
    if len(coef) == 1:
        coef = np.concatenate([-coef, coef]) / 2
    return {
        label: [(names[j], float(row[j])) for j in np.argsort(-np.abs(row))[:most]]
        for label, row in zip(model.classes, coef, strict=True)
    }


def training_to_dict(training: Training) -> dict[str, Any]:
    """All that `softly train` says, ready for JSON."""
    model = training.model
    return {
        "rows": training.rows,
        "unlabelled": training.unlabelled,
        "columns": [asdict(c) for c in model.schema.columns],
        "classes": model.classes,
        "frequencies": model.frequencies.tolist(),
        "passes": model.classifier.n_passes_,
        "objective": model.classifier.objective_,
        "C": model.classifier.C,
        "search": asdict(training.search) if training.search else None,
        "converged": training.converged,
        "calibrated_on": training.calibrated_on,
        "calibration": getattr(model.classifier, "calibration_", None),
        "held_out": training.evaluation.to_dict(),
        "weights": weights(model, most=20),
        "versions": model.versions,
    }
