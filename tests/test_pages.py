"""What every page has: text that stays text, data that stays data, scripts that are named."""

import json
import re

import pytest

from softly import pages

HOSTILE = "<script>alert(1)</script><!-- ' \" & \u2028 한국어"


@pytest.fixture
def page(monkeypatch, tmp_path):
    """A template of the tests' own beside the real ones."""
    for file in pages._FOLDER.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "tiny.html").write_text(
        '{% extends "base.html" %}{% set scripts = ["tiny.js"] %}'
        "{% block title %}{{ name }}{% endblock %}"
        '{% block main %}<h1 title="{{ name }}">{{ name }}</h1>{% endblock %}'
    )
    (tmp_path / "tiny.js").write_text("document.body.dataset.ran = '{{ no template }}';")
    monkeypatch.setattr(pages, "_FOLDER", tmp_path)
    pages._environment.cache_clear()
    yield lambda language="en", **context: pages.render("tiny.html", language, **context)
    pages._environment.cache_clear()


def test_names_with_markup_are_text_everywhere(page):
    html = page(name=HOSTILE, data={"name": HOSTILE})
    assert html.count("<script") == html.count("</script>") == 2
    assert "<!--" not in html
    data = re.search(r'id="data">(.*?)</script>', html, re.S)[1]
    assert json.loads(data) == {"name": HOSTILE}


def test_numbers_that_json_does_not_have_are_refused(page):
    with pytest.raises(ValueError, match="not JSON compliant"):
        page(name="", data=[float("nan")])


def test_a_page_names_its_language(page):
    assert '<html lang="ko" dir="ltr">' in page("ko", name="")
    with pytest.raises(ValueError, match="choose one of en, ko"):
        page("xx", name="")


def test_its_own_scripts_run_and_no_others(page, browser, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(page(name=HOSTILE, data={"name": HOSTILE}), encoding="utf-8")
    browser.open(file)
    assert browser.one("body").get_attribute("data-ran") == "{{ no template }}"
    assert browser.one("h1").text.startswith("<script>alert(1)</script><!--")
    assert browser.data() == {"name": HOSTILE}
    assert browser.violations() == []
    assert browser.pdf().startswith(b"%PDF")
    assert browser.logs() == ([], [])
    file.write_text(file.read_text().replace("</main>", "<script>alert(1)</script></main>"))
    browser.open(file)
    assert "Content Security Policy" in browser.logs()[0][0]
    browser.js("new Image().src = 'http://localhost:9/x'; fetch('http://localhost:9/y')")
    said = [line for line in browser.logs()[0] if "Content Security Policy" in line]
    for address in ("http://localhost:9/x", "http://localhost:9/y"):
        assert any(address in line for line in said), said
