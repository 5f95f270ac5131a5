"""Table files in: CSV, TSV, Parquet, JSON lines, Excel and Arrow, whole or as a stream.

A file that cannot be read ends in a `TableError`: one sentence that names the file, the line
where there is one, and what is wrong.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import polars as pl

from softly.csv_files import csv_file
from softly.errors import POLARS_ERRORS, TableError, reason
from softly.sources import Source, blocks, open_source

__all__ = ["batches", "read"]


def read(path: str | os.PathLike[str]) -> pl.DataFrame:
    """Read a whole table.

    Parameters
    ----------
    path : path
        The file; ``-`` is standard input. The format goes by the ending, and
        by the content where the ending says nothing.

    Returns
    -------
    polars.DataFrame
        At least one row. A column of a CSV file is integers, floats or
        booleans if all of its values are, else text.

    Raises
    ------
    TableError
        If the file is absent, empty, damaged, or no table.
    """
    with open_source(path) as source:
        return next(_not_empty(iter([_whole(source)]), source.name))


def batches(
    path: str | os.PathLike[str], numbers: Iterable[str] = (), rows: int = 65_536
) -> Iterator[pl.DataFrame]:
    """Read a table as a stream of frames, in the order of the file.

    The memory needed does not grow with the file (but for Excel, whose sheets
    end at a million rows).

    Parameters
    ----------
    path : path
        As for `read`.
    numbers : iterable of str
        The columns of a CSV file to parse as float64; all others come as
        text. Frames around a value that is no number come as text only, for
        whoever knows the column to say what is wrong with it.
    rows : int
        The most rows a frame has.

    Yields
    ------
    polars.DataFrame

    Raises
    ------
    TableError
        As for `read`.
    """
    with open_source(path) as source:
        yield from _not_empty(_stream(source, numbers, rows), source.name)


def _whole(source: Source) -> pl.DataFrame:
    match source.format:
        case "CSV":
            with csv_file(source) as table:
                return table.whole()
        case "JSON lines":
            return pl.concat(_stream_json_lines(source, sys.maxsize))
        case "Excel":
            return _read_excel(source)
    return _scan(source).collect()


def _stream(source: Source, numbers: Iterable[str], rows: int) -> Iterator[pl.DataFrame]:
    match source.format:
        case "CSV":
            with csv_file(source) as table:
                yield from table.stream(numbers, rows)
        case "JSON lines":
            yield from _stream_json_lines(source, rows)
        case "Excel":
            yield from _read_excel(source).iter_slices(rows)
        case _:
            yield from _slices(_scan(source), rows)


def _not_empty(frames: Iterator[pl.DataFrame], name: str) -> Iterator[pl.DataFrame]:
    first = next((frame for frame in frames if frame.height), None)
    if first is None:
        raise TableError(f"{name} holds a header but no rows")
    yield first
    yield from (frame for frame in frames if frame.height)


# --- Parquet, Arrow, Excel ----------------------------------------------------


def _scan(source: Source) -> pl.LazyFrame:
    scan = pl.scan_parquet if source.format == "Parquet" else pl.scan_ipc
    return scan(source.file, glob=False)


def _slices(scan: pl.LazyFrame, rows: int) -> Iterator[pl.DataFrame]:
    """A scan piece by piece: unlike `collect_batches`, this never reads ahead.

    Every slice finds its place in the file anew, so some batches share one.
    """
    height = scan.select(pl.len()).collect().item()
    step = 4 * rows
    for start in range(0, height, step):
        yield from scan.slice(start, step).collect().iter_slices(rows)


def _read_excel(source: Source) -> pl.DataFrame:
    try:
        frame = pl.read_excel(source.file, infer_schema_length=None, raise_if_empty=False)
    except Exception as error:  # on damaged files the reader stumbles in many ways
        raise TableError(f"{source.name} cannot be read as Excel: {reason(error)}") from error
    return frame.rename(lambda name: re.sub(r"^__UNNAMED__(\d+)$", _from_one, name))


def _from_one(match: re.Match[str]) -> str:
    return f"column_{int(match[1]) + 1}"


# --- JSON lines ---------------------------------------------------------------


def _stream_json_lines(source: Source, rows: int) -> Iterator[pl.DataFrame]:
    # two passes: what a column holds is known at the last line, as is whether it is there
    empty = [frame.clear() for frame in _json_frames(source)]
    schema = pl.concat(empty, how="diagonal_relaxed").schema
    for frame in _json_frames(source, schema=schema):
        yield from frame.iter_slices(rows)


def _json_frames(source: Source, **options: Any) -> Iterator[pl.DataFrame]:
    with source.file.open("rb") as opened:
        for block in blocks(opened, quoted=False):
            try:
                yield pl.read_ndjson(block, infer_schema_length=None, **options)
            except POLARS_ERRORS:
                _name_bad_json_line(source)
                raise


def _name_bad_json_line(source: Source) -> None:
    with source.file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip() and not _is_json_object(line):
                raise TableError(
                    f"{source.name}, line {number} is not a JSON object: every line needs "
                    'one, such as {"column": "value"}'
                )


def _is_json_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
