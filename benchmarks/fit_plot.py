"""The plot of `fit`: gap to the optimum against seconds, a panel for each problem."""

from __future__ import annotations

from math import ceil, floor, log10
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.fit_peers import CONTENDERS, OURS

Lines = dict[str, list[tuple[float, float]]]  # of each contender: seconds, gap

COLUMNS = 4
LEAST, MOST = 1e-9, 1.0  # gaps that are shown
COLOURS = (
    "#d62728",
    "#1f77b4",
    "#2ca02c",
    "#ff7f0e",
    "#9467bd",
    "#8c564b",
    "#7f7f7f",
    "#bcbd22",
    "#17becf",
    "#e377c2",
)


def draw(panels: list[tuple[str, Lines]], path: Path) -> None:
    if not panels:
        return
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 3 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, (title, lines) in zip(grid, panels, strict=False):
        one(axes, title, lines)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    named = {line.get_label(): line for axes in grid for line in axes.get_lines()}
    order = [c.name for c in CONTENDERS if c.name in named]
    figure.legend(
        [named[who] for who in order], order, loc="outside upper center", ncols=len(order)
    )
    with mpl.rc_context({"svg.hashsalt": "softly", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def one(axes: Axes, title: str, lines: Lines) -> None:
    for who, line in lines.items():
        place = [contender.name for contender in CONTENDERS].index(who)
        seconds, gaps = zip(*progress(line), strict=True)
        axes.loglog(
            seconds,
            [min(max(gap, LEAST), MOST) for gap in gaps],
            color=COLOURS[place],
            linewidth=2.5 if who == OURS else 1.2,
            marker="o",
            markersize=4 if who == OURS else 2.5,
            zorder=3 if who == OURS else 2,
            label=who,
        )
    axes.axhline(1e-4, color="0.8", linewidth=1, zorder=1)
    axes.set_ylim(LEAST, MOST)
    shown = [seconds for line in lines.values() for seconds, _ in line]
    axes.set_xlim(10 ** floor(log10(min(shown))), 10 ** ceil(log10(max(shown))))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("seconds", fontsize=8)
    axes.set_ylabel("relative gap", fontsize=8)
    axes.tick_params(labelsize=8)


def progress(line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without the fits that took longer for less."""
    kept: list[tuple[float, float]] = []
    for seconds, gap in line:
        if not kept or gap < kept[-1][1]:
            kept.append((seconds, gap))
    return kept
