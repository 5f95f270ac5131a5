"""CSV, the format that needs care: its delimiter, its encoding and its rows found out.

Polars reads it, and fast; Python's `csv` module, slow but exact about lines, is asked only
where polars stumbles or where a row may be short.
"""

from __future__ import annotations

import codecs
import csv
import io
import shutil
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from softly.errors import POLARS_ERRORS, TableError
from softly.sources import BLOCK, Source, blocks, temporary

MISSING = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "?")
"""What a cell holds when it holds nothing."""

CODE = r"^\s*0\d+\s*$"
"""Digits that are no number: a leading zero says that they name something."""


@dataclass(frozen=True)
class _Csv:
    """A CSV file in UTF-8, its delimiter and the names of its columns."""

    name: str
    file: Path
    delimiter: str
    columns: tuple[str, ...]
    header_lines: int

    def whole(self) -> pl.DataFrame:
        """All rows, their types found in all values."""
        frame = self._guessed()
        if frame is None:
            # a copy of the text, free of what polars stumbles on
            text = pl.concat(
                [
                    pl.DataFrame(schema=dict.fromkeys(self.columns, pl.String)),
                    *self.stream((), sys.maxsize),
                ]
            )
            return self._parse(text.write_csv(separator=self.delimiter).encode())
        with self.file.open("rb") as opened:
            return self._without_blanks(frame, opened, 1)

    def _guessed(self) -> pl.DataFrame | None:
        # Types guessed from the first rows hold for nearly every file, and a
        # wrong guess is found out: five times faster than asking all rows first.
        codes = dict.fromkeys(self._codes(), pl.String)
        for rows in (10_000, None):
            with suppress(*POLARS_ERRORS):
                frame = self._parse(self.file, infer_schema_length=rows, schema_overrides=codes)
                return frame if frame.height else None  # a stray quote may swallow every row
        return None

    def _codes(self) -> list[str]:
        """Columns with values such as 01234, which as numbers would lose their zeros."""
        with suppress(*POLARS_ERRORS):
            head = self._parse(self.file, infer_schema=False, n_rows=10_000)
            return [column.name for column in head if column.str.contains(CODE).any()]
        return []

    def stream(self, numbers: Iterable[str], rows: int) -> Iterator[pl.DataFrame]:
        """Frames of text, but for the `numbers`."""
        floats = {name: pl.Float64 for name in numbers if name in self.columns}
        with self.file.open("rb") as opened:
            for _ in range(self.header_lines):
                opened.readline()
            line = self.header_lines + 1
            for block in blocks(opened, quoted=True):
                yield from self._frame(block, line, floats).iter_slices(rows)
                line += block.count(b"\n")

    def _frame(self, block: bytes, line: int, floats: dict[str, Any]) -> pl.DataFrame:
        """The rows of a block that starts at a line."""
        header = self.delimiter.join("c" * len(self.columns)).encode() + b"\n"
        for types in (floats, {}) if floats else ({},):
            try:
                frame = self._parse(header + block, infer_schema=False, schema_overrides=types)
            except POLARS_ERRORS:
                continue
            return self._without_blanks(frame, io.BytesIO(block), line)
        return self._parse(header + self._mended(block, line), infer_schema=False)

    def _parse(self, csv_file: Path | bytes, **options: Any) -> pl.DataFrame:
        return pl.read_csv(
            csv_file,
            separator=self.delimiter,
            new_columns=list(self.columns),
            null_values=list(MISSING),
            glob=False,
            **{"infer_schema_length": None} | options,
        )

    def _without_blanks(self, frame: pl.DataFrame, lines: BinaryIO, line: int) -> pl.DataFrame:
        """Leave out blank lines; refuse rows with too few cells.

        Polars fills both with nulls, so a last column without nulls needs no
        second look at the lines.
        """
        if len(self.columns) == 1 or not frame[:, -1].null_count():
            return frame
        rows = [bool(cells) for _, cells in self._rows(lines, line)]
        return frame if all(rows) else frame.filter(pl.Series(rows))

    def _mended(self, block: bytes, line: int) -> bytes:
        """The block as polars can read it: without stray quotes and blank lines."""
        text = io.StringIO()
        writer = csv.writer(text, delimiter=self.delimiter, lineterminator="\n")
        writer.writerows(cells for _, cells in self._rows(io.BytesIO(block), line) if cells)
        return text.getvalue().encode()

    def _rows(self, lines: BinaryIO, line: int) -> Iterator[tuple[int, list[str]]]:
        """Line number and cells of every row; no cells for a blank line."""
        width = len(self.columns)
        for number, cells in _records(lines, self.delimiter, line):
            if number <= self.header_lines:
                continue
            if _is_blank(cells):
                yield number, [""] if width == 1 else []
            elif len(cells) == width:
                yield number, cells
            else:
                raise TableError(_wrong_width(self.name, number, cells, width))


def _is_blank(cells: list[str]) -> bool:
    return len(cells) < 2 and not "".join(cells).strip()


def _wrong_width(name: str, line: int, cells: list[str], width: int) -> str:
    has = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
    advice = "give every line one cell for each column"
    if any("\n" in cell for cell in cells):
        advice = "is a quote opened there that is never closed?"
    return f"{name}, line {line} has {has}, but the header has {width}: {advice}"


@contextmanager
def csv_file(source: Source) -> Iterator[_Csv]:
    with _in_utf8(source) as file:
        delimiter = "\t" if source.file.suffix.lower() == ".tsv" else _delimiter(file)
        with file.open("rb") as opened:
            records = _records(opened, delimiter)
            header = next((cells for _, cells in records if not _is_blank(cells)), None)
            line, _ = next(records, (sys.maxsize, []))
        if header is None:
            raise TableError(f"{source.name} is empty: a table with a header line is needed")
        with file.open("rb") as opened:
            header_lines = sum(1 for _ in islice(opened, line - 1))
        yield _Csv(source.name, file, delimiter, _column_names(header, source.name), header_lines)


def _records(lines: BinaryIO, delimiter: str, line: int = 1) -> Iterator[tuple[int, list[str]]]:
    """The line each record starts on, and its cells."""
    csv.field_size_limit(2**31 - 1)  # a cell may hold a whole article
    reader = csv.reader(codecs.iterdecode(lines, "utf-8-sig", "replace"), delimiter=delimiter)
    first = line
    for cells in reader:
        yield line, cells
        line = first + reader.line_num


def _column_names(header: Sequence[str], name: str) -> tuple[str, ...]:
    names = tuple(cell.strip() or f"column_{i}" for i, cell in enumerate(header, start=1))
    column, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise TableError(f"{name} has {count} columns named '{column}': give each its own name")
    return names


def _delimiter(file: Path) -> str:
    """The delimiter with which the first records agree best with the header's width."""
    with file.open("rb") as opened:
        head = opened.read(BLOCK)

    def agreement(delimiter: str) -> tuple[float, int]:
        records = (cells for _, cells in _records(io.BytesIO(head), delimiter))
        try:
            widths = [len(cells) for cells in islice((cells for cells in records if cells), 51)]
        except csv.Error:
            return (0.0, 0)
        same = sum(width == widths[0] for width in widths) / len(widths)
        return (same if widths[0] > 1 else 0.0, widths[0])

    return max(",;\t|", key=agreement)


@contextmanager
def _in_utf8(source: Source) -> Iterator[Path]:
    """The file itself if it is UTF-8 with lines that end in a line feed, else a copy that is."""
    encoding = _encoding(source)
    with source.file.open("rb") as opened:
        head = opened.read(BLOCK)
    if encoding == "utf-8" and (b"\r" not in head or b"\n" in head):
        yield source.file
        return
    with temporary() as copy:
        try:
            with (
                source.file.open(encoding=encoding) as old,
                copy.open("w", encoding="utf-8", newline="\n") as new,
            ):
                shutil.copyfileobj(old, new, BLOCK)
        except UnicodeError as error:
            raise _unknown_encoding(source) from error
        yield copy


def _unknown_encoding(source: Source) -> TableError:
    return TableError(f"{source.name} is text in an unknown encoding: save it as UTF-8")


def _encoding(source: Source) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_utf8 = True
    with source.file.open("rb") as opened:
        if opened.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
        opened.seek(0)
        while chunk := opened.read(BLOCK):
            if b"\0" in chunk:
                raise TableError(f"{source.name} does not look like a table: it holds binary data")
            is_utf8 = is_utf8 and _decodes(decoder, chunk)
    return "utf-8" if is_utf8 and _decodes(decoder, b"") else _guessed_encoding(source)


def _decodes(decoder: codecs.IncrementalDecoder, chunk: bytes) -> bool:
    try:
        decoder.decode(chunk, final=not chunk)
    except UnicodeDecodeError:
        return False
    return True


_WESTERN = set("àáâäãåæçèéêëíîïñóôöõøœùúûüßÀÁÂÄÃÅÆÇÈÉÊËÍÎÏÑÓÔÖÕØŒÙÚÛÜ€‘’“”–—…°«»")


def _guessed_encoding(source: Source) -> str:
    """The likeliest encoding of the lines that are not plain ASCII."""
    from charset_normalizer import from_bytes

    with source.file.open("rb") as lines:
        telling = b"".join(islice((line for line in lines if not line.isascii()), 2_000))
    best = from_bytes(telling).best()
    if best is None:
        raise _unknown_encoding(source)
    # Latin code pages share é and ü: where both would do, Western is likelier than, say, Baltic
    letters = set(telling.decode(best.encoding, "replace")) - set(map(chr, range(128)))
    latin = all(unicodedata.name(c, "LATIN").startswith("LATIN") for c in letters if c.isalpha())
    western = {c for c in telling.decode("cp1252", "replace") if not c.isascii()} <= _WESTERN
    return "cp1252" if latin and western else best.encoding
