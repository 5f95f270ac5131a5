"""What a report says is so: by scikit-learn, by counting, and by scores whose truth is known."""

import json

import numpy as np
import polars as pl
import pytest
import scipy.optimize
import sklearn.metrics

import softly
from softly import report as report_module
from softly import subjects, verdict
from softly.resampling import Score
from test_evaluation import table, trained

SOURCE = ["logits.npy", "labels.npy"]


def drawn(rows=2000, classes=4, scale=1.0, seed=0):
    """Logits, and classes drawn from their softmax: calibrated, if the scale is 1."""
    rng = np.random.default_rng(seed)
    fair = 1.5 * rng.normal(size=(rows, classes))
    y = (fair + rng.gumbel(size=fair.shape)).argmax(axis=1)
    return scale * fair, y


def about(logits, y, **options):
    return subjects.of_logits(np.asarray(logits), np.asarray(y), SOURCE, **options)


def made(logits, y, **options):
    return softly.Report.of(about(logits, y, **options))


def findings(report):
    return {f.key: f.values for f in verdict.verdict(report)}


def test_its_scores_equal_scikit_learns():
    logits, y = drawn()
    report = made(logits, y)
    p, answer = softly.softmax(logits, axis=1), logits.argmax(axis=1)
    assert report.measures["accuracy"].value == sklearn.metrics.accuracy_score(y, answer)
    assert report.measures["log_loss"].value == pytest.approx(sklearn.metrics.log_loss(y, p))
    frequencies = np.bincount(y) / len(y)
    guess = np.tile(frequencies, (len(y), 1))
    assert report.guessing.log_loss == pytest.approx(sklearn.metrics.log_loss(y, guess))
    assert report.guessing.accuracy == pytest.approx(frequencies.max())
    precision, recall, f1, rows = sklearn.metrics.precision_recall_fscore_support(y, answer)
    for k, row in enumerate(report.by_class):
        assert row.rows == rows[k]
        assert (row.precision, row.recall) == pytest.approx((precision[k], recall[k]))
        assert row.f1 == pytest.approx(f1[k])
        assert row.probability == pytest.approx(p[y == k, k].mean())
    matrix = sklearn.metrics.confusion_matrix(y, answer)
    shown = report.confusion.shown
    np.testing.assert_array_equal(report.confusion.counts, matrix[np.ix_(shown, shown)])
    for k, row in enumerate(report.by_class):
        others = np.where(np.arange(4) == k, -1, matrix[k])
        assert row.confused_rows == others.max()
        assert others[int(row.confused_with)] == others.max()


def test_the_most_frequent_mistakes_come_first():
    logits, y = drawn(classes=6)
    pairs = made(logits, y).confusion.pairs
    matrix = sklearn.metrics.confusion_matrix(y, logits.argmax(axis=1))
    wrong = matrix - np.diag(np.diag(matrix))
    assert [pair.rows for pair in pairs] == sorted(wrong.ravel(), reverse=True)[:10]
    for pair in pairs:
        i, j = int(pair.true), int(pair.predicted)
        assert pair.rows == wrong[i, j]
        assert pair.share == pytest.approx(wrong[i, j] / matrix[i].sum())


def test_a_model_that_is_too_sure_is_found_out_and_mended():
    logits, y = drawn(scale=3.0)
    report = made(logits, y)
    calibration = report.calibration
    assert calibration.method == "temperature"
    assert calibration.temperature == pytest.approx(3, rel=0.15)
    error, loss = calibration.measures["calibration_error"], calibration.measures["log_loss"]
    assert error.b.value < 0.3 * error.a.value
    assert loss.a.value == report.measures["log_loss"].value
    folded = sklearn.metrics.log_loss(y, softly.softmax(logits, axis=1, temperature=3))
    assert loss.b.value == pytest.approx(folded, rel=0.01)
    assert (calibration.before.reliability.confidence > calibration.before.reliability.low).all()
    said = findings(report)
    assert {"good.answers", "calibrated.too_sure", "do.temperature", "do.by_file"} <= set(said)
    assert said["do.temperature"]["error_after"] == error.b.value


def test_a_calibrated_model_is_left_alone():
    said = findings(made(*drawn()))
    assert {"calibrated.fits", "do.leave"} <= set(said)
    said = findings(made(*drawn(scale=0.3)))
    assert {"calibrated.too_unsure", "do.temperature"} <= set(said)


@pytest.mark.parametrize(
    ("accuracy", "loss", "key"),
    [
        ((0.6, 0.5, 0.7), (0.9, 0.8, 0.99), "better"),
        ((0.6, 0.5, 0.7), (1.2, 1.1, 1.3), "answers"),
        ((0.6, 0.3, 0.7), (1.2, 1.1, 1.3), "worse"),
        ((0.6, 0.3, 0.7), (0.9, 0.8, 1.1), "same"),
        ((0.6, 0.5, 0.7), (np.inf, np.inf, np.inf), "impossible"),
    ],
)
def test_how_good_is_told_by_what_chance_does_not_explain(accuracy, loss, key):
    measures = {"accuracy": Score(*accuracy), "log_loss": Score(*loss)}
    guessing = report_module.Guessing(False, accuracy=0.4, log_loss=1.0, brier_score=0.6)
    assert verdict._good(100, measures, guessing).key == f"good.{key}"


def test_of_many_rows_some_tell_of_calibration(monkeypatch):
    monkeypatch.setattr(report_module, "_MOST_NUMBERS", 4 * 1200)
    logits, y = drawn(scale=3.0, rows=3000)
    report = made(logits, y)
    assert report.rows == 3000
    assert report.calibration.rows == report.temperatures.rows == 1200
    assert report.calibration.temperature == pytest.approx(3, rel=0.2)
    p = softly.softmax(logits, axis=1)
    assert report.measures["log_loss"].value == pytest.approx(sklearn.metrics.log_loss(y, p))


def test_the_best_temperature_is_the_minimum():
    logits, y = drawn(scale=2.0)
    found = made(logits, y).temperatures

    def loss(t):
        return -softly.log_softmax(logits, axis=1, temperature=t)[np.arange(len(y)), y].mean()

    by_search = scipy.optimize.minimize_scalar(loss, bounds=(0.5, 8), method="bounded")
    assert found.best == pytest.approx(by_search.x, rel=1e-4)
    assert found.least == pytest.approx(by_search.fun)
    assert found.log_loss == pytest.approx([loss(t) for t in found.temperature])
    assert found.bounded
    assert found.temperature[0] < 1 < found.best < found.temperature[-1]
    certain = np.eye(4)[y] * 3.0
    assert not made(certain, y).temperatures.bounded


def test_histograms_count_every_answer_once():
    logits, y = drawn()
    of = made(logits, y).confidence
    p = softly.softmax(logits, axis=1)
    right = p.argmax(axis=1) == y
    sure = p.max(axis=1)
    assert of.mean == pytest.approx(sure.mean())
    for count, which in ((of.right, right), (of.wrong, ~right)):
        np.testing.assert_array_equal(count, np.histogram(sure[which], of.edges)[0])


def test_sets_hold_the_true_class_as_often_as_asked():
    found = made(*drawn(rows=8000)).sets
    assert found.rows == sum(found.count) == 4000
    assert found.covered == pytest.approx(0.9, abs=0.02)
    assert found.mean == pytest.approx(np.average(found.size, weights=found.count))


def test_risk_falls_with_coverage_and_ends_at_the_share_of_mistakes():
    logits, y = drawn()
    report = made(logits, y)
    curve = report.risk_coverage
    assert len(curve.coverage) <= 200
    assert curve.coverage[-1] == 1
    assert curve.risk[-1] == pytest.approx(1 - report.measures["accuracy"].value)
    half = int(np.abs(curve.coverage - 0.5).argmin())
    assert curve.risk[half] < 0.7 * curve.risk[-1]


def test_mistakes_are_the_most_confident_ones():
    logits, y = drawn()
    report = made(logits, y)
    p = softly.softmax(logits, axis=1)
    sure = np.where(p.argmax(axis=1) == y, -1, p.max(axis=1))
    assert [m.row for m in report.mistakes] == np.argsort(-sure)[:10].tolist()
    for mistake in report.mistakes:
        assert mistake.true == str(y[mistake.row])
        assert mistake.predicted == str(p[mistake.row].argmax())
        assert mistake.probability == pytest.approx(sure[mistake.row])
        assert mistake.probability_of_true == pytest.approx(p[mistake.row, y[mistake.row]])


def test_classes_that_are_confused_stand_together():
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(4), 5))
    near = 20 * (group[:, None] == group) + rng.integers(0, 3, (20, 20)) + 100 * np.eye(20)
    order = report_module.in_blocks(near)
    assert sorted(order) == list(range(20))
    assert (np.diff(group[order]) != 0).sum() == 3
    np.testing.assert_array_equal(report_module.in_blocks(np.diag([3, 4, 5])), [0, 1, 2])
    np.testing.assert_array_equal(report_module.in_blocks(np.zeros((3, 3))), [0, 1, 2])


def test_of_very_many_classes_the_most_confused_are_shown(monkeypatch):
    monkeypatch.setattr(report_module, "_MOST_SHOWN", 5)
    monkeypatch.setattr(report_module, "_MOST_LISTED", 6)
    logits, y = drawn(classes=9)
    report = made(logits, y)
    matrix = sklearn.metrics.confusion_matrix(y, logits.argmax(axis=1))
    wrong = matrix - np.diag(np.diag(matrix))
    most = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")[:5]
    shown = report.confusion.shown
    assert sorted(shown) == sorted(most)
    np.testing.assert_array_equal(report.confusion.counts, matrix[np.ix_(shown, shown)])
    assert len(report.by_class) == 6


@pytest.mark.parametrize("name", ["one row", "impossible", "perfect", "one class", "column", "few"])
def test_the_ends_of_what_there_is_are_json(name):
    logits, y = drawn(rows=200)
    if name == "one row":
        logits, y = logits[:1], y[:1] * 0
    elif name == "few":
        logits, y = logits[:12], y[:12]
    elif name == "impossible":
        logits[np.arange(200), y] = np.where(np.arange(200) < 5, -np.inf, logits.max(axis=1))
    elif name == "perfect":
        logits = 5.0 * np.eye(4)[y]
    elif name == "one class":
        y = np.zeros(200, int)
    else:
        logits, y = logits[:, 1:2] - logits[:, :1], y % 2
    report = made(logits, y)
    said = findings(report)
    kept = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert kept["rows"] == len(y)
    assert [f["key"] for f in kept["verdict"]] == [f.key for f in verdict.verdict(report)]
    if name == "impossible":
        assert "good.impossible" in said
        assert kept["measures"]["log_loss"]["value"] is None
        assert report.calibration.rows == 195
    if name in ("one row", "few"):
        assert "do.few" in said
        assert "do.leave" not in said
        assert report.sets is None
    if name == "perfect":
        assert "confused.none" in said
        assert report.mistakes == []
    if name == "one class":
        assert said["confused.without_rows"]["names"] == ["1", "2", "3"]


def test_classes_never_found_or_with_few_rows_are_named():
    logits, y = drawn(rows=600, classes=5)
    logits[:, 3] = -9
    y[(y == 4) & (np.arange(600) > 30)] = 0
    said = findings(made(logits, y, classes=None))
    assert "3" in said["confused.never_found"]["names"]
    assert said["confused.few_rows"]["names"] == ["4"]


def test_few_rows_do_not_make_confidence_believable():
    rng = np.random.default_rng(1)
    logits, y = 3 * rng.normal(size=(30, 4)), rng.integers(4, size=30)
    said = findings(made(logits, y))
    assert "calibrated.too_sure" in said
    assert "do.says_nothing" in said
    assert not any(key in said for key in ("do.temperature", "do.by_file", "do.leave"))
    said = findings(made(*drawn(rows=60)))
    assert "calibrated.few" in said
    assert said["calibrated.few"]["rows"] == 60
    assert "calibrated.fits" in findings(made(*drawn(rows=600)))


def test_what_is_perfect_is_left_alone():
    for scale in (12, 30):
        y = np.arange(200) % 3
        report = made(scale * np.eye(3)[y], y)
        said = findings(report)
        assert {"calibrated.close", "do.leave"} <= set(said)
        accuracy = report.measures["accuracy"]
        assert (accuracy.value, accuracy.high) == (1, 1)
        assert accuracy.low == pytest.approx(0.025 ** (1 / 200))


def test_columns_in_another_order_say_nothing_of_the_classes():
    logits, y = drawn(rows=600, classes=5)
    rng = np.random.default_rng(0)
    said = findings(made(logits, rng.permutation(y)))
    assert "do.says_nothing" in said
    assert "do.says_nothing" not in findings(made(logits, y))
    # Answers that are often right say something, however wrong the probabilities are.
    assert "do.says_nothing" not in findings(made(40 * logits, y))


def test_rows_that_infinity_decides_are_not_called_a_sample():
    logits, y = drawn(rows=900, scale=3)
    logits[5] = [np.inf if k == (y[5] + 1) % 4 else 0 for k in range(4)]
    report = made(logits, y)
    assert (report.calibration.rows, report.calibration.decided) == (899, 1)
    said = findings(report)
    assert "good.impossible" in said
    assert said["do.decided"] == {"rows": 1}
    html = report.to_html()
    assert "drawn by chance: all of them" not in html
    assert "Rows that infinite scores decide, left out of this: 1." in html


def test_temperatures_of_worthless_scores_say_so():
    rng = np.random.default_rng(3)
    y = rng.integers(3, size=40)
    worthless = made(-3 * np.eye(3)[y], y).to_html()
    assert "the loss keeps falling as the classes become alike" in worthless.lower()
    perfect = made(3 * np.eye(3)[y], y).to_html()
    assert "No row tells where to stop" in perfect


# --- from a table --------------------------------------------------------------------------------


def test_a_models_report_tells_of_rows_and_weights():
    frame = table(rows=400)
    model = trained(frame)
    new = table(rows=300, seed=1).with_columns(
        kind=pl.when(pl.int_range(300) == 7)
        .then(None)
        .when(pl.int_range(300) == 8)
        .then(pl.lit("new"))
        .otherwise("kind")
    )
    whole = softly.Report.of(subjects.of_model(model, [new], ["m.skops", "new.csv"]))
    assert (whole.rows, whole.unlabelled, whole.unknown) == (298, 1, {"new": 1})
    assert findings(whole)["good.left_out"] == {"rows": 2, "all": 300}
    assert whole.guessing.of_training
    assert list(whole.weights) == model.classes
    assert whole.columns == ["mass", "island"]
    for mistake in whole.mistakes:
        row = new.row(mistake.row - 1, named=True)
        assert mistake.true == row["kind"] != mistake.predicted
        mass, island = mistake.cells
        assert island == row["island"]
        assert float(mass or "nan") == pytest.approx(row["mass"] or np.nan, nan_ok=True)
    stream = softly.Report.of(subjects.of_model(model, new.iter_slices(17), ["m.skops", "new.csv"]))
    assert stream.mistakes == whole.mistakes
    assert stream.measures == whole.measures


# --- what is refused -----------------------------------------------------------------------------

Z, Y = drawn(rows=20, classes=3)


@pytest.mark.parametrize(
    ("logits", "y", "options", "said"),
    [
        (Z, Y[:-1], {}, r"labels have shape \(19,\), but \(20,\) is needed"),
        (Z.ravel(), Y, {}, r"labels have shape \(20,\), but \(60,\) is needed"),
        (Z[None], Y, {}, r"scores have shape \(1, 20, 3\)"),
        (Z.astype(str), Y, {}, "numbers of shape"),
        (Z[:0], Y[:0], {}, r"scores have shape \(0, 3\)"),
        (np.where(Z[3, 1] == Z, np.nan, Z), Y, {}, r"logits\[3\] holds NaN, in 1 of 20 rows"),
        (softly.softmax(Z, axis=1), Y, {}, "softly.from_probabilities"),
        (Z, np.where(np.arange(20) == 4, 7, Y), {}, r"by classes=\[...\]"),
        (Z, Y, {"classes": ["a", "b", "c"]}, "none of the columns stands for"),
        (Z, Y, {"classes": [0, 1]}, "2 different labels, but the logits have 3"),
        (Z, np.where(Y == 1, np.nan, Y), {}, "labels hold NaN"),
        (Z, np.array([str(k) for k in Y]), {"classes": ["0", "1", "x"]}, "the label '2'"),
        (1e20 * Z, Y, {}, "as large as"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(logits, y, options, said):
    with pytest.raises(ValueError, match=said) as caught:
        softly.Report.of_logits(logits, y, **options)
    assert "\n" not in str(caught.value)


def test_one_column_is_that_of_the_second_of_two_classes():
    logits, y = drawn(rows=300, classes=2)
    whole = made(logits, y)
    for scores in (logits[:, 1] - logits[:, 0], (logits[:, 1] - logits[:, 0])[:, None]):
        measures = softly.Report.of_logits(scores, y).measures
        assert measures["log_loss"].value == pytest.approx(whole.measures["log_loss"].value)


def test_labels_may_be_bytes_and_a_column():
    whole = made(Z, Y)
    for y in (Y[:, None], np.array([str(k) for k in Y]).astype("S"), Y.astype(float)):
        assert made(Z, y).measures == whole.measures
    assert made(Z.astype(np.float16), Y).rows == 20
