"""A report's page: what its data say, to everyone, at every width, and nothing but that."""

import json
import re

import numpy as np
import pytest

from softly import Report, report_page, subjects
from softly.languages import texts
from test_evaluation import table, trained
from test_report_data import SOURCE, drawn, made

LONG = "한" * 200
HOSTILE = ["<script>alert(1)</script>", "$x_1$ {rows} --> & \"'", LONG, "عربي\u202e abc"]
PICTURES = ["before", "after", "temperatures", "answers", "risk", "sets"]


def overconfident(classes=4, names=None, rows=1500):
    logits, y = drawn(rows=rows, classes=classes, scale=2.5)
    if names is None:
        return made(logits, y)
    return made(logits, np.array(names)[y], classes=names)


def of_table(rows=300):
    model = trained(table(rows=400))
    return Report.of(subjects.of_model(model, [table(rows=rows, seed=1)], ["m.skops", "new.csv"]))


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A page of a report as a file, made once for all who look at it."""
    kept = {}
    folder = tmp_path_factory.mktemp("pages")
    kinds = {
        "few": overconfident,
        "many": lambda: overconfident(classes=30, rows=3000),
        "hostile": lambda: overconfident(names=HOSTILE),
        "table": of_table,
    }

    def page(kind, language="en"):
        if (kind, language) not in kept:
            report = kept.setdefault(kind, None) or kinds[kind]()
            kept[kind] = report
            file = folder / f"{kind}-{language}.html"
            file.write_text(report_page.page(report, language), encoding="utf-8")
            kept[kind, language] = file
        return kept[kind, language]

    return page


@pytest.mark.parametrize("kind", ["few", "many", "hostile", "table"])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_it_is_sound_at_every_width_in_light_and_dark(browser, opened, kind, language):
    file = opened(kind, language)
    for width in (360, 800, 1600):
        for dark in (False, True):
            browser.open(file, width=width, dark=dark)
            assert browser.overflow() <= 0
            assert browser.violations() == []
            assert browser.logs() == ([], [])


def leaves(value):
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part)
            yield from leaves(key)
    elif isinstance(value, list):
        yield len(value)
        for part in value:
            yield from leaves(part)
    elif isinstance(value, str):
        yield from map(float, re.findall(r"\d+(?:\.\d+)?", value))
    elif isinstance(value, int | float):
        yield value


def is_said(shown, numbers):
    """Whether a number as it is written is one of those of the data, or a share of them."""
    digits = len(shown.partition(".")[2])
    at = float(shown.replace(",", ""))
    rounding = 0.5001 * 10.0**-digits
    return any(
        abs(at - x) <= rounding or abs(at - 100 * x) <= rounding or np.isclose(at, x, rtol=5e-3)
        for x in numbers
    )


@pytest.mark.parametrize("kind", ["few", "many", "table"])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_every_number_of_the_page_stands_in_its_data(browser, opened, kind, language):
    browser.open(opened(kind, language))
    data = browser.data()
    numbers = np.abs(list(leaves(data)))
    own = {"95", "10", "0", "1"}  # of the texts, whatever the report
    places = "dd, .measures, td, figcaption, header"
    shown = [
        number
        for element in browser.all(places)
        for number in re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?", element.text)
    ]
    assert len(shown) > 100
    wrong = [x for x in shown if x.rstrip(",") not in own and not is_said(x.rstrip(","), numbers)]
    assert wrong == []
    first = browser.one(".measures strong").text
    assert first.startswith(f"{100 * data['measures']['accuracy']['value']:.1f}")


def test_every_figure_has_a_name_and_a_sentence_and_ids_of_its_own(browser, opened):
    for kind, others in (("few", []), ("many", ["confusion"])):
        browser.open(opened(kind))
        found = browser.js(
            "return [...document.querySelectorAll('svg')].map(svg => ["
            "svg.getAttribute('role'),"
            "document.getElementById(svg.getAttribute('aria-labelledby')).textContent,"
            "document.getElementById(svg.getAttribute('aria-describedby')).textContent.trim()])"
        )
        assert len(found) == len(PICTURES + others)
        assert len({name for _, name, _ in found}) == len(found)
        for role, name, sentence in found:
            assert role == "img"
            assert name
            assert sentence.endswith(".")
        ids = browser.js("return [...document.querySelectorAll('[id]')].map(x => x.id)")
        assert len(ids) == len(set(ids))
        asked = re.findall(r'(?:href="#|url\(#)([^")]+)', opened(kind).read_text(encoding="utf-8"))
        assert set(asked) <= set(ids)


def test_figures_take_the_pages_colours(browser, opened):
    file = opened("few")
    assert not re.search(r"#\w\wfe\w\w", file.read_text(encoding="utf-8"))
    line = "return getComputedStyle(document.querySelector('.before path[style*=accent]')).stroke"
    browser.open(file)
    light = browser.js(line)
    browser.open(file, dark=True)
    assert browser.js(line) != light != "none"


def test_korean_is_spoken_throughout(browser, opened):
    browser.open(opened("table", "ko"))
    said = browser.one("main").text
    english = texts("en")
    for key, text in texts("ko").items():
        is_plain = key.startswith(("report.section", "report.topic", "report.table."))
        if is_plain and "{" not in text and text != english[key]:
            assert english[key] not in said
    drawn_words = browser.js(
        "return [...document.querySelectorAll('svg text')].map(x => x.textContent).join(' ')"
    )
    assert "확신도" in drawn_words
    assert not re.search(r"[a-zA-Z]{3,}", drawn_words)


def test_names_are_text_whatever_they_are(browser, opened):
    file = opened("hostile")
    html = file.read_text(encoding="utf-8")
    assert html.count("<script") == html.count("</script>") == 2
    browser.open(file)
    names = browser.js(
        "return [...document.querySelectorAll('.sortable tbody th')].map(x => x.textContent.trim())"
    )
    assert names[:2] == HOSTILE[:2]
    assert names[2] == "한" * 39 + "…"
    assert browser.data()["classes"] == HOSTILE
    title = "return document.querySelector('.sortable tbody tr:nth-child(3) bdi').title"
    assert browser.js(title) == LONG


def test_of_many_classes_names_are_text_in_the_matrix_too(browser, tmp_path):
    names = [f"<b>{i}</b> & {'long ' * (i == 3) * 50}" for i in range(20)]
    file = tmp_path / "page.html"
    file.write_text(report_page.page(overconfident(classes=20, names=names)), encoding="utf-8")
    browser.open(file)
    labels = browser.js(
        "return [...document.querySelectorAll('.matrix text')].map(x => x.textContent)"
    )
    assert len(labels) == 40
    assert "<b>7</b> & " in labels
    assert max(map(len, labels)) == 18
    assert browser.logs() == ([], [])


def test_the_matrix_paints_the_cells_that_are_not_empty():
    report = overconfident(classes=30)
    html = report_page.page(report)
    counts = report.confusion.counts
    for kind, own in (("right", True), ("wrong", False)):
        paths = re.findall(rf'<path class="{kind}" opacity="([\d.]+)" d="([^"]*)"', html)
        painted = {
            (int(i), int(j)): float(dark)
            for dark, path in paths
            for j, i in re.findall(r"M(\d+) (\d+)h", path)
        }
        wanted = np.argwhere((counts > 0) & (np.eye(30, dtype=bool) == own))
        assert set(painted) == set(map(tuple, wanted.tolist()))
        share = counts / counts.sum(axis=1, keepdims=True)
        for (i, j), dark in painted.items():
            assert 0 <= dark - np.sqrt(share[i, j]) < 1 / 8


def column(browser, number):
    rows = browser.js(
        "return [...document.querySelectorAll('.sortable tbody tr')]"
        f".map(row => row.cells[{number}].textContent.trim())"
    )
    return [float("nan" if x == "–" else x) for x in rows]


def test_the_table_is_sorted_by_click_and_by_key(browser, opened):
    from selenium.webdriver.common.keys import Keys

    browser.open(opened("many"))
    before = column(browser, 3)
    assert before != sorted(before)
    header = browser.all(".sortable thead th")[3]
    button = header.find_element("css selector", "button")
    button.click()
    assert column(browser, 3) == sorted(before, reverse=True)
    assert header.get_attribute("aria-sort") == "descending"
    button.send_keys(Keys.ENTER)
    assert column(browser, 3) == sorted(before)
    assert header.get_attribute("aria-sort") == "ascending"
    browser.all(".sortable thead button")[0].send_keys(Keys.SPACE)
    names = [x.text for x in browser.all(".sortable tbody th")]
    assert names == [str(i) for i in range(30)]
    assert len(browser.all(".sortable [aria-sort]")) == 1


def test_what_is_unknown_stays_at_the_end_of_a_sorted_table(browser, tmp_path):
    logits, y = drawn(rows=300, classes=5)
    y[y == 2] = 0
    file = tmp_path / "page.html"
    file.write_text(report_page.page(made(logits, y)), encoding="utf-8")
    browser.open(file)
    for _ in range(2):
        browser.all(".sortable thead button")[3].click()
        found = column(browser, 3)
        assert np.isnan(found[-1])
        assert not np.isnan(found[:-1]).any()


def test_without_scripts_it_says_the_same(browser, opened):
    browser.open(opened("few"))
    with_scripts = browser.one("main").text
    try:
        browser.command("Emulation.setScriptExecutionDisabled", {"value": True})
        browser.driver.refresh()
        without = browser.one("main").text
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", {"value": False})
    assert without == with_scripts


def test_it_is_printed(browser, opened):
    browser.open(opened("table", "ko"))
    pages = len(re.findall(rb"/Type\s*/Page\b", browser.pdf()))
    assert 2 <= pages <= 6


def test_headings_go_down_step_by_step(browser, opened):
    browser.open(opened("table"))
    levels = browser.js("return [...document.querySelectorAll('h1,h2,h3')].map(x => +x.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) <= 1


@pytest.mark.parametrize("rows", [1, 12])
def test_few_rows_have_a_page_that_says_so(rows):
    logits, y = drawn(rows=200)
    html = report_page.page(made(logits[:rows], y[:rows] * 0))
    assert f"Gather more rows: {rows} are few to tell from." in html
    assert "There are too few rows for prediction sets." in html


def test_infinity_is_written_as_such():
    logits, y = drawn(rows=200)
    logits[0, y[0]] = -np.inf
    html = report_page.page(made(logits, y))
    assert "The log loss is infinite" in html
    assert "<strong>∞</strong>" in html


@pytest.mark.parametrize("classes", [2, 150])
def test_a_page_of_many_classes_is_small(classes):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, classes)).astype(np.float32)  # all confused with all
    y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    names = [f"a class with a long name {i}" for i in range(classes)]
    html = report_page.page(made(logits, np.array(names)[y], classes=names))
    assert len(html.encode()) < 1_000_000


def test_it_is_the_same_page_each_time():
    report = overconfident()
    assert report_page.page(report) == report_page.page(report)
    again = re.search(r'id="data">(.*?)</script>', report_page.page(report), re.S)[1]
    assert json.loads(again) == json.loads(json.dumps(report.to_dict()))
    assert SOURCE[0] in report_page.page(report)
