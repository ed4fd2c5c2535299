"""TIFF: reads the twenty or so tags that the pixels need, within bounds, and passes on a file with these alone.

So the decoder gets no metadata, no further pages, and no tile that takes more memory than a picture may.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import TiffImagePlugin

from vit_core.bounds import broken, check_pixels
from vit_core.errors import InputError
from vit_core.files import tiff_directory as tags
from vit_core.files.readable import Readable, Source
from vit_core.files.tiff_directory import Directory, write
from vit_core.files.tiff_samples import Layout, check, picture
from vit_core.formats import unsupported
from vit_core.orientation import from_metadata
from vit_core.settings import Limits
from vit_core.transparency import without_data_as_alpha

RAW, OLD_JPEG = 1, 6
# Compressions that apply to any bytes: LZW, deflate (two numbers), LZMA and Zstandard, with or without a predictor; PackBits.
PREDICTED = (5, 8, 32946, 34925, 50000)
BYTES = (RAW, *PREDICTED, 32773)
# Samples of a colour, by the photometric interpretation: white is zero, black is zero, RGB, CMYK.
COLOURS = {0: 1, 1: 1, 2: 3, 5: 4}
ASSOCIATED, UNASSOCIATED = 1, 2
# Raw photographs, in the colours of a sensor: a colour filter array, and linear raw.
SENSOR = (32803, 34892)
# Each strip or tile takes some time, however small it is. A square image of 50 megapixels has 7,071 strips of one row.
MOST_PARTS = 1 << 16
# Bytes of strips for each byte of the file: blank tiles may share one place in it.
MOST_OVERLAP = 4
# Bytes of memory for a pixel, at most, of an image of as many pixels as are allowed: RGBA of 16 bits has 8.
MOST_BYTES = 8


@dataclass(frozen=True)
class _Parts:
    """The strips or tiles of an image: their size, and how many there are in each plane."""

    tiled: bool
    width: int
    height: int
    across: int
    down: int


def read(data: bytes, limits: Limits) -> Readable:
    """Reads the TIFF in `data`. Raises InputError 400 if it is damaged or of an unsupported kind, 413 if it is too large, and
    415 for a RAW photograph, whose TIFF would show the thumbnail.
    """
    try:
        directory = Directory(data)
        return _read(directory, limits)
    except ValueError as error:
        raise broken("TIFF", str(error)) from None


def _read(directory: Directory, limits: Limits) -> Readable:
    number = directory.number
    photometric = number(tags.PHOTOMETRIC, 0)
    if tags.DNG in directory or photometric in SENSOR or (number(tags.SUBFILE, 0) & 1 and tags.SUB_DIRECTORIES in directory):
        raise unsupported("a RAW photograph (DNG, NEF or another of TIFF's kind)")
    width, height = number(tags.WIDTH, 0), number(tags.HEIGHT, 0)
    check_pixels(width, height, limits)
    if width < 1 or height < 1:
        raise ValueError("it does not say its size")
    layout = _layout(directory, width, height, photometric)
    parts = _parts(directory, layout, limits)
    orientation = _orientation(directory)
    if _by_bytes(directory, layout):
        check(layout)
        planes = layout.needed_planes()
        sources = tuple(Source(_of_bytes(directory, layout, parts, plane), of_bytes=True) for plane in planes)
        return Readable(sources, width * height, orientation, lambda *images: picture(layout, images))
    if layout.samples > TiffImagePlugin.MAX_SAMPLESPERPIXEL:
        raise ValueError(f"it has {layout.samples} samples for each pixel")
    finish = None if layout.extra[:1] in ((0,), (ASSOCIATED,)) else without_data_as_alpha
    return Readable((Source(_of_pixels(directory, layout, parts)),), width * height, orientation, finish)


def _layout(directory: Directory, width: int, height: int, photometric: int) -> Layout:
    number = directory.number
    compression = number(tags.COMPRESSION, RAW)
    samples = number(tags.SAMPLES, 3 if compression == OLD_JPEG and photometric in (2, 6) else 1)
    bits = {int(each) for each in directory.numbers(tags.BITS)[:samples]} or {1}
    formats = {int(each) for each in directory.numbers(tags.FORMAT)[:samples]} or {1}
    if not 1 <= samples <= 64 or len(bits) > 1 or len(formats) > 1 or not 1 <= max(bits) <= 64:
        raise ValueError("its samples are more than 64, or differ in their kind")
    extra = tuple(int(each) for each in directory.numbers(tags.EXTRA)[:samples])
    depth, kind = bits.pop(), {2: "i", 3: "f"}.get(formats.pop(), "u")
    return Layout(
        width,
        height,
        samples,
        depth,
        "u" if (kind, depth) == ("i", 8) else kind,  # photographs, which have no sign even if their file says so
        photometric,
        extra,
        planar=number(tags.PLANES, 1) == 2 and samples > 1,
        order=directory.order,
        predictor=number(tags.PREDICTOR, 1) if compression in PREDICTED else 1,
        used_bits=number(tags.MOST_VALUE, 0).bit_length(),
        tile_width=number(tags.TILE_WIDTH, 0) if tags.TILE_WIDTH in directory else width,
    )


def _parts(directory: Directory, layout: Layout, limits: Limits) -> _Parts:
    tiled = tags.TILE_WIDTH in directory
    height = directory.number(tags.TILE_HEIGHT if tiled else tags.ROWS_PER_STRIP, 0 if tiled else layout.height)
    # A strip may claim more rows than the image has; a tile may be larger than the image, and is decoded whole.
    parts_height, parts_width = height if tiled else min(height, layout.height), layout.tile_width
    if parts_height < 1 or parts_width < 1 or (tiled and (parts_width % 8 or parts_height % 8)):
        raise ValueError("the size of its strips or tiles is not one")
    parts = _Parts(
        tiled, parts_width, parts_height, math.ceil(layout.width / parts_width), math.ceil(layout.height / parts_height)
    )
    pixels = parts.across * parts_width * max(layout.height, parts.down * parts_height if tiled else 0)
    if pixels > 2 * limits.max_pixels or pixels * layout.samples * layout.bits > 8 * MOST_BYTES * limits.max_pixels:
        raise InputError(
            413,
            "ImageTooLarge",
            f"an image of {layout.width} x {layout.height} pixels of {layout.samples * layout.bits} bits each, in parts of "
            f"{parts_width} x {parts_height}: all in all they take more memory than {limits.max_pixels} pixels of "
            f"{MOST_BYTES} bytes, the most that is allowed",
        )
    if parts.across * parts.down > MOST_PARTS:
        raise ValueError(f"it has more than {MOST_PARTS} strips or tiles")
    return parts


def _orientation(directory: Directory) -> int:
    exif = directory.number(tags.ORIENTATION, 0)
    packet = directory.raw(tags.XMP)
    return exif if exif else from_metadata(None, packet[2] if packet else None)


def _by_bytes(directory: Directory, layout: Layout) -> bool:
    """Whether this package converts the samples itself, because Pillow does not support them or converts them wrongly."""
    compression = directory.number(tags.COMPRESSION, RAW)
    if compression not in BYTES or layout.samples < COLOURS.get(layout.photometric, 100):
        return False
    deep = layout.bits > 8 and (COLOURS[layout.photometric] == 1 or 0 < layout.used_bits < layout.bits)
    prefix = TiffImagePlugin.II if layout.order == "<" else TiffImagePlugin.MM
    fill = directory.number(tags.FILL_ORDER, 1)
    key = (prefix, layout.photometric, (1,), fill, (layout.bits,) * layout.samples, layout.extra)
    # If the file does not say what a further sample means, Pillow takes it for alpha.
    unnamed = layout.samples > layout.colours and not layout.extra
    return deep or unnamed or layout.kind != "u" or layout.planar or key not in TiffImagePlugin.OPEN_INFO


def _of_bytes(directory: Directory, layout: Layout, parts: _Parts, plane: int | None) -> bytes:
    """Returns a TIFF whose pixels are the unpacked bytes of the image, or of one `plane`: grey, 8 bits."""
    values = {
        # Whole tiles: a predictor needs the samples beyond the edge.
        tags.WIDTH: [parts.across * layout.row_bytes(parts.width)],
        tags.HEIGHT: [layout.height],
        tags.BITS: [8],
        tags.PHOTOMETRIC: [1],
        tags.SAMPLES: [1],
        **_kept(directory, (tags.COMPRESSION, tags.FILL_ORDER)),
    }
    if parts.tiled:
        values[tags.TILE_WIDTH] = [layout.row_bytes(parts.width)]
        values[tags.TILE_HEIGHT] = [parts.height]
    return _with_parts(directory, layout, parts, values, plane)


def _of_pixels(directory: Directory, layout: Layout, parts: _Parts) -> bytes:
    """Returns the TIFF with only what the pixels need."""
    kept = (tags.COMPRESSION, tags.FILL_ORDER, tags.BITS, tags.PHOTOMETRIC, tags.SAMPLES, tags.PLANES, tags.PREDICTOR)
    kept = (*kept, tags.COLOURS, tags.TILE_WIDTH, tags.TILE_HEIGHT, tags.EXTRA, tags.FORMAT, *tags.CODING)
    values = {tags.WIDTH: [layout.width], tags.HEIGHT: [layout.height], **_kept(directory, kept)}
    if layout.kind == "u":
        values.pop(tags.FORMAT, None)  # Pillow supports few pixel formats with another value
    return _with_parts(directory, layout, parts, values, None)


def _kept(directory: Directory, kept: tuple[int, ...]) -> dict[int, tuple[int, int, bytes]]:
    return {tag: value for tag in kept if (value := directory.raw(tag))}


def _with_parts(directory: Directory, layout: Layout, parts: _Parts, values: dict, plane: int | None) -> bytes:
    """Returns a TIFF with `values` and the strips or tiles of the image, or of one `plane`."""
    # Some programs write the places of the tiles under the tag for strips.
    as_tiles = tags.TILE_OFFSETS in directory
    offsets = directory.numbers(tags.TILE_OFFSETS if parts.tiled and as_tiles else tags.STRIP_OFFSETS)
    lengths = directory.numbers(tags.TILE_BYTES if parts.tiled and as_tiles else tags.STRIP_BYTES)
    each = parts.across * parts.down
    first, count = (0, each * (layout.samples if layout.planar else 1)) if plane is None else (plane * each, each)
    offsets, lengths = offsets[first : first + count], lengths[first : first + count]
    compression, rows = directory.number(tags.COMPRESSION, RAW), parts.height
    if len(offsets) < count and compression != OLD_JPEG:
        raise ValueError("it does not say where all of its strips or tiles are")
    if compression == RAW:
        body, offsets, lengths = _gathered(directory.data, offsets, layout, parts, count)
        rows = layout.height
    else:
        body = directory.data
        if len(offsets) == 1 and not len(lengths):
            lengths = np.array([max(0, len(body) - int(offsets[0]))])
        lengths = np.minimum(lengths, len(body))
        if len(lengths) < len(offsets):
            raise ValueError("it does not say how long all of its strips or tiles are")
        if int(lengths.sum(dtype=np.uint64)) > MOST_OVERLAP * len(body):
            raise ValueError("its strips or tiles lie over each other")
    if len(offsets) and int(offsets.max()) >= len(body):
        raise ValueError("it is cut off")
    if len(offsets):
        values[tags.TILE_OFFSETS if parts.tiled else tags.STRIP_OFFSETS] = offsets
        values[tags.TILE_BYTES if parts.tiled else tags.STRIP_BYTES] = lengths
    if not parts.tiled:
        values[tags.ROWS_PER_STRIP] = [rows]
    return write(directory.order, values, body)


def _gathered(
    data: bytes, offsets: np.ndarray, layout: Layout, parts: _Parts, count: int
) -> tuple[bytes, np.ndarray, np.ndarray]:
    """Joins uncompressed strips or tiles: returns the bytes, and the offset and length of each plane or tile.

    Pillow takes half a kilobyte for each strip or tile.
    """
    row = layout.row_bytes(parts.width)
    planes = max(1, count // (parts.across * parts.down))
    pieces, sizes = [bytes(8)], []
    for index, offset in enumerate(offsets[:count].tolist()):
        down = index % (parts.across * parts.down) // parts.across
        rows = parts.height if parts.tiled else min(parts.height, layout.height - down * parts.height)
        piece = data[offset : offset + rows * row]
        # Like Pillow, the reader ignores the lengths in the file.
        if len(piece) < rows * row:
            raise ValueError("it is cut off")
        pieces.append(piece)
        sizes.append(len(piece))
    body = b"".join(pieces)
    if parts.tiled:
        return body, 8 + np.cumsum([0, *sizes[:-1]]), np.array(sizes)
    plane = (len(body) - 8) // planes
    return body, 8 + plane * np.arange(planes), np.full(planes, plane)
