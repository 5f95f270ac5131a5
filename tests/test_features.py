"""Features mean what their names say, whatever the rows hold."""

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from softly import features
from softly.errors import TableError

KINDS = {"mass": "number", "eggs": "number", "island": "category"}


def typed(rows=200, seed=0):
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "mass": [
                None if i % 7 == 0 else float(x) for i, x in enumerate(rng.normal(50, 9, rows))
            ],
            "eggs": rng.integers(0, 9, rows),
            "island": [
                None if i % 11 == 0 else "rock" if i == 5 else ("north", "south")[i % 2]
                for i in range(rows)
            ],
        }
    )


def test_numbers_are_scaled_and_the_missing_are_marked():
    frame = typed()
    transformer = features.fit(frame, KINDS)
    matrix = features.transform(transformer, frame)
    names = features.feature_names(transformer)
    assert matrix.dtype == np.float32
    assert matrix.shape == (200, len(names))
    column = dict(zip(names, matrix.T, strict=True))
    mass = frame["mass"].to_numpy().astype(float)
    hole = np.isnan(mass)
    wanted = (mass - mass[~hole].mean()) / mass[~hole].std()
    np.testing.assert_allclose(column["mass"], np.where(hole, 0, wanted), atol=1e-6)
    np.testing.assert_array_equal(column["mass (missing)"], hole)
    eggs = frame["eggs"].to_numpy()
    np.testing.assert_allclose(column["eggs"], (eggs - eggs.mean()) / eggs.std(), atol=1e-6)
    assert "eggs (missing)" not in names


def test_categories_are_named_and_the_rare_share_a_column():
    frame = typed()
    transformer = features.fit(frame, KINDS)
    matrix = features.transform(transformer, frame)
    column = dict(zip(features.feature_names(transformer), matrix.T, strict=True))
    island = frame["island"]
    for name, holds in (
        ("island = north", island.eq_missing("north")),
        ("island = south", island.eq_missing("south")),
        ("island (missing)", island.is_null()),
        ("island = (rare)", island.eq_missing("rock")),
    ):
        np.testing.assert_array_equal(column[name], holds.to_numpy(), name)


@pytest.mark.parametrize(("rows", "least"), [(30, 2), (300, 3), (9000, 20)])
def test_a_category_is_rare_below_some_rows(rows, least):
    for count, rare in ((least - 1, True), (least, False)):
        island = ["rock"] * count + ["north"] * (rows - count)
        transformer = features.fit(pl.DataFrame({"island": island}), {"island": "category"})
        assert ("island = (rare)" in features.feature_names(transformer)) == rare


def test_new_and_missing_cells_have_an_answer():
    transformer = features.fit(typed(), KINDS)
    names = features.feature_names(transformer)
    new = pl.DataFrame(
        {"mass": [50.0, None], "eggs": [None, 3], "island": ["atlantis", None]},
        schema={"mass": pl.Float64, "eggs": pl.Int64, "island": pl.String},
    )
    row, other = features.transform(transformer, new)
    assert np.isfinite(row).all()
    assert dict(zip(names, row, strict=True))["island = (rare)"] == 1
    assert dict(zip(names, row, strict=True))["eggs"] == 0
    assert dict(zip(names, other, strict=True))["mass (missing)"] == 1
    assert dict(zip(names, other, strict=True))["island (missing)"] == 1


def test_an_unseen_category_is_none_of_the_known_where_none_was_rare():
    frame = pl.DataFrame({"island": ["north", "south"] * 20})
    transformer = features.fit(frame, {"island": "category"})
    assert features.feature_names(transformer) == ["island = north", "island = south"]
    np.testing.assert_array_equal(
        features.transform(transformer, pl.DataFrame({"island": ["atlantis"]})), [[0, 0]]
    )


def test_words_make_a_sparse_matrix_and_are_named():
    frame = pl.DataFrame({"mass": [1.0, 2.0] * 60, "note": ["grey gull", "a finch sang"] * 60})
    transformer = features.fit(frame, {"mass": "number", "note": "text"})
    matrix = features.transform(transformer, frame)
    names = features.feature_names(transformer)
    assert names == ["mass", "note: a", "note: finch", "note: grey", "note: gull", "note: sang"]
    dense = matrix.toarray() if sp.issparse(matrix) else matrix
    np.testing.assert_allclose(dense[0], [-1, 0, 0, 0.5**0.5, 0.5**0.5, 0], atol=1e-6)
    new = pl.DataFrame({"mass": [1.0, 1.0], "note": ["", "unheard of"]})
    answer = features.transform(transformer, new)
    answer = answer.toarray() if sp.issparse(answer) else answer
    np.testing.assert_allclose(answer[:, 1:], 0)


def test_many_words_stay_sparse():
    frame = pl.DataFrame({"note": [f"w{i} w{i + 1} w{i + 2}" for i in range(90)]})
    matrix = features.transform(features.fit(frame, {"note": "text"}), frame)
    assert sp.issparse(matrix)
    assert matrix.format == "csr"
    assert matrix.dtype == np.float32


def test_a_text_without_words_is_refused():
    frame = pl.DataFrame({"note": ["!", "?"] * 60})
    with pytest.raises(TableError, match="'note' was taken for text"):
        features.fit(frame, {"note": "text"})


@pytest.mark.parametrize("chunk", [7, 200, 1000])
def test_chunks_change_nothing(monkeypatch, chunk):
    frame = typed()
    wanted = features.transform(features.fit(frame, KINDS), frame)
    monkeypatch.setattr(features, "_CHUNK", chunk)
    matrix = features.transform(features.fit(frame, KINDS), frame)
    np.testing.assert_allclose(matrix, wanted, atol=1e-6)


def test_rows_picked_are_as_a_table_of_those_rows(monkeypatch):
    monkeypatch.setattr(features, "_CHUNK", 13)
    frame = typed().with_columns(note=pl.Series(["grey gull", "a finch sang"] * 100))
    kinds = KINDS | {"note": "text"}
    rows = np.arange(0, 200, 3)
    picked = features.fit(frame, kinds, rows)
    alone = features.fit(frame[rows], kinds)
    assert features.feature_names(picked) == features.feature_names(alone)
    got, wanted = features.transform(picked, frame, rows), features.transform(alone, frame[rows])
    for matrix in (got, wanted):
        assert matrix.shape[0] == len(rows)
    np.testing.assert_array_equal(np.asarray(got), np.asarray(wanted))


def test_a_column_with_no_number_in_the_training_rows():
    frame = pl.DataFrame({"mass": [None] * 5 + [1.0], "eggs": [1, 2, 3, 4, 5, 6]})
    transformer = features.fit(frame, {"mass": "number", "eggs": "number"}, np.arange(5))
    assert np.isfinite(features.transform(transformer, frame)).all()


@pytest.mark.parametrize("hole", [slice(0, 60), slice(60, 120), slice(140, 200)])
def test_a_long_stretch_without_a_number_spoils_no_column(monkeypatch, hole):
    """scikit-learn's partial_fit on blocks would make NaN of the mean or the scale."""
    monkeypatch.setattr(features, "_CHUNK", 10)
    mass = np.arange(200.0)
    mass[hole] = np.nan
    frame = pl.DataFrame({"mass": mass})
    transformer = features.fit(frame, {"mass": "number"})
    column = features.transform(transformer, frame)[:, 0]
    wanted = (mass - np.nanmean(mass)) / np.nanstd(mass)
    np.testing.assert_allclose(column, np.nan_to_num(wanted), atol=1e-6)
    assert features.feature_names(transformer) == ["mass", "mass (missing)"]
