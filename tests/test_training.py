"""From a table to a model: the split, the fit, and what is freed in between."""

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from softly import SoftmaxClassifier, tables, training
from softly.classifier_cv import SearchStep
from softly.errors import TableError


def table(rows=200, seed=0):
    rng = np.random.default_rng(seed)
    kind = np.where(np.arange(rows) % 10 == 0, 2, np.arange(rows) % 2)
    x = rng.normal(kind[:, None], 1.0, (rows, 2))
    return pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "kind": [f"k{k}" for k in kind]})


def prepare(frame, **options):
    return training.prepare(frame, tables.infer(frame, "kind"), **options)


def test_the_split_is_stratified_whole_and_repeatable():
    frame = table().with_row_index("row").with_columns(row=pl.col("row").cast(pl.Float64) / 3)
    prepared = prepare(frame, test=0.25)
    assert prepared.test.height == 50
    assert prepared.matrix.shape[0] == len(prepared.target) == 150
    wanted = frame["kind"].value_counts().sort("kind")["count"].to_numpy()
    held = prepared.test["kind"].value_counts().sort("kind")["count"].to_numpy()
    np.testing.assert_array_equal(held, wanted / 4)
    np.testing.assert_array_equal(np.bincount(prepared.target), wanted * 3 / 4)
    assert prepare(frame, test=0.25).test.equals(prepared.test)
    assert not prepare(frame, test=0.25, seed=1).test.equals(prepared.test)


def test_features_and_target_are_of_the_same_rows():
    frame = table().with_columns(
        a=pl.Series([{"k0": 0.0, "k1": 1.0, "k2": 2.0}[k] for k in table()["kind"]])
    )
    frame = frame.with_columns(
        kind=pl.when(pl.int_range(200) % 13 == 0).then(None).otherwise("kind")
    )
    prepared = prepare(frame)
    assert prepared.unlabelled == 16
    a = prepared.matrix[:, 0]
    for k in range(3):
        assert len(np.unique(a[prepared.target == k])) == 1
    assert len(np.unique(a)) == 3


def test_the_fit_is_scikit_learns():
    frame = table()
    done = training.fit(prepare(frame, test=frame), C=0.7)
    scaled = StandardScaler().fit_transform(frame.select("a", "b").to_numpy())
    theirs = LogisticRegression(C=0.7, tol=1e-8).fit(scaled, frame["kind"].to_numpy())
    np.testing.assert_array_equal(done.model.classifier.classes_, theirs.classes_)
    np.testing.assert_allclose(done.model.classifier.coef_, theirs.coef_, atol=2e-2)
    np.testing.assert_array_equal(
        np.array(done.model.classes)[done.model.logits(frame).argmax(axis=1)],
        theirs.predict(scaled),
    )
    assert done.converged
    assert done.rows == 200
    assert done.model.scores == done.evaluation.to_dict()
    np.testing.assert_allclose(done.model.frequencies, [0.4, 0.5, 0.1])


def test_passes_are_told_and_a_short_fit_is_not_called_converged():
    told = []
    done = training.fit(prepare(table()), C=1.0, max_iter=1, on_step=told.append)
    numbers = [p.number for p in told]
    assert numbers[:-1] == list(range(1, len(told)))  # then one is of the intercepts' curvature
    assert numbers[-1] in (len(told), len(told) + 1)
    assert not done.converged
    assert done.search is None
    assert done.model.classifier.C == 1.0
    assert done.model.classifier.verbose is False


def test_C_is_chosen_by_cross_validation():
    frame, told = table(600), []
    prepared = prepare(frame)
    done = training.fit(prepared, on_step=told.append)
    search = done.search
    wanted = LogisticRegressionCV(
        Cs=10,
        cv=StratifiedKFold(5, shuffle=True, random_state=0),
        scoring="neg_log_loss",
        l1_ratios=(0.0,),
        use_legacy_attributes=False,
        tol=1e-8,
    ).fit(prepared.matrix, prepared.target)
    assert done.model.classifier.C == search.C == wanted.C_
    np.testing.assert_allclose(search.log_loss, -wanted.scores_.mean(axis=(0, 1)), atol=1e-3)
    assert search.Cs == wanted.Cs_.tolist()
    assert len(search.standard_error) == 10
    assert (search.folds, search.rows) == (5, 480)
    steps = [step for step in told if isinstance(step, SearchStep)]
    assert told[: len(steps)] == steps  # the search, then the fit
    assert {(s.fold, s.fit) for s in steps if s.fold} == {
        (fold, fit) for fold in range(1, 6) for fit in range(1, 11)
    }
    assert told[len(steps)].number == 1
    assert done.converged
    assert type(done.model.classifier) is SoftmaxClassifier


def test_many_rows_are_searched_by_a_sample_of_every_class(monkeypatch):
    monkeypatch.setattr(training, "_SEARCH_ROWS", 100)
    prepared = prepare(table(1000))
    done = training.fit(prepared)
    assert done.search.rows == 100
    assert done.rows == 800
    chosen = training._stratified(prepared.target, 100)
    assert (np.diff(chosen) > 0).all()
    shares = np.bincount(prepared.target[chosen]) / np.bincount(prepared.target)
    np.testing.assert_allclose(shares, 1 / 8, atol=0.03)


def test_a_class_of_few_rows_does_not_stop_the_search():
    rare = pl.concat([table(), table().head(2).with_columns(kind=pl.lit("rare"))])
    done = training.fit(prepare(rare))
    assert done.search.folds == 5
    assert len(done.model.classes) == 4


def test_rows_too_few_to_choose_by():
    frame = pl.DataFrame({"a": [0.0, 1.5, 2.0, 3.0, 1.0], "kind": ["x", "y", "x", "y", "y"]})
    done = training.fit(prepare(frame, test=0.4))
    assert done.search is None
    assert done.model.classifier.C == 1.0


def test_predictions_come_from_the_logits():
    frame = table()
    model = training.fit(prepare(frame)).model
    from softly import features

    matrix = features.transform(model.transformer, model.schema.apply(frame))
    logits = model.logits(frame)
    theirs = model.classifier.decision_function(matrix)
    np.testing.assert_allclose(logits, theirs, atol=1e-5)
    np.testing.assert_array_equal(logits.argmax(axis=1), theirs.argmax(axis=1))
    two = frame.filter(pl.col("kind") != "k2")
    model = training.fit(prepare(two)).model
    logits = model.logits(two)
    matrix = features.transform(model.transformer, model.schema.apply(two))
    theirs = model.classifier.decision_function(matrix)
    np.testing.assert_allclose(logits[:, 1], theirs, atol=1e-5)
    np.testing.assert_array_equal(logits.argmax(axis=1), theirs > 0)
    assert not logits[:, 0].any()


def test_the_table_can_be_freed_before_the_fit():
    import weakref

    frame = table()
    gone = weakref.ref(frame)
    prepared = prepare(frame)
    del frame
    assert gone() is None
    assert prepared.test.height == 40


def test_bad_values_are_named_by_their_row_in_the_table():
    frame = table().with_columns(a=pl.when(pl.int_range(200) == 137).then(np.inf).otherwise("a"))
    with pytest.raises(TableError, match="row 138 holds 'inf'"):
        prepare(frame)


def test_a_class_that_the_split_would_lose():
    frame = pl.concat([table(), table().head(2).with_columns(kind=pl.lit("rare"))])
    with pytest.raises(TableError, match="no row of class 'rare' to train on"):
        prepare(frame, test=0.9)
    assert set(prepare(frame).target) == {0, 1, 2, 3}


def test_too_few_rows_to_hold_any_out():
    with pytest.raises(TableError, match="12 rows are too few to hold out 10%: 10 to train on"):
        prepare(table(12).with_columns(kind=pl.Series(["a", "b", "c"] * 4)), test=0.1)


@pytest.mark.parametrize("method", ["auto", "temperature"])
def test_probabilities_are_calibrated_on_rows_kept_from_the_fit(method):
    frame = table(rows=600)
    prepared = prepare(frame)
    done = training.fit(prepared, C=1e4, calibrate=method)
    counts = np.bincount(prepared.target)
    assert done.calibrated_on == (counts * 0.2).astype(int).sum()
    assert done.rows + done.calibrated_on == len(prepared.target)
    assert "log loss" in done.model.classifier.calibration_ or method == "temperature"
    plain = training.fit(prepared, C=1e4)
    assert plain.calibrated_on == 0
    assert done.evaluation.model.log_loss < plain.evaluation.model.log_loss + 0.02


def test_rows_kept_apart_are_of_every_class_its_share():
    target = np.repeat([0, 1, 2, 3], [100, 11, 4, 1])
    kept = training._kept_apart(np.random.default_rng(0).permutation(target))
    assert kept.sum() == 22
    shuffled = np.random.default_rng(0).permutation(target)
    assert np.bincount(shuffled[training._kept_apart(shuffled)], minlength=4).tolist() == [
        20,
        2,
        0,
        0,
    ]


def test_too_few_rows_to_calibrate_on():
    frame = table(rows=16)
    with pytest.raises(TableError, match="too few to calibrate"):
        training.fit(prepare(frame[1:9], test=frame), C=1.0, calibrate="auto")
