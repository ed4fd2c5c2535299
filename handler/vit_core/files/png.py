"""PNG: passes on the chunks that the pixels need, and those that give the meaning of the samples and the orientation."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from vit_core.bounds import broken, check_pixels
from vit_core.files.png_samples import BANDS, GREY, HALVES, RGB, of_eight_bits, of_sixteen_bits
from vit_core.files.readable import Readable, Source
from vit_core.orientation import from_metadata
from vit_core.settings import Limits

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The other chunks are text, thumbnails, profiles, and further frames of an animation.
_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_RAW_EXIF, _XMP = b"Raw profile type exif", b"XML:com.adobe.xmp"
# Bytes of a text in which the reader looks for an orientation, which is at the beginning.
_MOST_TEXT = 1 << 18
# The most texts of those names that the reader looks at: a file has one of each.
_MOST_TEXTS = 8


def read(data: bytes, limits: Limits) -> Readable:
    """Reads the PNG in `data`. Raises InputError 400 if it does not begin with a header, 413 for too many pixels."""
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise broken("PNG", "its header is missing or cut off")
    width, height, depth, colours = struct.unpack(">IIBB", data[16:26])
    check_pixels(width, height, limits)
    kept, key, used, exif, xmp, texts = [SIGNATURE], None, None, None, None, 0
    for kind, start, end in _chunks(data):
        content = data[start + 8 : end - 4] if kind not in _KEPT or kind == b"tRNS" else b""
        if kind == b"tRNS" and colours in (GREY, RGB):
            # Two bytes for each sample; a shorter chunk has no meaning.
            key = struct.unpack_from(f">{BANDS[colours]}H", content) if len(content) >= 2 * BANDS[colours] else None
        elif kind in _KEPT:
            kept.append(data[start:end])
        elif kind == b"sBIT":
            used = content
        elif kind == b"eXIf":
            exif = content
        elif kind in _TEXTS and texts < _MOST_TEXTS:
            name = content[:100].partition(b"\x00")[0]
            texts += name in (_RAW_EXIF, _XMP)
            if name == _RAW_EXIF and not exif:
                exif = _hexadecimal(_text(kind, content))
            elif name == _XMP and not xmp:
                xmp = _text(kind, content)
    file, orientation = b"".join(kept), from_metadata(exif, xmp)
    bits = [each for each in used or b"" if 1 <= each < 16] if depth == 16 and colours in BANDS else []
    if depth == 16 and colours in BANDS and (bits or key):
        sources = tuple(Source(file, rawmode) for rawmode in HALVES[colours])
        used_bits = max(bits, default=None)

        def finish(*halves: Image.Image) -> Image.Image:
            return of_sixteen_bits(halves, colours, used_bits, key)

        return Readable(sources, width * height, orientation, finish)
    finish = (lambda image: of_eight_bits(image, depth, key)) if key else None
    return Readable((Source(file),), width * height, orientation, finish)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields the kind, start and end of each chunk, up to the last one that begins in the file."""
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        yield kind, at, at + 12 + length
        at += 12 + length
        if kind == b"IEND":
            return


def _text(kind: bytes, content: bytes) -> bytes:
    """Returns the beginning of the text in a chunk, or nothing if it cannot be read."""
    _, _, rest = content.partition(b"\x00")
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = rest[:1] == b"\x01"
        rest = rest[2:].split(b"\x00", 2)[-1]
    elif packed:
        rest = rest[1:]  # the compression method: there is only one
    if not packed:
        return rest[:_MOST_TEXT]
    try:
        return zlib.decompressobj().decompress(rest, _MOST_TEXT)
    except zlib.error:
        return b""


def _hexadecimal(text: bytes) -> bytes:
    """Decodes the EXIF block in a text as ImageMagick writes it: a line with a name, a line with a length, and hexadecimal
    digits.
    """
    digits = b"".join(text.split(b"\n")[3:]).translate(None, b" \r\t")
    try:
        return bytes.fromhex(digits[: len(digits) // 2 * 2].decode("ascii"))
    except ValueError:
        return b""
