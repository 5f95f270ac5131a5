"""Calibrations as files: what they answer, and what is no such file."""

import json

import numpy as np
import pytest

import softly
from softly.scalings import METHODS


def drawn(rows=500, classes=3, scale=3.0):
    rng = np.random.default_rng(0)
    fair = rng.normal(0, 1.5, (rows, classes))
    y = (fair + rng.gumbel(size=fair.shape)).argmax(axis=1)
    return scale * fair, y


@pytest.mark.parametrize("method", METHODS)
def test_a_file_answers_as_the_model_did(method, tmp_path):
    logits, y = drawn(classes=3)
    names = np.array(["ant", "bee", "cat"])[y]
    fitted = softly.Calibrator(method).fit(logits, names)
    path = tmp_path / "cal.json"
    path.write_text(fitted.to_json())
    loaded = softly.load_calibration(path)
    np.testing.assert_array_equal(loaded.predict_proba(logits), fitted.predict_proba(logits))
    np.testing.assert_array_equal(loaded.predict(logits), fitted.predict(logits))


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.pop("T"),
        lambda f: f.pop("classes"),
        lambda f: f.update(kind="model"),
        lambda f: f.update(format=99),
        lambda f: f.update(classes=[1, 1, 1]),
        lambda f: f.update(method="isotonic"),
        lambda f: f.update(method="temperature"),
        lambda f: f.update(W=[1.0, 2.0]),
        lambda f: f.update(b="none"),
        lambda f: f.update(columns=7),
        lambda f: f.update(method="magic"),
        lambda f: f.update(T=-1.0),
        lambda f: f.update(T=None),
    ],
)
def test_a_damaged_file_is_refused(change, tmp_path):
    logits, y = drawn(classes=3)
    fields = json.loads(softly.VectorScaling().fit(logits, y).to_json())
    change(fields)
    path = tmp_path / "cal.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="is no calibration"):
        softly.load_calibration(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe", b"null", b'{"T": 1}'])
def test_what_is_no_file_of_ours_is_refused(content, tmp_path):
    path = tmp_path / "cal.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no calibration"):
        softly.load_calibration(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.update(knots=f["knots"][::-1]),
        lambda f: f.update(values=f["values"][::-1]),
        lambda f: f.update(values=f["values"][:-1]),
        lambda f: f.update(knots=[], values=[]),
        lambda f: f.pop("values"),
    ],
)
def test_a_damaged_function_is_refused(change, tmp_path):
    fields = json.loads(softly.IsotonicScaling().fit(*drawn()).to_json())
    change(fields)
    path = tmp_path / "cal.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="is no calibration"):
        softly.load_calibration(path)


def test_one_column_of_two_classes_and_no_other(tmp_path):
    logits, y = drawn(classes=2)
    fields = json.loads(softly.TemperatureScaling().fit(logits[:, 1:] - logits[:, :1], y).to_json())
    path = tmp_path / "cal.json"
    path.write_text(json.dumps(fields))
    assert softly.load_calibration(path).predict_proba([[0.0]]).tolist() == [[0.5, 0.5]]
    path.write_text(json.dumps(fields | {"classes": [0, 1, 2]}))
    with pytest.raises(ValueError, match="is no calibration"):
        softly.load_calibration(path)
