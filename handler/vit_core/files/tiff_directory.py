"""The directory of a TIFF: reads its entries one by one, and writes new ones."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES = 273, 277, 278, 279
MOST_VALUE, PLANES, PREDICTOR, COLOURS = 281, 284, 317, 320
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
SUB_DIRECTORIES, EXTRA, FORMAT, JPEG_TABLES, XMP = 330, 338, 339, 347, 700
SUBFILE, ORIENTATION, DNG = 254, 274, 50706
# Other tags that decoders read: the options of fax, and the coding of YCbCr, of old and new JPEG.
CODING = (292, 293, 332, 333, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, JPEG_TABLES)

# The integer types of TIFF and BigTIFF, and numpy's for them.
_TYPES = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}
# Other types: the bytes of a value, and of the unit in it whose bytes have an order. Their bytes are handed on as they are.
_OTHERS = {2: (1, 1), 5: (8, 4), 10: (8, 4), 11: (4, 4), 12: (8, 8)}
# A directory has some dozens of entries. The field for their number has 16 bits, in BigTIFF 64.
_MOST_ENTRIES = 4096


class Directory:
    """The first directory of the TIFF in `data`. It reads values only when they are asked for."""

    def __init__(self, data: bytes):
        """Raises ValueError if the file ends before the directory does."""
        self.data, self.order = data, "<" if data[:2] == b"II" else ">"
        big = 43 in data[2:4]
        try:
            (at,) = struct.unpack_from(self.order + ("Q" if big else "I"), data, 8 if big else 4)
            (count,) = struct.unpack_from(self.order + ("Q" if big else "H"), data, at)
            at, entry = (at + 8, self.order + "HHQ8s") if big else (at + 2, self.order + "HHI4s")
            size = struct.calcsize(entry)
            count = min(count, _MOST_ENTRIES, (len(data) - at) // size)  # entries beyond the end of the file do not count
            # If a tag occurs twice, the last one counts, as in Pillow.
            found = (struct.unpack_from(entry, data, at + size * each) for each in range(count))
            self._entries = {tag: rest for tag, *rest in found}
        except (struct.error, OverflowError, ValueError) as error:
            raise ValueError("it is cut off, or its directory is damaged") from error

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def raw(self, tag: int) -> tuple[int, int, bytes] | None:
        """Returns type, count and bytes of the values of `tag`, or None if the tag is missing or truncated."""
        if tag not in self._entries:
            return None
        kind, count, field = self._entries[tag]
        size = np.dtype(_TYPES[kind]).itemsize if kind in _TYPES else _OTHERS.get(kind, (0, 0))[0]
        if not size or not count or count * size > len(self.data):
            return None
        if count * size <= len(field):
            return kind, count, field[: count * size]
        (at,) = struct.unpack(self.order + ("Q" if len(field) == 8 else "I"), field)
        found = self.data[at : at + count * size]
        return (kind, count, found) if len(found) == count * size else None

    def numbers(self, tag: int) -> np.ndarray:
        """Returns the whole numbers of `tag` as int64 or uint64 [N]; none if the tag is missing or of another type."""
        kind, _, found = self.raw(tag) or (None, 0, b"")
        if kind not in _TYPES:
            return np.empty(0, np.int64)
        values = np.frombuffer(found, np.dtype(_TYPES[kind]).newbyteorder(self.order))
        return values if values.dtype.itemsize == 8 else values.astype(np.int64)

    def number(self, tag: int, default: int) -> int:
        """Returns the first number of `tag`."""
        found = self.numbers(tag)
        return int(found[0]) if len(found) else default


def write(order: str, values: Mapping[int, list[int] | np.ndarray | tuple[int, int, bytes]], body: bytes) -> bytes:
    """Returns a TIFF of one directory with `values` after `body`, whose first eight bytes become the header; `order` is `<` or
    `>`.

    A value is a sequence of numbers, which take 16 bits if they fit and 32 otherwise; or it is type, count and bytes, as
    `Directory.raw` returns them.
    """
    at = len(body) + len(body) % 2
    entries, tail = [struct.pack(order + "H", len(values))], []
    behind = at + 2 + 12 * len(values) + 4
    for tag in sorted(values):
        value = values[tag]
        if not isinstance(value, tuple):
            numbers = np.asarray(value, np.int64)
            kind = 3 if numbers.max(initial=0) < 1 << 16 else 4
            value = kind, len(numbers), numbers.astype(order + _TYPES[kind]).tobytes()
        kind, count, found = value
        if len(found) > 4:
            found, field = found + bytes(len(found) % 2), struct.pack(order + "I", behind)
            tail.append(found)
            behind += len(found)
        else:
            field = found.ljust(4, b"\x00")
        entries.append(struct.pack(order + "HHI", tag, kind, count) + field)
    header = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "I", at)
    return b"".join((header, memoryview(body)[8:], bytes(len(body) % 2), *entries, bytes(4), *tail))
