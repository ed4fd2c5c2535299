"""From an image to the uint8 pixels that the model wants: resize, crop; and from those to its input: normalize.

What to resize and crop to is data (`Preprocessing`), resolved from timm when the archive was built. The rules are those of
`timm.data.create_transform(..., is_training=False)`, without importing timm or torchvision at serve time; those of CENTER_FLOOR
and CROP_FIRST are transformers'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from vit_core.settings import BORDER, CENTER, CENTER_FLOOR, CROP_FIRST, SQUASH, Preprocessing

# A longer edge is not resized as a whole before the crop: the picture is a thin strip, enlarged.
LONGEST = 1 << 15


def least_edge(preprocessing: Preprocessing) -> int:
    """Returns the shortest edge to which an image may be decoded: twice the size that it is resized to. With once, photographs
    differ visibly.
    """
    return 2 * math.ceil(max(preprocessing.input_size[1:]) / preprocessing.crop_pct)


def resize_and_crop(image: Image.Image, preprocessing: Preprocessing, fast: bool = False) -> torch.Tensor:
    """Returns the model's view of `image`: uint8 [channels, height, width], equal to the bit to timm's resize and crop.

    With `fast`, torch resizes an image that shrinks. Its resampling is several times faster than Pillow's and rounds some
    values differently: by 1/255 in photographs, and some by 2/255 in noise.
    """
    _, *target = preprocessing.input_size
    if preprocessing.crop_mode == CROP_FIRST:
        image = _middle(image, preprocessing.crop_pct)
    resized = _resized_size((image.height, image.width), target, preprocessing)
    floors = preprocessing.crop_mode == CENTER_FLOOR
    rows, columns = (_crop_axis(*sizes, floors) for sizes in zip(resized, target, strict=True))
    if fast and _torch_can(image, resized, target, preprocessing):
        whole = torch.from_numpy(np.array(image)).view(image.height, image.width, -1).permute(2, 0, 1)[None]
        (pixels,) = F.interpolate(whole, resized, mode=preprocessing.interpolation, antialias=True)
        return pixels[:, rows.start : rows.start + rows.length, columns.start : columns.start + columns.length]
    pixels = _resample(image, resized, rows, columns, Image.Resampling[preprocessing.interpolation.upper()])
    if list(pixels.size) != target[::-1]:
        padded = Image.new(image.mode, target[::-1], _fill(preprocessing))
        padded.paste(pixels, (columns.pad, rows.pad))
        pixels = padded
    return torch.frombuffer(bytearray(pixels.tobytes()), dtype=torch.uint8).view(*target, -1).permute(2, 0, 1)


def normalize(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Returns uint8 [N, C, H, W] as the model's float32 input; `mean` and `std` are [C, 1, 1], for pixels in 0..1."""
    return pixels.float().div_(255).sub_(mean).div_(std)


@dataclass(frozen=True)
class _Crop:
    """One axis of a crop: its start in the resized image, its length, and the padding before it."""

    start: int
    length: int
    pad: int


def _middle(image: Image.Image, share: float) -> Image.Image:
    """Returns the square in the middle of `image` whose edge is this share of the shortest one."""
    edge = max(1, int(share * min(image.size)))
    left, top = ((whole - edge) // 2 for whole in image.size)
    return image.crop((left, top, left + edge, top + edge))


def _resized_size(size: list[int], target: list[int], preprocessing: Preprocessing) -> list[int]:
    """Returns the height and width to which timm resizes an image of `size` (height, width) before it crops `target`."""
    if preprocessing.crop_mode == CROP_FIRST:
        return target
    scale = [math.floor(edge / preprocessing.crop_pct) for edge in target]
    if preprocessing.crop_mode == SQUASH:
        return scale
    if preprocessing.crop_mode in (CENTER, CENTER_FLOOR) and scale[0] == scale[1]:  # torchvision's Resize(int): truncates
        short, long = min(size), max(size)
        return [scale[0] if edge == short else int(scale[0] * long / short) for edge in size]
    ratios = [edge / wanted for edge, wanted in zip(size, scale, strict=True)]  # timm's ResizeKeepRatio: rounds
    ratio = max(ratios) if preprocessing.crop_mode == BORDER else min(ratios)
    return [max(1, round(edge / ratio)) for edge in size]


def _crop_axis(size: int, target: int, floors: bool) -> _Crop:
    """Computes torchvision's center_crop on one axis: it pads a small image and cuts a large one, rounding half to even unless
    it `floors`.
    """
    start = (size - target) // 2 if floors else round((size - target) / 2)
    if size < target:
        return _Crop(0, size, -start if floors else (target - size) // 2)
    return _Crop(start, target, 0)


def _resample(image: Image.Image, resized: list[int], rows: _Crop, columns: _Crop, resampling: Image.Resampling) -> Image.Image:
    """Resizes `image` to `resized` (height, width) and returns the part `rows` x `columns` of it."""
    if max(resized) > LONGEST:
        down, across = image.height / resized[0], image.width / resized[1]
        bottom, right = (rows.start + rows.length) * down, (columns.start + columns.length) * across
        box = (columns.start * across, rows.start * down, min(right, image.width), min(bottom, image.height))
        return image.resize((columns.length, rows.length), resampling, box)
    # One axis after the other, cropped in between: to the bit what resizing the whole gives, with less work. Pillow can also
    # resample a part straight from the original, but takes its edges in single precision: some values are off by 2/255.
    vertical_first = _vertical_first(image, *resized)
    for vertical in (vertical_first, not vertical_first):
        if vertical:
            image = image.resize((image.width, resized[0]), resampling)
            image = image.crop((0, rows.start, image.width, rows.start + rows.length))
        else:
            image = image.resize((resized[1], image.height), resampling)
            image = image.crop((columns.start, 0, columns.start + columns.length, image.height))
    return image


def _torch_can(image: Image.Image, resized: list[int], target: list[int], preprocessing: Preprocessing) -> bool:
    """Whether torch resizes `image` as Pillow does (along its rows first, as Pillow mostly does) and no border is needed."""
    return (
        preprocessing.interpolation in ("bilinear", "bicubic")
        and not _vertical_first(image, *resized)
        and all(image_edge >= new for image_edge, new in zip((image.height, image.width), resized, strict=True))
        and all(edge >= wanted for edge, wanted in zip(resized, target, strict=True))
    )


def _vertical_first(image: Image.Image, height: int, width: int) -> bool:
    """Whether Pillow 13 resizes `image` to this size column by column first (ImagingResampleInner in Resample.c)."""
    return image.height - height > max(0, 2 * (image.width - width))


def _fill(preprocessing: Preprocessing) -> tuple[int, ...]:
    """Returns timm's padding: the mean colour in BORDER mode, else black."""
    if preprocessing.crop_mode == BORDER:
        return tuple(round(255 * value) for value in preprocessing.mean)
    return (0,) * len(preprocessing.mean)
