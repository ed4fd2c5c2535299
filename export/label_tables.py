"""Reads labels in the rows of a table: by its column of indices if it has one, else in the order of the rows."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

from export.errors import ExportError
from export.label_order import is_index, labels_by_index, names_in_order
from predict.sources.columns import plain

# Names of columns and keys, in lower case and without spaces, dashes and underscores.
INDEX_NAMES = (
    "index",
    "idx",
    "id",
    "classid",
    "classidx",
    "classindex",
    "labelid",
    "labelidx",
    "categoryid",
    "target",
    "number",
)
LABEL_NAMES = (
    "label",
    "labels",
    "labelname",
    "labelnames",
    "name",
    "names",
    "class",
    "classes",
    "classname",
    "classnames",
    "category",
    "categories",
    "categoryname",
    "description",
)
UNNAMED = re.compile(r"(Unnamed: \d+(\.\d+)*)?")  # names that pandas gives to its index, written once or twice


def from_csv(file: Path, text: str) -> list[str]:
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count) if file.suffix.lower() == ".csv" else "\t"
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = [column.strip() for column in next(reader, [])]
        table = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise ExportError(f"{file}, line {reader.line_num}, is not CSV: {error}") from error
    while table and not any(table[-1][1]):
        table.pop()
    rows = []
    for line, row in table:
        if not row and len(columns) > 1:
            continue
        row = row or [""]  # an empty line of a single column: an empty label
        if len(row) != len(columns):
            raise ExportError(
                f"{file}, line {line}, has {len(row)} cells, and the header has {len(columns)}: put a label with a "
                f"{delimiter!r} in it into quotation marks"
            )
        if row[0].startswith("#"):
            raise ExportError(
                f"{file}, line {line}, starts with #: take a comment out; labels that start so can be given as JSON"
            )
        rows.append((line, row))
    # A comma at the end of each line makes an empty column.
    kept = [
        place for place, column in enumerate(columns) if not UNNAMED.fullmatch(column) or any(row[place] for _, row in rows)
    ]
    names = [columns[place] for place in kept]
    if len(set(names)) < len(names):
        raise ExportError(f"{file} has two columns of one name in its header")
    return from_rows(file, [(line, {columns[place]: row[place] for place in kept}) for line, row in rows], names)


def from_rows(file: Path, rows: list[tuple[int, dict]], columns: list[str]) -> list[str]:
    """Reads labels from rows with their line numbers, by the column of indices if there is one."""
    if short := next((line for line, row in rows if row.keys() != set(columns)), None):
        raise ExportError(f"{file}, row {short}, has other columns than the first one")
    whole = {column for column in columns if rows and all(is_index(row[column]) for _, row in rows)}
    labels = [column for column in columns if plain(column) in LABEL_NAMES]
    if any(column not in whole for column in labels):
        # One column has the class as a number, and another one has its name.
        labels = [column for column in labels if column not in whole]
    indices = [column for column in columns if column in whole - set(labels) and _may_be_index(column)]
    for column in columns if rows else ():
        if _may_be_index(column) and plain(column) not in LABEL_NAMES and column not in whole:
            line, found = next((line, row[column]) for line, row in rows if not is_index(row[column]))
            raise ExportError(f"{file}, line {line}, has {found!r:.60} in its column {column!r}: expected the index of a class")
    if not labels:
        raise ExportError(f"{file} should have a header with a column called label, name or class")
    for what, found in (("labels", labels), ("class indices", indices)):
        if len(found) > 1 and any(len({str(row[column]) for column in found}) > 1 for _, row in rows):
            raise ExportError(f"{file} has the columns {' and '.join(map(repr, found))}: which are the {what} is not clear")
    if indices:
        return labels_by_index(file, [(row[indices[0]], row[labels[0]], line) for line, row in rows])
    for column in columns:
        numbers = _numbers(row[column] for _, row in rows)
        if column in labels or len(numbers) < max(2, len(rows)):
            continue
        counted = [list(range(first, first + len(rows))) for first in (0, 1)]
        if numbers in (sorted(numbers), sorted(numbers, reverse=True)) or sorted(numbers) in counted:
            raise ExportError(
                f"{file} may be ordered by its column {column!r}, and not by class: call the column of class indices 'index'"
            )
    return names_in_order(file, [str(row[labels[0]]) for _, row in rows])


def _numbers(values: Iterable[object]) -> list[float]:
    """Returns those of the values that are numbers."""
    found = []
    for value in values:
        with contextlib.suppress(TypeError, ValueError):
            found.append(float(value))
    return found


def _may_be_index(column: str) -> bool:
    """Whether a column's name is that of an index, of a class, or empty, as pandas writes it."""
    return UNNAMED.fullmatch(str(column)) is not None or plain(column) in (*INDEX_NAMES, *LABEL_NAMES)
