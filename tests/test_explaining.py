"""An explanation in a terminal: few digits, bars in proportion, whatever the width or script."""

import io
import math
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from softly import languages
from softly.explaining import draw, number, percent, short, verdict
from softly.explanation import explain


def drawn(explanation, width=80, language="en", encoding="utf-8"):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    draw(Console(file=file, width=width, highlight=False), explanation, language)
    file.flush()
    return file.buffer.getvalue().decode(encoding).splitlines()


THREE = explain([2.0, 1.0, 0.1], classes=["cat", "dog", "bird"])


def test_the_classic_picture():
    assert drawn(THREE, width=60) == [
        "class  score     exp  probability",
        "cat      2.0  1.0000  65.90%  ███████████████████▊",
        "dog      1.0  0.3679  24.24%  ███████▎",
        "bird     0.1  0.1496   9.86%  ███",
        "sum           1.5174    100%",
        "",
        "Chosen: cat (65.90%), more probable than all others together",
        "and 2.7 times as probable as dog.",
        "exp is e to the power of (score − 2.0) / 1. Taking the ",
        "greatest score off first changes no probability.",
    ]


NAMES = [
    "고양이가 아주 아주 길게 이름을 가짐",
    "كلب",
    "x" * 200,
    "[red]<b>",
    "tab\tand\nline\x1b[31m",
]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("language", languages.available())
@pytest.mark.parametrize("true", [None, NAMES[0]])
def test_it_fits_with_names_of_any_script(width, language, true):
    found = explain([3.0, -1e9, 0.001, 2.5, -math.inf], classes=NAMES, true=true)
    lines = drawn(found, width, language)
    assert max(map(cell_len, lines)) <= width
    assert sum("█" in line for line in lines) >= 2  # none is crowded out, even at 40
    assert not re.search(r"[\x00-\x1f]", "".join(lines))
    if width == 200:
        assert "[red]<b>" in lines[4]
    assert all("…" in lines[k] for k in (1, 3)) or width == 200


def test_bars_are_in_proportion():
    lines = drawn(explain([math.log(3), 0.0]), width=200)
    long, short = (line.count("█") for line in lines[1:3])
    assert long == pytest.approx(3 * short, abs=3)
    assert cell_len(drawn(explain([9.0]), width=77)[1]) == 77  # 1 is the whole width


def test_of_very_many_the_leading_ones_and_the_rest():
    found = explain([i / 1000 for i in range(10_000)])
    lines = drawn(found)
    assert [line.split()[0] for line in lines[1:11]] == [str(10_000 - i) for i in range(10)]
    others, total = lines[11:13]
    rest = sum(sorted(found.probabilities)[:-10])
    assert others.startswith("9,990 others")
    assert percent(rest) in others
    assert number(found.sum_of_exponentials) in total
    assert len(lines) < 25


def test_what_two_classes_and_a_true_one_add():
    text = " ".join(drawn(explain([1.0, -1.0], temperature=0.5, true="B"), width=200))
    assert "(score − 1.0) / 0.5" in text
    assert "(score − (−1.0)) / 1." in " ".join(drawn(explain([-1.0, -2.5]), width=200))
    assert "sigmoid(4.0000) = 98.20% for A" in text
    assert "If B is true, the cross-entropy is −log\xa00.0180 = 4.0181." in text
    assert "−0.9820" in text


VERDICTS = {
    (1.0,): "Chosen: A. It is the only class, so its probability is 100% whatever its score",
    (1.0, 1.0, 0.0): "No class is ahead: 2 share the greatest score, at 42.23% each",
    (9.0, 0.0): "Chosen: A (99.99%), all but certain",
    (0.0, 2.0): "Chosen: B (88.08%), more probable than all others together and 7.4 times",
    (0.0, 4.0): "and 55 times as probable as A",
    (0.2, 0.1, 0.0): "Chosen: A (36.72%), the most probable class, but no more probable than all",
    (math.inf, math.inf): "No class is ahead: 2 share",
}


@pytest.mark.parametrize("scores", VERDICTS)
def test_how_sure_that_is(scores):
    assert VERDICTS[scores] in verdict(explain(scores))
    assert verdict(explain(scores), "ko") != verdict(explain(scores))


def test_numbers_of_any_size():
    assert [number(x) for x in (0.0, -0.5, 999_999.0, 1e6, 1e-300, 0.00005)] == [
        *("0.0000", "−0.5000", "999999.0000", "1.00×10⁶", "1.00×10⁻³⁰⁰", "0.0001"),
    ]
    assert [percent(p) for p in (0.0, 1e-9, 0.03125, 1 - 1e-9, 1.0)] == [
        *("0%", "<0.01%", "3.13%", ">99.99%", "100%"),
    ]
    assert len(short("x" * 200)) == 40


def test_a_terminal_without_these_letters():
    lines = drawn(explain([2.0, -1.0, 1e-7, math.inf]), encoding="ascii")
    assert "####" in lines[4]
    assert "-1.0" in lines[2]
    assert "1.00e-7" in lines[3]
    assert "?" not in "".join(lines)
