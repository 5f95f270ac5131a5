"""The page of `softly explain` in a browser: what it shows, what can be moved, and for whom."""

import json
import math
import re
from pathlib import Path

import pytest

from softly import explaining
from softly.explaining import number, percent
from softly.explanation import explain

THREE = explain([2.0, 1.0, 0.1], classes=["cat", "dog", "bird"], true="cat")
TWO = explain([1.0, -1.0], classes=["고양이", "개"], temperature=0.5)
HOSTILE = ["<script>alert(1)</script>", "</script><!--", "\"'&", "x" * 200, "مرحبا", "강아지"]


@pytest.fixture
def show(browser, tmp_path):
    """The page of an explanation, opened; its console must stay silent, its network too."""

    def show(explanation, language="en", **window):
        file = tmp_path / "page.html"
        file.write_text(explaining.page(explanation, language), encoding="utf-8")
        browser.open(file, **window)
        return browser

    yield show
    assert browser.logs() == ([], [])


def texts(page, selector):
    return page.js(
        "return [...document.querySelectorAll(arguments[0])].map(x => x.textContent)", selector
    )


def values(page, selector):
    return page.js(
        "return [...document.querySelectorAll(arguments[0])].map(x => x.value)", selector
    )


def shares(page):
    """The probabilities as their bars have them."""
    return page.js(
        "return [...document.querySelectorAll('#classes .fill')]"
        ".map(x => Number(x.style.getPropertyValue('--share')))"
    )


def score(text):
    return float(text.replace("∞", "inf"))


def parted(html):
    """What stands around a page's data, and the data."""
    before, data, after = re.split(r'(?<=id="data">)(.*?)(?=</script>)', html, flags=re.S)
    return before + after, json.loads(data, parse_float=lambda digits: round(float(digits), 9))


def test_the_page_in_docs_is_the_one_of_today():
    """Its data but for the last digits, which are the processor's."""
    docs = Path(__file__).parent.parent / "docs"
    kept, said = parted((docs / "explain.html").read_text(encoding="utf-8"))
    today, now = parted(explaining.page(THREE))
    again = (
        "softly explain 2.0 1.0 0.1 --classes cat,dog,bird --true cat --output docs/explain.html"
    )
    assert kept == today, f"it has changed: {again}"
    assert said == now, again


# --- the same numbers as Python's -----------------------------------------------


STARTS = {
    "three": THREE,
    "two": TWO,
    "one": explain([7.0]),
    "tied": explain([0.0] * 16 + [-1.0], temperature=3.0),
    "thirds": explain([0.1 + 0.2, -1e-5, 1 / 3], temperature=0.7, true="B"),
    "far apart": explain([1e6, 3.0, -40.0], true="C"),
    "far below": explain([0.0, -20.0, -30.0, -400.0], true="B"),
    "infinite": explain([math.inf, math.inf, -math.inf, 3.0], true="A"),
    "impossible": explain([0.0, -math.inf], true="B"),
    "many": explain([i / 1000 for i in range(10_000)], true="7"),
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("language", ["en", "ko"])
def test_every_number_is_that_of_the_data(show, start, language):
    found = STARTS[start]
    page = show(found, language)
    data = page.data()
    said, shown = data["explanation"], data["shown"]
    assert said == found.to_dict()

    def of(name):
        return [float(said[name][i]) for i in shown]

    rows = "#classes [data-index]"
    assert values(page, f"{rows} .name input") == [said["classes"][i] for i in shown]
    fields = [score(value) for value in values(page, f"{rows} .field")]
    assert fields == pytest.approx(of("scores"), rel=1e-4)
    assert score(values(page, "#temperature-field")[0]) == said["temperature"]
    assert texts(page, f"{rows} .exp") == [number(e) for e in of("exponentials")]
    assert texts(page, f"{rows} .percent") == [percent(p) for p in of("probabilities")]
    assert texts(page, "#total") == [number(said["sum_of_exponentials"])]
    assert texts(page, "#whole") == ["100%"]
    assert texts(page, "#verdict") == [explaining.verdict(found, language)]
    assert number(said["perplexity"], 2) in texts(page, "#perplexity")[0]
    best = said["classes"].index(said["chosen"])
    # Infinity less infinity is no number: the limit has no line for it.
    first = 3 if math.isfinite(max(found.scores)) else 2
    numerator, total, p = texts(page, f"#formula math:nth-child(n + {first}) mn")
    assert numerator == number(said["exponentials"][best])
    assert total == number(said["sum_of_exponentials"])
    assert p == number(said["probabilities"][best])
    sentences = explaining._sentences(found, data["texts"])
    assert page.one("#sigmoid").is_displayed() == bool(said["sigmoid"])
    assert page.one("#loss").is_displayed() == bool(said["cross_entropy"])
    if said["sigmoid"]:
        assert texts(page, "#sigmoid-sentence")[0] in sentences
    if said["cross_entropy"]:
        assert texts(page, "#loss-sentence")[0] in sentences
        gradient = said["cross_entropy"]["gradient_of_scaled_scores"]
        assert texts(page, "#gradient .number") == [number(gradient[i]) for i in shown]


def test_of_very_many_the_others_are_added_up(show):
    page = show(STARTS["many"])
    said, shown = page.data()["explanation"], page.data()["shown"]
    rest = [i for i in range(10_000) if i not in shown]
    assert texts(page, "#others .name") == [f"{len(rest):,} others"]
    assert texts(page, "#others .percent") == [
        percent(math.fsum(said["probabilities"][i] for i in rest))
    ]
    assert texts(page, "#others .exp") == [number(math.fsum(said["exponentials"][i] for i in rest))]
    page.one("[data-index] .bar").send_keys("\ue010")  # the End key: as much as there can be
    assert texts(page, "#classes .percent")[0] == "99.90%"
    assert sum(shares(page)) == pytest.approx(1)


# --- what can be moved ----------------------------------------------------------


RIGHT, LEFT, UP, HOME = "\ue014", "\ue012", "\ue013", "\ue011"


def test_arrows_move_scores_and_the_sum_stays_one(show):
    page = show(THREE)
    slider = page.all(".score")[1]
    for _ in range(15):
        slider.send_keys(RIGHT)
    now = explain([2.0, 2.5, 0.1], classes=["cat", "dog", "bird"], true="cat")
    assert values(page, ".field")[2] == "2.5"  # after those of the temperature and the cat
    assert texts(page, "#classes .percent") == [percent(p) for p in now.probabilities]
    assert texts(page, "#verdict") == [explaining.verdict(now)]
    assert texts(page, "#loss-sentence")[0].endswith(f"{number(now.cross_entropy.value)}.")
    assert sum(shares(page)) == pytest.approx(1, abs=1e-12)
    assert texts(page, "#whole") == ["100%"]
    assert texts(page, "#formula mtext")[0] == "dog"  # the class that is being looked at


def test_the_temperature_by_arrow_and_by_number(show):
    page = show(THREE)
    slider, field = page.one("#temperature"), page.one("#temperature-field")
    for _ in range(10):
        slider.send_keys(LEFT)
    assert field.get_attribute("value") == "0.5"
    sharper = explain([2.0, 1.0, 0.1], temperature=0.5).probabilities
    assert texts(page, "#classes .percent") == [percent(p) for p in sharper]
    field.clear()
    field.send_keys("3\ue007")
    flatter = explain([2.0, 1.0, 0.1], temperature=3).probabilities
    assert texts(page, "#classes .percent") == [percent(p) for p in flatter]
    for wrong in ("0", "-1", "inf", "hot", ""):
        field.clear()
        field.send_keys(f"{wrong}\ue007")
        assert field.get_attribute("aria-invalid") == "true"
        assert texts(page, "#classes .percent") == [percent(p) for p in flatter]


def test_a_probability_is_dragged_and_the_others_keep_their_proportions(show):
    from selenium.webdriver import ActionChains

    page = show(THREE)
    bar = page.all(".bar")[2]
    width = bar.size["width"]
    # from 10 % of its width to 60 %, by the pointer; offsets are from the middle
    ActionChains(page.driver).move_to_element_with_offset(
        bar, round(-0.4 * width), 0
    ).click_and_hold().move_by_offset(round(0.5 * width), 0).release().perform()
    p = shares(page)
    assert p[2] == pytest.approx(0.6, abs=0.01)
    assert p[0] / p[1] == pytest.approx(math.e)
    assert sum(p) == pytest.approx(1)
    assert "bird" in texts(page, "#verdict")[0]
    ActionChains(page.driver).move_to_element(page.all(".bar")[0]).perform()
    assert shares(page) == p  # it was let go


def test_a_probability_by_keyboard(show):
    page = show(explain([2.0, 1.0, 0.1], temperature=0.5))
    bar = page.all(".bar")[1]
    before = shares(page)[1]
    bar.send_keys(UP)
    assert shares(page)[1] == pytest.approx(before + 0.01, abs=1e-4)
    bar.send_keys("\ue00e")  # Page Up
    assert shares(page)[1] == pytest.approx(before + 0.11, abs=1e-4)
    assert bar.get_attribute("aria-valuetext") == texts(page, "#classes .percent")[1]
    bar.send_keys(HOME)
    assert shares(page)[1] == pytest.approx(0.001, abs=1e-4)
    assert sum(shares(page)) == pytest.approx(1)


def test_scores_are_written_too_and_wrong_ones_change_nothing(show):
    page = show(TWO, "ko")
    first, second = page.all("#classes .field")

    def write(field, text):
        field.clear()
        field.send_keys(f"{text}\ue007")

    write(first, "-inf")
    assert texts(page, "#classes .percent") == ["0%", "100%"]
    write(second, "-inf")  # or no class would be left
    assert second.get_attribute("aria-invalid") == "true"
    write(second, "one")
    assert texts(page, "#classes .percent") == ["0%", "100%"]
    write(second, "40")
    assert second.get_attribute("aria-invalid") == "false"
    write(first, "39.5")  # beyond the slider's ends, which make room
    assert float(page.one(".score").get_attribute("max")) == 40
    assert texts(page, "#classes .percent") == ["26.89%", "73.11%"]  # T is 0.5
    assert "sigmoid(−1.0000) = 26.89%" in texts(page, "#sigmoid-sentence")[0]


def test_the_point_lies_on_the_sigmoid(show):
    page = show(TWO)

    def point():
        circle = page.one("#point")
        x, y = (float(circle.get_attribute(name)) for name in ("cx", "cy"))
        return (x - 40) / 348 * 12 - 6, (190 - y) / 170

    assert point() == pytest.approx((4.0, 1 / (1 + math.exp(-4))))
    for _ in range(20):
        page.one(".score").send_keys(LEFT)
    assert point() == pytest.approx((0.0, 0.5), abs=1e-9)


def test_classes_come_go_and_are_renamed(show):
    page = show(THREE)
    page.one("#add").click()
    assert values(page, ".name input") == ["cat", "dog", "bird", "A"]
    assert page.js("return document.activeElement.value") == "A"
    page.driver.switch_to.active_element.send_keys("<b>fish")
    assert "<b>fish" in texts(page, "#truth option")
    assert sum(shares(page)) == pytest.approx(1)
    page.all(".remove")[0].click()  # the true one
    assert values(page, ".name input") == ["dog", "bird", "<b>fish"]
    assert not page.one("#loss").is_displayed()
    assert page.js("return document.activeElement.ariaLabel") == "Remove dog"
    page.one("#truth option:last-child").click()
    for _ in range(2):
        page.all(".remove")[0].click()
    assert texts(page, "#loss-sentence")[0].startswith("If <b>fish is true")
    assert not page.one(".remove").is_enabled()
    assert texts(page, "#verdict")[0].startswith("Chosen: <b>fish. It is the only class")
    page.one("#reset").click()
    assert texts(page, "#verdict") == [explaining.verdict(THREE)]
    assert page.one("#loss").is_displayed()


def test_a_true_class_is_chosen(show):
    page = show(explain([2.0, 1.0, 0.1]))
    assert not page.one("#loss").is_displayed()
    page.one("#truth option:nth-child(3)").click()
    known = explain([2.0, 1.0, 0.1], true="B").cross_entropy
    assert f"= {number(known.value)}." in texts(page, "#loss-sentence")[0]
    assert texts(page, "#gradient .number") == [number(g) for g in known.gradient_of_scaled_scores]


# --- for everyone ---------------------------------------------------------------


def test_names_are_text_everywhere(show):
    found = explain([3.0, 2.0, 1.0, 0.0, -1.0, -2.0], classes=HOSTILE, true=HOSTILE[1])
    page = show(found, width=360)
    assert values(page, ".name input") == HOSTILE
    assert page.data()["explanation"]["classes"] == HOSTILE
    assert texts(page, "#verdict") == [explaining.verdict(found)]
    assert page.js("return document.scripts.length") == 2  # the data and the page's own
    assert page.all("#classes .name input")[3].get_attribute("title") == HOSTILE[3]
    assert page.overflow() <= 0
    assert page.violations() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_axe_finds_no_fault(show, language, dark):
    for explanation, width in ((THREE, 1000), (TWO, 360), (STARTS["many"], 800)):
        page = show(explanation, language, width=width, dark=dark)
        assert page.js("return document.documentElement.lang") == language
        assert page.violations() == []


def test_light_and_dark_differ(show):
    background = "return getComputedStyle(document.body).backgroundColor"
    light = show(THREE).js(background)
    assert show(THREE, dark=True).js(background) != light


@pytest.mark.parametrize("width", [360, 800, 1600])
@pytest.mark.parametrize("start", ["three", "two", "far apart", "far below", "many"])
def test_nothing_lies_beyond_the_side(show, start, width):
    for language in ("en", "ko"):
        page = show(STARTS[start], language, width=width)
        assert page.overflow() <= 0
        assert cut_off(page) == []


def cut_off(page):
    """Numbers and sentences that their boxes are too small for."""
    return page.js(
        "return [...document.querySelectorAll('.number:not(input), p, h1, h2, math')]"
        ".filter(x => x.checkVisibility() && !x.classList.contains('visually-hidden'))"
        ".filter(x => x.scrollWidth > x.clientWidth + 1 && x.clientWidth > 0"
        "  || x.getBoundingClientRect().right > window.innerWidth + 1)"
        ".map(x => x.textContent)"
    )


def test_everything_is_reached_by_tab(show):
    page = show(TWO)
    reached = []
    for _ in range(30):
        page.driver.switch_to.active_element.send_keys("\ue004")
        reached.append(
            page.js(
                "const x = document.activeElement;"
                "return x.id || x.ariaLabel || (x === document.body ? 'the end' : x.outerHTML)"
            )
        )
        if reached[-1] == "the end":
            break
    parts = (
        "Name of class {0}",
        "Score of {1}",
        "Score of {1}, as a number",
        "Probability of {1}",
        "Remove {1}",
    )
    cat, dog = ([part.format(*of) for part in parts] for of in ((1, "고양이"), (2, "개")))
    expected = ["temperature", "temperature-field", *cat, *dog, "add", "reset", "truth"]
    assert reached[: len(expected)] == expected


def test_it_prints_on_one_page_of_a4(show):
    for explanation in (THREE, TWO):
        page = show(explanation)
        pdf = page.pdf()
        width, height = map(
            float, re.search(rb"/MediaBox ?\[0 0 ([\d.]+) ([\d.]+)\]", pdf).groups()
        )
        assert (round(width), round(height)) == (595, 842)  # points
        assert len(re.findall(rb"/Type /Page\b", pdf)) == 1
        page.resize(672)  # 178 mm, between the margins
        page.command("Emulation.setEmulatedMedia", {"media": "print"})
        assert page.overflow() <= 0
        assert cut_off(page) == []
        assert not page.one("#add").is_displayed()
        page.command("Emulation.setEmulatedMedia", {"media": ""})


def test_without_a_script_the_numbers_are_there(show, browser):
    browser.command("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page = show(THREE)
        shown = page.one("noscript table").text
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", {"value": False})
    for text in ("cat", "2.0", "1.0000", "65.90%", "bird", "1.5174"):
        assert text in shown
