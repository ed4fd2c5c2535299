"""Gives each class a name that is unique in the archive: an answer would merge two classes of one name."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from timm.data import ImageNetInfo, infer_imagenet_subset

from export.errors import ExportError
from export.label_files import read_labels
from export.label_order import told_apart

INDICES = "the class indices"


@dataclass(frozen=True)
class Labels:
    """Labels by class index, and their source."""

    names: list[str]
    source: str


def class_labels(pretrained_cfg: dict, num_classes: int, file: Path | None, pretrained: bool = True) -> Labels:
    """Returns the labels of a model's classes by index.

    They come from `file` if it is given (see `read_labels`), else from the model's own config. Otherwise they are ImageNet's if
    the weights are timm's `pretrained` ones and the model has as many classes; a user's model may have a thousand classes of
    its own. Otherwise they are the indices. Raises ExportError if the labels cannot be read, are not as many as the classes, or
    are not unique.
    """
    if file is not None:
        labels, source = read_labels(file), str(file)
    elif names := pretrained_cfg.get("label_names"):
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, (str, int)) for name in names):
            raise ExportError("the model's config has label_names that are no list of labels: --labels FILE gives others")
        labels, source = [str(name) for name in names], "the model's config"
    elif pretrained and (subset := infer_imagenet_subset({"num_classes": num_classes})):
        labels, source = imagenet_labels(subset), subset
    else:
        labels, source = [str(index) for index in range(num_classes)], INDICES
    if len(labels) != num_classes:
        raise ExportError(f"{source} has {len(labels)} labels, but the model has {num_classes} classes")
    # Those of "a" and "A" are two classes; those of "barn owl" and "barn  owl" look like one.
    looks = [" ".join(unicodedata.normalize("NFC", label).split()) for label in labels]
    if repeated := [look for look, count in Counter(looks).items() if count > 1]:
        raise ExportError(f"{source} gives {repeated[0]!r} to more than one class: labels must be unique")
    return Labels(labels, source)


def imagenet_labels(subset: str) -> list[str]:
    info = ImageNetInfo(subset)
    return told_apart(info.label_descriptions(), info.label_names())
