"""What a column holds is found out, kept to, and refused by row and value."""

from __future__ import annotations

import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softly import files, tables
from softly.errors import TableError
from softly.tables import Column, Schema

PENGUINS = Path(__file__).parent.parent / "examples" / "penguins.csv"
ROWS = 40
WORDS = [f"{a} {b}" for a in ("red", "green", "blue", "grey") for b in "abcdefghij"]


def frame_of(values: object, name: str = "x") -> pl.DataFrame:
    column = pl.Series(name, values, strict=False)
    other = pl.Series("other", [0.5 * i for i in range(len(column))])
    return pl.DataFrame([column, other, pl.Series("y", ["a"] * len(column))])


def column_of(values: object, name: str = "x", kind: str | None = None) -> Column:
    return tables.infer(frame_of(values, name), "y", {name: kind} if kind else {}).columns[0]


def typed(values: object, later: object, kind: str | None = None) -> pl.DataFrame:
    """The typed columns of later values, under the schema of the values of training."""
    schema = tables.infer(frame_of(values), "y", {"x": kind} if kind else {})
    return schema.apply(frame_of(later)).drop("other")


# --- what a column holds ------------------------------------------------------

REPEATED = [1, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (REPEATED, "number"),
        ([1.5, float("nan"), None], "number"),
        ([Decimal("1.5"), Decimal(2)], "number"),
        ([True, False, None], "yes/no"),
        ([date(2024, 1, 1), date(2024, 1, 2)], "datetime"),
        ([datetime(2024, 1, 1, 5), None], "datetime"),
        ([time(1), time(2)], "number"),
        ([timedelta(1), timedelta(2)], "number"),
        (["Yes", "no", " YES", "NA"], "yes/no"),
        (["t", "F"], "yes/no"),
        (["y", "n"], "yes/no"),
        (["ja", "Nein"], "yes/no"),
        (["oui", "non"], "yes/no"),
        (["si", "no"], "yes/no"),
        (["예", "아니요"], "yes/no"),
        (["yes", "no", "maybe"], "category"),
        (["yes", "false"], "category"),
        (["yes", "yes", None], "category"),
        (["1", " 2.5 ", "-1e3", ""], "number"),
        (["1", "2", "three"], "category"),
        (["2024-01-31", "2024-02-01", "?"], "datetime"),
        (["2024-01-31", "31/01/2024"], "category"),
        (["2024-02-30", "2024-02-01"], "category"),
        (["1/2/24", "13/2/24"], "category"),
        (["a", "b", "a"], "category"),
        (["a", "b", "c", "d"], "category"),  # too few rows to call these names
        (WORDS, "identifier"),
        ([f"u{i}" for i in range(ROWS)], "identifier"),
        ([*(f"u{i}" for i in range(ROWS)), None], "identifier"),
        ([f"u{i % 30}" for i in range(ROWS)], "category"),
        ([f"{w} is what I bought" for w in WORDS], "text"),
        ([f"{w} it is" for w in WORDS[:20]] * 2, "category"),
        ([f"{w} shoes" for w in WORDS[:30]] + WORDS[:10], "text"),
        ([f"我昨天买了第{i}双红色的鞋子" for i in range(ROWS)], "text"),
        (["one two three four five"] * 9 + ["six seven eight nine"] * 9, "category"),
        ([7, 7, 7], "constant"),
        (["a", "a "], "constant"),
        ([True, True], "constant"),
        ([None, None], "constant"),
        (["NA", "", None], "constant"),
        ([float("nan"), None], "constant"),
        ([7, 7, None], "number"),
        (["a", "a", None], "category"),
        ([[1], [2]], "unsupported"),
        ([{"a": 1}, {"a": 2}], "unsupported"),
        ([b"a", b"b"], "unsupported"),
    ],
)
def test_kind(values: list[object], kind: str) -> None:
    assert column_of(values).kind == kind


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["a", "b", "1"])])
def test_categories_as_stored(dtype: pl.DataType) -> None:
    values = pl.Series(["a", "b", "a", None], dtype=dtype)
    assert column_of(values).kind == "category"
    assert column_of(values).missing == 1
    assert typed(values, ["b", "c", None, "a"])["x"].to_list() == ["b", "c", None, "a"]


@pytest.mark.parametrize(
    "name",
    ["id", "ID", "uuid", "Index", "key", "rowid", "nr", "customer_id", "id_of", "customerId"],
)
def test_integers_named_as_identifiers(name: str) -> None:
    spread = [i * i for i in range(ROWS)]
    assert column_of(spread, name).kind == "identifier"
    assert column_of(spread[:19], name).kind == "number"  # too few rows
    assert column_of([*spread, 0], name).kind == "number"  # one value twice
    assert column_of([*spread, None], name).kind == "number"


@pytest.mark.parametrize("name", ["x", "width", "paid", "valid", "idle", "monkey", "Madrid"])
def test_other_integers_are_numbers(name: str) -> None:
    assert column_of([i * i for i in range(ROWS)], name).kind == "number"


def test_row_numbers_are_identifiers() -> None:
    assert column_of(range(5, 45)).kind == "identifier"
    assert column_of(list(range(45, 5, -1))).kind == "identifier"
    assert column_of([*range(39), 40]).kind == "number"
    assert column_of([float(i) for i in range(ROWS)]).kind == "number"


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["1,5", "2", "-0,25"], [1.5, 2.0, -0.25]),
        (["1.234,5", "2,25"], [1234.5, 2.25]),
        (["1,234.5", "2"], [1234.5, 2.0]),
        (["1,234,567", "12,345"], [1234567.0, 12345.0]),
        (["0,125", "1,234"], [0.125, 1.234]),
        (["+1", ".5", "1E2"], [1.0, 0.5, 100.0]),
    ],
)
def test_numbers_as_people_write_them(values: list[str], numbers: list[float]) -> None:
    assert column_of(values).kind == "number"
    assert typed(values, values)["x"].to_list() == numbers


@pytest.mark.parametrize("values", [["1,2,3", "4"], ["1,5", "2.5"], ["1,23.4", "2"]])
def test_no_numbers(values: list[str]) -> None:
    assert column_of(values).kind == "category"


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y/%m/%d"])
@pytest.mark.parametrize("clock", ["", " %H:%M", " %H:%M:%S"])
def test_dates(form: str, clock: str) -> None:
    moments = [datetime(2023, 12, 31, 23, 59), datetime(1969, 7, 20, 20, 17), datetime(2024, 2, 29)]
    values = [moment.strftime(form + clock) for moment in moments]
    assert column_of(values).kind == "datetime"
    assert column_of(values).format == form
    assert column_of(values).hours == bool(clock)
    parts = typed(values, [values[0], None, values[1]])
    assert parts["x (year)"].to_list() == [2023, None, 1969]
    assert parts["x (month)"].to_list() == [12, None, 7]
    assert parts["x (day)"].to_list() == [31, None, 20]
    assert parts["x (weekday)"].to_list() == [7, None, 7]
    whole_days = [19722, None, -165]
    assert [None if d is None else d // 1 for d in parts["x (days)"]] == whole_days
    assert ("x (hour)" in parts.columns) == bool(clock)
    if clock:
        assert parts["x (hour)"].to_list() == [23, None, 20]
    assert set(parts.dtypes) == {pl.Float64}


def test_days_and_months_are_not_confused() -> None:
    assert column_of(["01/02/2024", "13/02/2024"]).format == "%d/%m/%Y"
    assert column_of(["01/02/2024", "02/13/2024"]).format == "%m/%d/%Y"


def test_iso_times() -> None:
    values = ["2024-01-31T10:20:30Z", "2024-01-31T11:20:30.5+09:00", "2024-01-31 12:20"]
    assert column_of(values).kind == "datetime"
    assert typed(values, values)["x (hour)"].to_list() == [10, 11, 12]


def test_datetimes_stored_or_as_text_are_the_same() -> None:
    stored = [datetime(2024, 1, 31, 10), datetime(2024, 2, 1, 0)]
    text = [str(moment) for moment in stored]
    zoned = pl.Series(stored).dt.replace_time_zone("Asia/Seoul").dt.cast_time_unit("ns")
    expected = typed(stored, stored)
    for later in (text, zoned):
        assert typed(stored, later).equals(expected)
        assert typed(text, later).equals(expected)


# --- what a column is said to hold --------------------------------------------


def test_the_user_knows_better() -> None:
    codes = [10, 20, 10, 30]
    assert column_of(codes, kind="category").kind == "category"
    assert column_of(codes, kind="identifier").kind == "identifier"
    assert column_of(WORDS, kind="text").kind == "text"
    assert column_of(WORDS, kind="category").kind == "category"
    assert column_of(range(ROWS), kind="number").kind == "number"
    assert typed([0, 1, None], [1.0, 0.0, None], "yes/no")["x"].to_list() == [1, 0, None]
    assert typed(["male", "female"], ["male", "female"], "yes/no")["x"].to_list() == [1, 0]
    assert typed(["nein", "ja"], ["JA", "Nein"], "yes/no")["x"].to_list() == [1, 0]


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (["1", "2", "abc", "x"], "number", "'x' cannot be a number: row 3 holds 'abc'"),
        (["1,5", "2,5", "?", "abc"], "number", "row 4 holds 'abc'"),
        (["2024-01-01", "01.02.2024", "2024-01-02"], "datetime", "row 2 holds '01.02.2024'"),
        ([1, 2], "datetime", "row 1 holds '1'"),
        (["a", "b", "c"], "yes/no", "'x' cannot be yes/no: it holds 3 distinct values"),
        ([[1], [2]], "number", "'x' cannot be a number: it holds List"),
        ([date(2024, 1, 1)] * 2, "number", "row 1 holds '2024-01-01'"),
    ],
)
def test_the_user_is_mistaken(values: list[object], kind: str, message: str) -> None:
    with pytest.raises(TableError) as error:
        column_of(values, kind=kind)
    assert message in str(error.value)


def test_names_that_are_not_there() -> None:
    frame = files.read(PENGUINS)
    with pytest.raises(
        TableError, match=r"no column 'speces': did you mean 'species'\? .*'island'"
    ):
        tables.infer(frame, "speces")
    with pytest.raises(TableError, match="did you mean 'island'"):
        tables.infer(frame, "species", {"Islands": "text"})
    with pytest.raises(TableError, match="did you mean 'year'"):
        tables.infer(frame, "species", drop=["years"])
    with pytest.raises(TableError, match="no column type 'numbr': did you mean 'number'"):
        tables.infer(frame, "species", {"year": "numbr"})
    with pytest.raises(TableError, match=r"no column 'qqq' \(the columns are"):
        tables.infer(frame, "qqq")
    for request in ({"kinds": {"species": "text"}}, {"drop": ["species"]}):
        with pytest.raises(TableError, match="'species' is the target"):
            tables.infer(frame, "species", **request)  # type: ignore[arg-type]


def test_nothing_to_learn_from() -> None:
    with pytest.raises(TableError, match="no column is left to learn 'y' from"):
        tables.infer(pl.DataFrame({"x": [1, 1], "y": ["a", "b"]}), "y")


def test_a_part_of_a_date_has_the_name_of_a_column() -> None:
    frame = pl.DataFrame({"d": ["2024-01-01", "2024-02-01"], "d (year)": [1, 2], "y": ["a", "b"]})
    with pytest.raises(TableError, match=r"'d \(year\)'"):
        tables.infer(frame, "y")
    assert len(tables.infer(frame, "y", drop=["d (year)"]).left_out) == 1


# --- later tables -------------------------------------------------------------


def test_stored_numbers_are_not_copied() -> None:
    frame = frame_of(pl.Series(REPEATED, dtype=pl.Int16))
    numbers = tables.infer(frame, "y").apply(frame)["x"]
    assert numbers.dtype == pl.Int16
    assert np.shares_memory(numbers.to_numpy(), frame["x"].to_numpy())
    assert np.isnan(typed([1.5, 2], [float("nan"), None])["x"][0])
    assert typed([Decimal("1.5"), Decimal(2)], [Decimal("2.5")])["x"].to_list() == [2.5]
    assert typed([time(1), time(2)], [time(0, 1), None])["x"].to_list() == [pytest.approx(60), None]
    assert typed([timedelta(1), timedelta(2)], [timedelta(0, 1.5)])["x"].to_list() == [1.5]


@pytest.mark.parametrize(
    ("values", "later", "message"),
    [
        (REPEATED, ["1", "NA", " abc "], "'x' was a number in training, but row 13 holds ' abc '"),
        ([1.5, 2], [1, float("-inf")], "'x' needs finite numbers, but row 12 holds '-inf'"),
        (
            ["1,5", "2"],
            ["1.5"],
            r"'x' was a number \(numbers such as 1.234,5\) in training, but row 11 holds '1.5'",
        ),
        (["2024-01-31", "2024-01-30"], [None, "31.1."], "was a datetime .* row 12 holds '31.1.'"),
        (["yes", "no"], ["no", None, "2"], "'x' was yes or no in training, but row 13 holds '2'"),
        (
            [True, False],
            ["true", "yes"],
            "'x' was true or false in training, but row 12 holds 'yes'",
        ),
    ],
)
def test_a_value_of_another_kind(values: object, later: object, message: str) -> None:
    schema = tables.infer(frame_of(values), "y")
    with pytest.raises(TableError, match=message):
        schema.apply(frame_of(later), first_row=10)


def test_missing_and_extra_columns() -> None:
    frame = files.read(PENGUINS)
    schema = tables.infer(frame, "species", drop=["year"])
    later = frame.rename({"bill_depth_mm": "bill_depth"}).drop("species", "year", "sex")
    assert schema.extra(later) == ["bill_depth"]
    with pytest.raises(TableError, match=r"'bill_depth_mm', 'sex': did you mean 'bill_depth'\?"):
        schema.apply(later)
    shuffled = frame.select(sorted(frame.columns, reverse=True)).with_columns(new=1)
    assert schema.apply(shuffled).equals(schema.apply(frame))
    assert schema.extra(shuffled) == ["new"]


@pytest.mark.parametrize(
    "later", [[1, 20, None], [1.0, 20.0, None], ["1", "20", None], ["1.0", "20.", "NA"]]
)
def test_a_category_of_numbers_is_the_same_however_stored(later: object) -> None:
    for values in ([1, 20, 1], [1.0, 20.0, None], ["1", "20", "1"]):
        assert typed(values, later, "category")["x"].to_list() == ["1", "20", None]


def test_text_is_never_null() -> None:
    values = [f"{w} is what I bought" for w in WORDS]
    assert typed(values, [" a b ", None, "NA"])["x"].to_list() == ["a b", "", ""]


def test_all_missing_later() -> None:
    for values in (REPEATED, ["yes", "no"], ["a", "b"], ["2024-01-01", "2024-01-02"]):
        assert set(typed(values, [None, None]).null_count().row(0)) == {2}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.one_of(st.none(), st.floats(allow_infinity=False)), min_size=1))
def test_numbers_survive_as_text(values: list[float | None]) -> None:
    text = [None if v is None else repr(v) for v in values]
    got = typed([1.5, 2.5], text)["x"].to_list()
    assert got == [None if v is None or np.isnan(v) else v for v in values]


def test_penguins() -> None:
    frame = files.read(PENGUINS)
    schema = tables.infer(frame, "species", {"year": "category"})
    kinds = {c.name: (c.kind, c.missing) for c in schema.columns}
    assert kinds == {
        "island": ("category", 0),
        "bill_length_mm": ("number", 2),
        "bill_depth_mm": ("number", 2),
        "flipper_length_mm": ("number", 2),
        "body_mass_g": ("number", 2),
        "sex": ("category", 11),
        "year": ("category", 0),
    }
    assert schema.columns[3].why == "integers, 55 distinct values"
    assert schema.left_out == ()
    assert schema.numbers == list(kinds)[1:5]
    whole = schema.apply(frame)
    assert list(schema.typed_kinds()) == whole.columns
    stream, row = [], 0
    for batch in files.batches(PENGUINS, schema.numbers, rows=50):
        stream.append(schema.apply(batch, row))
        row += batch.height
    assert pl.concat(stream).equals(whole.cast(stream[0].schema))


def test_schema_survives_json() -> None:
    frame = files.read(PENGUINS).with_columns(day=pl.lit("2024-01-01 10:00"), flag=pl.lit("yes"))
    frame = frame.with_columns(
        day=pl.when(pl.col("sex") == "male").then(pl.lit("2024-02-01 11:30")).otherwise("day"),
        flag=pl.when(pl.col("sex") == "male").then(pl.lit("no")).otherwise("flag"),
    )
    schema = tables.infer(frame, "species", drop=["island"])
    again = Schema.from_dict(json.loads(json.dumps(schema.to_dict())))
    assert again == schema
    assert again.apply(frame).equals(schema.apply(frame))
    assert schema.column_of("day (hour)").name == "day"
    assert schema.column_of("sex").name == "sex"
    assert {c.name for c in schema.left_out} == {"island"}


# --- the target ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 20, None], ["1", "20", ""]),
        ([1.0, 2.5, float("nan")], ["1", "2.5", ""]),
        (["1.0", "2.50", "NA"], ["1", "2.5", ""]),
        ([True, False, None], ["True", "False", ""]),
        (["TRUE", "false", "?"], ["True", "False", ""]),
        ([" a ", "b c", ""], ["a", "b c", ""]),
        (["-0", "-0.0", "1e5"], ["0", "0", "1e5"]),
        (["1.2.3", "00a", "12345678901234567890"], ["1.2.3", "00a", "12345678901234567890"]),
        ([date(2024, 1, 2), None], ["2024-01-02", ""]),
    ],
)
def test_labels(values: list[object], expected: list[str]) -> None:
    names, missing = tables.labels(frame_of(values, "t"), "t")
    assert names.tolist() == expected
    assert missing.tolist() == [not name for name in expected]
    assert names.dtype.kind == "U"


def test_labels_that_are_not_there() -> None:
    with pytest.raises(TableError, match="did you mean 'target'"):
        tables.labels(pl.DataFrame({"target": [1]}), "tarqet")
    with pytest.raises(TableError, match="'t' holds List"):
        tables.labels(pl.DataFrame({"t": [[1]]}), "t")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "missing in every row"),
        (["a"] * 5, r"'t' holds one class only \('a'\): a classifier needs two or more"),
        (["a", "a", "b", "c", "c"], "class 'b' of the target 't' has one row only"),
        ([str(i / 7) for i in range(101)], "looks like a quantity"),
        ([str(i // 3) for i in range(100)], "looks like a quantity"),
        ([f"w{i}" for i in range(101)], "101 different values in 101 rows: they look like names"),
        ([f"w{i // 3}" for i in range(100)], "class 'w33' .* has one row only"),
    ],
)
def test_classes_nobody_can_learn(labels: list[str], message: str) -> None:
    with pytest.raises(TableError, match=message):
        tables.check_classes(np.array(labels, dtype=np.str_), "t")


def test_classes_to_learn() -> None:
    tables.check_classes(np.array(["a", "b"] * 2), "t")
    tables.check_classes(np.array([str(i) for i in range(200)] * 2), "t")


def test_a_class_of_one_row_is_enough_where_nothing_is_held_out() -> None:
    tables.check_classes(np.array(["a", "a", "b"]), "y", to_be_split=False)


def test_why_no_column_is_left() -> None:
    frame = pl.DataFrame({"mass": [1, 1], "kind": ["a", "b"]})
    with pytest.raises(TableError, match=r"learn 'kind' from \(mass: always 1\)"):
        tables.infer(frame, "kind")


def test_leading_zeros_are_kept(tmp_path: Path) -> None:
    """A postcode names something: as a number it would be another one."""
    path = tmp_path / "codes.csv"
    path.write_text("code,y\n" + "".join(f"0{i % 5}11,a\n" for i in range(30)), "utf-8")
    frame = files.read(path)
    schema = tables.infer(frame, "y")
    assert schema.columns[0].kind == "category"
    assert schema.apply(frame)["code"][:2].to_list() == ["0011", "0111"]
    assert tables.labels(frame, "code")[0][0] == "0011"


def test_what_other_formats_hold_is_understood() -> None:
    """Trained on text of a CSV file; JSON lines and Parquet hold true values and ISO dates."""
    assert typed(["ja", "nein"], [True, False, None])["x"].to_list() == [1.0, 0.0, None]
    assert typed(["31.12.2024", "01.02.2024"], ["2024-10-05"])["x (month)"].to_list() == [10]
