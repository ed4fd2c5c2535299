"""Converts the samples of a PNG where Pillow's conversion is not enough: for a transparent colour, and for 16 bits.

The work goes through the image a few rows at a time: the 16-bit samples of an image of 50 megapixels take 300 MB.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from vit_core.samples import black_and_white, row_bands, scaled

GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6
BANDS = {GREY: 1, RGB: 3, GREY_ALPHA: 2, RGBA: 4}
# The modes in which Pillow unpacks samples of 16 bits so that all their bits remain. Of colours it takes one byte of a sample,
# the first as 16B and the second as 16L. Grey with alpha is as long as RGBA of 8 bits.
HALVES = {GREY: ("I;16B",), RGB: ("RGB;16B", "RGB;16L"), GREY_ALPHA: ("RGBA",), RGBA: ("RGBA;16B", "RGBA;16L")}


def of_eight_bits(image: Image.Image, depth: int, key: Sequence[int]) -> Image.Image:
    """Returns an image of samples of up to 8 bits as L or RGB, with white where its colour is `key`.

    The key is in the numbers of the file, `depth` bits each; Pillow has scaled the samples to 0..255.
    """
    image = image.convert("L") if image.mode == "1" else image
    step = 255 // (2**depth - 1)
    pixels = np.empty((image.height, image.width, len(image.getbands())), np.uint8)
    for rows in row_bands(image.height, image.width * pixels.shape[2]):
        part = _rows(image, rows).reshape(-1, *pixels.shape[1:])
        pixels[rows] = np.where(_equal(part, [value % 2**depth * step for value in key]), 255, part)
    return _image(pixels)


def of_sixteen_bits(
    halves: Sequence[Image.Image], colours: int, used_bits: int | None, key: Sequence[int] | None
) -> Image.Image:
    """Returns an image of 16-bit samples as L, LA, RGB or RGBA, scaled by the bits that are used, with white where its colour
    is `key`.

    `halves` are the images that Pillow makes from it, as described at HALVES.
    """
    bands, (width, height) = BANDS[colours], halves[0].size
    opaque = bands - (colours in (GREY_ALPHA, RGBA))
    parts = [which for which in (slice(0, opaque), slice(opaque, bands)) if which.start < bands]
    highest = [0] * len(parts)
    for rows in row_bands(height, width * bands) if used_bits else ():
        samples = _samples(halves, colours, rows)
        highest = [max(high, int(samples[..., which].max())) for high, which in zip(highest, parts, strict=True)]
    whites = [black_and_white("u", 16, 0, high, used_bits)[1] for high in highest]
    pixels = np.empty((height, width, bands), np.uint8)
    for rows in row_bands(height, width * bands):
        samples = _samples(halves, colours, rows)
        for which, white in zip(parts, whites, strict=True):
            part = samples[..., which]
            # If all bits are used, take the first byte of each sample, as Pillow does for colours.
            pixels[rows, :, which] = part >> 8 if white == 65535 and colours != GREY else scaled(part, 0, white)
        if key:
            pixels[rows][_equal(samples, key)[..., 0]] = 255
    return _image(pixels)


def _rows(image: Image.Image, rows: slice) -> np.ndarray:
    return np.asarray(image.crop((0, rows.start, image.width, rows.stop)))


def _samples(halves: Sequence[Image.Image], colours: int, rows: slice) -> np.ndarray:
    """Returns some rows of 16-bit samples, [rows, width, bands]."""
    parts = [_rows(half, rows) for half in halves]
    if colours == GREY:
        return parts[0][..., None]
    if colours == GREY_ALPHA:
        return parts[0].view(">u2").astype(np.uint16)
    return parts[0].astype(np.uint16) << 8 | parts[1]


def _equal(samples: np.ndarray, key: Sequence[int]) -> np.ndarray:
    """Whether all samples of a pixel equal those of `key`: bool [rows, width, 1]."""
    equal = samples[..., :1] == key[0]
    for band in range(1, len(key)):
        equal &= samples[..., band : band + 1] == key[band]
    return equal


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
