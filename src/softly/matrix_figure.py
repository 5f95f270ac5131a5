"""A confusion matrix of many classes as SVG: as few letters a cell as there can be."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from softly.subjects import shortened

Array = NDArray[Any]

_LEVELS = 8  # of darkness
_SIDE = 480.0  # of the matrix, beside its labels
_LABELS = 120.0
_LETTER = 11.0
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
    k = len(classes)
    cell = _SIDE / k
    whole = _SIDE + _LABELS
    cells = "".join(_cells(counts))
    return Markup(
        f'<svg class="matrix" viewBox="0 0 {whole:g} {whole:g}" role="img" '
        f'aria-labelledby="{name}-title" aria-describedby="{name}-says">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<g transform="translate({_LABELS:g} {_LABELS:g}) scale({cell:.6g})" '
        f'shape-rendering="crispEdges">{cells}</g>'
        f'<rect x="{_LABELS:g}" y="{_LABELS:g}" width="{_SIDE:g}" height="{_SIDE:g}" '
        f'class="frame"/>{"".join(_labels(classes, cell))}</svg>'
    )


def _cells(counts: Array) -> list[str]:
    """One path for all cells of a colour and a darkness."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # The square root of the share: few rows show, too.
    level = np.ceil(np.sqrt(share) * _LEVELS).astype(np.intp)
    own = np.eye(len(counts), dtype=bool)
    paths = []
    for kind, there in (("right", own), ("wrong", ~own)):
        for step in range(1, _LEVELS + 1):
            rows, columns = np.nonzero(there & (level == step))
            path = "".join(f"M{j} {i}h1v1h-1z" for i, j in zip(rows, columns, strict=True))
            if path:
                paths.append(f'<path class="{kind}" opacity="{step / _LEVELS:g}" d="{path}"/>')
    return paths


def _labels(classes: list[str], cell: float) -> list[str]:
    """Beside the rows and above the columns, thinned where there is no room for all."""
    every = -(-len(classes) // _MOST_LABELS)
    size = min(_LETTER, 0.9 * cell * every)
    parts = []
    for i in range(0, len(classes), every):
        text = escape(shortened(classes[i], _LONGEST))
        middle = _LABELS + (i + 0.5) * cell
        near = _LABELS - 6
        for x, y, anchor, turn in (
            (near, middle, "end", ""),
            (middle, near, "start", f' transform="rotate(-90 {middle:.5g} {near:.5g})"'),
        ):
            parts.append(
                f'<text x="{x:.5g}" y="{y:.5g}" font-size="{size:.3g}" text-anchor="{anchor}" '
                f'dominant-baseline="central"{turn}>{text}</text>'
            )
    return parts
