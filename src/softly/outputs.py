"""Files out: whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl
from polars.io.plugins import register_io_source

from softly.errors import TableError, reason

__all__ = ["check_writable", "replacing", "write"]

_WRITABLE = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")


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
    try:
        target.exists()
    except OSError as error:  # a name that is too long, above all
        raise TableError(f"'{path}' cannot be written: {error.strerror or error}") from error
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
    stream = _ahead(iter(frames))
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
        why = reason(error).rpartition("IO error: ")[2]  # polars says first which part it was at
        raise TableError(f"'{path}' cannot be written: {why}") from error


def _ahead(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same frames, the next one made while this one is written."""
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, frames, None)
        while (frame := coming.result()) is not None:
            coming = maker.submit(next, frames, None)
            yield frame


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
