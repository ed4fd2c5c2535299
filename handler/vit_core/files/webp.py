"""WebP: checks its size, for which the decoder allocates memory as soon as it is created."""

from __future__ import annotations

from vit_core.bounds import broken, check_pixels
from vit_core.files.readable import Readable, Source
from vit_core.settings import Limits


def read(data: bytes, limits: Limits) -> Readable:
    """Reads the WebP in `data`. Raises InputError 413 for too many pixels, 400 for a header that is truncated or damaged."""
    kind = data[12:16]
    if len(data) < (25 if kind == b"VP8L" else 30):  # a picture of one colour has 28 bytes
        raise broken("WEBP", "it is cut off")
    if kind == b"VP8X":  # the canvas of all frames
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    check_pixels(width, height, limits)
    return Readable((Source(data),), width * height)
