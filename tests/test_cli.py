"""The command as its users meet it: what it answers, what it refuses, and in how many words."""

import io
import json
import os
import pty
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

import softly
from softly import cli

CLASSES = ("eagle", "finch", "gull")


def birds(rows=150, seed=0, classes=CLASSES):
    """A table with a column of every kind and missing cells in all of them but the target."""
    rng = np.random.default_rng(seed)
    kind = np.arange(rows) % len(classes)
    words = ("sharp claws over rocks", "sings in green hedges", "white wings near waves")
    frame = pl.DataFrame(
        {
            "mass": np.round(rng.normal(2.0 * kind, 1.0), 3),
            "eggs": rng.integers(1, 9, rows) + kind,
            "island": np.array(["north", "south", "west"])[(kind + rng.integers(0, 2, rows)) % 3],
            "ringed": np.array(["yes", "no"])[rng.integers(0, 2, rows)],
            "seen": [f"20{10 + i % 9}-0{1 + i % 9}-1{i % 9}" for i in range(rows)],
            "remark": [
                f"{words[k % 3]} {'often' * (i % 2)} no {i % 40}" for i, k in enumerate(kind)
            ],
            "kind": [classes[k] for k in kind],
        }
    )
    holes = rng.random((rows, 6)) < 0.05
    return frame.with_columns(
        pl.when(pl.Series(holes[:, j])).then(None).otherwise(pl.col(name)).alias(name)
        for j, name in enumerate(frame.columns[:6])
    )


SMALL = "mass,island,kind\n" + "".join(
    f"{i % 7 + 3 * (i % 2)},{'north' if i % 3 else 'south'},{'eagle' if i % 2 else 'finch'}\n"
    for i in range(60)
)


class Done(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def sentence(self):
        """The one line that says what is wrong, the only one that begins so."""
        lines = self.err.splitlines()
        assert [line.startswith("softly: ") for line in lines].count(True) == 1, self.err
        assert lines[-1].startswith("softly: "), self.err
        assert all(line.startswith(("Read ", "Trained: ", "Note: ")) for line in lines[:-1])
        assert "Traceback" not in self.err
        return lines[-1].removeprefix("softly: ")


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run the command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["softly", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        try:
            cli.main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        out, err = capsys.readouterr()
        return Done(status, out, err)

    return run


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with models: `birds.skops` of three classes, `small.skops` of two."""
    folder = tmp_path_factory.mktemp("shop")
    for name, frame in (
        ("birds", birds()),
        ("small", pl.read_csv(io.StringIO(SMALL))),
    ):
        frame.write_csv(folder / f"{name}.csv")
        from softly import models, tables, training

        read = pl.read_csv(folder / f"{name}.csv")
        prepared = training.prepare(read, tables.infer(read, "kind"))
        models.save(training.fit(prepared).model, folder / f"{name}.skops")
    return folder


def process(*arguments, **options):
    """Run the command in a process of its own, for what only a process has."""
    # Buffered, as users run it: an unbuffered output finds a full disk too early.
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(
        [sys.executable, "-m", "softly.cli", *map(str, arguments)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": plain}
        | options,
    )


def files_in(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


# --- train ---------------------------------------------------------------------


def test_train_says_what_it_did_and_predict_and_evaluate_follow(run, tmp_path):
    birds().write_csv("birds.csv")
    done = run("train", "birds.csv", "--target", "kind", "--model", "m.skops")
    assert done.status == 0
    assert done.err.splitlines()[0] == "Read 150 rows and 7 columns from birds.csv"
    assert re.search(r"^Trained: pass \d+, loss 0\.\d+$", done.err, re.M)
    assert done.err.splitlines()[-1] == "Wrote m.skops"
    assert "Trained on 120 rows, 6 columns and 3 classes of 'kind'." in done.out
    for word in ("accuracy", "log loss", "Brier score", "calibration error", "guessing"):
        assert word in done.out
    assert "true \\ predicted" in done.out
    assert "weighs most" in done.out
    answered = run("predict", "m.skops", "birds.csv", "--output", "a.csv")
    assert answered == Done(0, "", "")
    answers = pl.read_csv("a.csv")
    assert answers.columns == ["prediction", "probability", "p_eagle", "p_finch", "p_gull"]
    assert answers.height == 150
    scored = run("evaluate", "m.skops", "birds.csv", "--json")
    right = (answers["prediction"] == birds()["kind"]).mean()
    assert json.loads(scored.out)["model"]["accuracy"] == pytest.approx(right)
    assert right > 0.9


REFUSED = {
    "absent": (None, [], "there is no file 'data.csv'"),
    "empty": ("", [], "'data.csv' is empty"),
    "header": ("mass,island,kind\n", [], "holds a header but no rows"),
    "target": (SMALL, ["--target", "Kinds"], "there is no column 'Kinds': did you mean 'kind'?"),
    "one class": (SMALL.replace("finch", "eagle"), [], "holds one class only ('eagle')"),
    "one row": (SMALL + "1,north,gull\n", [], "class 'gull' of the target 'kind' has one row only"),
    "all missing": ("mass,kind\n1,\n2,NA\n", [], "the target 'kind' is missing in every row"),
    "constant": ("mass,kind\n" + "1,eagle\n1,finch\n" * 30, [], "no column is left"),
    "few cells": (SMALL + "1,north\n", [], "'data.csv', line 62 has 2 cells"),
    "many cells": (SMALL + "1,north,finch,1\n", [], "'data.csv', line 62 has 4 cells"),
    "binary": (b"\0\1\2\3" * 500, [], "it holds binary data"),
    "twice": (SMALL.replace("island", "mass"), [], "2 columns named 'mass'"),
    "few rows": ("mass,kind\n1,a\n2,b\n3,a\n4,b\n", [], "4 rows are too few to hold out 20%"),
    "class lost": (
        SMALL + "1,north,gull\n2,south,gull\n",
        ["--test-size", "0.9"],
        "leaves no row of class 'gull'",
    ),
    "column type": (SMALL, ["--column", "mass=colour"], "there is no column type 'colour'"),
    "column name": (SMALL, ["--column", "masss=number"], "did you mean 'mass'?"),
    "column form": (SMALL, ["--column", "nonsense"], "nonsense is not of the form NAME=TYPE"),
    "column words": (SMALL, ["--column", "island=number"], "'island' cannot be a number: row 1"),
    "drop": (SMALL, ["--drop", "islnd"], "did you mean 'island'?"),
    "drop all": (SMALL, ["--drop", "mass", "--drop", "island"], "no column is left"),
    "ending": (SMALL, ["--model", "data.csv"], "needs a name that ends in .skops"),
    "folder": (SMALL, ["--model", "none/m.skops"], "there is no folder"),
    "share": (SMALL, ["--test-size", "2"], "2 was given, but a number from 0.01 to 0.9"),
    "share nan": (SMALL, ["--test-size", "nan"], "nan was given"),
    "share words": (SMALL, ["--test-size", "some"], "--test-size"),
    "C 0": (SMALL, ["--C", "0"], "0 was given, but a number above 0 is needed"),
    "C nan": (SMALL, ["--C", "nan"], "nan was given, but a number above 0"),
    "iterations": (SMALL, ["--max-iter", "0"], "a whole number from 1 up"),
    "seed": (SMALL, ["--seed", "-1"], "a whole number from 0"),
    "option": (SMALL, ["--nonsense"], "--nonsense"),
    "test absent": (SMALL, ["--test", "t.csv"], "there is no file 't.csv'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_train_refuses_with_one_sentence_and_writes_nothing(run, tmp_path, case):
    text, options, words = REFUSED[case]
    (tmp_path / "m.skops").write_bytes(b"the old model")
    if text is not None:
        (tmp_path / "data.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    before = files_in(tmp_path)
    named = ["--target", "kind", "--model", "m.skops"]
    done = run("train", "data.csv", *named, *options)
    assert done.status == 2
    assert words in done.sentence
    assert done.out == ""
    assert files_in(tmp_path) == before


def test_train_needs_a_model_and_a_target(run, tmp_path):
    (tmp_path / "data.csv").write_text(SMALL)
    assert "--model FILE.skops" in run("train", "data.csv", "--target", "kind").sentence
    assert "'--target'" in run("train", "data.csv", "--model", "m.skops").sentence
    assert "'data'" in run("train", "--target", "kind", "--model", "m.skops").sentence
    assert "'nonsense'" in run("nonsense").sentence


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ("mass,island\n1,north\n", "there is no column 'kind'"),
        ("mass,kind\n1,finch\n", "lacks columns the model was trained with: 'island'"),
        ("mass,island,kind\nheavy,north,finch\n", "row 1 holds 'heavy'"),
        ("mass,island,kind\n1,north,gull\n", "no row of the --test table has a class of 'kind'"),
    ],
)
def test_an_unfit_test_table_is_refused_before_the_fit(run, tmp_path, test, words):
    (tmp_path / "data.csv").write_text(SMALL)
    (tmp_path / "t.csv").write_text(test)
    named = ("--target", "kind", "--model", "m.skops", "--test", "t.csv")
    done = run("train", "data.csv", *named)
    assert done.status == 2
    assert words in done.sentence
    assert "--test table" in done.sentence
    assert "Trained" not in done.err


def test_a_test_table_is_scored_and_all_other_rows_are_trained_on(run, tmp_path):
    (tmp_path / "data.csv").write_text(SMALL)
    (tmp_path / "t.csv").write_text(SMALL + "1,north,gull\n2,north,\n")
    named = ("--target", "kind", "--model", "m.skops", "--test", "t.csv")
    fields = json.loads(run("train", "data.csv", *named, "--json").out)
    assert fields["rows"] == 60
    assert fields["held_out"]["rows"] == 60
    assert fields["held_out"]["unknown"] == {"gull": 1}
    assert fields["held_out"]["unlabelled"] == 1


def test_rows_without_a_target_are_counted_and_left_out(run, tmp_path):
    (tmp_path / "data.csv").write_text(SMALL + "1,north,\n2,south,NA\n")
    done = run("train", "data.csv", "--target", "kind", "--model", "m.skops")
    assert done.status == 0
    assert "2 rows without a target, left out of the training." in done.out
    assert "Trained on 48 rows" in done.out


def test_json_alone_on_standard_output(run, tmp_path):
    birds().write_csv("birds.csv")
    named = ("--target", "kind", "--json")
    fields = json.loads(run("train", "birds.csv", *named, "--model", "m.skops").out)
    assert fields["classes"] == list(CLASSES)
    assert sum(fields["frequencies"]) == pytest.approx(1)
    assert set(fields["weights"]) == set(CLASSES)
    columns = json.loads(run("train", "birds.csv", *named, "--show-columns").out)["columns"]
    assert {c["name"]: c["kind"] for c in columns} == {
        "mass": "number",
        "eggs": "number",
        "island": "category",
        "ringed": "yes/no",
        "seen": "datetime",
        "remark": "text",
    }
    assert json.loads(run("info", "--json").out)["versions"]["softly"] == softly.__version__


def test_where_the_model_goes_is_checked_before_any_work(run, tmp_path):
    (tmp_path / "data.csv").write_text(SMALL)
    done = run("train", "data.csv", "--target", "kind", "--model", "none/m.skops")
    assert done.err.startswith("softly: 'none/m.skops' cannot be written: there is no folder")


def test_a_fit_cut_short_says_so(run, tmp_path):
    (tmp_path / "data.csv").write_text(SMALL)
    named = ("--target", "kind", "--model", "m.skops", "--max-iter", "1")
    done = run("train", "data.csv", *named)
    assert done.status == 0
    assert "stopped short of the optimum at --max-iter 1" in done.err


# --- predict -------------------------------------------------------------------


def test_the_same_answers_whatever_the_format(run, shop, tmp_path):
    frame = pl.read_csv(shop / "birds.csv")
    frame.write_csv("t.csv")
    frame.write_csv("t.tsv", separator="\t")
    frame.write_parquet("t.parquet")
    frame.write_ndjson("t.jsonl")
    frame.write_excel("t.xlsx")
    frame.write_ipc("t.arrow")
    wanted = run("predict", shop / "birds.skops", "t.csv").out
    assert wanted.count("\n") == 151
    for ending in ("tsv", "parquet", "jsonl", "xlsx", "arrow"):
        assert run("predict", shop / "birds.skops", f"t.{ending}").out == wanted, ending
    assert run("predict", shop / "birds.skops", "-", stdin=wanted.encode()).status == 2
    piped = run("predict", shop / "birds.skops", "-", stdin=(tmp_path / "t.csv").read_bytes())
    assert piped.out == wanted
    csv_answers = pl.read_csv(io.StringIO(wanted))
    for ending, reader in (("parquet", pl.read_parquet), ("jsonl", pl.read_ndjson)):
        run("predict", shop / "birds.skops", "t.csv", "--output", f"a.{ending}")
        answers = reader(f"a.{ending}")
        assert answers["prediction"].to_list() == csv_answers["prediction"].to_list()
        np.testing.assert_allclose(answers["probability"], csv_answers["probability"], rtol=1e-6)


def test_rows_never_seen_the_like_of_get_an_answer(run, shop, tmp_path):
    rows = [
        "mass,eggs,island,ringed,seen,remark",
        "1.5,3,atlantis,yes,2031-05-05,zebra quagga",
        ",,,,,",
        "NA,?,,NULL,n/a,",
    ]
    (tmp_path / "new.csv").write_text("\n".join(rows) + "\n")
    done = run("predict", shop / "birds.skops", "new.csv")
    assert done.status == 0
    answers = pl.read_csv(io.StringIO(done.out))
    p = answers.select(pl.col("^p_.*$")).to_numpy()
    assert p.shape == (3, 3)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    assert (p[1] == p[2]).all()
    (tmp_path / "one.csv").write_text("\n".join(rows[:2]) + "\n")
    assert run("predict", shop / "birds.skops", "one.csv").out == "".join(
        done.out.splitlines(keepends=True)[:2]
    )


def test_top_k_keeps_the_best(run, shop):
    every = pl.read_csv(io.StringIO(run("predict", shop / "birds.skops", shop / "birds.csv").out))
    best = run("predict", shop / "birds.skops", shop / "birds.csv", "--top-k", "2")
    answers = pl.read_csv(io.StringIO(best.out))
    assert answers.columns == ["prediction", "probability", "prediction_2", "probability_2"]
    p = every.select(pl.col("^p_.*$")).to_numpy()
    order = np.argsort(-p, axis=1)
    np.testing.assert_array_equal(answers["prediction_2"], np.array(CLASSES)[order[:, 1]])
    np.testing.assert_allclose(answers["probability_2"], np.sort(p)[:, 1])
    many = run("predict", shop / "birds.skops", shop / "birds.csv", "--top-k", "9")
    assert many.err == "Note: the model has 3 classes: --top-k 9 gives them all\n"
    assert many.out.splitlines()[0].endswith("prediction_3,probability_3")


def test_kept_columns_come_as_they_were_written(run, shop, tmp_path):
    text = "ring,mass,island,[red]\n007,1.50,north,a\n123456789012345678901,2e0,,[red]\n"
    (tmp_path / "new.csv").write_text(text)
    done = run("predict", shop / "small.skops", "new.csv", "--keep", "ring, mass,island")
    lines = [line.split(",")[:3] for line in done.out.splitlines()]
    wanted = [["007", "1.50", "north"], ["123456789012345678901", "2e0", ""]]
    assert lines == [["ring", "mass", "island"], *wanted]
    assert done.err == "Note: columns the model does not know are ignored: [red]\n"
    kept_or_not = run("predict", shop / "small.skops", "new.csv").out
    assert [line.split(",")[3:] for line in done.out.splitlines()] == [
        line.split(",") for line in kept_or_not.splitlines()
    ]


UNFIT = {
    "words": ("mass,island\n1,north\nheavy,south\n", [], "but row 2 holds 'heavy'"),
    "missing": ("Mass2,island\n1,north\n", [], "trained with: 'mass': did you mean 'Mass2'?"),
    "twice": ("mass,island,kind,kind\n1,north,a,b\n", [], "2 columns named 'kind'"),
    "header": ("mass,island\n", [], "holds a header but no rows"),
    "empty": ("", [], "is empty"),
    "keep": (SMALL, ["--keep", "ring"], "there is no column 'ring' to keep"),
    "keep taken": (
        "mass,island,prediction\n1,north,x\n",
        ["--keep", "prediction"],
        "'prediction' is named as an answer is",
    ),
    "keep p": (
        "mass,island,p_eagle\n1,north,x\n",
        ["--keep", "p_eagle"],
        "'p_eagle' is named as an answer is",
    ),
    "top": (SMALL, ["--top-k", "0"], "a whole number from 1 up is needed"),
    "ending": (SMALL, ["--output", "a.txt"], "must end in one of .csv"),
    "itself": (SMALL, ["--output", "data.csv"], "'data.csv' is the table itself"),
    "folder": (SMALL, ["--output", "none/a.csv"], "there is no folder"),
    "is folder": (SMALL, ["--output", "."], "'.' is a folder"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_predict_refuses_with_one_sentence_and_loses_nothing(run, shop, tmp_path, case):
    text, options, words = UNFIT[case]
    (tmp_path / "data.csv").write_text(text)
    (tmp_path / "a.csv").write_text("old answers")
    before = files_in(tmp_path)
    done = run("predict", shop / "small.skops", "data.csv", "--output", "a.csv", *options)
    assert done.status == 2
    assert words in done.sentence
    assert done.err.count("\n") == 1
    assert files_in(tmp_path) == before


def test_an_error_late_in_a_stream_leaves_the_old_answers(run, shop, tmp_path):
    good = "mass,island\n" + "1,north\n" * 100_000
    (tmp_path / "data.csv").write_text(good + "heavy,north\n")
    (tmp_path / "a.csv").write_text("old answers")
    before = files_in(tmp_path)
    done = run("predict", shop / "small.skops", "data.csv", "--output", "a.csv")
    assert "row 100001 holds 'heavy'" in done.sentence
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_full_disk_is_one_sentence(run, shop, ending):
    os.symlink("/dev/full", f"a.{ending}")
    done = run("predict", shop / "small.skops", shop / "small.csv", "--output", f"a.{ending}")
    assert done.status == 2
    assert f"'a.{ending}' cannot be written: " in done.sentence
    assert "No space left on device" in done.sentence


# --- evaluate ------------------------------------------------------------------


def test_evaluate_names_what_it_leaves_out(run, shop, tmp_path):
    (tmp_path / "t.csv").write_text(SMALL + "1,north,[red]\n2,north,[red]\n3,south,\n")
    done = run("evaluate", shop / "small.skops", "t.csv")
    assert done.status == 0
    assert "2 rows of class '[red]', which the model never saw" in done.out
    assert "1 row without a label, left out" in done.out
    fields = json.loads(run("evaluate", shop / "small.skops", "t.csv", "--json").out)
    assert (fields["rows"], fields["unknown"], fields["unlabelled"]) == (60, {"[red]": 2}, 1)
    alone = json.loads(run("evaluate", shop / "small.skops", shop / "small.csv", "--json").out)
    assert fields["model"] == alone["model"]


def test_evaluate_needs_the_target(run, shop, tmp_path):
    (tmp_path / "t.csv").write_text("mass,island\n1,north\n")
    done = run("evaluate", shop / "small.skops", "t.csv")
    assert done.status == 2
    assert "there is no column 'kind'" in done.sentence
    (tmp_path / "t.csv").write_text("mass,island,kind\n1,north,gull\n2,north,\n")
    done = run("evaluate", shop / "small.skops", "t.csv")
    assert done.status == 2
    assert "no row can be scored" in done.sentence
    assert "(eagle, finch)" in done.sentence


@pytest.mark.parametrize(
    ("values", "classes"),
    [(pl.Series([1, 2, 10]), ["1", "10", "2"]), (pl.Series([True, False]), ["False", "True"])],
)
def test_a_class_is_the_same_in_every_format(run, tmp_path, values, classes):
    kind = [values[i % len(values)] for i in range(90)]
    frame = pl.DataFrame({"mass": [i % len(values) + i % 2 / 2 for i in range(90)], "kind": kind})
    if frame["kind"].dtype == pl.Int64:
        frame = frame.with_columns(pl.col("kind").cast(pl.Float64))
    frame.write_parquet("t.parquet")
    frame.cast({"kind": pl.Int64}).write_csv("t.csv")
    if frame["kind"].dtype == pl.Boolean:
        frame.write_csv("t.csv")
    named = ("--target", "kind", "--json", "--model")
    fields = json.loads(run("train", "t.parquet", *named, "a.skops").out)
    assert fields["classes"] == classes
    again = json.loads(run("train", "t.csv", *named, "b.skops").out)
    assert again["held_out"] == fields["held_out"]
    scored = [run("evaluate", "a.skops", f"t.{e}", "--json").out for e in ("csv", "parquet")]
    assert scored[0] == scored[1]
    assert json.loads(scored[0])["unknown"] == {}


# --- model files ---------------------------------------------------------------


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_bad_model_file_is_one_sentence(run, shop, tmp_path, command):
    whole = (shop / "small.skops").read_bytes()
    (tmp_path / "cut.skops").write_bytes(whole[: len(whole) // 2])
    middle = len(whole) // 3
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    (tmp_path / "flipped.skops").write_bytes(flipped)
    for path, words in (
        ("none.skops", "there is no model file 'none.skops'"),
        (".", "'.' cannot be read: Is a directory"),
        ("cut.skops", "'cut.skops' is a damaged model"),
        ("flipped.skops", "'flipped.skops' is a damaged model"),
        (shop / "small.csv", "is no softly model"),
    ):
        done = run(command, path, shop / "small.csv")
        assert done.status == 2
        assert words in done.sentence


def test_other_versions_are_named(run, shop, monkeypatch):
    from softly import models

    made = models.made_with()
    monkeypatch.setattr(models, "made_with", lambda: made | {"numpy": "0.0.1"})
    done = run("predict", shop / "small.skops", shop / "small.csv")
    assert done.status == 0
    assert f"was made with numpy {made['numpy']}; answers may differ" in done.err


def test_a_terminal_without_a_width_is_a_usual_one(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    usual = run("explain", "1", "2").out
    monkeypatch.setenv("COLUMNS", "0")
    assert run("explain", "1", "2").out == usual != ""


# --- reading it ----------------------------------------------------------------


@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "explain", "info", None])
@pytest.mark.parametrize("width", [60, 100])
def test_help_has_examples_and_fits(run, monkeypatch, command, width):
    monkeypatch.setenv("COLUMNS", str(width))
    done = run(*filter(None, [command]), "--help")
    assert done.status == 0
    prose, examples = done.out.split("Examples:")
    assert max(map(len, prose.splitlines())) <= width
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    assert lines
    assert all(line.startswith(("softly ", "cat ")) for line in lines)
    cut = prose.split("Commands:")[-1].replace("[SCORES]...", "")  # which may be many
    assert "..." not in cut or width == 60


def test_version_and_no_arguments(run):
    assert run("--version") == Done(0, f"softly {softly.__version__}\n", "")
    done = run()
    assert done.status == 2
    assert "Commands:" in done.err
    assert run("info").out.splitlines()[0] == f"softly {softly.__version__}"


def test_classes_with_markup_and_wide_letters(run, monkeypatch):
    classes = ("[red]", "[/]", "독수리")
    birds(classes=classes).write_csv("t.csv")
    named = ("--target", "kind", "--model", "m.skops")
    monkeypatch.setenv("COLUMNS", "60")
    done = run("train", "t.csv", *named)
    assert done.status == 0
    for name in classes:
        assert sum(line.startswith(name) for line in done.out.splitlines()) >= 2
    from rich.cells import cell_len

    assert max(map(cell_len, done.out.splitlines())) <= 60
    head = run("predict", "m.skops", "t.csv").out.splitlines()[0]
    assert head == "prediction,probability,p_[/],p_[red],p_독수리"


def test_many_classes_are_shown_as_the_pairs_most_confused(run):
    rng = np.random.default_rng(3)
    kind = rng.integers(0, 30, 900)
    frame = pl.DataFrame({"x": kind + rng.normal(0, 2, 900), "kind": [f"class {k}" for k in kind]})
    frame.write_csv("t.csv")
    done = run("train", "t.csv", "--target", "kind", "--model", "m.skops")
    assert "Most often confused:" in done.out
    assert "and 20 more classes (--json tells all)" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_an_error_of_ours_is_not_blamed_on_the_user(run, shop, monkeypatch):
    def broken(*_):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("softly.models.load", broken)
    done = run("predict", shop / "small.skops", shop / "small.csv")
    assert done.status == 1
    assert "something unexpected went wrong (RuntimeError: a fault of ours)" in done.sentence


# --- processes -----------------------------------------------------------------


def slow_table(path):
    """A table whose training takes seconds."""
    rng = np.random.default_rng(0)
    rows, classes = 60_000, 40
    kind = rng.integers(0, classes, rows)
    x = rng.normal(size=(rows, 30)) + rng.normal(size=(classes, 30))[kind] / 2
    frame = pl.DataFrame(x, schema=[f"x{j}" for j in range(30)])
    frame.with_columns(kind=pl.Series([f"k{k}" for k in kind])).write_parquet(path)


def interrupt_in_training(arguments, cwd, shows=rb"Training: pass [\d.]+, loss"):
    """Ctrl-C as a terminal sends it, as soon as the command has shown something."""
    pid, terminal = pty.fork()
    if pid == 0:  # the child: nothing may come back from here
        os.chdir(cwd)
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, "-m", "softly.cli", *arguments])
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    shown, sent, end = b"", False, time.monotonic() + 60
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # the child has closed its end
            break
        if not sent and re.search(shows, shown):
            os.write(terminal, b"\x03")
            sent = True
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_control_c_in_training_says_the_loss_and_keeps_the_old_model(tmp_path):
    slow_table(tmp_path / "t.parquet")
    (tmp_path / "m.skops").write_bytes(b"the old model")
    before = files_in(tmp_path)
    named = ["train", "t.parquet", "--target", "kind", "--model", "m.skops", "--C", "1e6"]
    status, shown = interrupt_in_training([*named, "--max-iter", "100000"], tmp_path)
    assert status == 1
    last = shown.splitlines()[-1]
    assert re.search(
        r"softly: interrupted at pass [\d.]+, loss \d\.\d{5}; no model was written", last
    )
    assert "Traceback" not in shown
    assert files_in(tmp_path) == before


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_control_c_in_the_search_says_how_far_it_came(tmp_path):
    slow_table(tmp_path / "t.parquet")
    named = ["train", "t.parquet", "--target", "kind", "--model", "m.skops"]
    status, shown = interrupt_in_training(named, tmp_path, rb"Training: fold 1 of 5")
    assert status == 1
    assert re.search(
        r"softly: interrupted at fold \d of 5, fit \d+ of 10 \(C [\d.e+-]+\), pass [\d.]+, "
        r"loss \d\.\d{5}; no model was written$",
        " ".join(shown.split()),
    )
    assert files_in(tmp_path).keys() == {"t.parquet"}


def test_the_penalty_is_chosen_unless_it_is_given(run, tmp_path):
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, 200)
    frame = pl.DataFrame({"a": kind + rng.normal(size=200), "kind": [f"k{k}" for k in kind]})
    frame.write_csv(tmp_path / "t.csv")
    named = ("train", "t.csv", "--target", "kind", "--model", "m.skops")
    chosen = json.loads(run(*named, "--json").out)
    search = chosen["search"]
    assert chosen["C"] == search["C"] == search["Cs"][np.argmin(search["log_loss"])]
    assert re.search(r"C = \S+, the best of 10 by cross-validation: log loss", run(*named).out)
    given = json.loads(run(*named, "--C", "0.5", "--json").out)
    assert given["C"] == 0.5
    assert given["search"] is None
    assert "cross-validation" not in run(*named, "--C", "0.5").out


def test_sigint_without_a_terminal(shop, tmp_path):
    """Before any pass, while the table is still awaited on standard input."""
    named = ("train", "-", "--target", "kind", "--model", tmp_path / "m.skops")
    child = process(*named, stdin=subprocess.PIPE)
    child.stdin.write("mass,kind\n" * 100_000)  # more than a pipe holds: someone reads it
    child.stdin.flush()
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 1
    assert err == "softly: interrupted; no file was changed\n"
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_leaves_early_is_no_fault(shop, tmp_path):
    (tmp_path / "t.csv").write_text("mass,island\n" + "1,north\n" * 300_000)
    child = process("predict", shop / "small.skops", tmp_path / "t.csv")
    assert child.stdout.readline() == "prediction,probability,p_eagle,p_finch\n"
    child.stdout.close()
    err = child.stderr.read()
    child.stderr.close()
    assert child.wait(timeout=30) == 1
    assert err == ""


@pytest.mark.parametrize("command", ["predict", "evaluate", "info"])
def test_standard_output_that_is_full(shop, command):
    files = [] if command == "info" else [shop / "small.skops", shop / "small.csv"]
    with open("/dev/full", "w") as full:
        child = process(command, *files, stdout=full)
        _, err = child.communicate(timeout=30)
    assert child.returncode == 1
    assert err == "softly: the output cannot be used: No space left on device\n"


def test_a_limit_on_file_size_leaves_the_old_files(shop, tmp_path):
    (tmp_path / "m.skops").write_bytes(b"the old model")
    before = files_in(tmp_path)

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    named = ("train", shop / "small.csv", "--target", "kind", "--model", tmp_path / "m.skops")
    child = process(*named, preexec_fn=limited)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 2
    assert err.splitlines()[-1].endswith("m.skops' cannot be written: File too large")
    assert out == ""
    assert "Traceback" not in err
    assert files_in(tmp_path) == before


# --- calibrate and apply -------------------------------------------------------------------------


def logits_and_labels(rows=600, scale=3.0, names=None):
    rng = np.random.default_rng(0)
    fair = rng.normal(0, 1.5, (rows, 3))
    y = (fair + rng.gumbel(size=fair.shape)).argmax(axis=1)
    np.save("logits.npy", scale * fair)
    np.save("labels.npy", y if names is None else np.array(names)[y])
    return scale * fair, y


def test_logits_of_any_model_are_calibrated(run):
    logits, y = logits_and_labels()
    done = run("calibrate", "logits.npy", "labels.npy", "--model", "cal.json")
    assert done.status == 0, done.err
    assert done.out.startswith("Chosen: temperature. Temperature scaling has a log loss of")
    for said in ("T = ", "600 rows, each held out once", "log loss", "smooth calibration error"):
        assert said in done.out
    assert "Wrote cal.json" in done.err
    applied = run("apply", "cal.json", "logits.npy", "--output", "p.npy")
    assert applied.status == 0, applied.err
    p = np.load("p.npy")
    np.testing.assert_allclose(p.sum(axis=1), 1)
    itself = run("apply", "cal.json", "logits.npy", "--output", "./logits.npy")
    assert "'logits.npy' holds the scores: write" in itself.sentence
    np.testing.assert_array_equal(np.load("logits.npy"), logits)
    again = run("apply", "cal.json", "p.npy", "--output", "q.npy")
    assert "all sum to 1, as probabilities do, but logits are needed" in again.sentence
    expected = softly.Calibrator().fit(logits, y).predict_proba(logits)
    np.testing.assert_allclose(p, expected, atol=1e-12)
    assert "600 rows of 3 classes" in applied.err


def test_calibrate_as_json(run):
    logits_and_labels()
    done = run("calibrate", "logits.npy", "labels.npy", "--model", "cal.json", "--json")
    fields = json.loads(done.out)
    assert fields["method"] == "temperature"
    assert set(fields["candidates"]) == {"identity", "temperature", "isotonic", "vector", "matrix"}
    assert fields["measures"]["log_loss"]["difference"]["high"] < 0
    assert fields["rows"] == 600
    assert fields["absent_classes"] == []


def test_too_few_rows_are_a_sentence_beside_the_answer(run):
    rng = np.random.default_rng(0)
    np.save("logits.npy", rng.normal(size=(20, 30)))
    np.save("labels.npy", np.arange(20))
    done = run(
        *("calibrate", "logits.npy", "labels.npy", "--model", "cal.json", "--method", "matrix")
    )
    assert done.status == 0
    assert "Matrix scaling fits numbers for each of 30 classes, but has 20 rows of 20: " in done.err
    assert "UserWarning" not in done.err


def test_a_file_knows_whether_it_takes_probabilities(run):
    logits, _ = logits_and_labels()
    p = softly.softmax(logits, axis=1)
    np.save("p.npy", p)
    options = ("--probabilities", "--method", "temperature", "--model", "cal.json")
    assert run("calibrate", "p.npy", "labels.npy", *options).status == 0
    assert run("apply", "cal.json", "p.npy", "--output", "q.npy").status == 0
    assert np.load("q.npy").max() < p.max()
    model = softly.load_calibration("cal.json")
    assert model.are_probabilities_
    np.testing.assert_array_equal(model.predict_proba(p), np.load("q.npy"))
    assert json.loads(model.to_json()) == json.loads(Path("cal.json").read_text())
    with pytest.raises(ValueError, match="if these are logits"):
        model.predict_proba(logits)
    fields = json.loads(Path("cal.json").read_text())
    assert fields.pop("input") == "probabilities"
    Path("cal.json").write_text(json.dumps(fields | {"input": "guesses"}))
    assert "is no calibration" in run("apply", "cal.json", "p.npy", "--output", "q.npy").sentence
    Path("cal.json").write_text(json.dumps(fields | {"input": "probabilities"}))
    wrong = run("apply", "cal.json", "logits.npy", "--output", "r.npy")
    assert wrong.status == 2
    assert run("calibrate", "logits.npy", "labels.npy", "--model", "z.json").status == 0
    other = run("apply", "z.json", "p.npy", "--output", "r.npy")
    assert (other.status, "--probabilities" in other.sentence) == (2, False)
    assert "this calibration was made of logits" in other.sentence
    assert wrong.sentence.endswith(
        "if these are logits, give it their softmax, of which it was made"
    )
    assert not os.path.exists("r.npy")


def test_labels_that_are_text(run):
    logits_and_labels(names=["ant", "bee", "cat"])
    done = run("calibrate", "logits.npy", "labels.npy", "--model", "cal.json")
    assert done.status == 0, done.err
    assert json.loads(Path("cal.json").read_text())["classes"] == ["ant", "bee", "cat"]
    logits_and_labels(names=["ant", "bee", "bee"])
    options = ("--classes", "ant,bee,cat", "--model", "cal.json")
    missing = run("calibrate", "logits.npy", "labels.npy", "--model", "cal.json")
    assert missing.sentence.endswith("say which label each column stands for, by --classes")
    done = run("calibrate", "logits.npy", "labels.npy", *options)
    assert "No row is of 1 of the 3 classes, of which nothing was learnt: cat" in done.out
    assert run("calibrate", "logits.npy", "labels.npy", *options).status == 0


@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        (np.full((4, 3), np.nan), np.arange(4) % 3, "logits[0] holds NaN, in 4 of 4 rows"),
        (np.zeros((4, 3)), np.arange(5) % 3, "logits have 4 rows, but y has 5"),
        (np.full((4, 2), 0.5), np.arange(4) % 2, "but logits are needed: say --probabilities, if"),
        (np.zeros((4, 3)), np.arange(4), "y has the label 3, but 3 columns stand for 0 to 2: mend"),
        (np.zeros((4, 3)), np.array([0, np.nan, 1, 2]), "NaN"),
        (np.zeros(4), np.arange(4) % 2, "shape (4,), but (N, K) is needed"),
        (np.array([["a", "b"]] * 4), np.arange(4) % 2, ""),
        (np.zeros((4, 3)), np.array([b"a", b"b", b"c", b"a"]), ""),
        (np.zeros((0, 3)), np.arange(0), ""),
    ],
)
def test_arrays_that_do_not_fit(run, logits, labels, said):
    np.save("logits.npy", logits)
    np.save("labels.npy", labels)
    done = run("calibrate", "logits.npy", "labels.npy", "--model", "cal.json")
    assert done.status == 2
    assert said in done.sentence
    assert not os.path.exists("cal.json")


def test_files_that_are_no_arrays(run):
    logits_and_labels()
    for name, content in (
        ("text.npy", b"a,b\n1,2\n"),
        ("zip.npy", b"PK\x03\x04rest"),
        ("no.npy", b""),
    ):
        with open(name, "wb") as file:
            file.write(content)
        done = run("calibrate", name, "labels.npy", "--model", "cal.json")
        assert done.status == 2
        assert f"'{name}' holds no array" in done.sentence
    np.savez("several.npz", a=np.zeros(3))
    assert (
        "several arrays"
        in run("calibrate", "several.npz", "labels.npy", "--model", "cal.json").sentence
    )
    np.save("objects.npy", np.array([{}, {}]), allow_pickle=True)
    assert (
        "holds Python objects, which may run code: save plain numbers"
        in run("calibrate", "objects.npy", "labels.npy", "--model", "cal.json").sentence
    )
    assert (
        "there is no file 'none.npy'"
        in run("calibrate", "none.npy", "labels.npy", "--model", "cal.json").sentence
    )
    assert (
        "ends in .json"
        in run("calibrate", "logits.npy", "labels.npy", "--model", "cal.txt").sentence
    )
    assert (
        "one of auto, identity"
        in run(
            "calibrate", "logits.npy", "labels.npy", "--model", "cal.json", "--method", "magic"
        ).sentence
    )
    assert (
        "is no calibration"
        in run("apply", "logits.npy", "logits.npy", "--output", "p.npy").sentence
    )
    assert run("calibrate", "logits.npy", "labels.npy", "--model", "cal.json").status == 0
    assert "ends in .npy" in run("apply", "cal.json", "logits.npy", "--output", "p.csv").sentence
    np.save("wide.npy", np.zeros((3, 5)))
    wide = run("apply", "cal.json", "wide.npy", "--output", "p.npy")
    assert "5 columns, but those it was fitted to had 3" in wide.sentence


def test_train_calibrates(run, tmp_path):
    birds(600).write_csv("birds.csv")
    done = run(
        *("train", "birds.csv", "--target", "kind", "--model", "m.skops"),
        *("--C", "100", "--calibrate", "auto"),
    )
    assert done.status == 0, done.err
    assert "Calibrated on 96 rows more: " in " ".join(done.out.split())
    assert run("evaluate", "m.skops", "birds.csv").status == 0
    wrong = run(
        *(
            "train",
            "birds.csv",
            "--target",
            "kind",
            "--model",
            "m.skops",
            "--calibrate",
            "isotonic",
        ),
    )
    assert wrong.status == 2
    assert "isotonic was given, but one of auto" in wrong.sentence


# --- explain -------------------------------------------------------------------


def test_explain_says_it_draws_it_and_prints_it(run):
    done = run("explain", 2.0, 1.0, 0.1, "--classes", "cat, dog,bird", "--true", "dog")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("class  score  p\xa0−\xa0target     exp  probability\ncat ")
    assert "Chosen: cat (65.90%)" in done.out
    data = json.loads(run("explain", 2, 1, 0.1, "--temperature", 0.5, "--json").out)
    assert data["classes"] == ["A", "B", "C"]
    assert data["temperature"] == 0.5
    assert data["probabilities"] == softly.softmax(np.array([2, 1, 0.1]) / 0.5).tolist()
    assert "선택: B(" in run("explain", 1, 2, "--lang", "ko").out


@pytest.mark.parametrize(
    "arguments", [("--", -1, 2), (-1, 2), ("-1e0", "+2"), ("--temperature", 1, "-1.", 2)]
)
def test_scores_may_be_negative(run, arguments):
    data = json.loads(run("explain", "--json", *arguments).out)
    assert data["scores"] == [-1, 2]


def test_scores_may_be_infinite(run):
    data = json.loads(run("explain", "-inf", "inf", "-Infinity", "--json").out)
    assert data["scores"] == ["-Infinity", "Infinity", "-Infinity"]
    assert data["probabilities"] == [0, 1, 0]


def test_explain_writes_a_page_whole(run, tmp_path):
    done = run("explain", 1, 2, "--lang", "ko", "--output", "page.html")
    assert done == Done(0, "", "Wrote page.html\n")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert '<html lang="ko"' in page
    assert page.endswith("</html>")
    assert list(files_in(tmp_path)) == ["page.html"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "scores are needed, one for each class, and none came"),
        (("two", 1), "the score 'two' is not a number: write it as in 2.5"),
        (("1,2",), "the score '1,2' is not a number: .*parted from others by a space"),
        (("nan", 1), "score 1 is NaN"),
        (("-inf", "-inf"), "every score is -inf"),
        ((1, 2, "--temperature", 0), "the temperature is 0, .*towards 0 the greatest score"),
        ((1, 2, "--temperature", -2), "the temperature is -2"),
        ((1, 2, "--temperature", "nan"), "the temperature is nan"),
        ((1, 2, "--temperature", "warm"), "the temperature 'warm' is not a number"),
        ((1, 2, "--classes", "a"), "1 came, but 2 are needed"),
        ((1, 2, "--classes", "a,a"), "two classes are called 'a'"),
        ((1, 2, "--classes", "a,"), "the name of class 2 is empty"),
        ((1, 2, "--true", "C"), "the true class 'C' is none of A, B"),
        ((1, 2, "--lang", "xx"), "'xx' is not a language .*choose one of en, ko"),
        ((1, 2, "--temprature", 3), "there is no option --temprature"),
        ((1, 2, "-t", 3), "there is no option -t"),
        ((1, 2, "--output", "page.txt"), "the page 'page.txt' needs a name that ends in .html"),
        ((1, 2, "--output", "no/page.html"), "'no/page.html' cannot be written: there is no"),
        (("nan", 2, "--output", "page.html"), "score 1 is NaN"),
    ],
)
def test_explain_refuses_with_one_sentence_and_writes_nothing(run, tmp_path, arguments, said):
    done = run("explain", *arguments)
    assert (done.status, done.out) == (2, "")
    assert re.search(said, done.sentence)
    assert files_in(tmp_path) == {}


def test_explain_needs_nothing_heavy():
    code = (
        "import sys; from softly import cli; sys.argv = ['softly', 'explain', '1', '2'];"
        "cli.main();"
        "heavy = {'polars', 'sklearn', 'scipy', 'jinja2', 'matplotlib', 'torch'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_terminal_of_another_encoding(tmp_path):
    env = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = process("explain", 1, 2, "--lang", "ko", env=env, text=False)
    out, err = done.communicate()
    assert (done.returncode, err) == (0, b"")
    assert b"73.11%  ####" in out
