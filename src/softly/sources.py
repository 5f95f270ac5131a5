"""Where a table comes from: a file or a pipe, in one of the formats softly reads."""

from __future__ import annotations

import csv
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from softly.errors import POLARS_ERRORS, TableError, reason

_GZIP = b"\x1f\x8b"
BLOCK = 1 << 23  # bytes read at a time

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


@dataclass(frozen=True)
class Source:
    """A regular file, the name a person knows it by, and its format."""

    name: str
    file: Path
    format: str


@contextmanager
def open_source(path: str | os.PathLike[str]) -> Iterator[Source]:
    """Find the table; put into words whatever goes wrong while it is read."""
    name = "standard input" if os.fspath(path) == "-" else f"'{os.fspath(path)}'"
    kind = "a table"
    try:
        with _on_disk(path, name) as file:
            kind = _format(Path(path).suffix.lower(), file, name)
            yield Source(name, file, kind)
    except (*POLARS_ERRORS, csv.Error) as error:
        raise TableError(f"{name} cannot be read as {kind}: {reason(error)}") from error
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
    with temporary() as copy:
        with copy.open("wb") as spool:
            shutil.copyfileobj(pipe, spool, BLOCK)
        yield copy


@contextmanager
def temporary() -> Iterator[Path]:
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
    if head.startswith(_GZIP):
        raise TableError(f"{name} is compressed: unpack it first, for example with gunzip")
    if head.startswith(b"PK") and file.suffix == ".skops":
        raise TableError(f"{name} is a model: name a table")
    by_ending = (kind for kind, endings in _FORMATS.items() if ending in endings)
    by_content = (kind for magic, kind in _MAGIC.items() if head.startswith(magic))
    return next(chain(by_ending, by_content), "CSV")


def blocks(opened: BinaryIO, *, quoted: bool) -> Iterator[bytes]:
    """A file in blocks of whole lines, which a quoted line feed does not end."""
    rest = b""
    while chunk := opened.read(BLOCK):
        block = rest + chunk
        end = block.rfind(b"\n") + 1
        quotes = block.count(b'"', 0, end) if quoted else 0
        while quotes % 2 and len(block) < 8 * BLOCK:  # no cell is longer: that quote is a stray
            start = block.rfind(b"\n", 0, end - 1) + 1
            quotes -= block.count(b'"', start, end)
            end = start
        if end:
            yield block[:end]
        rest = block[end:]
    if rest:
        yield rest
