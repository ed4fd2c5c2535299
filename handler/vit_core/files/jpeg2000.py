"""JPEG 2000: checks the codestream before its decoder, OpenJPEG, allocates memory.

OpenJPEG ignores the size in the container. It keeps a record for each tile, each code block and each precinct, however small
they are: a picture of 256 x 256 pixels in tiles of one pixel takes 700 MB.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from vit_core.bounds import broken, check_pixels
from vit_core.errors import InputError
from vit_core.files.readable import Readable, Source
from vit_core.settings import Limits

_SIZE, _CODING, _CODING_OF_ONE, _ORDERS, _TILE, _DATA, _END = 0xFF51, 0xFF52, 0xFF53, 0xFF5F, 0xFF90, 0xFF93, 0xFFD9
# Boxes of the container that decoding needs: the signature, the kind of file, and the colour space.
_KEPT = (b"jP  ", b"ftyp", b"jp2h")
# An image of 50 megapixels in tiles of 64 x 64 has 12,208.
_MOST_TILES = 1 << 14
# Each tile has one part or several, each with one marker or several.
_MOST_SEGMENTS = 1 << 17
# Pillow reads one to four components: grey or RGB, with alpha or without.
_MOST_COMPONENTS = 4
# Blocks of code, or precincts, of a component at one resolution. Encoders take blocks of 4,096 or 1,024 pixels, and larger
# precincts: an image of 50 megapixels has 12,208 blocks, or 48,829.
_MOST_BLOCKS = 1 << 16
# Packets: each precinct has one for each layer of quality. OpenJPEG goes through them all, 20 million a second, though the file
# has no data for them. An image of 50 megapixels in small tiles and 50 layers has 11 million.
_MOST_PACKETS = 1 << 24
# Bytes of memory for a pixel of a tile, at most, of an image of as many pixels as are allowed: four for each sample, and its
# own bytes once more. RGBA of 8 bits has 20.
_MOST_BYTES = 20


def read(data: bytes, limits: Limits) -> Readable:
    """Reads the JPEG 2000 image in `data`. Raises InputError 413 if it would take too much memory, 400 if it is damaged."""
    start, file = (0, data) if data[:2] == b"\xff\x4f" else _container(data)
    pixels = _check(data, start, limits)
    return Readable((Source(file),), pixels, orientation=1)


def _container(data: bytes) -> tuple[int, bytes]:
    """Returns where the codestream starts in a file with a container, and the file without metadata, as OpenJPEG refuses large
    ones.
    """
    kept, at = [], 0
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        if kind == b"jp2c":
            return at + head, b"".join((*kept, data[at:]))
        if length < head:
            raise broken("JPEG2000", "it has no codestream")
        if kind in _KEPT:
            kept.append(data[at : at + length])
        at += length


@dataclass(frozen=True)
class _Grid:
    """How a picture is divided into tiles."""

    width: int
    height: int
    tile_width: int
    tile_height: int
    tiles: int
    components: int

    def parts(self, level: int, across: int, down: int) -> int:
        """Returns into how many parts of 2^across x 2^down pixels the picture falls, tile by tile, when it is halved `level`
        times.
        """
        columns = -(-self.tile_width >> level + across) or 1
        rows = -(-self.tile_height >> level + down) or 1
        return self.tiles * columns * rows


def _check(data: bytes, start: int, limits: Limits) -> int:
    """Returns the number of pixels that will be decoded."""
    grid, layers, packets, orders = None, 1, 0, 1
    for marker, at in _segments(data, start):
        if marker == _SIZE:
            grid = _grid(data, at, limits)
        elif grid and marker in (_CODING, _CODING_OF_ONE):
            if marker == _CODING:
                layers = max(layers, int.from_bytes(data[at + 4 : at + 6], "big"))
            blocks, precincts = _blocks_and_precincts(data, at, marker == _CODING, grid)
            if max(blocks, *precincts) > _MOST_BLOCKS:
                message = f"the image has {max(blocks, *precincts)} blocks or precincts: at most {_MOST_BLOCKS} are allowed"
                raise InputError(413, "ImageTooLarge", message)
            packets = max(packets, grid.components * sum(precincts))
        elif marker == _ORDERS:  # of the packets, seven bytes each: the decoder goes through all packets for each of them
            orders = max(orders, min(32, int.from_bytes(data[at : at + 2], "big") // 7))
    if packets * layers * orders > _MOST_PACKETS:
        message = f"the image has {packets * layers * orders} packets in {layers} layers: at most {_MOST_PACKETS} are allowed"
        raise InputError(413, "ImageTooLarge", message)
    return grid.width * grid.height if grid else 0


def _grid(data: bytes, at: int, limits: Limits) -> _Grid:
    right, bottom, left, top, across, down, tile_left, tile_top, components = struct.unpack_from(">IIIIIIIIH", data, at + 4)
    width, height = right - left, bottom - top
    if width <= 0 or height <= 0 or not across or not down or not 1 <= components <= _MOST_COMPONENTS:
        raise broken("JPEG2000", f"it has {components} components, or no size")
    check_pixels(width, height, limits)
    tiles = -(-(right - tile_left) // across) * -(-(bottom - tile_top) // down)
    if tiles > _MOST_TILES:
        raise InputError(413, "ImageTooLarge", f"the image has {tiles} tiles: at most {_MOST_TILES} are allowed")
    grid = _Grid(width, height, min(across, width), min(down, height), tiles, components)
    bits = [1 + (data[at + 38 + 3 * component] & 0x7F) for component in range(components)]
    if grid.tile_width * grid.tile_height * sum(4 + math.ceil(each / 8) for each in bits) > _MOST_BYTES * limits.max_pixels:
        raise InputError(
            413,
            "ImageTooLarge",
            f"an image of {width} x {height} pixels of {sum(bits)} bits each: they take more memory than {limits.max_pixels} "
            f"pixels of 32 bits, the most that is allowed",
        )
    return grid


def _segments(data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Yields the marker segments of the main header and of the tile-part headers: the marker, and the place of its length."""
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


def _blocks_and_precincts(data: bytes, at: int, of_all: bool, grid: _Grid) -> tuple[int, list[int]]:
    """Returns the number of code blocks of a component, and of its precincts at each resolution, from the segment at `at`."""
    if of_all:
        own = data[at + 2] & 1
        at += 7
    else:
        # The number of the component has one byte: there are four at most.
        own = data[at + 3] & 1
        at += 4
    levels, width, height = struct.unpack_from("BBB", data, at)
    resolutions = range(min(levels, 32) + 1)
    exponents = [data[at + 5 + resolution] if own else 0xFF for resolution in resolutions]
    precincts = [grid.parts(len(resolutions) - 1 - each, exponents[each] & 15, exponents[each] >> 4) for each in resolutions]
    return grid.parts(0, (width & 15) + 2, (height & 15) + 2), precincts
