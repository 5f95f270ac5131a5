"""The covertype table as files, as a user would have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.measure import DATA

TARGET = "cover_type"


def frame() -> pl.DataFrame:
    """581,012 rows, 54 features and the target."""
    data = np.load(DATA / "covtype.npz")
    columns = {str(name): data["X"][:, i] for i, name in enumerate(data["columns"])}
    return pl.DataFrame(columns).with_columns(pl.Series(TARGET, data["y"]))


def write(folder: Path, rows: int | None = None) -> Path:
    """Write the table, or its rows over and over until there are `rows`, as Parquet."""
    table = frame()
    if rows is not None:
        table = pl.concat([table] * -(-rows // table.height)).head(rows)
    path = folder / f"covtype_{table.height}.parquet"
    table.write_parquet(path, row_group_size=100_000)
    return path
