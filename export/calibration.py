"""The pictures from which int8 takes its scales, and the others by which it is judged."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from command_line import UserError
from export.errors import ExportError
from export.pictures import BATCH, PHOTOGRAPHS
from predict.pictures import pictures
from vit_core.errors import InputError
from vit_core.image import Deadline, decode
from vit_core.pixels import normalize, resize_and_crop
from vit_core.settings import Limits, Preprocessing

# In trials, more pictures than these changed no scale. Of a larger folder the export step takes evenly spaced ones.
MOST, LEAST = 320, 10
OTHERS = 5  # every fifth picture is for judging
CROPS = 12  # of each shipped photograph
HELD_OUT = 2  # shipped photographs whose crops are for judging


@dataclass(frozen=True)
class Calibration:
    """Batches of pictures as the model gets them, float32 [N, C, H, W] each."""

    seen: tuple[torch.Tensor, ...]  # for the scales
    others: tuple[torch.Tensor, ...]  # to judge the result by
    is_users: bool  # else of the shipped photographs
    sha256: str  # hash of the files, in any order and under any names
    unreadable: tuple[str, ...] = ()  # names of files that are no pictures, with the reason

    @property
    def source(self) -> str:
        return "pictures of yours" if self.is_users else "crops of the shipped photographs"

    @property
    def images(self) -> int:
        return sum(map(len, self.seen))


def calibration(folder: Path | None, preprocessing: Preprocessing, limits: Limits) -> Calibration:
    """Returns the pictures in `folder`, at any depth, as the handler will prepare them; without a folder, crops of the shipped
    photographs.

    Raises ExportError if the folder has too few readable pictures.
    """
    return _of_folder(folder, preprocessing, limits) if folder else _of_photographs(preprocessing)


def _of_folder(folder: Path, preprocessing: Preprocessing, limits: Limits) -> Calibration:
    try:
        files = pictures([folder])
    except UserError as error:
        raise ExportError(f"--calibrate: {error}") from error
    spaced = [files[index * len(files) // MOST] for index in range(MOST)] if len(files) > MOST else files
    read, digests, unreadable = [], [], []
    for file in spaced:
        try:
            data = file.read_bytes()
            image = decode(data, preprocessing.input_size[0], limits, Deadline(limits.max_decode_seconds))
        except (InputError, OSError) as error:
            unreadable.append(f"{file.name} ({getattr(error, 'message', None) or error.strerror})")
            continue
        read.append(_input(image, preprocessing))
        digests.append(hashlib.sha256(data).hexdigest())
    if len(read) < LEAST:
        first = f"; the first that cannot be read is {unreadable[0]}" if unreadable else ""
        raise ExportError(f"--calibrate {folder} has {len(read)} pictures that can be read: at least {LEAST} are needed{first}")
    seen = [each for index, each in enumerate(read) if index % OTHERS]
    return Calibration(_batches(seen), _batches(read[::OTHERS]), True, _digest(digests), tuple(unreadable))


def _of_photographs(preprocessing: Preprocessing) -> Calibration:
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))
    mode = "RGB" if preprocessing.input_size[0] == 3 else "L"
    crops = [_input(crop, preprocessing) for file in files for crop in _crops(Image.open(file).convert(mode))]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return Calibration(_batches(crops[HELD_OUT * CROPS :]), _batches(crops[: HELD_OUT * CROPS]), False, _digest(digests))


def _crops(image: Image.Image) -> Iterable[Image.Image]:
    """Returns crops that have half to all of each edge. They are the same in each export."""
    chance = random.Random(0)
    for _ in range(CROPS):
        width, height = (max(1, round(edge * chance.uniform(0.5, 1))) for edge in image.size)
        left, top = chance.randint(0, image.width - width), chance.randint(0, image.height - height)
        yield image.crop((left, top, left + width, top + height))


def _input(image: Image.Image, preprocessing: Preprocessing) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return normalize(resize_and_crop(image, preprocessing)[None], mean, std)[0]


def _batches(images: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return torch.stack(images).split(BATCH)


def _digest(digests: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
