"""A model file is whole or absent, comes back as it went, and runs nothing."""

import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import polars as pl
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

import softly
from softly import answers, models, tables, training
from softly.errors import TableError


def table(rows=120, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    kind = np.arange(rows) % classes
    return pl.DataFrame(
        {
            "mass": rng.normal(kind, 1.0),
            "seen": [f"2020-0{1 + i % 9}-1{i % 9}" for i in range(rows)],
            "island": np.array(["north", "south", "west"])[rng.integers(0, 3, rows)],
            "note": [
                f"{'grey' if k else 'white'} bird of the {i % 50}" for i, k in enumerate(kind)
            ],
            "kind": [f"k{k}" for k in kind],
        }
    ).with_columns(mass=pl.when(pl.int_range(rows) % 9 == 0).then(None).otherwise("mass"))


@pytest.fixture(scope="module")
def model():
    frame = table()
    return training.fit(training.prepare(frame, tables.infer(frame, "kind"))).model


@pytest.fixture
def saved(model, tmp_path):
    models.save(model, tmp_path / "m.skops")
    return tmp_path / "m.skops"


def test_a_model_comes_back_as_it_went(model, saved):
    back = models.load(saved)
    np.testing.assert_array_equal(back.logits(table(seed=1)), model.logits(table(seed=1)))
    assert back.schema == model.schema
    assert back.classes == model.classes
    assert back.scores == model.scores
    assert back.versions == model.versions == models.made_with()
    np.testing.assert_array_equal(back.frequencies, model.frequencies)


def test_nothing_but_scikit_learns_types_and_ours(saved):
    """The two trusted by name are needed, and there are no others."""
    assert set(skops.io.get_untrusted_types(file=saved)) == {
        "numpy.dtype",
        "softly.classifier.SoftmaxClassifier",
    }
    names = zipfile.ZipFile(saved).namelist()
    assert not [name for name in names if not name.endswith((".json", ".npy", ".npz"))], names


def test_models_do_not_import_torch():
    """It takes longer than a small table, and no model needs it."""
    code = "import softly.models, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_file_cut_anywhere_is_refused(saved):
    whole = saved.read_bytes()
    for length in [1, 10, 100, *range(500, len(whole), 997), len(whole) - 1]:
        saved.write_bytes(whole[:length])
        with pytest.raises(TableError, match=r"damaged model|no softly model"):
            models.load(saved)


def test_a_flipped_byte_is_refused_or_harmless(model, saved):
    whole = saved.read_bytes()
    wanted = model.logits(table().head(5))
    refused = 0
    for place in range(0, len(whole), max(1, len(whole) // 150)):
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            back = models.load(saved)
        except TableError:
            refused += 1
        else:  # a date, say: zip has fields that nobody reads
            np.testing.assert_array_equal(back.logits(table().head(5)), wanted)
    assert refused > 75


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"PK", os.urandom(3000), b"\x80\x04K."])
def test_what_is_no_model_is_refused(tmp_path, content):
    (tmp_path / "m.skops").write_bytes(content)
    with pytest.raises(TableError, match=r"m.skops' is (no softly model|a damaged model)"):
        models.load(tmp_path / "m.skops")


def test_another_zip_and_another_skops_file_are_refused(tmp_path):
    path = tmp_path / "m.skops"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photos.txt", "none")
    with pytest.raises(TableError, match="no softly model: name a file that `softly train` wrote"):
        models.load(path)
    skops.io.dump(LogisticRegression(), path)
    with pytest.raises(TableError, match="no softly model"):
        models.load(path)


def test_absent_or_a_folder(tmp_path):
    with pytest.raises(TableError, match="there is no model file"):
        models.load(tmp_path / "none.skops")
    with pytest.raises(TableError, match="cannot be read: Is a directory"):
        models.load(tmp_path)


class Foreign:
    """A type that no model holds."""

    def __init__(self):
        self.ran = []

    def __setstate__(self, state):
        raise AssertionError("code of the file ran")


def altered(path, **fields):
    """A file of ours in every way but for some fields."""
    model = models.load(path)
    held = {
        "schema": model.schema.to_dict(),
        "transformer": model.transformer,
        "classifier": model.classifier,
        "frequencies": model.frequencies,
        "scores": model.scores,
        "versions": model.versions,
    }
    content = io.BytesIO(skops.io.dumps(held | fields))
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr("softly.json", json.dumps({"format": 1, "softly": "0.1.0"}))
    path.write_bytes(content.getvalue())


@pytest.mark.parametrize(
    ("held", "named"),
    [
        (os.system, "system"),
        (FunctionTransformer(os.getcwd), "getcwd"),
        (Foreign(), "Foreign"),
    ],
)
def test_foreign_types_are_named_and_nothing_of_them_runs(saved, held, named):
    altered(saved, scores={"x": held})
    with pytest.raises(TableError, match=rf"is refused: it holds .*{named}"):
        models.load(saved)


@pytest.mark.parametrize(
    "fields",
    [
        {"schema": {}},
        {"schema": {"target": "kind", "columns": [{"colour": 1}]}},
        {"transformer": None},
        {"classifier": LogisticRegression()},
        {"frequencies": np.ones(7)},
        {"versions": []},
        {"more": 1},
    ],
)
def test_fields_that_are_not_as_we_write_them(saved, fields):
    altered(saved, **fields)
    with pytest.raises(TableError, match="is a damaged model"):
        models.load(saved)


def test_a_later_format_is_refused_by_name(saved):
    later = io.BytesIO()
    with zipfile.ZipFile(later, "w") as archive:
        archive.writestr("softly.json", json.dumps({"format": 99, "softly": "7.0"}))
    saved.write_bytes(later.getvalue())
    words = f"made by softly 7.0, and this is softly {softly.__version__}: install that version"
    with pytest.raises(TableError, match=words):
        models.load(saved)


def test_a_write_that_fails_leaves_the_old_file(model, saved, monkeypatch):
    old = saved.read_bytes()

    def broken(*_):
        raise OSError(28, "No space left on device")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(f"os.{step}", broken)
            with pytest.raises(TableError, match="cannot be written: No space left"):
                models.save(model, saved)
        assert saved.read_bytes() == old
        assert os.listdir(saved.parent) == ["m.skops"]


# --- answers -------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
def test_answers_are_the_softmax_of_the_logits(classes):
    frame = table(classes=classes)
    model = training.fit(training.prepare(frame, tables.infer(frame, "kind"))).model
    (answer,) = answers.answers(model, [frame])
    logits = model.logits(frame).astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    shown = answer.select(pl.col("^p_.*$")).to_numpy()
    np.testing.assert_allclose(shown, p, rtol=1e-5)
    np.testing.assert_allclose(shown.sum(axis=1), 1, atol=1e-6)
    best = logits.argmax(axis=1)
    assert answer["prediction"].to_list() == [model.classes[i] for i in best]
    np.testing.assert_array_equal(answer["probability"], shown[np.arange(len(best)), best])


def test_a_tie_made_by_rounding_changes_no_prediction(model, monkeypatch):
    one = np.float32(1)
    logits = np.array([[0, one, np.nextafter(one, 2), -90]], np.float32)
    crowd = np.concatenate([logits, np.zeros((1, 4000), np.float32)], axis=1)
    names = [f"k{i}" for i in range(crowd.shape[1])]
    from softly.functions import log_softmax

    assert log_softmax(crowd, axis=1).argmax() == 1  # the wrong one, by rounding
    monkeypatch.setattr(models.Model, "logits", lambda *_: crowd)
    monkeypatch.setattr(models.Model, "classes", names)
    frame = table().head(1)
    (answer,) = answers.answers(model, [frame])
    assert answer["prediction"][0] == "k2"
    (answer,) = answers.answers(model, [frame], top_k=2)
    assert answer.select("prediction", "prediction_2").row(0) == ("k2", "k1")


@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize("top_k", [None, 2])
def test_batches_change_nothing(model, rows, top_k):
    frame = table(seed=4)
    (whole,) = answers.answers(model, [frame], top_k=top_k, keep=["island"])
    batches = list(answers.answers(model, frame.iter_slices(rows), top_k=top_k, keep=["island"]))
    streamed = pl.concat(batches)
    assert streamed.columns == whole.columns
    assert streamed.equals(whole)


def test_a_row_has_the_same_answer_alone_and_among_many():
    """In float32 the product of matrices differs, on most computers, in the last bits."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 7, 9000)
    x = rng.normal(size=(9000, 54)).astype(np.float32) + kind[:, None] / 10
    frame = pl.DataFrame(x).with_columns(kind=pl.Series([f"k{k}" for k in kind]))
    model = training.fit(training.prepare(frame, tables.infer(frame, "kind"))).model
    whole = model.logits(frame)[:2000]
    for rows, most in ((1, 100), (50, 2000)):
        parts = [model.logits(part) for part in frame.head(most).iter_slices(rows)]
        np.testing.assert_array_equal(np.concatenate(parts), whole[:most])


def test_errors_count_rows_over_all_batches(model):
    frame = table().with_columns(mass=pl.Series(["1"] * 100 + ["heavy"] + ["1"] * 19))
    with pytest.raises(TableError, match="row 101 holds 'heavy'"):
        list(answers.answers(model, frame.iter_slices(16)))
