"""PPM and PGM with a maximum value other than 255, which Pillow converts sample by sample in Python."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from vit_core.bounds import broken, check_pixels
from vit_core.files.readable import Readable, Source
from vit_core.samples import row_bands
from vit_core.settings import Limits

_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_SIZE = re.compile(rb"P." + (_GAP + rb"(\d{1,9})") * 2)
# The most bytes of a header. It may hold comments (GIMP writes one), and skipping each of them takes memory.
_MOST_HEADER = 1 << 16
_HEADER = re.compile(rb"P([56])" + (_GAP + rb"(\d{1,9})") * 3 + rb"\s")


def read(data: bytes, limits: Limits) -> Readable:
    """Reads the PPM, PGM, PBM or PFM in `data`. Raises InputError 413 for too many pixels, 400 for a truncated file."""
    start = data[:_MOST_HEADER]
    size = _SIZE.match(start)
    if not size and len(data) > _MOST_HEADER:
        raise broken("PPM", f"it does not say its size in its first {_MOST_HEADER} bytes")
    width, height = (int(size[1]), int(size[2])) if size else (0, 0)
    check_pixels(width, height, limits)
    header = _HEADER.match(start)
    largest = int(header[4]) if header else 255
    if not header or largest == 255 or not 1 <= largest < 1 << 16:
        return Readable((Source(data),), width * height, orientation=1)
    bands = 3 if header[1] == b"6" else 1
    size = 1 if largest < 256 else 2
    raw = data[header.end() : header.end() + width * height * bands * size]
    if not raw or len(raw) < width * height * bands * size:
        raise broken("PPM", "it is cut off")

    def picture() -> Image.Image:
        samples = np.frombuffer(raw, f">u{size}").reshape(height, width, bands)
        eight_bits = np.minimum(255, np.rint(np.arange(1 << 16) / largest * 255)).astype(np.uint8)  # rounded as Pillow does it
        pixels = np.empty(samples.shape, np.uint8)
        for rows in row_bands(height, width * bands):
            pixels[rows] = eight_bits[samples[rows]]
        return Image.fromarray(pixels if bands == 3 else pixels[..., 0])

    return Readable((), width * height, orientation=1, finish=picture)
