"""A name for each class, unique in the archive: two classes of one name would be merged in an answer."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

from timm.data import ImageNetInfo, infer_imagenet_subset

from export.errors import ExportError

LABEL_COLUMNS = ("label", "name", "class")  # of a CSV file, in this order
INDEX_COLUMNS = ("index", "id")  # optional: without one, the rows are in the order of the classes


def class_labels(pretrained_cfg: dict, num_classes: int, file: Path | None) -> list[str]:
    """The labels of a model's classes, by index.

    From `file` if it is given (text with one label a line; JSON as a list, index → label or `id2label`; CSV with a header),
    else from the model's own config, else ImageNet's where the number of classes is one of ImageNet's, else the indices.
    Raises ExportError where they cannot be read, are not as many as the classes, or are not unique.
    """
    if file is not None:
        labels, source = _read(file), str(file)
    elif names := pretrained_cfg.get("label_names"):
        labels, source = [str(name) for name in names], "the model's config"
    elif subset := infer_imagenet_subset({"num_classes": num_classes}):
        labels, source = _imagenet(subset), subset
    else:
        labels, source = [str(index) for index in range(num_classes)], "the class indices"
    if len(labels) != num_classes:
        raise ExportError(f"{source} has {len(labels)} labels, but the model has {num_classes} classes")
    if repeated := [label for label, count in Counter(labels).items() if count > 1]:
        raise ExportError(f"{source} gives {repeated[0]!r} to more than one class: labels must be unique")
    return labels


def _read(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"the labels could not be read from {file}: {error}") from error
    if file.suffix == ".json":
        return _from_json(file, text)
    if file.suffix == ".csv":
        return _from_csv(file, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def _from_json(file: Path, text: str) -> list[str]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ExportError(f"{file} is not JSON: {error}") from error
    if isinstance(content, dict):
        content = _in_order(file, content.get("id2label", content))
    if not isinstance(content, list) or not all(isinstance(label, str) for label in content):
        raise ExportError(f"{file} should hold a JSON list of labels, or an object of index → label (by itself or as id2label)")
    return content


def _from_csv(file: Path, text: str) -> list[str]:
    rows = list(csv.DictReader(text.splitlines()))
    columns = rows[0].keys() if rows else []
    label, index = (next((name for name in names if name in columns), None) for names in (LABEL_COLUMNS, INDEX_COLUMNS))
    if label is None:
        raise ExportError(
            f"{file} should have a header with a column called {', '.join(LABEL_COLUMNS[:-1])} or {LABEL_COLUMNS[-1]}"
        )
    if index is None:
        return [row[label] for row in rows]
    return _in_order(file, {row[index]: row[label] for row in rows})


def _in_order(file: Path, labels: dict) -> list[str]:
    """index → label as a list by index."""
    try:
        by_index = {int(index): label for index, label in labels.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ExportError(f"{file} should give each label by the index of its class, a whole number") from error
    if by_index.keys() != set(range(len(by_index))):
        raise ExportError(f"{file} gives {len(by_index)} labels, but their indices are not 0 to {len(by_index) - 1}")
    return [by_index[index] for index in range(len(by_index))]


def _imagenet(subset: str) -> list[str]:
    """ImageNet's names. Where classes share one (a crane is a bird and a machine), their synset tells them apart."""
    info = ImageNetInfo(subset)
    names = info.label_descriptions()
    shared = {name for name, count in Counter(names).items() if count > 1}
    return [f"{name} ({synset})" if name in shared else name for name, synset in zip(names, info.label_names(), strict=True)]
