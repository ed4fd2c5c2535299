"""AVIF: checks the coded size, for which the decoder allocates memory first; the container may declare another one."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from vit_core.bounds import broken
from vit_core.errors import InputError
from vit_core.files.boxes import boxes, sequence_size
from vit_core.files.readable import Readable, Source
from vit_core.settings import Limits

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6
# A frame may say its size in as many bits as its sequence needs: both edges may be up to twice as long as they are.
_ROOM = 4
# Pixels of all coded frames for each that is allowed: a picture, its alpha and its gain map, or four layers, each with room.
# The frames of one picture may be any number, and all be decoded before it is shown.
_MOST_CODED = 12
# The most units of AV1 in a file. A still has four, and one for each of its tiles.
_MOST_UNITS = 100_000
# The most items in a file: 256 tiles of a grid, their alpha and gain maps, thumbnails, metadata.
_MOST_ITEMS = 4096
# Bytes of all items for each of the file, or of a file of a megabyte: tiles that are alike may be one and the same.
_MOST_OVERLAP, _SMALL = 4, 1 << 20
# Metadata, which Pillow would read whole. How the picture is turned stands elsewhere in AVIF.
_METADATA = (b"Exif", b"mime")


def read(data: bytes, limits: Limits) -> Readable:
    """Reads the AVIF in `data`. Raises InputError 413 if a coded picture has too many pixels, 400 for a damaged file."""
    try:
        places, metadata = _places(data)
        pixels = _check(data, places, limits)
    except ValueError as error:
        raise broken("AVIF", str(error)) from None
    if metadata:
        changed = bytearray(data)
        for at in metadata:
            changed[at : at + 4] = b"skip"
        data = bytes(changed)
    return Readable((Source(data),), pixels)


def _places(data: bytes) -> tuple[set[tuple[int, int]], list[int]]:
    """Returns where coded pictures start and end in the file, and where the kinds of the metadata items are."""
    places, metadata, extents, within = set(), [], [], None
    chunk = size = None
    for kind, start, end in boxes(data, 0, len(data)):
        if kind == b"infe" and data[start] in (2, 3):
            at = start + (8 if data[start] == 2 else 10)
            if data[at : at + 4] in _METADATA:
                metadata.append(at)
        elif kind == b"idat":
            within = start
        elif kind == b"iloc":
            extents = list(_extents(data, start))
        elif kind == b"trak":
            chunk = size = None
        elif kind in (b"stco", b"co64"):
            (chunk,) = struct.unpack_from(">I" if kind == b"stco" else ">Q", data, start + 8)
        elif kind == b"stsz":
            each, _, first = struct.unpack_from(">III", data[start + 4 : end] + bytes(4))
            size = each or first
        if kind in (b"stco", b"co64", b"stsz") and None not in (chunk, size):
            places.add((chunk, chunk + size))  # the first frame of a sequence
    if sum(length or len(data) for _, _, length in extents) > _MOST_OVERLAP * max(len(data), _SMALL):
        raise ValueError("its items lie over each other")
    for base, start, length in extents:
        start += (within or 0) if base else 0
        places.add((start, start + length if length else len(data)))
    return places, metadata


def _extents(data: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """For each extent of each item: its construction method (1: the box idat, 0: the file), its offset and its length."""
    version = data[at]
    sizes = struct.unpack_from(">H", data, at + 4)[0]
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    at += 6

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > len(data):
            raise IndexError
        return int.from_bytes(data[at - size : at], "big")

    items = number(2 if version < 2 else 4)
    parts = 0
    for _ in range(items):
        number(2 if version < 2 else 4)
        base = number(2) & 15 if version else 0
        number(2)
        first = number(base_size)
        for _ in range(number(2)):
            parts += 1
            if parts > _MOST_ITEMS:
                raise ValueError(f"it has more than {_MOST_ITEMS} items")
            if version:
                number(index_size)
            start = first + number(offset_size)
            yield base, start, number(length_size)


def _check(data: bytes, places: set[tuple[int, int]], limits: Limits) -> int:
    """Returns the number of pixels of the largest coded picture."""
    units = largest = coded = 0
    for start, end in places:
        at, end, pixels = start, min(end, len(data)), 0
        while at < end:
            units += 1
            if units > _MOST_UNITS:
                raise ValueError(f"it has more than {_MOST_UNITS} units of AV1")
            head, at = data[at], at + 1 + (data[at] >> 2 & 1)
            size = end - at
            if head & 2:
                size = shift = 0
                for _ in range(8):
                    if at >= end:
                        break
                    size |= (data[at] & 0x7F) << shift
                    shift, at = shift + 7, at + 1
                    if not data[at - 1] & 0x80:
                        break
            kind = head >> 3 & 15
            if kind in (_FRAME_HEADER, _FRAME):
                coded += pixels
                if coded > _MOST_CODED * limits.max_pixels:
                    message = f"its coded frames have more than {_MOST_CODED} times {limits.max_pixels} pixels, the most of one"
                    raise InputError(413, "ImageTooLarge", message)
            elif kind == _SEQUENCE_HEADER:
                width, height = sequence_size(data[at : at + size])
                pixels = width * height
                largest = max(largest, pixels)
                if pixels > (_ROOM if width & width - 1 == 0 else 1) * limits.max_pixels:
                    message = f"its coded picture has up to {width} x {height} pixels: at most {limits.max_pixels} are allowed"
                    raise InputError(413, "ImageTooLarge", message)
            at += size
    return largest
