"""`softly train` as a whole process, beside the same written by hand."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks import covtype
from benchmarks.measure import interleaved_processes, softly_command, table

BY_HAND = str(Path(__file__).with_name("by_hand_train.py"))


def run(repeats: int = 3) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = str(covtype.write(Path(folder)))
        model = str(Path(folder) / "model.skops")
        hand = str(Path(folder) / "model.joblib")
        runs = interleaved_processes(
            {
                "softly train": [
                    *(softly_command(), "train", path, "--target", covtype.TARGET, "--C", "1"),
                    *("--model", model, "--json"),
                ],
                "by hand, float32": [sys.executable, BY_HAND, path, hand, "float32"],
                "by hand, float64": [sys.executable, BY_HAND, path, hand, "float64"],
            },
            repeats,
        )
    ours = runs["softly train"]
    scores = json.loads(ours.output)["held_out"]["model"]
    found = {"softly train": f"{scores['accuracy']:.4f} {scores['log_loss']:.4f}"}
    rows = []
    for name, taken in runs.items():
        accuracy, log_loss = found.get(name, taken.output).split()
        rows.append(
            [
                name,
                f"{taken.seconds:.1f} s",
                f"{taken.seconds / ours.seconds:.2f} x",
                f"{taken.peak_mb:.0f} MB",
                f"{taken.peak_mb / ours.peak_mb:.2f} x",
                accuracy,
                log_loss,
            ]
        )
    header = ["covtype.parquet, whole process", "time", "", "peak memory", ""]
    note = (
        "Read, hold out a stratified fifth, standardise, fit at C = 1 (by hand: 100 iterations of "
        "L-BFGS), score, save the model. softly works in float32."
    )
    return table([*header, "accuracy", "log loss"], rows) + f"\n\n{note}"
