"""Finds the classes of an archive by the names that the labelled pictures have."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from command_line import UserError
from vit_core.options import nearest

SHOWN = 8  # labels in a message
SYNSET = re.compile(r"n\d{8}")  # as ImageNet's folders are called
INDEX = re.compile(r"[0-9]{1,9}")


def class_indices(places: Mapping[str, str], labels: Sequence[str]) -> dict[str, int]:
    """Returns the class index for each name.

    All names are labels of the archive, or all are indices of classes, or all are synsets if the labels are ImageNet's.
    `places` says where each name was found. Raises UserError for the first name that is none of these.
    """
    names = list(places)
    by_label = {_look(label): index for index, label in enumerate(labels)}
    ways = (lambda name: by_label.get(_look(name)), lambda name: _index(name, len(labels)), _synsets(names, labels).get)
    for way in ways:
        found = {name: way(name) for name in names}
        if None not in found.values():
            return found
    numbers = all(map(INDEX.fullmatch, names)) and not any(_look(name) in by_label for name in names)
    unknown = next(name for name in names if (_index(name, len(labels)) is None if numbers else _look(name) not in by_label))
    shown = f"{', '.join(labels[:SHOWN])}{f', … ({len(labels)} in all)' if len(labels) > SHOWN else ''}"
    by_lower = {label.lower(): label for label in labels}
    meant = nearest(unknown, by_lower)
    hint = f"did you mean {by_lower[meant]!r}? " if meant else ""
    raise UserError(f"{places[unknown]}: {unknown[:60]!r} is no label of the archive: {hint}it has {shown}")


def _look(name: str) -> str:
    """Returns a name in a form that is equal for names that look the same: macOS stores the accents of a folder's name
    separately.
    """
    return " ".join(unicodedata.normalize("NFC", name).split())


def _index(name: str, classes: int) -> int | None:
    return int(name) if INDEX.fullmatch(name) and int(name) < classes else None


def _synsets(names: list[str], labels: Sequence[str]) -> dict[str, int]:
    """Returns the index of each of ImageNet's synsets, if the names are synsets and the labels are ImageNet's."""
    if not all(map(SYNSET.fullmatch, names)):
        return {}
    from timm.data import ImageNetInfo, infer_imagenet_subset  # takes seconds

    from export.labels import imagenet_labels

    subset = infer_imagenet_subset({"num_classes": len(labels)})
    if not subset or list(labels) != imagenet_labels(subset):
        return {}
    return {synset: index for index, synset in enumerate(ImageNetInfo(subset).label_names())}
