"""A confusion matrix of many classes as SVG: as few letters a cell as there can be."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from softly.subjects import shortened

Array = NDArray[Any]

_LEVELS = 8  # of darkness
_SIDE = 480.0  # of the matrix, without its labels
_GAP = 6.0
_LETTER = 11.0
_WIDTH = 0.62  # of a letter, beside its height
_MOST_LABELS = 44
_LONGEST = 18  # letters of a label


def confusion_matrix(counts: Array, classes: list[str], name: str, title: str) -> Markup:
    """Mistakes in the accent's colour, right answers in grey, the darker the larger the share.

    Parameters
    ----------
    counts : ndarray, shape (K, K)
        A row for each true class, a column for each predicted one.
    classes : list of str
    name : str
        What its ids begin with.
    title : str
    """
    cell = _SIDE / len(classes)
    shown = [shortened(label, _LONGEST) for label in classes]
    every = -(-len(classes) // _MOST_LABELS)
    size = min(_LETTER, 0.9 * cell * every)
    beside = _GAP + size * _WIDTH * max(_columns(label) for label in shown)
    whole = beside + _SIDE + _LETTER / 2
    labels = "".join(_labels(shown, every, cell, size, beside))
    return Markup(
        f'<svg class="matrix" viewBox="0 0 {whole:.5g} {whole:.5g}" role="img" '
        f'aria-labelledby="{name}-title" aria-describedby="{name}-says">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<g transform="translate({beside:.5g} {beside:.5g}) scale({cell:.6g})" '
        f'shape-rendering="crispEdges">{"".join(_cells(counts))}</g>'
        f'<rect x="{beside:.5g}" y="{beside:.5g}" width="{_SIDE:g}" height="{_SIDE:g}" '
        f'class="frame"/>{labels}</svg>'
    )


def darkness(counts: Array) -> Array:
    """The square root of each cell's share of its row, so that few rows show, too."""
    dark: Array = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    return dark


def _columns(text: str) -> int:
    """Letters, those of East Asia twice as wide."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def _cells(counts: Array) -> list[str]:
    """One path for all cells of a colour and a darkness."""
    level = np.ceil(darkness(counts) * _LEVELS).astype(np.intp)
    own = np.eye(len(counts), dtype=bool)
    paths = []
    for kind, there in (("right", own), ("wrong", ~own)):
        for step in range(1, _LEVELS + 1):
            rows, columns = np.nonzero(there & (level == step))
            path = "".join(f"M{j} {i}h1v1h-1z" for i, j in zip(rows, columns, strict=True))
            if path:
                paths.append(f'<path class="{kind}" opacity="{step / _LEVELS:g}" d="{path}"/>')
    return paths


def _labels(shown: list[str], every: int, cell: float, size: float, beside: float) -> Iterator[str]:
    """Beside the rows and above the columns, thinned where there is no room for all."""
    near = beside - _GAP
    for i in range(0, len(shown), every):
        middle = beside + (i + 0.5) * cell
        for x, y, anchor, turn in (
            (near, middle, "end", ""),
            (middle, near, "start", f' transform="rotate(-90 {middle:.5g} {near:.5g})"'),
        ):
            yield (
                f'<text x="{x:.5g}" y="{y:.5g}" font-size="{size:.3g}" text-anchor="{anchor}" '
                f'dominant-baseline="central"{turn}>{escape(shown[i])}</text>'
            )
