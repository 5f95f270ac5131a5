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
_SMALL = 0.005  # of a calibration error: nobody decides otherwise for less
_GAIN = 0.0005  # of log loss: less than that is not worth a calibration

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
        *_left_out(report),
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


def _left_out(report: Report) -> list[Finding]:
    rows = report.unlabelled + report.unknown_rows
    values = {"rows": rows, "all": rows + report.rows}
    return [Finding("good", "good.left_out", values)] if rows else []


def _calibrated(report: Report) -> Finding:
    error, confidence = report.measures["calibration_error"], report.confidence.mean
    accuracy = report.measures["accuracy"]
    if error.value < _SMALL:
        key = "calibrated.close"
    elif error.low <= 0 and accuracy.low <= confidence <= accuracy.high:
        key = "calibrated.fits" if report.rows >= FEW else "calibrated.few"
    elif abs(confidence - accuracy.value) < _ONE_WAY * error.value:
        key = "calibrated.uneven"
    else:
        key = "calibrated.too_sure" if confidence > accuracy.value else "calibrated.too_unsure"
    values = {
        "rows": report.rows,
        "confidence": confidence,
        "accuracy": accuracy.value,
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
    if _says_nothing(report):
        found.append(Finding("do", "do.says_nothing", {}))
    elif report.calibration and helps(report.calibration):
        found.append(_calibrate(report.calibration))
        found.append(_how(report.calibration.method, is_ours=report.weights is not None))
        if report.calibration.decided:
            values = {"rows": report.calibration.decided}
            found.append(Finding("do", "do.decided", values))
    elif report.rows >= FEW:
        found.append(Finding("do", "do.leave", {}))
    return found


def _how(method: str, *, is_ours: bool) -> Finding:
    if not is_ours:
        return Finding("do", "do.by_file", {"method": method})
    # What is trained folds its calibration into its weights, which isotonic scaling does not.
    return Finding("do", "do.by_training", {"method": "auto" if method == "isotonic" else method})


def _says_nothing(report: Report) -> bool:
    """Whether the scores are no better than guessing, by their answers or once calibrated."""
    loss, guessing = report.measures["log_loss"], report.guessing
    if report.calibration is not None:
        loss = report.calibration.measures["log_loss"].b
    are_no_better = loss.high >= guessing.log_loss or not math.isfinite(loss.value)
    return are_no_better and report.measures["accuracy"].low <= guessing.accuracy


def helps(calibration: Calibration) -> bool:
    """Whether calibration gains something, and chance does not explain it."""
    gain = calibration.measures["log_loss"].difference
    return calibration.after is not None and gain.high < 0 and -gain.value >= _GAIN


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
