"""Frames to typed columns: what each column of a table holds, and holding it to that.

`infer` looks at the table a classifier is trained on and decides what each
column is; the `Schema` it returns turns any later table into the same typed
columns, or says in one sentence which row does not fit.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from softly.csv_files import CODE, MISSING
from softly.errors import TableError

__all__ = ["KINDS", "Column", "Schema", "check_classes", "infer", "labels"]

KINDS = ("number", "category", "text", "datetime", "yes/no", "identifier")
"""What a column may be said to be."""

_USED = ("number", "category", "text", "datetime", "yes/no")
_YES_NO = (
    ("yes", "no"),
    ("true", "false"),
    ("y", "n"),
    ("t", "f"),
    ("ja", "nein"),
    ("oui", "non"),
    ("si", "no"),
    ("sí", "no"),
    ("예", "아니요"),
)
_DATES = ("%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y/%m/%d")
_TIMES = ("", " %H:%M", " %H:%M:%S%.f", "T%H:%M", "T%H:%M:%S%.f")
# A number's format is the mark before its decimals where the text is not plain:
# "." is 1,234.5 and "," is 1.234,5.
_MARKED = {
    ".": r"^[+-]?([1-9]\d{0,2}(,\d{3})+|\d+)(\.\d+)?$",
    ",": r"^[+-]?([1-9]\d{0,2}(\.\d{3})+|\d+)(,\d+)?$",
}
_FEW_ROWS = 20  # below this, values that all differ say nothing
_IDENTIFIER = re.compile(r"id|uuid|guid|index|key|rowid|row|nr|no|\w+[_ ]id|id[_ ]\w+", re.I)
_CAMEL_ID = re.compile(r"\w*[a-z0-9]I[dD]")


@dataclass(frozen=True)
class Column:
    """What one column of the training table holds.

    Attributes
    ----------
    name : str
    kind : str
        One of `KINDS`, or, for a column left out, "constant", "unsupported"
        or "dropped".
    why : str
        The reason for the kind, short enough for a list of columns.
    format : str
        For a datetime that came as text the strptime format of its date; for
        a number that came as text with marks, the mark before its decimals.
    true, false : str
        The two values of a yes/no column, in lower case.
    hours : bool
        Whether a datetime held any time of day but midnight.
    missing : int
        How many cells were missing in training.
    """

    name: str
    kind: str
    why: str
    format: str = ""
    true: str = ""
    false: str = ""
    hours: bool = False
    missing: int = 0

    @property
    def typed_kinds(self) -> dict[str, str]:
        """The typed columns this one becomes, and the kind of each."""
        if self.kind == "datetime":
            return {f"{self.name} ({part})": "number" for part in self._parts}
        if self.kind in _USED:
            return {self.name: "number" if self.kind == "yes/no" else self.kind}
        return {}

    @property
    def _parts(self) -> list[str]:
        return [part for part in _PARTS if part != "hour" or self.hours]


@dataclass(frozen=True)
class Schema:
    """The columns of the training table but the target, in file order."""

    target: str
    columns: tuple[Column, ...]

    @property
    def used(self) -> tuple[Column, ...]:
        return tuple(c for c in self.columns if c.kind in _USED)

    @property
    def left_out(self) -> tuple[Column, ...]:
        return tuple(c for c in self.columns if c.kind not in _USED)

    @property
    def numbers(self) -> list[str]:
        """The columns whose text is plain numbers: what `files.batches` may parse at once."""
        return [c.name for c in self.columns if c.kind == "number" and not c.format]

    def typed_kinds(self) -> dict[str, str]:
        """The names of the typed columns, in order, and whether number, category or text."""
        return {name: kind for c in self.used for name, kind in c.typed_kinds.items()}

    def column_of(self, typed_name: str) -> Column:
        """The column that a typed column was made from."""
        return next(c for c in self.used if typed_name in c.typed_kinds)

    def extra(self, frame: pl.DataFrame) -> list[str]:
        """The columns of a frame that training knew nothing of."""
        known = {self.target, *(c.name for c in self.columns)}
        return [name for name in frame.columns if name not in known]

    def to_dict(self) -> dict[str, Any]:
        return {"target": self.target, "columns": [asdict(c) for c in self.columns]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Schema:
        return cls(fields["target"], tuple(Column(**c) for c in fields["columns"]))

    def apply(self, frame: pl.DataFrame, first_row: int = 0) -> pl.DataFrame:
        """Turn a table into typed columns.

        Parameters
        ----------
        frame : polars.DataFrame
            With at least the used columns, in any order, typed or as text.
        first_row : int
            How many rows came before this frame: errors count from there.

        Returns
        -------
        polars.DataFrame
            Numbers as they are stored (text and yes/no become floats),
            categories as text, text without nulls, and each datetime as the
            numbers year, month, weekday, day, hour and days since 1970.

        Raises
        ------
        TableError
            If a column is missing, or a value is not what its column held in
            training.
        """
        self._check_columns(frame)
        typed = [
            series
            for column in self.used
            for series in _TYPED[column.kind](frame[column.name], column, first_row)
        ]
        return pl.DataFrame(typed)

    def _check_columns(self, frame: pl.DataFrame) -> None:
        lacking = [c.name for c in self.used if c.name not in frame.columns]
        if lacking:
            unknown = self.extra(frame)
            named = ", ".join(f"'{name}'" for name in lacking)
            hint = next(filter(None, (_did_you_mean(name, unknown) for name in lacking)), "")
            raise TableError(f"the table lacks columns the model was trained with: {named}{hint}")


def infer(
    frame: pl.DataFrame,
    target: str,
    kinds: Mapping[str, str] | None = None,
    drop: Iterable[str] = (),
) -> Schema:
    """Find out what each column of a training table holds.

    Parameters
    ----------
    frame : polars.DataFrame
    target : str
        The column to predict.
    kinds : mapping of str to str, optional
        Columns whose kind the user knows better, and that kind.
    drop : iterable of str
        Columns to leave out.

    Raises
    ------
    TableError
        If a name or a kind is unknown, if a column does not hold what `kinds`
        says, or if no column is left to learn from.
    """
    kinds, drop = dict(kinds or {}), set(drop)
    _check_request(frame, target, kinds, drop)
    columns = tuple(
        Column(series.name, "dropped", "as asked")
        if series.name in drop
        else _forced(series, kinds[series.name])
        if series.name in kinds
        else _inferred(series)
        for series in frame.drop(target)
    )
    schema = Schema(target, columns)
    names = [name for c in schema.used for name in c.typed_kinds]
    if not names:
        why = ", ".join(f"{c.name}: {c.why}" for c in schema.left_out[:5])
        more = ", ..." if len(schema.left_out) > 5 else ""
        reasons = f" ({why}{more})" if why else ""
        raise TableError(f"no column is left to learn '{target}' from{reasons}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise TableError(f"'{twice}' is a column and a part of a date: rename or drop one of them")
    return schema


def labels(frame: pl.DataFrame, target: str) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.bool_]]:
    """The target as text, the same whatever the format of the file.

    Returns
    -------
    labels : ndarray of str
        Numbers in their shortest text (1, not 1.0), truth values as True and
        False; empty where missing.
    missing : ndarray of bool
        The rows without a label.

    Raises
    ------
    TableError
        If there is no such column, or it holds no labels.
    """
    _check_name(target, frame.columns)
    series = frame[target]
    if _is_unsupported(series):
        raise TableError(f"the target '{target}' holds {series.dtype}: labels are needed")
    text = _label_text(series)
    return text.fill_null("").to_numpy().astype(np.str_), text.is_null().to_numpy()


def check_classes(labels: npt.NDArray[np.str_], target: str, *, to_be_split: bool = True) -> None:
    """Refuse labels that no classifier can be trained on.

    Parameters
    ----------
    labels : ndarray of str
        Those that are not missing.
    target : str
        Their column.
    to_be_split : bool
        Whether some rows of each class are to be held out.

    Raises
    ------
    TableError
        If there are fewer than two classes, if a class has one row only, or
        if the labels look like a quantity.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) == 0:
        raise TableError(f"the target '{target}' is missing in every row")
    if len(classes) == 1:
        raise TableError(
            f"the target '{target}' holds one class only ('{classes[0]}'): "
            "a classifier needs two or more"
        )
    most_differ = len(classes) > 20 and len(classes) > len(labels) / 2
    if len(classes) > 20 and (most_differ or counts.min() == 1):
        if _parsed(pl.Series(classes), "").null_count() == 0:
            raise TableError(
                f"the target '{target}' holds {len(classes)} different numbers in {len(labels)} "
                "rows: it looks like a quantity, and a classifier predicts classes; cut it into a "
                "few ranges first"
            )
        if most_differ:
            raise TableError(
                f"the target '{target}' holds {len(classes)} different values in {len(labels)} "
                "rows: they look like names of rows, and a classifier predicts classes"
            )
    if to_be_split and counts.min() == 1:
        raise TableError(
            f"class '{classes[counts.argmin()]}' of the target '{target}' has one row only, which "
            "cannot be in both the training and the held-out part: drop it or gather more rows"
        )


# --- cells to text, numbers and dates -----------------------------------------


def _text(series: pl.Series) -> pl.Series:
    """As text without white space around it, null where missing."""
    text = series.cast(pl.String)
    if series.dtype.is_float():
        text = text.set(series.is_nan(), None)
    text = text.str.strip_chars()
    return text.set(text.is_in(MISSING), None)


def _label_text(series: pl.Series) -> pl.Series:
    """As text in which 1 and 1.0 are the same, and so are true and "True"."""
    text = _text(series)
    if series.dtype.is_integer():
        return text
    return (
        text.str.replace(r"^\+?(-?)(\d+)(?:\.0*)?$", "$1$2")
        .str.replace(r"^\+?(-?\d+\.\d*[1-9])0*$", "$1")
        .str.replace(r"^-0$", "0")
        .str.replace(r"(?i)^true$", "True")
        .str.replace(r"(?i)^false$", "False")
    )


def _parsed(text: pl.Series, format: str) -> pl.Series:
    """Text as float64, null where it is no number."""
    if format:
        thousands = {".": ",", ",": "."}[format]
        text = text.set(~text.str.contains(_MARKED[format]), None)
        text = text.str.replace_all(thousands, "", literal=True)
        text = text.str.replace(format, ".", literal=True)
    return text.cast(pl.Float64, strict=False)


def _moments(text: pl.Series, date: str) -> pl.Series:
    """Text as datetimes, null where it is none; the clock on the wall, whatever the zone."""
    text = text.str.replace(r"(:\d\d(?:\.\d+)?)\s?(?:Z|[+-]\d\d:?\d\d)$", "$1")
    found = pl.repeat(None, len(text), dtype=pl.Datetime("us"), eager=True).alias(text.name)
    for time in _TIMES:
        if found.null_count() == text.null_count():
            break
        parsed = text.str.strptime(pl.Datetime("us"), date + time, strict=False)
        found = found.zip_with(found.is_not_null(), parsed)
    return found.set(found.dt.year() < 1000, None)  # %Y takes the 24 of 1/2/24 for a year


def _seconds(series: pl.Series) -> pl.Series:
    unit = {"ms": 1e3, "us": 1e6, "ns": 1e9}[getattr(series.dtype, "time_unit", None) or "ns"]
    return series.to_physical().cast(pl.Float64) / unit


def _is_unsupported(series: pl.Series) -> bool:
    dtype = series.dtype
    return dtype.is_nested() or dtype in (pl.Binary, pl.Object)


def _is_text(dtype: pl.DataType) -> bool:
    return dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)


# --- what a column holds ------------------------------------------------------


def _inferred(series: pl.Series) -> Column:
    name, dtype = series.name, series.dtype
    if _is_unsupported(series):
        return Column(name, "unsupported", f"{dtype} values")
    cells = _text(series) if _is_text(dtype) else series
    if dtype.is_float():
        cells = series.set(series.is_nan(), None) if series.is_nan().any() else series
    missing = cells.null_count()
    if missing == len(cells):
        return Column(name, "constant", "no values", missing=missing)
    if not missing and _all_same(cells):
        return Column(name, "constant", f"always {_shown(cells[0])}")
    if dtype == pl.String:
        return _inferred_text(name, cells, missing)
    return _inferred_typed(cells, missing)


def _all_same(cells: pl.Series) -> bool:
    if cells[0] != cells[-1]:  # settles nearly every column at once
        return False
    return bool((cells == cells[0]).all())


def _inferred_typed(cells: pl.Series, missing: int) -> Column:
    """A column whose storage says what it is."""
    name, dtype = cells.name, cells.dtype
    if dtype == pl.Boolean:
        return Column(name, "yes/no", "true or false", true="true", false="false", missing=missing)
    if dtype in (pl.Date, pl.Datetime):
        why = "dates and times" if _has_hours(cells) else "dates"
        return Column(name, "datetime", why, hours=_has_hours(cells), missing=missing)
    if dtype in (pl.Time, pl.Duration):
        return Column(name, "number", "seconds", missing=missing)
    if not dtype.is_integer():
        kind = "number" if dtype.is_numeric() else "category"
        why = "numbers" if dtype.is_numeric() else f"{cells.n_unique()} distinct values"
        return Column(name, kind, why, missing=missing)
    distinct = cells.n_unique() - bool(missing)
    if why := _why_identifier(cells, distinct):
        return Column(name, "identifier", why, missing=missing)
    return Column(name, "number", f"integers, {distinct} distinct values", missing=missing)


def _why_identifier(integers: pl.Series, distinct: int) -> str:
    """Why these are names of rows and not quantities, or nothing."""
    rows, name = len(integers), integers.name
    if rows < _FEW_ROWS or distinct < rows:
        return ""
    if int(integers.max()) - int(integers.min()) == rows - 1:  # type: ignore[arg-type]
        return "consecutive integers"
    named = _IDENTIFIER.fullmatch(name) or _CAMEL_ID.fullmatch(name)
    return f"all {rows:,} values differ" if named else ""


def _inferred_text(name: str, text: pl.Series, missing: int) -> Column:
    """A column of text, by the distinct values in it."""
    values = text.drop_nulls()
    distinct = values.unique(maintain_order=True)
    if pair := _yes_no(distinct):
        why = f"{pair[0]} or {pair[1]}"
        return Column(name, "yes/no", why, true=pair[0], false=pair[1], missing=missing)
    codes = bool(distinct.str.contains(CODE).any())
    for format in () if codes else ("", *_MARKED):
        if _parsed(distinct, format).null_count() == 0:
            return Column(name, "number", _NUMBER_WHY[format], format=format, missing=missing)
    if date := _date_format(distinct):
        return _datetime_column(name, distinct, date, missing)
    kind, why = _kind_of_words(distinct, len(values))
    return Column(name, kind, why, missing=missing)


_NUMBER_WHY = {"": "numbers", ".": "numbers such as 1,234.5", ",": "numbers such as 1.234,5"}


def _kind_of_words(distinct: pl.Series, rows: int) -> tuple[str, str]:
    share = len(distinct) / rows
    words = distinct.str.count_matches(r"\S+")
    # Chinese and Japanese are written without spaces: some two signs a word
    signs = distinct.str.count_matches(r"[\p{Han}\p{Hiragana}\p{Katakana}]") / 2
    length = float(pl.select(pl.max_horizontal(words, signs).median()).item())
    if rows >= _FEW_ROWS and share >= 0.95 and length <= 2:
        differ = (
            f"all {rows:,} values differ" if share == 1 else f"{share:.0%} of the values differ"
        )
        return "identifier", differ
    if (length >= 4 and len(distinct) > _FEW_ROWS) or (length >= 3 and share > 0.5):
        return "text", f"about {length:.0f} words a value"
    return "category", f"{len(distinct)} distinct values"


def _yes_no(distinct: pl.Series) -> tuple[str, str] | None:
    values = set(distinct.head(9).str.to_lowercase())
    return next((pair for pair in _YES_NO if values == set(pair)), None)


def _date_format(distinct: pl.Series) -> str:
    """The format that all values have, or nothing."""
    sample = distinct.head(100)
    for date in _DATES:
        if _moments(sample, date).null_count() == 0 and _moments(distinct, date).null_count() == 0:
            return date
    return ""


def _datetime_column(name: str, distinct: pl.Series, date: str, missing: int) -> Column:
    hours = _has_hours(_moments(distinct, date))
    example = date.replace("%Y", "YYYY").replace("%m", "MM").replace("%d", "DD")
    why = f"{example} with time of day" if hours else example
    return Column(name, "datetime", why, format=date, hours=hours, missing=missing)


def _has_hours(moments: pl.Series) -> bool:
    if moments.dtype != pl.Datetime:
        return False
    return bool((moments.dt.truncate("1d") != moments).any())


def _shown(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


# --- what a column is said to hold --------------------------------------------


def _forced(series: pl.Series, kind: str) -> Column:
    if kind != "identifier" and _is_unsupported(series):
        raise TableError(f"column '{series.name}' cannot be {_A[kind]}: it holds {series.dtype}")
    if kind == "number":
        return _forced_number(series)
    if kind == "datetime":
        return _forced_datetime(series)
    if kind == "yes/no":
        return _forced_yes_no(series)
    return Column(series.name, kind, "as asked", missing=series.null_count())


def _forced_number(series: pl.Series) -> Column:
    if not _is_text(series.dtype):
        _typed_number(series, Column(series.name, "number", ""), 0)
        return Column(series.name, "number", "as asked", missing=series.null_count())
    text = _text(series)
    format = _fewest_nulls(("", *_MARKED), lambda format: _parsed(text, format))
    _refuse(series, text.is_not_null() & _parsed(text, format).is_null(), _cannot(series, "number"))
    return Column(series.name, "number", "as asked", format=format, missing=text.null_count())


def _forced_datetime(series: pl.Series) -> Column:
    if series.dtype in (pl.Date, pl.Datetime):
        return _inferred_typed(series, series.null_count())
    text = _text(series)
    date = _fewest_nulls(_DATES, lambda date: _moments(text, date))
    bad = text.is_not_null() & _moments(text, date).is_null()
    _refuse(series, bad, _cannot(series, "datetime"))
    return _datetime_column(series.name, text, date, text.null_count())


def _forced_yes_no(series: pl.Series) -> Column:
    text = _label_text(series).str.to_lowercase()
    values = text.drop_nulls().unique().sort().to_list()
    if len(values) != 2:
        raise TableError(
            f"column '{series.name}' cannot be yes/no: it holds {len(values)} distinct values, "
            "and two are needed"
        )
    true, false = _yes_no(pl.Series(values)) or (values[1], values[0])
    why = f"{true} or {false}"
    return Column(series.name, "yes/no", why, true=true, false=false, missing=text.null_count())


def _fewest_nulls(formats: Sequence[str], parse: Callable[[str], pl.Series]) -> str:
    return min(formats, key=lambda format: parse(format).null_count())


# --- columns to typed columns -------------------------------------------------


def _typed_number(series: pl.Series, column: Column, first_row: int) -> list[pl.Series]:
    dtype = series.dtype
    if dtype in (pl.Time, pl.Duration):
        return [_seconds(series)]
    if dtype in (pl.Boolean, pl.Decimal, pl.Int128, pl.UInt128):
        series = series.cast(pl.Float64)
    elif not dtype.is_numeric():
        text = _text(series)
        numbers = _parsed(text, column.format)
        _refuse(series, text.is_not_null() & numbers.is_null(), _was(column), first_row)
        series = numbers
    if series.dtype.is_float() and (infinite := series.is_infinite()).any():
        _refuse(series, infinite, f"column '{column.name}' needs finite numbers, but", first_row)
    return [series]


def _typed_yes_no(series: pl.Series, column: Column, first_row: int) -> list[pl.Series]:
    if series.dtype == pl.Boolean:  # means the same in any language
        return [series.cast(pl.Float32)]
    text = _label_text(series).str.to_lowercase()
    answers = text.replace_strict(
        {column.true: 1.0, column.false: 0.0}, default=None, return_dtype=pl.Float32
    )
    _refuse(series, text.is_not_null() & answers.is_null(), _was(column), first_row)
    return [answers]


def _typed_datetime(series: pl.Series, column: Column, first_row: int) -> list[pl.Series]:
    if series.dtype == pl.Datetime:
        moments = series.dt.replace_time_zone(None)
    elif series.dtype == pl.Date:
        moments = series.cast(pl.Datetime("us"))
    else:
        text = _text(series)
        moments = _moments(text, column.format or _DATES[0])
        moments = moments.zip_with(moments.is_not_null(), _moments(text, _DATES[0]))
        _refuse(series, text.is_not_null() & moments.is_null(), _was(column), first_row)
    parts = [_PARTS[part](moments).cast(pl.Float64) for part in column._parts]
    return [part.alias(name) for part, name in zip(parts, column.typed_kinds, strict=True)]


_PARTS: dict[str, Callable[[pl.Series], pl.Series]] = {
    "year": lambda moments: moments.dt.year(),
    "month": lambda moments: moments.dt.month(),
    "weekday": lambda moments: moments.dt.weekday(),
    "day": lambda moments: moments.dt.day(),
    "hour": lambda moments: moments.dt.hour(),
    "days": lambda moments: moments.dt.epoch("us") / 86_400e6,
}
_TYPED: dict[str, Callable[[pl.Series, Column, int], list[pl.Series]]] = {
    "number": _typed_number,
    "yes/no": _typed_yes_no,
    "datetime": _typed_datetime,
    "category": lambda series, column, first_row: [_label_text(series)],
    "text": lambda series, column, first_row: [_text(series).fill_null("")],
}


# --- saying no ----------------------------------------------------------------

_A = {kind: f"a {kind}" for kind in KINDS} | {"yes/no": "yes/no"}


def _was(column: Column) -> str:
    kind = f"{column.true} or {column.false}" if column.true else _A[column.kind]
    if column.format:
        kind += f" ({column.why})"
    return f"column '{column.name}' was {kind} in training, but"


def _cannot(series: pl.Series, kind: str) -> str:
    return f"column '{series.name}' cannot be {_A[kind]}:"


def _refuse(series: pl.Series, bad: pl.Series, why: str, first_row: int = 0) -> None:
    """Name the first bad row; rows count from 1, the header not among them."""
    if bad.any():
        row = int(bad.arg_max() or 0)
        raise TableError(f"{why} row {first_row + row + 1} holds '{series[row]}'")


def _check_request(
    frame: pl.DataFrame, target: str, kinds: Mapping[str, str], drop: Iterable[str]
) -> None:
    for name in (target, *kinds, *drop):
        _check_name(name, frame.columns)
    for kind in kinds.values():
        _check_name(kind, KINDS, "column type")
    if target in {*kinds, *drop}:
        raise TableError(f"'{target}' is the target: it is always kept, and always a category")


def _check_name(name: str, present: Sequence[str], what: str = "column") -> None:
    if name not in present:
        first = ", ".join(f"'{p}'" for p in present[:8])
        more = f" and {len(present) - 8} more" if len(present) > 8 else ""
        hint = _did_you_mean(name, present)
        raise TableError(f"there is no {what} '{name}'{hint} (the {what}s are {first}{more})")


def _did_you_mean(name: str, present: Sequence[str]) -> str:
    by_lower = {p.lower(): p for p in present}
    close = difflib.get_close_matches(name.lower(), by_lower, 1)
    return f": did you mean '{by_lower[close[0]]}'?" if close else ""
