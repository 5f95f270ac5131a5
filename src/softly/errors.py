"""The one error for whatever is wrong with a table, a model or a file."""

from __future__ import annotations

import polars as pl

POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)


class TableError(ValueError):
    """A table that cannot be used as asked, said in one sentence for a person."""


def reason(error: BaseException) -> str:
    """The first line of a message: the rest is advice for programmers."""
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
