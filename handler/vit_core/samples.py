"""Scales samples of any depth to 8 bits: which value is black, which is white, and everything between.

Whole images are never copied to wider numbers: the work goes through them a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

# Samples to convert at once: 8 MB as numbers of 64 bits, which stay in a core's cache.
_AT_ONCE = 1_000_000


def row_bands(height: int, samples_per_row: int) -> Iterator[slice]:
    """Yields slices of rows that cover 0..`height`, of about `_AT_ONCE` samples each."""
    rows = max(1, _AT_ONCE // max(1, samples_per_row))
    return (slice(start, min(start + rows, height)) for start in range(0, height, rows))


def extremes(bands: Iterable[np.ndarray]) -> tuple[float, float]:
    """Returns the least and the largest value. Raises ValueError if they are not finite."""
    found = [(band.min(), band.max()) for band in bands]
    low, high = float(min(each[0] for each in found)), float(max(each[1] for each in found))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("it holds values that are not numbers")
    return low, high


def black_and_white(kind: str, bits: int, low: float, high: float, used_bits: int | None = None) -> tuple[float, float]:
    """Returns the values that become 0 and 255, for samples from `low` to `high`. `kind` is numpy's: u, i or f.

    If the file declares that only `used_bits` of its bits are used, and no value is above that, white is the largest number of
    that many bits. Otherwise unsigned samples of up to 16 bits use their whole range. Other samples do not declare their white:
    it is the first of 255, 65,535 and the largest number of the kind (1, 255 and 65,535 for floats) that no value exceeds.
    Signed numbers and floats outside that range are stretched from the least to the largest.
    """
    largest = 1 if kind == "f" else 2 ** (bits - (kind == "i")) - 1
    if kind == "u" and used_bits and high <= 2**used_bits - 1 <= largest:
        return 0, 2**used_bits - 1
    if kind == "u" and bits <= 16:
        return 0, largest
    whites = (1, 255, 65535) if kind == "f" else (*(white for white in (255, 65535) if white < largest), largest)
    white = next((white for white in whites if high <= white), None)
    return (0, white) if white and low >= 0 else (low, high)


def scaled(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """Scales `values` to uint8 with rounding: `black` becomes 0 and `white` 255."""
    if white <= black:
        return np.zeros(values.shape, np.uint8)
    numbers = values.astype(np.float32 if values.itemsize <= 2 else np.float64)
    numbers -= black
    numbers *= 255 / (white - black)
    numbers += 0.5  # the conversion below truncates
    return np.clip(numbers, 0, 255, out=numbers).astype(np.uint8)


def grey_of_eight_bits(image: Image.Image, used_bits: int | None = None) -> Image.Image:
    """Converts an image of Pillow's modes I;16, I or F to L.

    Pillow's decoders for PNG, PPM and JPEG 2000 give I;16, and I in 0..65535, whatever the file has. F comes from a PFM, whose
    samples are floats.
    """

    def bands() -> Iterator[tuple[slice, np.ndarray]]:
        for rows in row_bands(image.height, image.width):
            yield rows, np.asarray(image.crop((0, rows.start, image.width, rows.stop)))

    floats = image.mode == "F"
    low, high = extremes(band for _, band in bands()) if floats or used_bits else (0, 65535)
    black, white = black_and_white("f" if floats else "u", 16, low, high, used_bits)
    grey = np.empty((image.height, image.width), np.uint8)
    for rows, band in bands():
        grey[rows] = scaled(band, black, white)
    return Image.fromarray(grey)
