"""What is said of training, evaluation and calibration, as a terminal shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from softly.evaluation import weights

if TYPE_CHECKING:
    from softly.calibrating import Calibrating
    from softly.evaluation import Evaluation
    from softly.models import Model
    from softly.tables import Schema
    from softly.training import Search, Training

Array = NDArray[Any]

_MOST_CLASSES = 10  # shown in a terminal; JSON holds all
_MOST_LEFT_OUT = 5
_MOST_UNKNOWN = 5
_PAIRS = 10
_WEIGHTS = 3


def draw_columns(console: Console, schema: Schema) -> None:
    """What each column was taken for."""
    table = Table("column", "taken for", "because", box=None, pad_edge=False)
    for column in schema.columns:
        used = column in schema.used
        kind = column.kind if used else f"{column.kind}, left out"
        missing = f", {column.missing:,} missing" if column.missing and used else ""
        table.add_row(
            Text(column.name), kind, Text(column.why + missing), style=None if used else "dim"
        )
    console.print(table)


def draw_training(console: Console, training: Training) -> None:
    """The summary of a training run."""
    model = training.model
    used, left_out = model.schema.used, model.schema.left_out
    console.print(
        Text(
            f"Trained on {training.rows:,} rows, {_counted(len(used), 'column')} and "
            f"{len(model.classes)} "
            f"classes of '{model.schema.target}'."
        )
    )
    if training.unlabelled:
        console.print(f"{_rows(training.unlabelled)} without a target, left out of the training.")
    if training.search:
        console.print(Text(_choice(training.search)))
    if training.calibrated_on:
        reason = model.classifier.calibration_
        console.print(Text(f"Calibrated on {_rows(training.calibrated_on)} more: {reason}."))
    for column in left_out[:_MOST_LEFT_OUT]:
        console.print(Text(f"Left out: {column.name} ({column.kind}: {column.why})"))
    if len(left_out) > _MOST_LEFT_OUT:
        console.print(f"and {len(left_out) - _MOST_LEFT_OUT} more (--show-columns tells all)")
    console.print()
    draw_evaluation(console, training.evaluation, "held-out rows")
    console.print()
    _draw_weights(console, model)


def _choice(search: Search) -> str:
    best = search.Cs.index(search.C)
    return (
        f"C = {search.C:.3g}, the best of {len(search.Cs)} by cross-validation: log loss "
        f"{search.log_loss[best]:.4f} ± {search.standard_error[best]:.4f} "
        f"({search.folds} folds of {_rows(search.rows)})."
    )


def _rows(count: int) -> str:
    return _counted(count, "row")


def _counted(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count:,} {what}s"


def draw_calibrating(console: Console, done: Calibrating) -> None:
    """What was chosen and why, and the measures before and after."""
    console.print(Text(f"Chosen: {done.calibrator.method_}. {_sentence(done.calibrator.reason_)}"))
    if done.calibrator.temperature_ is not None:
        console.print(f"T = {done.calibrator.temperature_:.4g}")
    console.print()
    table = Table(f"{done.rows:,} rows, each held out once", box=None, pad_edge=False)
    for name in ("before", "after", "difference, 95 % interval"):
        table.add_column(name, justify="right")
    for name, found in done.measures.items():
        apart = found.difference
        table.add_row(
            name.replace("_", " "),
            f"{found.a.value:.4f}",
            f"{found.b.value:.4f}",
            f"{apart.value:+.4f} ({apart.low:+.4f} to {apart.high:+.4f})",
        )
    console.print(table)
    if done.absent:
        few = ", ".join(done.absent[:_MOST_UNKNOWN])
        more = ", ..." if len(done.absent) > _MOST_UNKNOWN else ""
        count = f"{len(done.absent)} of the {len(done.calibrator.classes_)} classes"
        console.print(Text(f"No row is of {count}, of which nothing was learnt: {few}{more}"))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def draw_evaluation(console: Console, evaluation: Evaluation, rows: str = "rows") -> None:
    """The measures beside those of guessing, and the confusion matrix."""
    table = Table(f"{evaluation.rows:,} {rows}", box=None, pad_edge=False)
    table.add_column("model", justify="right")
    table.add_column("guessing", justify="right")
    for name, shown in (
        ("accuracy", "accuracy"),
        ("log_loss", "log loss"),
        ("brier_score", "Brier score"),
        ("calibration_error", "calibration error"),
    ):
        ours, theirs = getattr(evaluation.model, name), getattr(evaluation.guessing, name)
        table.add_row(shown, f"{ours:.4f}", f"{theirs:.4f}")
    console.print(table)
    unknown = sorted(evaluation.unknown.items(), key=lambda item: -item[1])
    for label, count in unknown[:_MOST_UNKNOWN]:
        console.print(Text(f"{_rows(count)} of class '{label}', which the model never saw"))
    if len(unknown) > _MOST_UNKNOWN:
        console.print(f"and {len(unknown) - _MOST_UNKNOWN} more classes (--json tells all)")
    if evaluation.unlabelled:
        console.print(f"{_rows(evaluation.unlabelled)} without a label, left out")
    console.print()
    _draw_confusion(console, evaluation)


def _draw_confusion(console: Console, evaluation: Evaluation) -> None:
    classes, counts = evaluation.classes, np.array(evaluation.confusion)
    cells = [[f"{n:,}" if n else "." for n in row] for row in counts.tolist()]
    labels = max(len("true \\ predicted"), *map(cell_len, classes))
    columns = [
        max(cell_len(name), *(len(row[j]) for row in cells)) for j, name in enumerate(classes)
    ]
    if len(classes) > _MOST_CLASSES or labels + sum(w + 2 for w in columns) > console.width:
        _draw_confused_pairs(console, classes, counts)
        return
    table = Table("true \\ predicted", box=None, pad_edge=False)
    for name in classes:
        table.add_column(Text(name), justify="right", no_wrap=True)
    for i, (name, row) in enumerate(zip(classes, cells, strict=True)):
        shown = [Text(n, style="bold" if i == j else "") for j, n in enumerate(row)]
        table.add_row(Text(name), *shown)
    console.print(table)


def _draw_confused_pairs(console: Console, classes: list[str], counts: Array) -> None:
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    table = Table("true", "predicted", "rows", box=None, pad_edge=False)
    for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[i, j]:
            table.add_row(Text(classes[i]), Text(classes[j]), f"{wrong[i, j]:,}")
    if table.row_count:
        console.print("Most often confused:")
        console.print(table)
    else:
        console.print("No row was given a wrong class.")


def _draw_weights(console: Console, model: Model) -> None:
    heaviest = weights(model, _WEIGHTS)
    table = Table("class", "weighs most (+ for, - against)", box=None, pad_edge=False)
    for label, parts in list(heaviest.items())[:_MOST_CLASSES]:
        shown = ", ".join(f"{name} {weight:+.2f}" for name, weight in parts)
        table.add_row(Text(label), Text(shown))
    console.print(table)
    if len(heaviest) > _MOST_CLASSES:
        console.print(f"and {len(heaviest) - _MOST_CLASSES} more classes (--json tells all)")
