"""The figures of a report: Matplotlib's curves as SVG that takes the page's colours and letters."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from softly.metrics import RiskCoverage
from softly.report import Believed, Confidence, Sets, Temperatures

Array = NDArray[Any]
Texts = dict[str, str]

# Drawn with these, and then with the page's own, which change with light and dark.
_INK, _QUIET, _LINE, _FILL, _ACCENT, _PAPER = (f"#{i:02x}fe{i:02x}" for i in range(1, 7))
_VARIABLES = {
    _INK: "var(--ink)",
    _QUIET: "var(--quiet)",
    _LINE: "var(--line)",
    _FILL: "var(--fill)",
    _ACCENT: "var(--accent)",
    _PAPER: "var(--paper)",
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "softly",
    "text.parse_math": False,
    "font.size": 11,
    "text.color": _QUIET,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _QUIET,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 1,
    "axes.axisbelow": True,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _QUIET,
    "ytick.labelcolor": _QUIET,
    "figure.facecolor": "none",
    "lines.linewidth": 2,
}
_WIDTH, _HEIGHT = 4.8, 3.9  # inches
_TEMPERATURE_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_MOST_TICKS = 8
_MOST_SIZES = 12  # of sets, with a bar of their own


def reliability(of: Believed, name: str, title: str, t: Texts) -> Markup:
    """Confidence beside the share of right answers, over how often each confidence is said."""
    with _figure(name, title) as (figure, done):
        above, below = figure.subplots(
            2, sharex=True, gridspec_kw={"height_ratios": [5, 1], "hspace": 0.12}
        )
        curve = of.reliability
        above.plot([0, 1], [0, 1], color=_FILL, linewidth=1, linestyle=(0, (4, 3)))
        above.vlines(curve.confidence, curve.low, curve.high, color=_ACCENT, alpha=0.45)
        above.plot(
            curve.confidence, curve.accuracy, "o-", color=_ACCENT, markersize=4, clip_on=False
        )
        above.set_ylim(0, 1.02)
        _percents(above.yaxis, t)
        _name_y(above, t["report.axis.right"])
        _bars(below, of.confidence.edges, of.confidence.right + of.confidence.wrong, _FILL)
        _percents(below.xaxis, t)
        below.set_xlim(0, 1)
        below.set_xlabel(t["report.axis.confidence"])
        below.yaxis.set_major_locator(NullLocator())
        below.spines["left"].set_visible(False)
    return done()


def answers(of: Confidence, name: str, title: str, t: Texts) -> Markup:
    """How sure right answers are, and how sure wrong ones."""
    with _figure(name, title) as (figure, done):
        axes = figure.subplots(2, sharex=True, gridspec_kw={"hspace": 0.45})
        for each, count, colour, said in (
            (axes[0], of.right, _FILL, t["report.axis.right_answers"]),
            (axes[1], of.wrong, _ACCENT, t["report.axis.wrong_answers"]),
        ):
            _bars(each, of.edges, count, colour)
            _name_y(each, said.format(rows=f"{count.sum():,}"))
            each.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            each.yaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
        _percents(axes[1].xaxis, t)
        axes[1].set_xlim(0, 1)
        axes[1].set_xlabel(t["report.axis.confidence"])
    return done()


def temperatures(of: Temperatures, name: str, title: str, t: Texts) -> Markup:
    """The log loss at other temperatures, with its least."""
    with _figure(name, title) as (figure, done):
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.axvline(1, color=_FILL, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(of.temperature, of.log_loss, color=_ACCENT)
        low, high = float(of.log_loss.min()), float(of.log_loss.max())
        room = max(high - low, 1e-3)
        if of.bounded:
            axes.plot([of.best], [of.least], "o", color=_ACCENT, markersize=7)
            axes.annotate(
                f"T = {of.best:.3g}",
                (of.best, of.least),
                textcoords="offset points",
                xytext=(0, -16),
                ha="center",
                color=_INK,
            )
        axes.set_ylim(low - 0.18 * room, high + 0.05 * room)
        axes.set_xlim(of.temperature[0], of.temperature[-1])
        there = [x for x in _TEMPERATURE_TICKS if of.temperature[0] <= x <= of.temperature[-1]]
        if not 2 <= len(there) <= _MOST_TICKS:  # powers of ten
            there = (10.0 ** np.arange(*np.ceil(np.log10(of.temperature[[0, -1]])))).tolist()
            there = there[:: -(-len(there) // _MOST_TICKS)]
        axes.xaxis.set_major_locator(FixedLocator(there))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(t["report.axis.temperature"])
        _name_y(axes, t["report.axis.log_loss"])
    return done()


def risk_coverage(of: RiskCoverage, name: str, title: str, t: Texts) -> Markup:
    """The share of wrong answers among the most confident rows."""
    with _figure(name, title) as (figure, done):
        axes = figure.subplots()
        axes.fill_between(of.coverage, of.risk, color=_ACCENT, alpha=0.12, linewidth=0)
        axes.plot(of.coverage, of.risk, color=_ACCENT)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, max(1.08 * float(of.risk.max()), 0.01))
        _percents(axes.xaxis, t)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(_percent(t))
        axes.set_xlabel(t["report.axis.answered"])
        _name_y(axes, t["report.axis.wrong"])
    return done()


def set_sizes(of: Sets, name: str, title: str, t: Texts) -> Markup:
    """How many classes the prediction sets hold."""
    with _figure(name, title) as (figure, done):
        axes = figure.subplots()
        size, count = np.array(of.size), np.array(of.count) / of.rows
        few = size < _MOST_SIZES
        places, shares = size[few], count[few]
        names = [str(n) for n in places]
        if not few.all():
            places, shares = np.append(places, _MOST_SIZES), np.append(shares, count[~few].sum())
            names.append(f"{_MOST_SIZES}+")
        axes.bar(places, shares, color=_ACCENT, width=0.72)
        axes.xaxis.set_major_locator(FixedLocator(places.tolist()))
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda _, i: names[i] if i < len(names) else "")
        )
        axes.set_xlim(0.4, max(places.max(), 3) + 0.6)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(_percent(t))
        axes.set_xlabel(t["report.axis.set_size"])
        _name_y(axes, t["report.axis.rows"])
    return done()


def _bars(axes: Axes, edges: Array, count: Array, colour: str) -> None:
    """Bars that touch, as one shape: less to write than each by itself."""
    axes.stairs(count, edges, fill=True, color=colour)
    axes.set_ylim(0, max(1.05 * float(count.max()), 1))


def _percents(axis: Any, t: Texts) -> None:
    axis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axis.set_major_formatter(_percent(t))


def _percent(t: Texts) -> FuncFormatter:
    return FuncFormatter(lambda x, _: t["report.percent"].format(number=f"{100 * x:.3g}"))


def _name_y(axes: Axes, said: str) -> None:
    """Above the axis, where it can be read without turning the head."""
    axes.set_title(said, loc="left", fontsize=11, color=_QUIET)


# --- Matplotlib's SVG, as part of a page ---------------------------------------------------------


@contextmanager
def _figure(name: str, title: str) -> Iterator[tuple[Figure, Callable[[], Markup]]]:
    """A figure to draw on, and what gives its SVG once it is drawn."""
    drawn: list[str] = []
    with mpl.rc_context(), warnings.catch_warnings():
        # Glyphs that Matplotlib's own font lacks: the reader's browser has them.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure = Figure(figsize=(_WIDTH, _HEIGHT))
        figure.subplots_adjust(left=0.12, right=0.94, top=0.9, bottom=0.14)
        yield figure, lambda: _for_page("".join(drawn), name, title)
        out = io.StringIO()
        metadata = dict.fromkeys(["Date", "Creator", "Format", "Type"])
        figure.savefig(out, format="svg", metadata=metadata)
        drawn.append(out.getvalue())


def _for_page(svg: str, name: str, title: str) -> Markup:
    """Without what a file of its own has, and with ids that no other figure has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    box = re.search(r'viewBox="([^"]*)"', svg)
    assert box is not None
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    inside = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    inside = re.sub(r">\s+<", "><", inside).replace("xlink:href", "href")
    return Markup(
        f'<svg viewBox="{box[1]}" role="img" aria-labelledby="{name}-title" '
        f'aria-describedby="{name}-says"><title id="{name}-title">{escape(title)}</title>'
        f"{inside.strip()}</svg>"
    )
