"""What a report says is so: scores by scikit-learn, weights by moving one cell."""

import io
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import sklearn.metrics
from rich.console import Console

from softly import evaluation, tables, terminal, training
from softly.errors import TableError


def table(rows=240, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, classes, rows)
    return pl.DataFrame(
        {
            "mass": rng.normal(kind, 1.0),
            "island": np.array(["north", "south", "west"])[(kind + rng.integers(0, 2, rows)) % 3],
            "kind": [f"k{k}" for k in kind],
        }
    ).with_columns(mass=pl.when(pl.int_range(rows) % 9 == 0).then(None).otherwise("mass"))


def trained(frame):
    return training.fit(training.prepare(frame, tables.infer(frame, "kind"))).model


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_equal_scikit_learns(classes):
    frame = table(classes=classes)
    model = trained(frame)
    result = evaluation.evaluate(model, [frame])
    logits = model.logits(frame).astype(np.float64)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    truth = frame["kind"].to_list()
    predicted = np.array(model.classes)[logits.argmax(axis=1)]
    onehot = np.array(truth)[:, None] == np.array(model.classes)
    assert result.rows == 240
    assert result.model.accuracy == sklearn.metrics.accuracy_score(truth, predicted)
    assert result.model.log_loss == pytest.approx(sklearn.metrics.log_loss(truth, p), rel=1e-5)
    assert result.model.brier_score == pytest.approx(((p - onehot) ** 2).sum(1).mean(), rel=1e-5)
    assert result.confusion == sklearn.metrics.confusion_matrix(truth, predicted).tolist()
    guess = np.tile(model.frequencies, (240, 1))
    assert result.guessing.log_loss == pytest.approx(sklearn.metrics.log_loss(truth, guess))
    most = model.classes[int(model.frequencies.argmax())]
    assert result.guessing.accuracy == pytest.approx(np.mean([t == most for t in truth]))


def test_a_stream_is_scored_as_the_whole_table():
    frame = table()
    model = trained(frame)
    whole, stream = (evaluation.evaluate(model, f) for f in ([frame], frame.iter_slices(17)))
    assert stream.confusion == whole.confusion
    assert stream.model.log_loss == pytest.approx(whole.model.log_loss, rel=1e-6)


def test_unknown_classes_and_missing_labels_are_counted():
    frame = table()
    model = trained(frame)
    label = pl.Series(["new", None, "k0", "new"])
    result = evaluation.evaluate(model, [frame.head(4).with_columns(kind=label)])
    assert (result.rows, result.unlabelled, result.unknown) == (1, 1, {"new": 2})
    with pytest.raises(TableError, match=r"no row can be scored.*\(k0, k1, k2\)"):
        evaluation.evaluate(model, [frame.head(2).with_columns(kind=pl.lit("new"))])


@pytest.mark.parametrize("classes", [2, 3])
def test_weights_are_what_one_cell_changes(classes):
    """Independent of all names inside: change a cell, and see how the logits move."""
    frame = table(classes=classes)
    model = trained(frame)
    weights = {c: dict(w) for c, w in evaluation.weights(model, most=99).items()}
    assert list(weights) == model.classes
    names = set(weights["k0"])
    assert names == {"mass", "mass (missing)"} | {
        f"island = {i}" for i in ("north", "south", "west")
    }
    for parts in weights.values():
        sizes = [abs(w) for w in parts.values()]
        assert sizes == sorted(sizes, reverse=True)

    def centred(mass, island):
        row = pl.DataFrame(
            {"mass": [mass], "island": [island]}, schema_overrides={"mass": pl.Float64}
        )
        logits = model.logits(row)[0].astype(np.float64)
        return logits - logits.mean()

    # training rows only: the scale is theirs, found from two steps of mass
    step = centred(3.0, "north") - centred(2.0, "north")
    by_mass = np.array([weights[c]["mass"] for c in model.classes])
    scale = by_mass @ by_mass / (by_mass @ step)
    assert scale == pytest.approx(frame["mass"].std(), rel=0.15)
    np.testing.assert_allclose(step * scale, by_mass, atol=1e-4)
    moved = centred(2.0, "south") - centred(2.0, "north")
    wanted = [weights[c]["island = south"] - weights[c]["island = north"] for c in model.classes]
    np.testing.assert_allclose(moved, wanted, atol=1e-4)


def test_weights_of_each_class_sum_to_nothing():
    weights = evaluation.weights(trained(table()), most=99)
    for name in ("mass", "island = north"):
        assert sum(dict(parts)[name] for parts in weights.values()) == pytest.approx(0, abs=1e-3)


def drawn(found, width):
    console = Console(file=io.StringIO(), width=width)
    terminal.draw_evaluation(console, found)
    return console.file.getvalue()


def test_the_confusion_matrix_is_drawn_where_it_fits_and_in_pairs_where_not():
    frame = table()
    found = evaluation.evaluate(trained(frame), [frame])
    wide, narrow = drawn(found, 60), drawn(found, 20)
    rows = [line.split() for line in wide.splitlines() if line.startswith("k")]
    shown = [[int(n.replace(".", "0")) for n in row[1:]] for row in rows]
    assert shown == found.confusion
    assert "Most often confused" in narrow
    wrong = np.array(found.confusion) - np.diag(np.diag(found.confusion))
    first = next(line.split() for line in narrow.splitlines() if line.startswith("k"))
    assert int(first[2]) == wrong.max()
    perfect = replace(found, confusion=np.diag([3, 4, 5]).tolist())
    assert "No row was given a wrong class." in " ".join(drawn(perfect, 20).split())


def test_letters_two_columns_wide_count_for_two():
    frame = table()
    found = evaluation.evaluate(trained(frame), [frame])
    named = replace(found, classes=["독수리독수리", "갈매기갈매기", "참새참새참새"])
    # 16 for the label, three times 2 + 12 for the classes: 58, and by letters only 40
    assert "Most often confused" in drawn(named, 57)
    assert "true \\ predicted" in drawn(named, 58)
