"""What the numbers of a report come to: findings, as keys of texts and the values in them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softly.report import Calibration, Guessing, Report
    from softly.resampling import Score

FEW = 100  # rows, below which little can be told
FEW_OF_CLASS = 10
_PAIRS = 3
_ONE_WAY = 0.5  # of the calibration error: as much of it has to be of one sign to be called so

TOPICS = ("good", "calibrated", "confused", "do")


@dataclass(frozen=True)
class Finding:
    """One sentence of the verdict.

    Attributes
    ----------
    topic : str
        One of `TOPICS`.
    key : str
        Of its text, after "report.verdict.".
    values : dict
        What stands in it: shares and other numbers, counts of rows, names of classes.
    """

    topic: str
    key: str
    values: dict[str, Any]


def verdict(report: Report) -> list[Finding]:
    """How good, how calibrated, what is confused, and what to do about it."""
    return [
        _good(report.rows, report.measures, report.guessing),
        _calibrated(report),
        *_confused(report),
        *_to_do(report),
    ]


def _good(rows: int, measures: dict[str, Score], guessing: Guessing) -> Finding:
    accuracy, loss = measures["accuracy"], measures["log_loss"]
    if not math.isfinite(loss.value):
        key = "good.impossible"
    elif loss.high < guessing.log_loss:
        key = "good.better"
    elif accuracy.low > guessing.accuracy:
        key = "good.answers"
    else:
        key = "good.worse" if loss.low > guessing.log_loss else "good.same"
    values = {
        "rows": rows,
        "accuracy": accuracy.value,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        "accuracy_of_guessing": guessing.accuracy,
        "log_loss": loss.value,
        "log_loss_of_guessing": guessing.log_loss,
    }
    return Finding("good", key, values)


def _calibrated(report: Report) -> Finding:
    error, confidence = report.measures["calibration_error"], report.confidence.mean
    accuracy = report.measures["accuracy"].value
    if error.low <= 0:
        key = "calibrated.fits"
    elif abs(confidence - accuracy) < _ONE_WAY * error.value:
        key = "calibrated.uneven"
    else:
        key = "calibrated.too_sure" if confidence > accuracy else "calibrated.too_unsure"
    values = {
        "confidence": confidence,
        "accuracy": accuracy,
        "calibration_error": error.value,
        "calibration_error_low": error.low,
        "calibration_error_high": error.high,
    }
    return Finding("calibrated", key, values)


def _confused(report: Report) -> list[Finding]:
    pairs = report.confusion.pairs[:_PAIRS]
    found = [Finding("confused", "confused.pair", asdict(pair)) for pair in pairs]
    if not pairs:
        found.append(Finding("confused", "confused.none", {"rows": report.rows}))
    many = report.rows >= FEW
    for key, names in (
        ("never_found", [c.name for c in report.by_class if c.recall == 0]),
        ("without_rows", [c.name for c in report.by_class if not c.rows]),
        ("few_rows", [c.name for c in report.by_class if many and 0 < c.rows < FEW_OF_CLASS]),
    ):
        if names:
            found.append(Finding("confused", f"confused.{key}", {"names": names}))
    return found


def _to_do(report: Report) -> list[Finding]:
    found = []
    if report.rows < FEW:
        found.append(Finding("do", "do.few", {"rows": report.rows}))
    if report.calibration and helps(report.calibration):
        found.append(_calibrate(report.calibration))
        found.append(Finding("do", "do.by_training" if report.weights else "do.by_file", {}))
    elif report.rows >= FEW:
        found.append(Finding("do", "do.leave", {}))
    return found


def helps(calibration: Calibration) -> bool:
    """Whether chance does not explain what calibration gains."""
    return calibration.after is not None and calibration.measures["log_loss"].difference.high < 0


def _calibrate(of: Calibration) -> Finding:
    error, loss = of.measures["calibration_error"], of.measures["log_loss"]
    values: dict[str, Any] = {
        "error_before": error.a.value,
        "error_after": error.b.value,
        "loss_before": loss.a.value,
        "loss_after": loss.b.value,
    }
    if of.temperature is not None:
        return Finding("do", "do.temperature", values | {"temperature": of.temperature})
    return Finding("do", f"do.{of.method}", values)
