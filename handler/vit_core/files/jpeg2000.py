"""JPEG 2000: what its codestream says before its decoder, OpenJPEG, takes memory for it.

The size in the container is not the one that is decoded. For each tile, each block of code and each precinct OpenJPEG keeps a
record of its own, however small they are: a picture of 256 x 256 pixels in tiles of one pixel takes 700 MB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from vit_core.bounds import broken, check_pixels
from vit_core.errors import InputError
from vit_core.files.readable import Readable, Source
from vit_core.settings import Limits

_SIZE, _CODING, _CODING_OF_ONE, _TILE, _DATA, _END = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
# An image of 50 megapixels in tiles of 64 x 64 has 12,208.
_MOST_TILES = 1 << 14
# Each tile has one part or some, each with a marker or some.
_MOST_SEGMENTS = 1 << 17
# Pillow reads one to four components: grey or RGB, with alpha or without.
_MOST_COMPONENTS = 4
# Blocks of code, or precincts, of a component. Encoders take blocks of 4,096 or 1,024 pixels, and larger precincts: an image of
# 50 megapixels has 12,208 blocks, or 48,829.
_MOST_BLOCKS = 1 << 16


def read(data: bytes, limits: Limits) -> Readable:
    """The JPEG 2000 image in `data`. Raises InputError 413 for one that would take too much memory, 400 for a damaged one."""
    start = 0 if data[:2] == b"\xff\x4f" else _codestream(data)
    pixels = _check(data, start, limits)
    return Readable((Source(data),), pixels, orientation=1)


def _codestream(data: bytes) -> int:
    """Where the codestream starts in a file with a container."""
    at = 0
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        if kind == b"jp2c":
            return at + head
        if length < head:
            raise broken("JPEG2000", "it has no codestream")
        at += length


def _check(data: bytes, start: int, limits: Limits) -> int:
    """How many pixels are decoded."""
    pixels = 0
    for marker, at in _segments(data, start):
        if marker == _SIZE:
            right, bottom, left, top, across, down, tile_left, tile_top, components = struct.unpack_from(
                ">IIIIIIIIH", data, at + 4
            )
            check_pixels(right - left, bottom - top, limits)
            pixels = (right - left) * (bottom - top)
            if right <= left or bottom <= top or not across or not down or components > _MOST_COMPONENTS:
                raise broken("JPEG2000", f"it has {components} components, or no size")
            tiles = -(-(right - tile_left) // across) * -(-(bottom - tile_top) // down)
            if tiles > _MOST_TILES:
                raise InputError(413, "ImageTooLarge", f"an image in {tiles} tiles: {_MOST_TILES} are allowed")
        elif marker in (_CODING, _CODING_OF_ONE):
            blocks = pixels // min(_block_and_precincts(data, at, marker == _CODING))
            if blocks > _MOST_BLOCKS:
                message = f"an image in {blocks} blocks or precincts: {_MOST_BLOCKS} are allowed"
                raise InputError(413, "ImageTooLarge", message)
    return pixels


def _segments(data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """The marker segments of the main header and of those of the parts of tiles: which, and where their length stands."""
    at, part_end = start + 2, None
    for _ in range(_MOST_SEGMENTS):
        if at + 2 > len(data):
            return
        (marker,) = struct.unpack_from(">H", data, at)
        if marker == _END:
            return
        if marker == _DATA:
            if part_end is None:
                return
            at, part_end = part_end, None
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker == _TILE:
            (size,) = struct.unpack_from(">I", data, at + 6)
            part_end = at + size if size >= 14 else None  # 0: to the end of the file
        yield marker, at + 2
        at += 2 + max(2, length)
    raise broken("JPEG2000", f"it has more than {_MOST_SEGMENTS} marker segments")


def _block_and_precincts(data: bytes, at: int, of_all: bool) -> Iterator[int]:
    """The pixels of a block of code, and of the precincts that the segment at `at` gives, but for those of the small levels."""
    if of_all:
        own = data[at + 2] & 1
        at += 7
    else:
        # The number of the component has one byte: there are four at most.
        own = data[at + 3] & 1
        at += 4
    levels, width, height = struct.unpack_from("BBB", data, at)
    yield 1 << (width & 15) + 2 + (height & 15) + 2
    for level in range(min(levels, 32) + 1 if own else 0):
        (exponents,) = struct.unpack_from("B", data, at + 5 + level)
        # The resolution of a level has a quarter of the pixels of the next: what counts is the share of the whole.
        yield (1 << (exponents & 15) + (exponents >> 4)) << 2 * (levels - level)
