"""Reads labelled pictures: from a folder for each class, or from the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from command_line import UserError
from evaluate.classes import class_indices
from evaluate.tables import SUFFIXES, Row, read_table
from predict.pictures import pictures


@dataclass(frozen=True)
class Example:
    """A picture, and the indices of its classes: one, or any number if each class is decided by itself."""

    picture: Path
    classes: tuple[int, ...]


def read_source(source: Path, labels: Sequence[str], several: bool) -> list[Example]:
    """Reads the labelled pictures of a folder or a table. `several`: a picture may have any number of labels.

    Raises UserError for any other source, and names a folder, column or row that is ambiguous.
    """
    if source.is_dir():
        return _from_folders(source, labels)
    if not source.exists():
        raise UserError(f"there is no file or folder {source}")
    if source.suffix.lower() not in SUFFIXES:
        raise UserError(f"{source} is neither a folder nor a file {' or '.join(SUFFIXES)}")
    return _from_rows(source, read_table(source, labels), labels, several)


def _from_folders(source: Path, labels: Sequence[str]) -> list[Example]:
    """Reads pictures whose class is the name of the folder that they are in, at any depth. Names that begin with a dot are left
    out.
    """
    folders = [each for each in sorted(source.iterdir()) if each.is_dir() and not each.name.startswith(".")]
    indices = class_indices({folder.name: f"the folder {folder}" for folder in folders}, labels)
    named: dict[int, str] = {}
    for name, index in indices.items():
        if index in named:
            raise UserError(f"the folders {named[index]!r} and {name!r} in {source} are of the same class")
        named[index] = name
    examples = []
    for file in pictures([source]):
        if file.parent == source:
            raise UserError(f"{file} lies beside the folders of the classes, so it has no label: move it into one, or away")
        examples.append(Example(file, (indices[file.relative_to(source).parts[0]],)))
    return examples


def _from_rows(source: Path, rows: list[Row], labels: Sequence[str], several: bool) -> list[Example]:
    seen: dict[Path, int] = {}
    for row in rows:
        if row.picture in seen:
            raise UserError(f"{source}, line {row.line}, names {row.picture} a second time, after line {seen[row.picture]}")
        seen[row.picture] = row.line
    # By column: one may have labels, and another one the indices of the same classes.
    indices = []
    for column in range(len(rows[0].cells)):
        places: dict[str, str] = {}
        for row in rows:
            for name in row.cells[column]:
                places.setdefault(name, f"{source}, line {row.line}")
        indices.append(class_indices(places, labels))
    examples = []
    for row in rows:
        found = [tuple(dict.fromkeys(of[name] for name in names)) for of, names in zip(indices, row.cells, strict=True)]
        if len({tuple(sorted(classes)) for classes in found}) > 1:
            raise UserError(f"{source}, line {row.line}, has two columns of labels that say different classes")
        if not several and len(found[0]) != 1:
            raise UserError(
                f"{source}, line {row.line}, has {len(found[0]) or 'no'} label{'s' * (len(found[0]) > 1)}: the archive's "
                "classes exclude each other, so a picture has one"
            )
        examples.append(Example(row.picture, found[0]))
    return examples
