"""The labels in a file, in the order of the classes: by index where the file has one, else as they stand.

A file whose order is not clear is refused: labels in another order are wrong answers that nobody notices.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import yaml

from export.errors import ExportError
from export.label_order import is_index, labels_by_index, names_in_order
from export.label_tables import from_csv, from_rows

NUMBERED = re.compile(r"[\[(]?(\d+)(?:[\])]?\s*[,:;=.|)\]_-]\s*|[\])]?\s+)(\S.*)")  # "2,owl", "2: owl", "[2] owl", "2 owl"
NO_LABELS = ("<", "{", "version https://git-lfs")  # beginnings of HTML, of JSON lines, of a pointer of Git LFS
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
        ".csv": from_csv,
        ".tsv": from_csv,
    }
    return readers.get(file.suffix.lower(), _from_text)(file, text)


def _decoded(data: bytes) -> str:
    """UTF-8, or UTF-16 where the first bytes say so."""
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    if "\0" in text:
        raise UnicodeError("it holds zeros, as UTF-16 without its mark does: save it as UTF-8")
    return text


# --- text ---


def _from_text(file: Path, text: str) -> list[str]:
    lines = [line.strip() for line in re.split(r"\r\n|\n|\r", text.rstrip())]
    if lines[0].lower().startswith(NO_LABELS):
        raise ExportError(f"{file} holds no labels: it begins with {lines[0][:40]!r}")
    for number, line in enumerate(lines, 1):
        if not line:
            raise ExportError(f"{file}, line {number}, is empty: each line should be a label")
        if line.startswith(("#", "//")):
            raise ExportError(
                f"{file}, line {number}, starts with {line[0]}: take a comment out; labels that start so can be given as JSON"
            )
    for pattern, index, label in ((NUMBERED, 1, 2), (NUMBER_LAST, 2, 1)):
        found = [pattern.fullmatch(line) for line in lines]
        # "stage 0", "stage 1" are labels as they stand: without the number they would all be one.
        if all(found) and len({match[label] for match in found}) == len(lines) > 1:
            numbers = sorted(int(match[index]) for match in found)
            if numbers == list(range(len(lines))) or any(re.search(r"[,:;=]", line) for line in lines):
                pairs = [(match[index], match[label], place) for place, match in enumerate(found, 1)]
                return labels_by_index(file, pairs)
            if numbers == list(range(1, len(lines) + 1)):
                raise ExportError(f"{file} numbers its labels from 1: the first class is 0")
    return names_in_order(file, lines)


# --- JSON and YAML ---


def _from_json(file: Path, text: str) -> list[str]:
    try:
        return _from_content(file, json.loads(text, object_pairs_hook=lambda pairs: _once(file, pairs)))
    except RecursionError as error:
        raise ExportError(f"{file} is nested too deeply for labels") from error
    except ValueError as error:
        raise ExportError(f"{file} is not JSON: {error}") from error


class _OnceLoader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML keeps the last."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"the key {repeated[0]!r} is there twice")
        return super().construct_mapping(node, deep)


def _from_yaml(file: Path, text: str) -> list[str]:
    try:
        return _from_content(file, yaml.load(text, _OnceLoader))
    except RecursionError as error:
        raise ExportError(f"{file} is nested too deeply for labels") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:  # the latter two of dates, and of keys that are lists
        raise ExportError(f"{file} is not YAML: {' '.join(str(error).split())}") from error


def _once(file: Path, pairs: list[tuple[str, object]]) -> dict:
    if repeated := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
        raise ExportError(f"{file} has the key {repeated[0]!r} twice")
    return dict(pairs)


def _from_content(file: Path, content: object) -> list[str]:
    if isinstance(content, dict):
        if isinstance(content.get("label2id"), dict) and isinstance(content.get("id2label"), dict):
            by_index, by_label = (_from_mapping(file, content[key]) for key in ("id2label", "label2id"))
            if by_index != by_label:
                raise ExportError(f"{file} has an id2label and a label2id that disagree")
        for key in ("id2label", "label2id", "class_to_idx", "idx_to_class", "names", "labels", "classes", "categories"):
            if isinstance(content.get(key), (dict, list)):
                return _from_content(file, content[key]) if key != "id2label" else _from_mapping(file, content[key])
        return _from_mapping(file, content)
    if isinstance(content, list) and content and all(isinstance(each, dict) for each in content):
        return from_rows(file, [(number, each) for number, each in enumerate(content, 1)], list(content[0]))
    if not isinstance(content, list) or not all(isinstance(label, str) for label in content):
        raise ExportError(f"{file} should hold a JSON list of labels, or an object of index → label (by itself or as id2label)")
    return names_in_order(file, content)


def _from_mapping(file: Path, content: object) -> list[str]:
    """index → label, label → index, or index → (synset, label)."""
    if not isinstance(content, dict):
        raise ExportError(f"{file} should give each label by the index of its class, a whole number")
    keys, values = list(content), [value[-1] if isinstance(value, list) and value else value for value in content.values()]
    by_key, by_value = all(map(is_index, keys)), all(map(is_index, values))
    if by_key and by_value and not all(isinstance(value, str) for value in values):
        raise ExportError(f"{file} maps numbers to numbers: which are the classes is not clear")
    if not by_key and not by_value:
        raise ExportError(f"{file} should give each label by the index of its class, a whole number")
    pairs = zip(keys, values, strict=True) if by_key else zip(values, keys, strict=True)
    return labels_by_index(file, [(index, label, None) for index, label in pairs])
