"""Timing side by side, and saying where."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from timeit import Timer
from typing import TypeVar

CHILD = Path(__file__).with_name("child.py")
DATA = Path(os.environ.get("SOFTLY_DATA", "../shared/data"))

PEERS = ("numpy", "scipy", "scikit-learn", "polars", "torch", "jax", "cyanure")
PEERS += ("netcal", "probmetrics", "mapie")

Name = TypeVar("Name", bound=Hashable)


def interleaved(
    works: Mapping[Name, Callable[[], object]],
    *,
    repeats: int = 11,
    budget: float = 0.4,
    least: int = 3,
    number: int = 1,
    warm_up: bool = True,
    before: Mapping[Name, Callable[[], object]] | None = None,
) -> dict[Name, float]:
    """Median seconds of each piece of work, taken in turns after one warm-up.

    Before each there is a pause: the threads of the one before (OpenMP's, above all) spin for a
    while after their work is done, and would be paid for by the next. Work that has had its
    budget of seconds, and the least of its turns, sits out the rest. `number` calls make one
    measurement; `before` holds what is done ahead of a piece of work and not counted.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in works}
    for turn in range(-warm_up, repeats):
        for name, work in works.items():
            taken = seconds[name]
            if len(taken) >= least and sum(taken) * number > budget:
                continue
            if before and name in before:
                before[name]()
            time.sleep(0.02)
            spent = Timer(work).timeit(number) / number
            if turn >= 0:
                taken.append(spent)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


@dataclass(frozen=True)
class Run:
    """One process from start to end."""

    seconds: float
    peak_mb: float
    output: str


def process(arguments: list[str]) -> Run:
    """Run a command; its wall time, its own peak of resident memory, and what it printed."""
    measured = subprocess.run(
        [sys.executable, "-S", str(CHILD), *arguments], stdout=subprocess.PIPE, check=True
    )
    seconds, peak, status, output = json.loads(measured.stdout)
    if status:
        raise SystemExit(f"{' '.join(arguments)} ended with status {status}")
    return Run(seconds, peak / 1e6, output)


def interleaved_processes(commands: dict[str, list[str]], repeats: int) -> dict[str, Run]:
    """The run of median time of each command, with the median of the peaks, taken in turns."""
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            runs[name].append(process(command))
    return {
        name: Run(
            statistics.median(r.seconds for r in taken),
            statistics.median(r.peak_mb for r in taken),
            taken[0].output,
        )
        for name, taken in runs.items()
    }


def softly_command() -> str:
    """The `softly` of the environment that runs the benchmark."""
    return str(Path(sys.executable).with_name("softly"))


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])


def duration(seconds: float) -> str:
    for least, unit, size in ((1.0, "s", 1.0), (1e-4, "ms", 1e-3)):
        if seconds >= least:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def resident(key: str) -> int:
    """Bytes of memory: those held now (VmRSS), or the most ever (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def peak_from_here() -> None:
    """The most memory ever held is counted anew."""
    Path("/proc/self/clear_refs").write_text("5")


def machine() -> str:
    """The machine in a line: processor, cores, versions of the peers."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(": ")[1] if names else model
    from importlib.metadata import PackageNotFoundError, version

    from softly.kernels import chosen

    peers = []
    for package in PEERS:
        try:
            peers.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0))
    return (
        f"{model}, {cores} cores; softly's kernels: {chosen.name}; "
        f"Python {platform.python_version()}, {', '.join(peers)}"
    )
