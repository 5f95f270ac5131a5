"""softly report as its users meet it: what it writes, what it refuses, and in how many words."""

import json
import re

import numpy as np
import polars as pl
import pytest

from softly.languages import texts
from test_cli import birds, run, shop  # noqa: F401  (fixtures)
from test_report_data import drawn


@pytest.fixture
def arrays(tmp_path):
    """Logits and labels in the folder that the command runs in."""
    logits, y = drawn(rows=400, scale=2.5)
    np.save(tmp_path / "l.npy", logits)
    np.save(tmp_path / "y.npy", y)
    return logits, y


OF_ARRAYS = ("report", "--logits", "l.npy", "--labels", "y.npy", "--output", "r.html")


def data_of(path):
    html = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])


def test_a_page_on_a_model(run, shop, tmp_path):  # noqa: F811
    done = run("report", shop / "birds.skops", shop / "birds.csv", "--output", "r.html", "--json")
    assert done.status == 0
    assert done.err == "Wrote r.html\n"
    printed, kept = json.loads(done.out), data_of(tmp_path / "r.html")
    assert printed == kept | {"output": "r.html"}
    assert kept["source"] == ["birds.skops", "birds.csv"]
    evaluated = json.loads(run("evaluate", shop / "birds.skops", shop / "birds.csv", "--json").out)
    for name, score in kept["measures"].items():
        assert score["value"] == pytest.approx(evaluated["model"][name])
        assert score["low"] <= score["value"] <= score["high"]
    for name in ("accuracy", "log_loss", "brier_score"):
        assert kept["guessing"][name] == pytest.approx(evaluated["guessing"][name])
    shown = kept["confusion"]["shown"]
    counts = np.array(evaluated["confusion"])[np.ix_(shown, shown)]
    assert kept["confusion"]["counts"] == counts.tolist()


def test_a_page_on_logits_of_any_model(run, arrays, tmp_path):  # noqa: F811
    done = run(*OF_ARRAYS, "--classes", "0,1,2,3", "--lang", "ko")
    assert (done.status, done.out, done.err) == (0, "", "Wrote r.html\n")
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert texts("ko")["report.section.believed"] in html
    by_logits = data_of(tmp_path / "r.html")
    logits, _ = arrays
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.save("p.npy", p / p.sum(axis=1, keepdims=True))
    arguments = [x.replace("l.npy", "p.npy") for x in OF_ARRAYS]
    assert run(*arguments, "--probabilities").status == 0
    by_probabilities = data_of(tmp_path / "r.html")
    for name, score in by_logits["measures"].items():
        assert by_probabilities["measures"][name]["value"] == pytest.approx(score["value"])


def test_numbered_classes_may_be_given_names(run, arrays, tmp_path):  # noqa: F811
    assert run(*OF_ARRAYS).status == 0
    by_number = data_of(tmp_path / "r.html")
    assert run(*OF_ARRAYS, "--classes", "owl, <i>hawk</i>,tit,roc").status == 0
    by_name = data_of(tmp_path / "r.html")
    assert by_name["classes"] == ["owl", "<i>hawk</i>", "tit", "roc"]
    assert by_name["measures"] == by_number["measures"]
    assert by_name["confusion"]["counts"] == by_number["confusion"]["counts"]


def test_what_cannot_be_scored_is_counted(run, shop, tmp_path):  # noqa: F811
    kind = pl.Series(["eagle", None, "<b>ostrich</b>", "finch"] * 10)
    birds(40).with_columns(kind=kind).write_csv("new.csv")
    assert run("report", shop / "birds.skops", "new.csv", "--output", "r.html").status == 0
    kept = data_of(tmp_path / "r.html")
    assert (kept["rows"], kept["unlabelled"], kept["unknown_rows"]) == (20, 10, 10)
    assert kept["unknown"] == {"<b>ostrich</b>": 10}
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Rows without a label, left out: 10." in html
    assert "left out: 10 (<bdi>&lt;b&gt;ostrich&lt;/b&gt;</bdi>)." in html


def test_one_row_is_a_report_that_says_how_little_it_tells(run, shop, tmp_path):  # noqa: F811
    birds(1).write_csv("one.csv")
    done = run("report", shop / "birds.skops", "one.csv", "--output", "r.html")
    assert (done.status, done.err) == (0, "Wrote r.html\n")
    assert data_of(tmp_path / "r.html")["rows"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing option '--output'"),
        (("--output", "r.html"), "give a model and a table, or --logits FILE and --labels FILE"),
        (("MODEL", "--output", "r.html"), "a model is given, but no table"),
        (("MODEL", "DATA", "--output", "r.txt"), "'r.txt' needs a name that ends in .html"),
        (("MODEL", "DATA", "--output", "no/r.html"), "there is no folder"),
        (("MODEL", "DATA", "--output", "r.html", "--lang", "xx"), "choose one of en, ko"),
        (("MODEL", "DATA", "--output", "r.html", "--logits", "l.npy"), "about one of them"),
        (("MODEL", "DATA", "--output", "r.html", "--labels", "y.npy"), "go with --logits"),
        (("MODEL", "DATA", "--output", "r.html", "--probabilities"), "go with --logits"),
        (("--output", "r.html", "--logits", "l.npy"), "not the true classes: --labels FILE"),
        (("MODEL", "bare.csv", "--output", "r.html"), "there is no column 'kind' in the table"),
        (("MODEL", "new.csv", "--output", "r.html"), "no row can be scored"),
        (("MODEL", "blank.csv", "--output", "r.html"), "no row can be scored"),
        (("no.skops", "DATA", "--output", "r.html"), "there is no model file 'no.skops'"),
        (("MODEL", "no.csv", "--output", "r.html"), "no.csv"),
        ((*OF_ARRAYS[1:4], "no.npy", *OF_ARRAYS[5:]), "there is no file 'no.npy'"),
        ((*OF_ARRAYS[1:4], "bare.csv", *OF_ARRAYS[5:]), "'bare.csv' holds no array"),
        ((*OF_ARRAYS[1:4], "short.npy", *OF_ARRAYS[5:]), "but (400,) is needed"),
        ((*OF_ARRAYS[1:], "--probabilities"), "leave out --probabilities"),
        ((*OF_ARRAYS[1:], "--classes", "a,b,c"), "the 3 classes that are named"),
        ((*OF_ARRAYS[1:], "--classes", "0,1"), "2 different labels, but the logits have 4"),
        (("--logits", "nan.npy", *OF_ARRAYS[3:]), "holds NaN, in 1 of 400 rows"),
        (("--logits", "p.npy", *OF_ARRAYS[3:]), "say --probabilities, if that is what they are"),
    ],
)
def test_what_makes_no_report_is_one_sentence(run, shop, arrays, arguments, said):  # noqa: F811
    logits, y = arrays
    birds().drop("kind").write_csv("bare.csv")
    birds().with_columns(kind=pl.lit("ostrich")).write_csv("new.csv")
    birds().with_columns(kind=pl.lit(None, pl.String)).write_csv("blank.csv")
    np.save("short.npy", y[:-1])
    np.save("nan.npy", np.where(np.arange(1600).reshape(400, 4) == 9, np.nan, logits))
    p = np.exp(logits)
    np.save("p.npy", p / p.sum(axis=1, keepdims=True))
    named = {"MODEL": shop / "birds.skops", "DATA": shop / "birds.csv"}
    done = run("report", *(named.get(x, x) for x in arguments))
    assert done.status == 2
    assert said in done.sentence
    assert done.out == ""


def test_a_report_that_fails_leaves_the_old_one(run, arrays, tmp_path, monkeypatch):  # noqa: F811
    from softly import report_page

    (tmp_path / "r.html").write_text("old")
    before = sorted(p.name for p in tmp_path.iterdir())

    def broken(*_):
        raise MemoryError

    monkeypatch.setattr(report_page, "page", broken)
    assert run(*OF_ARRAYS).status == 1
    assert (tmp_path / "r.html").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_table_is_not_written_over(run, shop, tmp_path):  # noqa: F811
    birds().write_csv("data.html", separator=",")
    done = run("report", shop / "birds.skops", "data.html", "--output", "data.html")
    assert "write it somewhere else" in done.sentence
    assert (tmp_path / "data.html").read_text().startswith("mass,")
