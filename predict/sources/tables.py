"""Lists of paths as text, CSV or Parquet, and Parquet with the pictures themselves."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator

from command_line import UserError
from predict.sources.columns import path_columns
from predict.sources.item import Item
from predict.sources.places import is_url, opened

# Rows that are read at once.
ROWS = 4096


def of_text(place: str) -> Iterator[str]:
    """The paths of a list with one in each line. Raises OSError."""
    with opened(place) as file:
        for line in io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline=None):
            if path := line.strip("\r\n"):
                yield _beside(place, path)


def of_csv(place: str) -> Iterator[str]:
    """The paths of a CSV with a header. Raises UserError where no column is one of paths."""
    with opened(place) as file:
        rows = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline=""))
        column = _column(place, [str(name) for name in rows.fieldnames or ()])
        for row in rows:
            if row[column]:
                yield _beside(place, row[column])


def of_parquet(place: str) -> Iterator[Item | str]:
    """The paths of a Parquet, or an item for each of its rows where it has the pictures' bytes: a binary column, or what
    Hugging Face's datasets write, a struct of `bytes` and `path`. Raises UserError where the columns are not clear."""
    parquet = parquet_package()
    with opened(place) as file, parquet.ParquetFile(file) as table:
        schema = table.schema_arrow
        columns = [field.name for field in schema if has_bytes(field.type)]
        if len(columns) > 1:
            raise UserError(f"{place} has several columns of bytes: {', '.join(columns)}; expected one")
        if columns:
            for row in range(table.metadata.num_rows):
                yield Item(f"{place}#{row}", place, row, column=columns[0])
            return
        column = _column(place, [field.name for field in schema if str(field.type) in ("string", "large_string")])
        for batch in table.iter_batches(ROWS, columns=[column]):
            for path in batch.column(0).to_pylist():
                if path:
                    yield _beside(place, path)


def has_bytes(type) -> bool:
    """Whether a column of this type of Arrow's has pictures in it."""
    from pyarrow import types

    if types.is_struct(type):
        return any(field.name == "bytes" and has_bytes(field.type) for field in type)
    return types.is_binary(type) or types.is_large_binary(type)


def parquet_package():
    """pyarrow.parquet. Raises UserError where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("Parquet needs pyarrow: .venv/bin/python -m pip install -r requirements-bulk.txt") from error
    return pyarrow.parquet


def _column(place: str, names: list[str]) -> str:
    known = path_columns(names)
    if len(known) == 1:
        return names[known[0]]
    has = f"has the columns {', '.join(names)[:200]}" if names else "has no columns of text"
    raise UserError(f"{place} {has}: expected one of paths, called path, file_name or image say")


def _beside(place: str, path: str) -> str:
    """A path of a list: a relative one is meant from the list's folder."""
    if is_url(path) or os.path.isabs(path):
        return path
    folder = place.rpartition("/")[0]
    return f"{folder}/{path}" if folder or place.startswith("/") else path
