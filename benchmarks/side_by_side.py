"""Cases measured side by side: softly, its peers and the bound, on one thread and on two.

A case is data: what is done, on which shape, and the bar. Every number of threads has a process
of its own, which prints a line of JSON for each row of its tables.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch

from benchmarks.measure import duration, interleaved, table
from softly.kernels import threads

THREADS = (1, 2)
OTHER_COPY = "copy by PyTorch"
PEERS = ("PyTorch", "PyTorch, chunked", "SciPy", "JAX", "NumPy")
Shape = tuple[int, ...]
Name = tuple[str, str]  # whose work, and in which mode; "" stands for all of them


@dataclass(frozen=True)
class Setting:
    """Pieces of work over the same arrays, and the answer that all of them must give."""

    works: dict[Name, Callable[[], Any]]  # None comes from one that is a bound, not an answer
    truth: Callable[[str], Any] | None = None  # of a mode, in float64
    tolerance: float = 1e-4  # of what is not below a hundredth of the greatest
    before: dict[Name, Callable[[], object]] = field(default_factory=dict)
    peaks: dict[Name, float] = field(default_factory=dict)  # bytes, put here by the works


@dataclass(frozen=True)
class Case:
    """One piece of work of one shape, and its bars."""

    table: str
    work: str
    make: Callable[[Shape], Setting]
    shape: Shape
    bars: dict[str, dict[str, float]]  # in each mode: how many times our time others take at least
    cut: int = 0  # the axis that is made short for checking
    threads: tuple[int, ...] = THREADS
    pace: dict[str, Any] = field(default_factory=dict)  # options of `interleaved`
    limits: dict[Name, float] = field(default_factory=dict)  # as times of others

    @property
    def title(self) -> str:
        return f"{self.work} {' x '.join(map(str, self.shape))}".strip()

    def rows(self) -> Iterator[Row]:
        """Check every answer on few rows, then measure all the work."""
        check(self.make(self._few_rows()))
        setting = self.make(self.shape)
        taken = interleaved(setting.works, before=setting.before, **self.pace)
        taken = best_copy(taken) | self.limits
        for mode, bars in self.bars.items():
            title = f"{self.title}, {mode}" if mode else self.title
            ours = taken["softly", mode]
            yield Row(self.table, title, threads.count(), duration(ours), beside(taken, mode), bars)
        if peaks := setting.peaks:
            ours = f"{peaks['softly', ''] / 2**20:.1f} MiB"
            ratios, bars = beside(peaks, ""), {"budget": 1.0}
            yield Row(f"{self.table}: memory", self.title, threads.count(), ours, ratios, bars)

    def _few_rows(self) -> Shape:
        n = self.shape[self.cut]
        few = min(n, max(8, (n << 20) // math.prod(self.shape)))  # about a million numbers
        return (*self.shape[: self.cut], few, *self.shape[self.cut + 1 :])


@dataclass(frozen=True)
class Row:
    """A line of a table: ours, and how many times as much the others take."""

    table: str
    work: str
    threads: int
    ours: str
    ratios: dict[str, float]
    bars: dict[str, float]

    def missed(self) -> list[str]:
        return [who for who, bar in self.bars.items() if self.ratios[who] < bar]


def beside(taken: dict[Name, float], mode: str) -> dict[str, float]:
    ours = taken["softly", mode]
    theirs = {who: t for (who, m), t in taken.items() if m in ("", mode) and who != "softly"}
    return {who: t / ours for who, t in theirs.items()}


def check(setting: Setting) -> None:
    """Every piece of work gives the answer of a float64 computation."""
    if setting.truth is None:
        return
    expected = cache(setting.truth)
    for (who, mode), work in setting.works.items():
        setting.before.get((who, mode), lambda: None)()
        answer, truth = work(), expected(mode)
        if answer is None:
            continue
        parts = zip(answer, truth, strict=True) if isinstance(truth, tuple) else [(answer, truth)]
        for found, wanted in parts:
            allowed = setting.tolerance * (np.abs(wanted) + 0.01 * np.abs(wanted).max())
            if not (np.abs(float64(found) - wanted) <= allowed).all():
                raise SystemExit(f"{who} ({mode or 'all modes'}) gives another answer")


def float64(x: Any) -> Any:
    return x.detach().double().numpy() if isinstance(x, torch.Tensor) else np.asarray(x, float)


def normal(shape: Shape, seed: int = 0) -> np.ndarray[Any, Any]:
    x = np.random.default_rng(seed).standard_normal(shape, np.float32)
    x *= 3
    return x


def copies(x: Any, out: Any, mode: str = "") -> dict[Name, Callable[[], None]]:
    """The bound: a copy of the same bytes by the same threads, NumPy's or PyTorch's."""
    source, target = (a.reshape(-1).view(np.uint8) for a in (x, out))
    tensors = torch.from_numpy(target), torch.from_numpy(source)

    def split() -> None:
        threads.over_rows(
            lambda a, b: np.copyto(target[a:b], source[a:b]), source.size, source.nbytes
        )

    def by_pytorch() -> None:
        tensors[0].copy_(tensors[1])

    return {("copy", mode): split, (OTHER_COPY, mode): by_pytorch}


def best_copy(taken: dict[Name, float]) -> dict[Name, float]:
    """Of the two copies, the faster one."""
    best = {name: t for name, t in taken.items() if name[0] != OTHER_COPY}
    return best | {
        ("copy", mode): min(t, taken[OTHER_COPY, mode])
        for (who, mode), t in taken.items()
        if who == "copy"
    }


# Processes and tables ----------------------------------------------------------------------


def measured(name: str, only: str = "") -> list[Row]:
    """The rows that a module prints, for each number of threads from a process of its own."""
    rows = []
    for count in THREADS:
        settings = ("SOFTLY_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = os.environ | dict.fromkeys((*settings, "NPROC"), str(count))  # NPROC: JAX's
        environment["JAX_PLATFORMS"] = "cpu"
        if count == 1:
            environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
        command = [sys.executable, "-m", f"benchmarks.{name}", only]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE)
        if done.returncode:
            raise SystemExit(done.returncode)  # it has said why
        rows += [Row(**json.loads(line)) for line in done.stdout.splitlines()]
    order = list(dict.fromkeys((row.table, row.work) for row in rows))
    return sorted(rows, key=lambda row: order.index((row.table, row.work)))


def print_rows(cases: list[Case], only: str = "") -> None:
    """Measure with the number of threads that this process was started for."""
    torch.set_num_threads(threads.count())
    for case in cases:
        if threads.count() in case.threads and only in f"{case.table}: {case.title}":
            print(f"{threads.count()} thread(s): {case.title}", file=sys.stderr)
            for row in case.rows():
                print(json.dumps(asdict(row)))


def tables(rows: list[Row]) -> str:
    """A table under each heading, then what was missed and where a peer is faster."""
    texts = []
    for heading in dict.fromkeys(row.table for row in rows):
        mine = [row for row in rows if row.table == heading]
        others = list(dict.fromkeys(who for row in mine for who in row.ratios))
        header = ["", "threads", "softly", *others, "bar", ""]
        texts.append(f"### {heading}\n\n{table(header, [_cells(row, others) for row in mine])}")
    barred = [row for row in rows if row.bars]
    met = sum(not row.missed() for row in barred)
    slower = {_where(row): [p for p in PEERS if row.ratios.get(p, 1) < 1] for row in rows}
    lost = [f"{where} ({', '.join(who)})" for where, who in slower.items() if who]
    texts.append(
        f"Bars met in {met} of {len(barred)} lines. "
        f"Where a peer does better: {'; '.join(lost) or 'nowhere'}."
    )
    return "\n\n".join(texts)


def _where(row: Row) -> str:
    return f"{row.work}, {row.threads} thread{'s' * (row.threads > 1)}"


def _cells(row: Row, others: list[str]) -> list[str]:
    ratios = [_ratio(row.ratios[who]) if who in row.ratios else "" for who in others]
    bar = ", ".join(f"{who} {bar:.3g}" for who, bar in row.bars.items())
    verdict = f"missed: {', '.join(row.missed())}" if row.missed() else "met" if row.bars else ""
    return [row.work, str(row.threads), row.ours, *ratios, bar, verdict]


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
