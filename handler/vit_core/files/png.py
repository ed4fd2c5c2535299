"""PNG: the chunks that the pixels need; and what those need that Pillow leaves out, colour keys and bits that are used."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from vit_core.bounds import broken, check_pixels
from vit_core.files.readable import Readable, Source
from vit_core.orientation import from_metadata
from vit_core.samples import black_and_white, row_bands, scaled
from vit_core.settings import Limits
from vit_core.transparency import white_where

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6
# All else is text, thumbnails, profiles and the further frames of an animation.
_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_RAW_EXIF, _XMP = b"Raw profile type exif", b"XML:com.adobe.xmp"
# Bytes of a text that are looked at for an orientation: it stands at the beginning.
_MOST_TEXT = 1 << 18
_BANDS = {GREY: 1, RGB: 3, GREY_ALPHA: 2, RGBA: 4}
# What Pillow unpacks samples of 16 bits as, for all their bits: it takes one byte of each for colours, the first as 16B and the
# second as 16L. Grey and alpha are as long as RGBA of 8 bits.
_HALVES = {GREY: ("I;16B",), RGB: ("RGB;16B", "RGB;16L"), GREY_ALPHA: ("RGBA",), RGBA: ("RGBA;16B", "RGBA;16L")}


def read(data: bytes, limits: Limits) -> Readable:
    """The PNG in `data`. Raises InputError 400 for one that does not begin with a header, 413 for too many pixels."""
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise broken("PNG", "its header is missing or cut off")
    width, height, depth, colours = struct.unpack(">IIBB", data[16:26])
    check_pixels(width, height, limits)
    kept, key, used, exif, xmp = [SIGNATURE], None, None, None, None
    for kind, start, end in _chunks(data):
        content = data[start + 8 : end - 4] if kind not in _KEPT or kind == b"tRNS" else b""
        if kind == b"tRNS" and colours in (GREY, RGB):
            key = content
        elif kind in _KEPT:
            kept.append(data[start:end])
        elif kind == b"sBIT":
            used = content
        elif kind == b"eXIf":
            exif = content
        elif kind in _TEXTS:
            name = content[:100].partition(b"\x00")[0]
            if name == _RAW_EXIF and not exif:
                exif = _hexadecimal(_text(kind, content))
            elif name == _XMP and not xmp:
                xmp = _text(kind, content)
    file, orientation = b"".join(kept), from_metadata(exif, xmp)
    bits = [each for each in used or b"" if 1 <= each < 16] if depth == 16 and colours in _BANDS else []
    if depth == 16 and colours in _BANDS and (bits or key):
        sources = tuple(Source(file, rawmode) for rawmode in _HALVES[colours])
        used_bits = max(bits, default=None)

        def finish(*halves: Image.Image) -> Image.Image:
            return _of_sixteen_bits(halves, colours, used_bits, key)

        return Readable(sources, width * height, orientation, finish)
    finish = (lambda image: white_where(*_keyed(image, depth, key))) if key else None
    return Readable((Source(file),), width * height, orientation, finish)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each chunk, and where it starts and ends, up to the last that begins in the file."""
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        yield kind, at, at + 12 + length
        at += 12 + length
        if kind == b"IEND":
            return


def _text(kind: bytes, content: bytes) -> bytes:
    """The beginning of the text in a chunk; empty where it cannot be read."""
    _, _, rest = content.partition(b"\x00")
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = rest[:1] == b"\x01"
        rest = rest[2:].split(b"\x00", 2)[-1]
    elif packed:
        rest = rest[1:]  # the way it is packed: there is one
    if not packed:
        return rest[:_MOST_TEXT]
    try:
        return zlib.decompressobj().decompress(rest, _MOST_TEXT)
    except zlib.error:
        return b""


def _hexadecimal(text: bytes) -> bytes:
    """The EXIF block in a text as ImageMagick writes it: a line with a name, one with a length, and hexadecimal digits."""
    digits = b"".join(text.split(b"\n")[3:]).translate(None, b" \r\t")
    try:
        return bytes.fromhex(digits[: len(digits) // 2 * 2].decode("ascii"))
    except ValueError:
        return b""


def _keyed(image: Image.Image, depth: int, key: bytes) -> tuple[Image.Image, np.ndarray]:
    """An image of samples of up to 8 bits as L or RGB, and where it has the colour that is transparent, bool [H, W].

    The colour is in the numbers of the file, two bytes for each; Pillow has scaled the samples to 0..255.
    """
    image = image.convert("L") if image.mode == "1" else image
    bands = len(image.getbands())
    transparent = np.full((image.height, image.width), len(key) >= 2 * bands)
    for band, value in zip(image.split(), key[1 : 2 * bands : 2], strict=False):
        transparent &= np.asarray(band) == (value % 2**depth) * (255 // (2**depth - 1))
    return image, transparent


def _of_sixteen_bits(halves: tuple[Image.Image, ...], colours: int, used_bits: int | None, key: bytes | None) -> Image.Image:
    """An image of samples of 16 bits as 8 bits, scaled by the bits that are used, and white where its colour is `key`."""
    width, height, bands = *halves[0].size, _BANDS[colours]
    samples = np.empty((height, width, bands), np.uint16)
    for rows in row_bands(height, width * bands):
        parts = [np.asarray(half.crop((0, rows.start, width, rows.stop))) for half in halves]
        if colours == GREY:
            samples[rows] = parts[0][..., None]
        elif colours == GREY_ALPHA:
            samples[rows] = parts[0].view(">u2")
        else:
            samples[rows] = parts[0].astype(np.uint16) << 8 | parts[1]
    colour = bands - (colours in (GREY_ALPHA, RGBA))
    pixels = np.empty(samples.shape, np.uint8)
    for which in (slice(0, colour), slice(colour, bands)):
        high = samples[..., which].max(initial=0)
        black, white = black_and_white("u", 16, 0, high, used_bits)
        for rows in row_bands(height, width * bands):
            part = samples[rows, :, which]
            # Where all bits are used, the first byte of each as Pillow takes it from colours.
            pixels[rows, :, which] = part >> 8 if white == 65535 and colours != GREY else scaled(part, black, white)
    image = Image.fromarray(pixels[..., 0] if bands == 1 else pixels)
    if key and len(key) >= 2 * bands:
        return white_where(image, (samples == np.frombuffer(key[: 2 * bands], ">u2")).all(axis=2))
    return image
