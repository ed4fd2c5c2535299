"""Reads the rows of a CSV or TSV of labelled pictures.

A row has a path, relative to the table's folder, and its labels: in one column, with `|` between several; or in a column for
each label of the archive, with 1 if the picture has it and 0 if not.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from command_line import UserError
from predict.sources.columns import path_columns, plain

SUFFIXES = (".csv", ".tsv")
SEPARATOR = "|"
SHOWN = 8  # columns in a message
# Columns of labels, as `plain` has them.
LABELS = ("label", "labels", "labelname", "labelnames", "class", "classes", "classname", "classnames", "category", "categories")
LABELS += ("categoryname", "findinglabels", "tags", "target", "targets", "y", "classid", "classidx", "classindex", "labelid")
LABELS += ("labelidx", "labelindex", "categoryid", "targetid", "truth", "groundtruth")
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no", "")


@dataclass(frozen=True)
class Row:
    """A picture, and the names of its labels by the columns of labels."""

    line: int
    picture: Path
    cells: tuple[tuple[str, ...], ...]


def read_table(file: Path, labels: Sequence[str]) -> list[Row]:
    """Reads the rows of a table with a header. Raises UserError, which names an ambiguous line or column."""
    columns, rows = _read(file)
    header = f"its header has {', '.join(map(repr, columns[:SHOWN]))}{', …' if len(columns) > SHOWN else ''}"
    paths = path_columns(columns)
    if len(paths) > 1:
        found = " and ".join(repr(columns[place]) for place in paths)
        raise UserError(f"{file} has the columns {found}: which has the paths is not clear")
    if not paths:
        raise UserError(f"{file} has no column of paths, called 'path' say: {header}")
    # A class may be called as a column of labels is: where each class has a column, that is what it means.
    by_label = {label: columns.index(label) for label in labels if label in columns}
    named = [place for place, column in enumerate(columns) if plain(column) in LABELS and column not in by_label]
    if not named and not by_label:
        raise UserError(f"{file} has no column of labels, called 'label' say: {header}")
    if not named and (missing := [label for label in labels if label not in by_label]):
        raise UserError(f"{file} has columns for some labels, and none for {missing[0]!r}: it takes one for each, or a 'label'")
    found = []
    for line, row in rows:
        if not row[paths[0]]:
            raise UserError(f"{file}, line {line}, has no path")
        if named:
            cells = tuple(_split(row[place], labels, file, line) for place in named)
        else:
            cells = (tuple(label for label, place in by_label.items() if _is(row[place], file, line, label)),)
        found.append(Row(line, file.parent / row[paths[0]], cells))
    return found


def _read(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise UserError(f"{file} could not be read: {error}") from error
    header = text.split("\n", 1)[0]
    delimiter = "\t" if file.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = [column.strip() for column in next(reader, [])]
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num}, is not CSV: {error}") from error
    if len(set(columns)) < len(columns):
        raise UserError(f"{file} has two columns of one name in its header")
    if not rows:
        raise UserError(f"{file} has no rows below its header")
    for line, row in rows:
        if len(row) != len(columns):
            raise UserError(f"{file}, line {line}, has {len(row)} cells, and the header has {len(columns)}")
    return columns, rows


def _split(cell: str, labels: Sequence[str], file: Path, line: int) -> tuple[str, ...]:
    """Splits a cell into names; a cell that is a label as a whole stays whole."""
    parts = tuple(part.strip() for part in cell.split(SEPARATOR) if part.strip())
    if cell not in labels:
        return parts
    if len(parts) > 1 and set(parts) <= set(labels):
        raise UserError(f"{file}, line {line}, has {cell!r}, which is a label and several labels too: which is not clear")
    return (cell,)


def _is(cell: str, file: Path, line: int, label: str) -> bool:
    if cell.lower() not in (*YES, *NO):
        raise UserError(f"{file}, line {line}, has {cell[:40]!r} in its column {label!r}: expected 1 or 0")
    return cell.lower() in YES
