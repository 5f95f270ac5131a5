"""`softly predict` on five million rows, beside the same written by hand."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks import covtype
from benchmarks.measure import interleaved_processes, process, softly_command, table

HERE = Path(__file__).parent
SIZES = (1_000_000, 5_000_000)


def run(repeats: int = 3) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, hand = str(folder / "model.skops"), str(folder / "model.joblib")
        small = str(covtype.write(folder, 50_000))
        target = ("--target", covtype.TARGET)
        process([softly_command(), "train", small, *target, "--model", model])
        process([sys.executable, str(HERE / "by_hand_train.py"), small, hand, "float32"])
        rows, flat = [], {}
        for size in SIZES:
            path = str(covtype.write(folder, size))
            ours, theirs = str(folder / "ours.parquet"), str(folder / "theirs.parquet")
            runs = interleaved_processes(
                {
                    "softly predict": [softly_command(), "predict", model, path, "--output", ours],
                    "by hand": [
                        sys.executable,
                        *(str(HERE / "by_hand_predict.py"), path, hand, theirs),
                    ],
                },
                repeats,
            )
            agreement = _agreement(ours, theirs)
            for label, taken in runs.items():
                ratio = taken.seconds / runs["softly predict"].seconds
                rows.append(
                    [
                        f"{label}, {size / 1e6:.0f} million rows",
                        f"{taken.seconds:.1f} s",
                        f"{size / taken.seconds / 1e3:.0f} thousand",
                        f"{ratio:.2f} x",
                        f"{taken.peak_mb:.0f} MB",
                    ]
                )
                flat[label, size] = taken.peak_mb
    growth = flat["softly predict", SIZES[1]] / flat["softly predict", SIZES[0]]
    note = (
        f"Parquet in, Parquet out, 54 features, 7 classes. The two predict the same class in "
        f"{agreement:.4%} of rows (their models stopped at slightly different points). "
        f"softly's peak memory grows {growth:.2f} x from 1 to 5 million rows."
    )
    header = ["whole process", "time", "rows a second", "", "peak memory"]
    return table(header, rows) + f"\n\n{note}"


def _agreement(ours: str, theirs: str) -> float:
    first = pl.read_parquet(ours, columns=["prediction"])["prediction"].to_numpy()
    second = pl.read_parquet(theirs, columns=["prediction"])["prediction"].to_numpy()
    return float(np.mean(first == second))
