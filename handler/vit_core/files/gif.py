"""GIF: passes on the first frame, without the comments and extensions before it."""

from __future__ import annotations

import struct

from vit_core.bounds import broken, check_pixels
from vit_core.files.readable import Readable, Source
from vit_core.settings import Limits

_EXTENSION, _FRAME, _TRAILER, _GRAPHIC_CONTROL = 0x21, 0x2C, 0x3B, 0xF9


def read(data: bytes, limits: Limits) -> Readable:
    """Reads the GIF in `data`. Raises InputError 413 if the screen, or a first frame that extends beyond it, has too many
    pixels, and 400 if there is no frame.

    Pillow allocates memory for both when it opens the file.
    """
    width, height, flags = struct.unpack_from("<HHB", data, 6) if len(data) > 13 else (0, 0, 0)
    check_pixels(width, height, limits)
    head = at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    transparent = None
    while at + 10 < len(data) and data[at] not in (_FRAME, _TRAILER):
        if data[at] != _EXTENSION:  # stray bytes
            at += 1
            continue
        if data[at + 1] == _GRAPHIC_CONTROL and data[at + 2] >= 4 and data[at + 3] & 1:
            transparent = data[at + 6]
        at += 2
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    if at + 10 >= len(data) or data[at] != _FRAME:
        raise broken("GIF", "it has no frame, or is cut off before it")
    left, top, across, down = struct.unpack_from("<HHHH", data, at + 1)
    width, height = max(width, left + across), max(height, top + down)
    check_pixels(width, height, limits)
    control = b"" if transparent is None else bytes((_EXTENSION, _GRAPHIC_CONTROL, 4, 1, 0, 0, transparent, 0))
    return Readable((Source(data[:head] + control + data[at:]),), width * height, orientation=1)
