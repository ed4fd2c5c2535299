"""The labels in a file, in the order of the classes: by index where the file has one, else as they stand.

A file whose order is not clear is refused: labels in another order are wrong answers that nobody notices.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import yaml

from export.errors import ExportError

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
LABEL_NAMES = ("label", "labels", "name", "names", "class", "classname", "labelname", "category", "categoryname", "description")
NUMBERED = re.compile(r"(\d+)(?:\s*[,:;=]\s*|\s+)(\S.*)")  # "2,owl", "2: owl", "2 owl"
NUMBER_LAST = re.compile(r"(.*\S)(?:\s*[,:;=]\s*|\s+)(\d+)")  # "owl 2", as a class_to_idx is printed


def read_labels(file: Path) -> list[str]:
    """Raises ExportError, which names the file and the line, where it cannot be read or its order is not clear."""
    try:
        text = _decoded(file.read_bytes())
    except (OSError, UnicodeError) as error:
        raise ExportError(f"the labels could not be read from {file}: {error}") from error
    readers: dict[str, Callable[[Path, str], list[str]]] = {
        ".json": _from_json,
        ".yaml": _from_yaml,
        ".yml": _from_yaml,
        ".csv": _from_csv,
        ".tsv": _from_csv,
    }
    return readers.get(file.suffix.lower(), _from_text)(file, text)


def _decoded(data: bytes) -> str:
    """UTF-8, or UTF-16 where the first bytes say so."""
    return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")


# --- text ---


def _from_text(file: Path, text: str) -> list[str]:
    lines = [line.strip() for line in text.rstrip().splitlines()]
    for number, line in enumerate(lines, 1):
        if not line:
            raise ExportError(f"{file}, line {number}, is empty: each line should be a label")
        if line.startswith("#"):
            raise ExportError(
                f"{file}, line {number}, starts with #: take a comment out; labels that start so can be given as JSON"
            )
    for pattern, index, label in ((NUMBERED, 1, 2), (NUMBER_LAST, 2, 1)):
        found = [pattern.fullmatch(line) for line in lines]
        # "stage 0", "stage 1" are labels as they stand: without the number they would all be one.
        if all(found) and len({match[label] for match in found}) == len(lines) > 1:
            numbers = sorted(int(match[index]) for match in found)
            if numbers == list(range(len(lines))) or any(re.search(r"[,:;=]", line) for line in lines):
                pairs = [(match[index], match[label], place) for place, match in enumerate(found, 1)]
                return _in_order(file, pairs)
            if numbers == list(range(1, len(lines) + 1)):
                raise ExportError(f"{file} numbers its labels from 1: the first class is 0")
    return lines


# --- JSON and YAML ---


def _from_json(file: Path, text: str) -> list[str]:
    try:
        return _from_content(file, json.loads(text, object_pairs_hook=lambda pairs: _once(file, pairs)))
    except ValueError as error:
        raise ExportError(f"{file} is not JSON: {error}") from error


def _from_yaml(file: Path, text: str) -> list[str]:
    try:
        return _from_content(file, yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ExportError(f"{file} is not YAML: {' '.join(str(error).split())}") from error


def _once(file: Path, pairs: list[tuple[str, object]]) -> dict:
    if repeated := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
        raise ExportError(f"{file} has the key {repeated[0]!r} twice")
    return dict(pairs)


def _from_content(file: Path, content: object) -> list[str]:
    if isinstance(content, dict):
        for key in ("id2label", "label2id", "class_to_idx", "idx_to_class", "names", "labels", "classes", "categories"):
            if isinstance(content.get(key), (dict, list)):
                return _from_content(file, content[key]) if key != "id2label" else _from_mapping(file, content[key])
        return _from_mapping(file, content)
    if isinstance(content, list) and content and all(isinstance(each, dict) for each in content):
        return _from_rows(file, [(number, each) for number, each in enumerate(content, 1)], list(content[0]))
    if not isinstance(content, list) or not all(isinstance(label, str) for label in content):
        raise ExportError(f"{file} should hold a JSON list of labels, or an object of index → label (by itself or as id2label)")
    return content


def _from_mapping(file: Path, content: object) -> list[str]:
    """index → label, label → index, or index → (synset, label)."""
    if not isinstance(content, dict):
        raise ExportError(f"{file} should give each label by the index of its class, a whole number")
    keys, values = list(content), [value[-1] if isinstance(value, list) and value else value for value in content.values()]
    by_key, by_value = all(map(_is_index, keys)), all(map(_is_index, values))
    if by_key and by_value and not all(isinstance(value, str) for value in values):
        raise ExportError(f"{file} maps numbers to numbers: which are the classes is not clear")
    if not by_key and not by_value:
        raise ExportError(f"{file} should give each label by the index of its class, a whole number")
    pairs = zip(keys, values, strict=True) if by_key else zip(values, keys, strict=True)
    return _in_order(file, [(index, label, None) for index, label in pairs])


# --- tables ---


def _from_csv(file: Path, text: str) -> list[str]:
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count) if file.suffix.lower() == ".csv" else "\t"
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = [column.strip() for column in next(reader, [])]
        rows = []
        for row in reader:
            if any(cell.strip() for cell in row):
                if len(row) != len(columns):
                    raise ExportError(
                        f"{file}, line {reader.line_num}, has {len(row)} cells, and the header has {len(columns)}: put a label "
                        f"with a {delimiter!r} in it into quotation marks"
                    )
                rows.append((reader.line_num, dict(zip(columns, (cell.strip() for cell in row), strict=True))))
    except csv.Error as error:
        raise ExportError(f"{file}, line {reader.line_num}, is not CSV: {error}") from error
    if len(set(columns)) < len(columns):
        raise ExportError(f"{file} has two columns of one name in its header")
    return _from_rows(file, rows, columns)


def _from_rows(file: Path, rows: list[tuple[int, dict]], columns: list[str]) -> list[str]:
    """Labels from rows with their line numbers, by the column of indices, if there is one."""
    if short := next((line for line, row in rows if row.keys() != set(columns)), None):
        raise ExportError(f"{file}, row {short}, has other columns than the first one")
    whole = {column for column in columns if rows and all(_is_index(row[column]) for _, row in rows)}
    labels = [column for column in columns if _plain(column) in LABEL_NAMES]
    if any(column not in whole for column in labels):
        labels = [column for column in labels if column not in whole]  # a class that is a number beside one that is a name
    indices = [column for column in columns if column in whole - set(labels) and _may_be_index(column)]
    if not labels:
        raise ExportError(f"{file} should have a header with a column called label, name or class")
    for what, found in (("labels", labels), ("class indices", indices)):
        if len(found) > 1 and any(len({str(row[column]) for column in found}) > 1 for _, row in rows):
            raise ExportError(f"{file} has the columns {' and '.join(map(repr, found))}: which are the {what} is not clear")
    if indices:
        return _in_order(file, [(row[indices[0]], row[labels[0]], line) for line, row in rows])
    for column in sorted(whole - set(labels)):
        numbers = [int(row[column]) for _, row in rows]
        if len(rows) > 1 and (numbers == sorted(numbers, reverse=True) or sorted(numbers) == list(range(len(rows)))):
            raise ExportError(
                f"{file} may be ordered by its column {column!r}, and not by class: call the column of class indices 'index'"
            )
    return [str(row[labels[0]]) for _, row in rows]


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", str(name)).lower()


def _may_be_index(column: str) -> bool:
    """By its name: that of an index, of a class, or none, as pandas writes it."""
    return column in ("", "Unnamed: 0") or _plain(column) in (*INDEX_NAMES, *LABEL_NAMES)


# --- by index ---


def _is_index(value: object) -> bool:
    return not isinstance(value, bool) and re.fullmatch(r"\d+", str(value)) is not None


def _in_order(file: Path, found: list[tuple[object, object, int | None]]) -> list[str]:
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
    return [by_index[index] for index in range(len(by_index))]
