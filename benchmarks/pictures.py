"""Pages and pictures as whole processes: their time, their memory, and the size of the page."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.measure import DATA, interleaved_processes, process, softly_command, table

ROWS, CLASSES = 100_000, 100


def run(repeats: int = 5) -> str:
    with tempfile.TemporaryDirectory() as folder:
        pages = {name: Path(folder) / f"{i}.html" for i, name in enumerate(_PAGES)}
        commands = {"softly explain, in a terminal": [softly_command(), *_EXPLAIN]}
        for name, arguments in _PAGES.items():
            made = arguments(Path(folder))
            commands[name] = [softly_command(), *made, "--output", str(pages[name])]
        runs = interleaved_processes(commands, repeats)
        sizes = {name: f"{page.stat().st_size / 1e3:.0f} kB" for name, page in pages.items()}
    rows = [
        [name, f"{taken.seconds:.2f} s", f"{taken.peak_mb:.0f} MB", sizes.get(name, "")]
        for name, taken in runs.items()
    ]
    return table(["whole process", "time", "peak memory", "page"], rows)


_EXPLAIN = ["explain", "2.0", "1.0", "0.1"]


def _penguins(folder: Path) -> list[str]:
    data, model = str(DATA / "penguins.csv"), str(folder / "penguins.skops")
    trained = ["train", data, "--target", "species", "--C", "1", "--model", model]
    process([softly_command(), *trained])
    return ["report", model, data]


def _many(folder: Path) -> list[str]:
    """Logits twice too large, and classes drawn from what they should be."""
    random = np.random.default_rng(0)
    logits = (2 * random.normal(size=(ROWS, CLASSES))).astype(np.float32)
    labels = (logits / 2 + random.gumbel(size=logits.shape)).argmax(axis=1)
    np.save(folder / "logits.npy", logits)
    np.save(folder / "labels.npy", labels)
    scores, classes = str(folder / "logits.npy"), str(folder / "labels.npy")
    return ["report", "--logits", scores, "--labels", classes]


_PAGES: dict[str, Callable[[Path], list[str]]] = {
    "softly explain, a page": lambda folder: _EXPLAIN,
    "softly report, penguins": _penguins,
    f"softly report, {ROWS:,} x {CLASSES} logits": _many,
}
