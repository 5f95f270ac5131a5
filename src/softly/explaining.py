"""An explanation as people see it: numbers in few digits, the verdict, a terminal's bars, a page.

The page's script (`pages/explain.js`) writes numbers and the verdict by the same rules, since it
has to say both anew when something is dragged. A test holds the two beside each other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from softly.languages import texts

if TYPE_CHECKING:
    from softly.explanation import Explanation

__all__ = ["decimals", "draw", "number", "page", "percent", "short", "shown_classes", "verdict"]

_MOST_CLASSES = 20  # shown; of more, the leading ones and what the others add up to
_LEADING = 10
_BAR = 6  # cells, below which a column makes room for it
_NAME = 40  # characters of a name in a sentence
_CERTAIN = 0.99
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_EIGHTHS = " ▏▎▍▌▋▊▉"
_PLAIN = str.maketrans(
    {"−": "-", "∞": "inf", "…": ".", "█": "#", "\xa0": " "}
    | dict(zip("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789", strict=True))
    | dict.fromkeys(_EIGHTHS[1:], "")
)  # where a terminal has ASCII alone

# --- numbers and words ----------------------------------------------------------


def number(x: float, digits: int = 4) -> str:
    """A number in a few digits.

    Examples
    --------
    >>> number(1.5174480603940774), number(-1.9, 1), number(1.2345e-7), number(float("-inf"))
    ('1.5174', '−1.9', '1.23×10⁻⁷', '−∞')
    """
    sign = "−" if x < 0 else ""
    x = abs(x)
    if math.isinf(x):
        return f"{sign}∞"
    if x == 0 or 0.5 * 10**-digits <= x < 1e6:
        return sign + _fixed(x, digits)
    mantissa, exponent = f"{x:.2e}".split("e")
    return f"{sign}{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def percent(p: float) -> str:
    """A probability; only what is 0 or 1 is shown as such.

    Examples
    --------
    >>> percent(0.6590011388859679), percent(1.0), percent(1e-9), percent(1 - 1e-9)
    ('65.90%', '100%', '<0.01%', '>99.99%')
    """
    if p in (0, 1):
        return f"{100 * p:.0f}%"
    shown = _fixed(100 * p, 2)
    return {"0.00": "<0.01%", "100.00": ">99.99%"}.get(shown, f"{shown}%")


def _fixed(x: float, digits: int) -> str:
    """As JavaScript's toFixed: halves go up, where Python's own formats make them even."""
    return str(Decimal(x).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def _ratio(x: float) -> str:
    return _fixed(x, 1) if x < 10 else f"{int(_fixed(x, 0)):,}"


def short(name: str) -> str:
    """A name as a sentence has it: not too long, and no character that would move the cursor."""
    cut = name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "\ufffd", cut)


def decimals(numbers: Iterable[float], least: int = 1) -> int:
    """As many as show all of them, from `least` to 4.

    Examples
    --------
    >>> decimals([2.0, 0.1]), decimals([0.25, 3.0]), decimals([1 / 3])
    (1, 2, 4)
    """
    finite = [x for x in numbers if math.isfinite(x)]
    return next((n for n in range(least, 4) if all(round(x, n) == x for x in finite)), 4)


def verdict(explanation: Explanation, language: str = "en") -> str:
    """Which class is chosen, and how sure that is, in one sentence."""
    t = texts(language)
    first, second = [*explanation.leading(2)[:2], None][:2]
    assert first is not None
    p = explanation.probabilities[first]
    facts = {"chosen": short(explanation.chosen), "p": percent(p)}
    if second is None:
        return t["explain.verdict.alone"].format(**facts)
    if explanation.tied > 1:
        return t["explain.verdict.tied"].format(count=f"{explanation.tied:,}", p=facts["p"])
    if p >= _CERTAIN:
        return t["explain.verdict.certain"].format(**facts)
    if p <= 0.5:
        return t["explain.verdict.unsure"].format(**facts)
    return t["explain.verdict.likely"].format(
        second=short(explanation.classes[second]),
        ratio=_ratio(p / explanation.probabilities[second]),
        **facts,
    )


# --- in a terminal --------------------------------------------------------------


def draw(console: Console, explanation: Explanation, language: str = "en") -> None:
    """The classes with their numbers and bars, their sum, the verdict, and what else was asked."""
    t = texts(language)
    rows = _rows(explanation, t)
    widths = _widths(rows, console.width - (0 if _has_signs(console) else len("inf") - 1))
    for row in rows:
        _print(console, _line(row, widths), "bold" if row.chosen else "")
    console.print()
    _print(console, verdict(explanation, language), "bold")
    for sentence in _sentences(explanation, t):
        _print(console, sentence)


@dataclass(frozen=True)
class _Row:
    """A line of the table; empty where a row has no such number."""

    name: str
    score: str
    gradient: str
    exponential: str
    probability: str
    share: float | None = None  # of the bar
    chosen: bool = False

    @property
    def cells(self) -> list[str]:
        return [self.name, self.score, self.gradient, self.exponential, self.probability]


_GRADIENT, _EXPONENTIAL = 2, 3  # the columns that can do without, where there is little room


def _rows(explanation: Explanation, t: dict[str, str]) -> list[_Row]:
    """Titles, classes, what the classes not shown add up to, and the sum."""
    shown = shown_classes(explanation)
    rows = [_titles(explanation, t), *(_class(explanation, i) for i in shown)]
    if len(shown) < len(explanation.classes):
        rows.append(_others(explanation, t, shown))
    total = number(explanation.sum_of_exponentials)
    return [*rows, _Row(t["explain.sum"], "", "", total, "100%")]


def _titles(explanation: Explanation, t: dict[str, str]) -> _Row:
    return _Row(
        t["explain.class"],
        t["explain.score"],
        t["explain.gradient"] if explanation.cross_entropy else "",
        t["explain.exp"],
        t["explain.probability"],
    )


def _class(explanation: Explanation, i: int) -> _Row:
    loss, p = explanation.cross_entropy, explanation.probabilities[i]
    return _Row(
        short(explanation.classes[i]),
        number(explanation.scores[i], decimals(explanation.scores)),
        number(loss.gradient_of_scaled_scores[i]) if loss else "",
        number(explanation.exponentials[i]),
        percent(p),
        share=p,
        chosen=explanation.classes[i] == explanation.chosen,
    )


def _others(explanation: Explanation, t: dict[str, str], shown: list[int]) -> _Row:
    others = set(range(len(explanation.classes))) - set(shown)
    share = min(math.fsum(explanation.probabilities[i] for i in others), 1.0)
    rest = number(math.fsum(explanation.exponentials[i] for i in others))
    title = t["explain.others"].format(count=f"{len(others):,}")
    return _Row(title, "", "", rest, percent(share), share)


def _widths(rows: list[_Row], width: int) -> list[int]:
    """Cells of each column, 0 of those that have no room, and of the bar."""
    wanted = [max(map(cell_len, column)) for column in zip(*(r.cells for r in rows), strict=True)]
    wanted[0] = min(wanted[0], max(8, width // 4))
    wanted[-1] = max(cell_len(row.probability) for row in rows[1:])  # its title is above the bar
    for dropped in (None, _EXPONENTIAL, _GRADIENT):
        if dropped is not None:
            wanted[dropped] = 0
        bar = width - sum(cells + 2 for cells in wanted if cells)
        if bar >= _BAR:
            break
    return [*wanted, max(bar, 0)]


def _line(row: _Row, widths: list[int]) -> str:
    name, *numbers, probability, bar = widths
    shown = [_fitted(row.name, name)]
    shown += [_right(x, n) for x, n in zip(row.cells[1:-1], numbers, strict=True) if n]
    shown.append(_right(row.probability, probability))
    if row.share is not None:
        shown.append(_bar(row.share, bar))
    return "  ".join(shown).rstrip()


def _right(text: str, cells: int) -> str:
    return " " * (cells - cell_len(text)) + text


def _fitted(text: str, cells: int) -> str:
    if cell_len(text) <= cells:
        return set_cell_size(text, cells)
    return set_cell_size(set_cell_size(text, cells - 1).rstrip() + "…", cells)


def _bar(share: float, cells: int) -> str:
    whole, eighths = divmod(round(8 * cells * share), 8)
    return "█" * whole + _EIGHTHS[eighths].strip()


def _sentences(explanation: Explanation, t: dict[str, str]) -> list[str]:
    """How the numbers came about, and what two classes or a true one add."""
    said = []
    greatest, temperature = max(explanation.scores), explanation.temperature
    if math.isfinite(greatest):
        taken_off = number(greatest, decimals([greatest]))
        facts = {
            "max": f"({taken_off})" if greatest < 0 else taken_off,
            "temperature": number(temperature, decimals([temperature], least=0)),
        }
        said.append(t["explain.how"].format(**facts))
    if any(map(math.isinf, explanation.scores)):
        said.append(t["explain.limit"])
    if two := explanation.sigmoid:
        facts = {"difference": number(two.difference), "p": percent(two.value)}
        said.append(t["explain.sigmoid.is"].format(name=short(explanation.classes[0]), **facts))
    if loss := explanation.cross_entropy:
        p = explanation.probabilities[explanation.classes.index(loss.true_class)]
        facts = {"p": number(p), "loss": number(loss.value)}
        said.append(t["explain.loss.is"].format(name=short(loss.true_class), **facts))
        said.append(t["explain.loss.gradient"])
    return said


def _has_signs(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")


def _print(console: Console, line: str, style: str = "") -> None:
    if not _has_signs(console):
        line = line.replace("×10", "e").translate(_PLAIN)
    console.print(Text(line, style))


# --- on a page ------------------------------------------------------------------


def shown_classes(explanation: Explanation) -> list[int]:
    """All classes as they came; of very many, the leading ones."""
    count = len(explanation.classes)
    return list(range(count)) if count <= _MOST_CLASSES else explanation.leading(_LEADING)


def page(explanation: Explanation, language: str = "en") -> str:
    """A page on which scores, probabilities and the temperature can be moved, as HTML."""
    from softly import pages

    t = texts(language)
    words = {key: text for key, text in t.items() if key.startswith("explain.")}
    return pages.render(
        "explain.html",
        language,
        rows=_rows(explanation, t)[1:],
        data={
            "explanation": explanation.to_dict(),
            "shown": shown_classes(explanation),
            "texts": words,
        },
    )
