"""Reads the orientation of a picture from its metadata, and turns the picture upright.

The orientation is advice: metadata that cannot be read are ignored, and never spoil a picture. Only the one entry is read.
Pillow's `getexif` copies a block for every entry that points at it, so a file of 20 MB can ask for gigabytes.
"""

from __future__ import annotations

import re

from PIL import Image

TAG = 0x0112
# The operation that makes an image upright, by the number in its metadata. 1 is upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Bytes of the integer types that the entry may have, by their number in TIFF.
_SIZES = {1: 1, 3: 2, 4: 4, 6: 1, 8: 2, 9: 4}
# The name that JPEG puts before an EXIF block. Some programs write it twice.
_NAME = re.compile(rb"(?:Exif\x00\x00){0,4}")
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Returns `image` turned as it is to be seen."""
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def from_metadata(exif: bytes | None, xmp: bytes | None) -> int:
    """Returns the orientation from a file's EXIF block, else from its XMP packet; 1 if neither has it."""
    found = from_exif(exif) if exif else None
    if found is None and xmp and (match := _XMP.search(xmp)):
        found = int(match[1])
    return found if found in UPRIGHT else 1


def from_exif(exif: bytes) -> int | None:
    """Returns the orientation in the first directory of an EXIF block, with or without the `Exif` that JPEG puts before it."""
    exif = exif[_NAME.match(exif).end() :]
    if exif[:2] not in (b"II", b"MM"):
        return None
    order = "little" if exif[:2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(exif[at : at + size], order)

    directory, found = number(4, 4), None
    last = min(directory + 2 + 12 * number(directory, 2), len(exif))
    for at in range(directory + 2, last - 9, 12):
        if number(at, 2) == TAG and number(at + 4, 4) == 1 and (size := _SIZES.get(number(at + 2, 2))):
            found = number(at + 8, size)
    return found
