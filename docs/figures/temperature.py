"""Draws temperature.svg: what the temperature does to the softmax of three scores.

`python docs/figures/temperature.py [FILE]` writes it, the same bytes each time. Texts and lines
stand out from light and dark pages alike (contrast 4 or more from white and from #0d1117): the
colours are Okabe and Ito's for colour-blind readers, brought to one brightness, and each line's
score is written beside it, so that nothing hangs on a colour.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

import softly

SCORES = np.array([2.0, 1.0, 0.0])
COLOURS = ["#CC5A00", "#1F7FC0", "#00875F"]
LEAST, MOST = 0.1, 100.0  # between them T is drawn to a logarithmic scale
ENDS = LEAST / 3, 3 * MOST  # where its limits, 0 and infinity, are drawn
GREY = "#787878"

STYLE = {
    "svg.hashsalt": "softly",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 13,
    **dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor"], GREY),
    **dict.fromkeys(["xtick.color", "ytick.color"], GREY),
}


def draw(path: Path) -> None:
    with plt.style.context(["default", STYLE]):
        figure, axes = plt.subplots(figsize=(8, 4.2))
        between = np.geomspace(LEAST, MOST, 241)
        p = np.stack([softly.softmax(SCORES, temperature=t) for t in between])
        limits = np.stack([softly.softmax(SCORES, temperature=t) for t in (0, np.inf)])
        for k, colour in enumerate(COLOURS):
            axes.plot(between, p[:, k], color=colour, linewidth=2.2)
            for at, limit, end in zip(ENDS, limits[:, k], p[[0, -1], k], strict=True):
                near = LEAST if at < LEAST else MOST
                axes.plot([at, near], [limit, end], ":", color=colour, linewidth=1.5)
            axes.plot(ENDS, limits[:, k], "o", color=colour, markersize=6, clip_on=False)
        label(axes)
        frame(axes)
        figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


def label(axes: plt.Axes) -> None:
    """Each line's score, where the line is far from the others."""
    places = [(1.12, 0.72), (0.3, 0.24), (1.6, 0.09)]
    for score, colour, (t, height) in zip(SCORES, COLOURS, places, strict=True):
        axes.text(t, height, f"score {score:g}", color=colour)


def frame(axes: plt.Axes) -> None:
    axes.set_xscale("log")
    axes.set_xlim(ENDS[0] / 1.2, ENDS[1] * 1.2)
    axes.set_ylim(0, 1.03)
    inner = {0.1: "0.1", 0.5: "½", 1: "1", 2: "2", 10: "10", 100: "100"}
    ticks = {ENDS[0]: "0", **inner, ENDS[1]: "∞"}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xticks([], minor=True)
    axes.set_yticks([0, 1 / 3, 2 / 3, 1], ["0", "⅓", "⅔", "1"])
    axes.axvline(1, color=GREY, linewidth=0.8, linestyle=(0, (2, 3)))
    axes.set_xlabel("temperature")
    axes.set_ylabel("probability")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


if __name__ == "__main__":
    beside = Path(__file__).with_suffix(".svg")
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else beside)
