"""BMP: checks its size, and recognizes an alpha channel that is unused."""

from __future__ import annotations

from vit_core.bounds import broken, check_pixels
from vit_core.files.readable import Readable, Source
from vit_core.settings import Limits
from vit_core.transparency import without_empty_alpha

_OLDEST = 12  # bytes of the header of OS/2, whose sizes have 16 bits


def read(data: bytes, limits: Limits) -> Readable:
    """Reads the BMP in `data`. Raises InputError 413 for too many pixels, 400 for a truncated header."""
    if len(data) < 26:
        raise broken("BMP", "it is cut off")
    step = 2 if int.from_bytes(data[14:18], "little") == _OLDEST else 4
    # The height is negative where the rows go down.
    width, height = (abs(int.from_bytes(data[at : at + step], "little", signed=step == 4)) for at in (18, 18 + step))
    check_pixels(width, height, limits)
    return Readable((Source(data),), width * height, orientation=1, finish=without_empty_alpha)
