"""Image files made byte by byte, where Pillow writes no such ones."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

SHORT, LONG = 3, 4


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def directory(entries: dict[int, list[int] | bytes], body: bytes, order: str = "<") -> bytes:
    """A TIFF of one directory behind `body`, to whose start offsets count from 8. Numbers become 16 bits where they fit; bytes
    stay as they are, of the type UNDEFINED."""
    at = 8 + len(body)
    behind, lines, tail = at + 2 + 12 * len(entries) + 4, b"", b""
    for tag, values in sorted(entries.items()):
        if isinstance(values, bytes):
            kind, count, raw = 7, len(values), values
        else:
            kind = SHORT if max(values, default=0) < 1 << 16 else LONG
            count, raw = len(values), struct.pack(f"{order}{len(values)}{'HI'[kind == LONG]}", *values)
        if len(raw) > 4:
            lines += struct.pack(order + "HHII", tag, kind, count, behind + len(tail))
            tail += raw
        else:
            lines += struct.pack(order + "HHI", tag, kind, count) + raw.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", at) + body + struct.pack(order + "H", len(entries)) + lines + bytes(4) + tail


def packed(samples: np.ndarray, bits: int, order: str, predictor: int = 1) -> bytes:
    """Samples [rows, columns, bands] as a TIFF's bytes, each row padded to whole bytes."""
    rows, _, bands = samples.shape
    if bits not in (8, 16, 32, 64):
        places = (samples.reshape(rows, -1, 1) >> np.arange(bits)[::-1]) & 1
        return np.packbits(places.reshape(rows, -1).astype(np.uint8), axis=1).tobytes()
    if predictor == 2:
        samples = np.diff(samples, axis=1, prepend=np.zeros((rows, 1, bands), samples.dtype))
    if predictor == 3:
        planes = samples.astype(samples.dtype.newbyteorder(">")).reshape(rows, -1, 1).view(np.uint8).transpose(0, 2, 1)
        row = planes.reshape(rows, -1, bands)
        return np.diff(row, axis=1, prepend=np.zeros((rows, 1, bands), np.uint8)).tobytes()
    return samples.astype(samples.dtype.newbyteorder(order)).tobytes()


def tiff(
    samples: np.ndarray,
    bits: int | None = None,
    order: str = "<",
    photometric: int = 1,
    planar: bool = False,
    strip: int | None = None,
    tile: int | None = None,
    deflate: bool = False,
    predictor: int = 1,
    **extra: list[int] | bytes,
) -> bytes:
    """A TIFF of samples [height, width, bands], in strips of so many rows or in square tiles; `t338=[2]` adds tag 338."""
    height, width, bands = samples.shape
    bits = bits or 8 * samples.itemsize
    across, down = (tile, tile) if tile else (width, strip or height)
    body, offsets, lengths = b"", [], []
    for plane in [samples[..., [band]] for band in range(bands)] if planar else [samples]:
        for top in range(0, height, down):
            for left in range(0, width, across):
                part = plane[top : top + down, left : left + across]
                if tile:
                    part = np.pad(part, ((0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0)))
                raw = packed(part, bits, order, predictor)
                raw = zlib.compress(raw) if deflate else raw
                offsets.append(8 + len(body))
                lengths.append(len(raw))
                body += raw
    entries = {256: [width], 257: [height], 258: [bits] * bands, 259: [8 if deflate else 1], 262: [photometric], 277: [bands]}
    entries |= {284: [2 if planar else 1], 339: [{"u": 1, "i": 2, "f": 3}[samples.dtype.kind]] * bands}
    entries |= {322: [tile], 323: [tile], 324: offsets, 325: lengths} if tile else {278: [down], 273: offsets, 279: lengths}
    entries |= {317: [predictor]} if predictor > 1 else {}
    return directory(entries | {int(name[1:]): value for name, value in extra.items()}, body, order)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(samples: np.ndarray, depth: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG of samples [height, width, bands], with chunks before and after the pixels."""
    height, width, bands = samples.shape
    rows = packed(samples.astype(np.uint16 if depth == 16 else np.uint8), depth, ">")
    length = len(rows) // height
    lines = b"".join(b"\0" + rows[row * length : (row + 1) * length] for row in range(height))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, {1: 0, 2: 4, 3: 2, 4: 6}[bands], 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", zlib.compress(lines)) + after + chunk(b"IEND", b"")


def with_chunk(file: bytes, kind: bytes, content: bytes, after: bool = False) -> bytes:
    """A PNG with one more chunk, before or after its pixels."""
    at = file.index(b"IEND" if after else b"IDAT") - 4
    return file[:at] + chunk(kind, content) + file[at:]


def bmp(pixels: np.ndarray, alpha: np.ndarray | int) -> bytes:
    """A BMP of 32 bits with a header of version 4 that names the masks of B, G, R and alpha; from uint8 [height, width, 3]."""
    height, width, _ = pixels.shape
    four = np.empty((height, width, 4), np.uint8)
    four[..., :3], four[..., 3] = pixels[..., ::-1], alpha
    body = four[::-1].tobytes()
    head = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(body), 2835, 2835, 0, 0)
    head = (head + struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)).ljust(108, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body


def exif(orientation: int, order: str = "<") -> bytes:
    """An EXIF block, with the name that JPEG puts before it."""
    return b"Exif\0\0" + directory({0x0112: [orientation]}, b"", order)


def exif_bomb(megabytes: int, tags: int) -> bytes:
    """An EXIF block of so many megabytes, to the whole of which each of its entries points; and that says orientation 6."""
    size, start = megabytes * 1_000_000, 8 + 2 + 12 * (tags + 1) + 4
    lines = struct.pack("<HHII", 0x0112, SHORT, 1, 6)
    lines += b"".join(struct.pack("<HHII", 1000 + index, 7, size, start) for index in range(tags))
    return b"II*\0" + struct.pack("<IH", 8, tags + 1) + lines + bytes(4 + size)
