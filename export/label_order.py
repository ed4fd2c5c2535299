"""From labels with the indices of their classes to labels in the order of the classes."""

from __future__ import annotations

import re
from pathlib import Path

from export.errors import ExportError


def is_index(value: object) -> bool:
    return not isinstance(value, bool) and re.fullmatch(r"\d+", str(value)) is not None


def labels_by_index(file: Path, found: list[tuple[object, object, int | None]]) -> list[str]:
    """(index, label, line) in any order → the labels by index."""
    by_index: dict[int, str] = {}
    for index, label, line in found:
        place = f", line {line}," if line else ""
        if int(str(index)) in by_index:
            raise ExportError(f"{file}{place} gives the class {index} a second time: {by_index[int(str(index))]!r}, {label!r}")
        if not isinstance(label, (str, int)) or isinstance(label, bool) or not str(label).strip():
            raise ExportError(f"{file}{place} gives the class {index} no label")
        by_index[int(str(index))] = str(label)
    if by_index.keys() == set(range(1, len(by_index) + 1)):
        raise ExportError(f"{file} counts its classes from 1: their indices are not 0 to {len(by_index) - 1}")
    if by_index.keys() != set(range(len(by_index))):
        raise ExportError(f"{file} gives {len(by_index)} labels, but their indices are not 0 to {len(by_index) - 1}")
    return names_in_order(file, [by_index[index] for index in range(len(by_index))])


def names_in_order(file: Path, labels: list[str]) -> list[str]:
    """Labels in their order. Raises ExportError where they are the indices of the classes in another order, or one is empty."""
    if not all(label.strip() for label in labels):
        raise ExportError(f"{file} has an empty label")
    in_order = [str(index) for index in range(len(labels))]
    if labels != in_order and sorted(labels) == sorted(in_order):
        raise ExportError(f"{file} gives numbers for labels, which are those of other classes: their order is not clear")
    return labels
