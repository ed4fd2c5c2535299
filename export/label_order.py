"""Orders labels by the indices of their classes."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from pathlib import Path

from export.errors import ExportError

LONGEST = 9  # digits of an index


def is_index(value: object) -> bool:
    return not isinstance(value, bool) and re.fullmatch(rf"\d{{1,{LONGEST}}}", str(value)) is not None


def labels_by_index(file: Path, found: list[tuple[object, object, int | None]]) -> list[str]:
    """Orders (index, label, line) by index."""
    by_index: dict[int, str] = {}
    for index, label, line in found:
        place = f", line {line}," if line else ""
        if int(str(index)) in by_index:
            raise ExportError(f"{file}{place} gives the class {index} a second time: {by_index[int(str(index))]!r}, {label!r}")
        if not isinstance(label, (str, int)) or isinstance(label, bool) or not str(label).strip():
            raise ExportError(f"{file}{place} gives the class {index} no label: expected a text, not {label!r:.60}")
        by_index[int(str(index))] = str(label)
    if by_index.keys() == set(range(1, len(by_index) + 1)):
        raise ExportError(f"{file} counts its classes from 1: their indices are not 0 to {len(by_index) - 1}")
    if by_index.keys() != set(range(len(by_index))):
        raise ExportError(f"{file} gives {len(by_index)} labels, but their indices are not 0 to {len(by_index) - 1}")
    return names_in_order(file, [by_index[index] for index in range(len(by_index))])


def names_in_order(file: Path, labels: list[str]) -> list[str]:
    """Checks labels that stand in order. Raises ExportError if they are the classes' indices in another order, or one is not
    text.
    """
    for index, label in enumerate(labels):
        if not label.strip():
            raise ExportError(f"{file} has an empty label: that of the class {index}")
        if odd := [each for each in label if unicodedata.category(each) in ("Cc", "Cs") and each not in "\t\r\n"]:
            raise ExportError(f"{file} is no text: the label of the class {index} holds the character {odd[0]!a}")
    in_order = [str(index) for index in range(len(labels))]
    if labels != in_order and sorted(labels) == sorted(in_order):
        raise ExportError(
            f"{file} has class indices as labels, in another order than the classes: which order is meant is not clear"
        )
    return labels


def told_apart(names: list[str], synsets: list[str]) -> list[str]:
    """Makes the names of ImageNet's classes distinct: where two share one (a crane is a bird and a machine), the synset is
    added.
    """
    shared = {name for name, count in Counter(names).items() if count > 1}
    return [f"{name} ({synset})" if name in shared else name for name, synset in zip(names, synsets, strict=True)]
