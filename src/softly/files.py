"""Table files in, table files out.

Reads CSV, TSV, Parquet, JSON lines, Excel and Arrow files, whole or as a
stream of frames, and writes streams of frames back. A file that cannot be
read or written ends in a `TableError`: one sentence that names the file, the
line where there is one, and what is wrong.

CSV is the format that needs care. Polars reads it, and fast; Python's `csv`
module, slow but exact about lines, is asked only where polars stumbles or
where a row may be short.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl
from polars.io.plugins import register_io_source

__all__ = ["MISSING", "TableError", "batches", "check_writable", "read", "replacing", "write"]

MISSING = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "?")
"""What a cell holds when it holds nothing."""

_FORMATS = {
    "CSV": (".csv", ".tsv"),
    "Parquet": (".parquet",),
    "JSON lines": (".jsonl", ".ndjson"),
    "Excel": (".xlsx", ".xls", ".xlsb"),
    "Arrow": (".arrow", ".feather", ".ipc"),
}
_MAGIC = {
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"PK\x03\x04": "Excel",
    b"\xd0\xcf\x11\xe0": "Excel",
    b"{": "JSON lines",
}
_WRITABLE = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
_BLOCK = 1 << 23  # bytes read at a time
_POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)


class TableError(ValueError):
    """A table that cannot be used as asked, said in one sentence for a person."""


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
    with _opened(path) as source:
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
    with _opened(path) as source:
        yield from _not_empty(_stream(source, numbers, rows), source.name)


def _whole(source: _Source) -> pl.DataFrame:
    match source.format:
        case "CSV":
            with _csv(source) as table:
                return table.whole()
        case "JSON lines":
            return pl.concat(_stream_json_lines(source, sys.maxsize))
        case "Excel":
            return _read_excel(source)
    return _scan(source).collect()


def _stream(source: _Source, numbers: Iterable[str], rows: int) -> Iterator[pl.DataFrame]:
    match source.format:
        case "CSV":
            with _csv(source) as table:
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


# --- where a table comes from -------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """A regular file, the name a person knows it by, and its format."""

    name: str
    file: Path
    format: str


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[_Source]:
    """Find the table; put into words whatever goes wrong while it is read."""
    name = "standard input" if os.fspath(path) == "-" else f"'{os.fspath(path)}'"
    kind = "a table"
    try:
        with _on_disk(path, name) as file:
            kind = _format(Path(path).suffix.lower(), file, name)
            yield _Source(name, file, kind)
    except (*_POLARS_ERRORS, csv.Error) as error:
        raise TableError(f"{name} cannot be read as {kind}: {_reason(error)}") from error
    except OSError as error:
        raise TableError(f"{name} cannot be read: {error.strerror or error}") from error


@contextmanager
def _on_disk(path: str | os.PathLike[str], name: str) -> Iterator[Path]:
    """The file itself, or a temporary copy of what can be read only once (a pipe)."""
    file = Path(path)
    if os.fspath(path) == "-":
        with _spooled(sys.stdin.buffer) as copy:
            yield copy
    elif file.is_dir():
        raise TableError(f"{name} is a folder: name a table file in it")
    elif not file.exists():
        raise TableError(f"there is no file {name}")
    elif file.is_file():
        yield file
    else:
        with file.open("rb") as pipe, _spooled(pipe) as copy:
            yield copy


@contextmanager
def _spooled(pipe: BinaryIO) -> Iterator[Path]:
    with _temporary() as copy:
        with copy.open("wb") as spool:
            shutil.copyfileobj(pipe, spool, _BLOCK)
        yield copy


@contextmanager
def _temporary() -> Iterator[Path]:
    handle, name = tempfile.mkstemp(prefix="softly-")
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _format(ending: str, file: Path, name: str) -> str:
    with file.open("rb") as opened:
        head = opened.read(4096)
    if not head.strip():
        raise TableError(f"{name} is empty: a table with a header line is needed")
    by_ending = (kind for kind, endings in _FORMATS.items() if ending in endings)
    by_content = (kind for magic, kind in _MAGIC.items() if head.startswith(magic))
    return next(chain(by_ending, by_content), "CSV")


def _reason(error: BaseException) -> str:
    """The first line of a message: the rest is advice for programmers."""
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__


# --- Parquet, Arrow, Excel ----------------------------------------------------


def _scan(source: _Source) -> pl.LazyFrame:
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


def _read_excel(source: _Source) -> pl.DataFrame:
    try:
        frame = pl.read_excel(source.file, infer_schema_length=None, raise_if_empty=False)
    except Exception as error:  # on damaged files the reader stumbles in many ways
        raise TableError(f"{source.name} cannot be read as Excel: {_reason(error)}") from error
    return frame.rename(lambda name: re.sub(r"^__UNNAMED__(\d+)$", _from_one, name))


def _from_one(match: re.Match[str]) -> str:
    return f"column_{int(match[1]) + 1}"


# --- JSON lines ---------------------------------------------------------------


def _stream_json_lines(source: _Source, rows: int) -> Iterator[pl.DataFrame]:
    # two passes: what a column holds is known at the last line, as is whether it is there
    empty = [frame.clear() for frame in _json_frames(source)]
    schema = pl.concat(empty, how="diagonal_relaxed").schema
    for frame in _json_frames(source, schema=schema):
        yield from frame.iter_slices(rows)


def _json_frames(source: _Source, **options: Any) -> Iterator[pl.DataFrame]:
    with source.file.open("rb") as opened:
        for block in _blocks(opened, quoted=False):
            try:
                yield pl.read_ndjson(block, infer_schema_length=None, **options)
            except _POLARS_ERRORS:
                _name_bad_json_line(source)
                raise


def _name_bad_json_line(source: _Source) -> None:
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


# --- CSV ----------------------------------------------------------------------


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
        for rows in (10_000, None):
            with suppress(*_POLARS_ERRORS):
                frame = self._parse(self.file, infer_schema_length=rows)
                return frame if frame.height else None  # a stray quote may swallow every row
        return None

    def stream(self, numbers: Iterable[str], rows: int) -> Iterator[pl.DataFrame]:
        """Frames of text, but for the `numbers`."""
        floats = {name: pl.Float64 for name in numbers if name in self.columns}
        with self.file.open("rb") as opened:
            for _ in range(self.header_lines):
                opened.readline()
            line = self.header_lines + 1
            for block in _blocks(opened, quoted=True):
                yield from self._frame(block, line, floats).iter_slices(rows)
                line += block.count(b"\n")

    def _frame(self, block: bytes, line: int, floats: dict[str, Any]) -> pl.DataFrame:
        """The rows of a block that starts at a line."""
        header = self.delimiter.join("c" * len(self.columns)).encode() + b"\n"
        for types in (floats, {}) if floats else ({},):
            try:
                frame = self._parse(header + block, infer_schema=False, schema_overrides=types)
            except _POLARS_ERRORS:
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


def _blocks(opened: BinaryIO, *, quoted: bool) -> Iterator[bytes]:
    """A file in blocks of whole lines, which a quoted line feed does not end."""
    rest = b""
    while chunk := opened.read(_BLOCK):
        block = rest + chunk
        end = block.rfind(b"\n") + 1
        quotes = block.count(b'"', 0, end) if quoted else 0
        while quotes % 2 and len(block) < 8 * _BLOCK:  # no cell is longer: that quote is a stray
            start = block.rfind(b"\n", 0, end - 1) + 1
            quotes -= block.count(b'"', start, end)
            end = start
        if end:
            yield block[:end]
        rest = block[end:]
    if rest:
        yield rest


@contextmanager
def _csv(source: _Source) -> Iterator[_Csv]:
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
        head = opened.read(_BLOCK)

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
def _in_utf8(source: _Source) -> Iterator[Path]:
    """The file itself if it is UTF-8 with lines that end in a line feed, else a copy that is."""
    encoding = _encoding(source)
    with source.file.open("rb") as opened:
        head = opened.read(_BLOCK)
    if encoding == "utf-8" and (b"\r" not in head or b"\n" in head):
        yield source.file
        return
    with _temporary() as copy:
        try:
            with (
                source.file.open(encoding=encoding) as old,
                copy.open("w", encoding="utf-8", newline="\n") as new,
            ):
                shutil.copyfileobj(old, new, _BLOCK)
        except UnicodeError as error:
            raise _unknown_encoding(source) from error
        yield copy


def _unknown_encoding(source: _Source) -> TableError:
    return TableError(f"{source.name} is text in an unknown encoding: save it as UTF-8")


def _encoding(source: _Source) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_utf8 = True
    with source.file.open("rb") as opened:
        if opened.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
        opened.seek(0)
        while chunk := opened.read(_BLOCK):
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


def _guessed_encoding(source: _Source) -> str:
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


# --- writing ------------------------------------------------------------------


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file whole or not at all.

    Yields a temporary path in the same folder to write to, and puts it in the
    place of `path` at the end. On any error, an interrupt included, the
    temporary file goes and what was there before stays. A device or a pipe
    cannot be replaced and is written to as it is.

    Raises
    ------
    TableError
        If the file cannot be written: no such folder, no permission, disk full.
    """
    check_writable(path)
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            yield target
        else:
            with _put_in_place(target) as temporary:
                yield temporary
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TableError(f"'{path}' cannot be written: {error.strerror or error}") from error


@contextmanager
def _put_in_place(target: Path) -> Iterator[Path]:
    temporary = target.with_name(f".softly-{secrets.token_hex(8)}")
    # os.open gives the mode that a plain open() would, unlike the tempfile module
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Say early, before hours of work, that a file cannot be written.

    Raises
    ------
    TableError
        If the folder is absent or cannot be written to, or `path` is a folder
        or write-protected.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise TableError(f"'{path}' is a folder: name a file to write")
    if not target.parent.is_dir():
        raise TableError(f"'{path}' cannot be written: there is no folder '{target.parent}'")
    place = target if target.exists() and not target.is_file() else target.parent
    if not os.access(place, os.W_OK) or (target.exists() and not os.access(target, os.W_OK)):
        raise TableError(f"'{path}' cannot be written: permission denied")


def write(
    path: str | os.PathLike[str],
    frames: Iterable[pl.DataFrame],
    schema: Mapping[str, Any] | None = None,
) -> None:
    """Write a stream of frames as one table file, with memory for one frame.

    Parameters
    ----------
    path : path
        Its ending says the format: .csv, .tsv, .parquet, .jsonl or .ndjson;
        ``-`` is CSV to standard output, flushed frame by frame.
    frames : iterable of polars.DataFrame
        All with the same columns.
    schema : mapping of str to polars data type, optional
        The columns to write when there are no frames.

    Raises
    ------
    TableError
        If nothing can be written there, or not in that format.
    """
    ending = Path(path).suffix.lower()
    if os.fspath(path) != "-" and ending not in _WRITABLE:
        raise TableError(
            f"'{path}' cannot be written: its name must end in one of {', '.join(_WRITABLE)}"
        )
    stream = iter(frames)
    first = next(stream, None)
    stream = chain([pl.DataFrame(schema=schema) if first is None else first], stream)
    try:
        if os.fspath(path) == "-":
            _write_text(sys.stdout.buffer, stream, ".csv")
            return
        with replacing(path) as file:
            if ending == ".parquet":
                _write_parquet(file, stream)
            else:
                with file.open("wb") as opened:
                    _write_text(opened, stream, ending)
    except pl.exceptions.PolarsError as error:
        raise TableError(f"'{path}' cannot be written: {_reason(error)}") from error


def _write_text(out: BinaryIO, frames: Iterable[pl.DataFrame], ending: str) -> None:
    header = True
    for frame in frames:
        if ending in (".jsonl", ".ndjson"):
            text = frame.write_ndjson()
        else:
            separator = "\t" if ending == ".tsv" else ","
            text = frame.write_csv(include_header=header, separator=separator)
        out.write(text.encode())
        out.flush()
        header = False


def _write_parquet(file: Path, frames: Iterator[pl.DataFrame]) -> None:
    first = next(frames)

    def source(*_: Any) -> Iterator[pl.DataFrame]:
        return chain([first], frames)

    register_io_source(source, schema=first.schema).sink_parquet(file)
