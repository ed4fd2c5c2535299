"""JPEG: the header without what is not of the pixels.

Pillow reads the whole EXIF block of a JPEG for its resolution, and all pictures of a camera's MPO for their places.
"""

from __future__ import annotations

import math

from vit_core.bounds import broken, check_pixels
from vit_core.files.readable import Readable, Source
from vit_core.orientation import from_metadata
from vit_core.settings import Limits

EXIF, XMP = b"Exif\x00\x00", b"http://ns.adobe.com/xap/1.0/\x00"
_SCAN, _APP1 = 0xDA, 0xE1
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# Markers that have no segment behind them: restarts, the start and the end of an image, and one for temporary use.
_ALONE = {0x01, *range(0xD0, 0xDA)}
# Segments that say nothing about pixels: comments, and those of applications but for JFIF and Adobe, which say how colours are
# coded.
_OTHERS = {0xFE, *range(0xE1, 0xF0)} - {0xEE}


def read(data: bytes, limits: Limits) -> Readable:
    """The JPEG in `data`. Raises InputError 400 for a header that is cut off or says two sizes, 413 for too many pixels."""
    kept, exif, xmp, size, at = [b"\xff\xd8"], None, None, None, 2
    while True:
        at = data.find(b"\xff", at)
        while at >= 0 and data[at + 1 : at + 2] == b"\xff":
            at += 1
        if not 0 <= at < len(data) - 3:
            raise broken("JPEG", "it is cut off before its pixels")
        marker = data[at + 1]
        if marker in _ALONE or marker == 0:
            at += 2
            continue
        if marker == _SCAN:
            if not size:
                raise broken("JPEG", "it does not say its size")
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _FRAMES:
            if size:
                raise broken("JPEG", "it says its size twice")
            size = int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
            check_pixels(*size, limits)
        if marker == _APP1:
            content = data[at + 4 : end]
            exif = content if not exif and content.startswith(EXIF) else exif
            xmp = content if not xmp and content.startswith(XMP) else xmp
        if marker not in _OTHERS:
            kept.append(data[at:end])
        at = end
    return Readable((Source(b"".join((*kept, data[at:]))),), math.prod(size), from_metadata(exif, xmp))
