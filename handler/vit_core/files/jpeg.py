"""JPEG: passes on the header without the segments that the pixels do not need.

Pillow reads the whole EXIF block of a JPEG to find its resolution, and all pictures of a camera's MPO to find their places.
"""

from __future__ import annotations

import math
import re

from vit_core.bounds import broken, check_pixels
from vit_core.files.readable import Readable, Source
from vit_core.orientation import from_metadata
from vit_core.settings import Limits

EXIF, XMP = b"Exif\x00\x00", b"http://ns.adobe.com/xap/1.0/\x00"
_SCAN, _APP1 = 0xDA, 0xE1
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# The first marker of arithmetic coding. Its decoder cannot wait for more of the file: it gets the whole file at once.
_ARITHMETIC = 0xC9
# Markers without a segment: restarts, the start and the end of an image, and one for temporary use.
_ALONE = {0x01, *range(0xD0, 0xDA)}
# Segments that do not concern pixels: comments, and those of applications except for JFIF and Adobe, which say how colours are
# coded.
_OTHERS = {0xFE, *range(0xE1, 0xF0)} - {0xEE}
# The most segments and markers before the pixels. A profile has 255 at most, and so do other metadata.
_MOST_SEGMENTS = 1 << 14
# Decoding a scan takes a pass over the whole picture, though the scan may have only ten bytes. Encoders write a dozen. If there
# are more, the decoder reads few enough bytes at once that it checks the clock after a dozen.
_FEW_SCANS, _FEW_BYTES = 20, 128
_FILL = re.compile(rb"\xff+")


def read(data: bytes, limits: Limits) -> Readable:
    """Reads the JPEG in `data`. Raises InputError 400 for a header that is truncated or declares two sizes, 413 for too many
    pixels.
    """
    kept, exif, xmp, size, arithmetic, at = [b"\xff\xd8"], None, None, None, False, 2
    for _ in range(_MOST_SEGMENTS):
        fill = _FILL.search(data, at)
        at = fill.end() - 1 if fill else len(data)
        if at >= len(data) - 3:
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
            arithmetic = marker >= _ARITHMETIC
        if marker == _APP1:
            content = data[at + 4 : end]
            exif = content if not exif and content.startswith(EXIF) else exif
            xmp = content if not xmp and content.startswith(XMP) else xmp
        if marker not in _OTHERS:
            kept.append(data[at:end])
        at = end
    else:
        raise broken("JPEG", f"it has more than {_MOST_SEGMENTS} segments before its pixels")
    many_scans = data.count(b"\xff\xda", at) > _FEW_SCANS
    if arithmetic and many_scans:
        raise broken("JPEG", f"it is coded arithmetically, in more than {_FEW_SCANS} scans")
    block = len(data) if arithmetic else _FEW_BYTES if many_scans else None
    return Readable((Source(b"".join((*kept, data[at:])), block=block),), math.prod(size), from_metadata(exif, xmp))
