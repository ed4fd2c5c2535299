"""Reads labels in JSON and YAML: a list, index → label, label → index, or rows, at the top or under one of the usual keys."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import yaml

from export.errors import ExportError
from export.label_order import is_index, labels_by_index, names_in_order, told_apart
from export.label_tables import from_rows

KEYS = (
    "id2label",
    "label2id",
    "class_to_idx",
    "idx_to_class",
    "names",
    "labels",
    "classes",
    "categories",
    "label_names",
    "class_names",
)


def from_json(file: Path, text: str) -> list[str]:
    try:
        return _from_content(file, json.loads(text, object_pairs_hook=lambda pairs: _once(file, pairs)))
    except RecursionError as error:
        raise ExportError(f"{file} is nested too deeply for labels") from error
    except ValueError as error:
        raise ExportError(f"{file} is not JSON: {error}") from error


class _OnceLoader(yaml.BaseLoader):
    """Loads YAML without its surprises: `no` stays a text and `010` is not 8, and a repeated key is an error instead of
    replacing the first.
    """

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"the key {repeated[0]!r} is there twice")
        return super().construct_mapping(node, deep)


def from_yaml(file: Path, text: str) -> list[str]:
    try:
        return _from_content(file, yaml.load(text, _OnceLoader))
    except RecursionError as error:
        raise ExportError(f"{file} is nested too deeply for labels") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:  # the last one of keys that are lists
        raise ExportError(f"{file} is not YAML: {' '.join(str(error).split())}") from error


def _once(file: Path, pairs: list[tuple[str, object]]) -> dict:
    if repeated := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
        raise ExportError(f"{file} has the key {repeated[0]!r} twice")
    return dict(pairs)


def _from_content(file: Path, content: object) -> list[str]:
    if isinstance(content, dict):
        found = [(key, content[key]) for key in KEYS if isinstance(content.get(key), (dict, list))]
        read = [(key, _from_mapping(file, held) if "2" in key else _from_content(file, held)) for key, held in found]
        for key, labels in read[1:]:
            if labels != read[0][1]:
                raise ExportError(f"{file} has {read[0][0]} and {key}, and they disagree: which is the classes' is not clear")
        return read[0][1] if read else _from_mapping(file, content)
    if isinstance(content, list) and content and all(isinstance(each, dict) for each in content):
        return from_rows(file, [(number, each) for number, each in enumerate(content, 1)], list(content[0]))
    if not isinstance(content, list) or not all(isinstance(label, str) for label in content):
        raise ExportError(f"{file} should hold a JSON list of labels, or an object of index → label (by itself or as id2label)")
    return names_in_order(file, content)


def _from_mapping(file: Path, content: object) -> list[str]:
    """Reads index → label, label → index, or index → (synset, label)."""
    if not isinstance(content, dict):
        raise ExportError(f"{file} should give each label by the index of its class, a whole number")
    if content and all(_is_synset_and_label(value) for value in content.values()):
        synsets, names = zip(*content.values(), strict=True)
        content = dict(zip(content, told_apart(list(names), list(synsets)), strict=True))
    keys, values = list(content), list(content.values())
    by_key, by_value = all(map(is_index, keys)), all(map(is_index, values))
    if by_key and by_value and not all(isinstance(value, str) for value in values):
        raise ExportError(f"{file} maps numbers to numbers: which are the classes is not clear")
    if not by_key and not by_value:
        raise ExportError(f"{file} should give each label by the index of its class, a whole number")
    pairs = zip(keys, values, strict=True) if by_key else zip(values, keys, strict=True)
    return labels_by_index(file, [(index, label, None) for index, label in pairs])


def _is_synset_and_label(value: object) -> bool:
    """Whether this is a pair as torchvision, Keras and TorchServe have it. In other lists it is unclear which word is the
    label.
    """
    pair = isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value)
    return pair and re.fullmatch(r"n\d+", value[0]) is not None
