"""Small files that ask for much: memory, time, or lines in a log."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image

from tests.made import chunk, directory, encoded, exif_bomb, png, with_chunk

SMALL = Image.new("RGB", (64, 64), "red")


def lying_avif(width: int, height: int) -> bytes:
    """An AVIF whose container says 10 x 10, of a picture of another size."""
    file = bytearray(encoded(Image.new("L", (width, height)), "AVIF", speed=10, quality=10))
    at = file.index(b"ispe") + 8
    file[at : at + 8] = struct.pack(">II", 10, 10)
    return bytes(file)


def webp_canvas(edge: int) -> bytes:
    def part(kind: bytes, content: bytes) -> bytes:
        return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)

    frame = encoded(Image.new("RGB", (16, 16)), "WEBP", lossless=True)[12:]
    size = (edge - 1).to_bytes(3, "little") * 2
    content = b"WEBP" + part(b"VP8X", b"\x02\0\0\0" + size) + part(b"ANIM", bytes(6))
    content += part(b"ANMF", bytes(6) + (15).to_bytes(3, "little") * 2 + bytes(4) + frame)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def gif_frame(edge: int) -> bytes:
    file = encoded(Image.new("P", (10, 10)), "GIF")
    at = file.index(b",\0\0\0\0\x0a\0")
    frame = b"!\xf9\x04\x09\0\0\0\0," + struct.pack("<HHHH", 0, 0, edge, edge) + file[at + 9 :]
    return file[:13] + file[13 : 13 + (3 << (file[10] & 7) + 1)] + frame


def jpeg2000(replaced: dict[int, bytes], container: bool = False, **options) -> bytes:
    """A JPEG 2000 of 256 x 256 pixels in whose codestream bytes are replaced."""
    file = bytearray(encoded(Image.new("RGB", (256, 256)), "JPEG2000", no_jp2=not container, **options))
    start = file.index(b"\xff\x4f\xff\x51")
    for offset, content in replaced.items():
        file[start + offset : start + offset + len(content)] = content
    return bytes(file)


def with_precincts(edge_exponent: int) -> bytes:
    file = encoded(Image.new("L", (1000, 1000)), "JPEG2000", no_jp2=True)
    at = file.index(b"\xff\x52")
    segment = file[at : at + 2 + int.from_bytes(file[at + 2 : at + 4], "big")]
    segment = segment[:4] + bytes([segment[4] | 1]) + segment[5:14] + bytes([edge_exponent * 17]) * (segment[9] + 1)
    return (
        file[:at] + segment[:2] + struct.pack(">H", len(segment) - 2) + segment[4:] + file[at + len(segment) - segment[9] - 1 :]
    )


def tile_of(width: int, height: int, samples: int = 1) -> bytes:
    """A TIFF of 10 x 10 pixels in one tile."""
    packed = zlib.compress(bytes(1000))
    entries = {256: [10], 257: [10], 258: [8] * samples, 259: [8], 262: [1 if samples == 1 else 2], 277: [samples]}
    return directory({**entries, 322: [width], 323: [height], 324: [8], 325: [len(packed)]}, packed)


def many_strips(count: int, compression: int) -> bytes:
    entries = {256: [8], 257: [count], 258: [8], 259: [compression], 262: [1], 278: [1]}
    return directory({**entries, 273: [8] * count, 279: [11] * count}, zlib.compress(bytes(8)) + bytes(8))


def jpeg_of_two_sizes() -> bytes:
    file = encoded(SMALL, "JPEG")
    at = file.index(b"\xff\xc0")
    frame = file[at : at + 19]
    return file[:at] + frame[:5] + struct.pack(">HH", 60_000, 60_000) + frame[9:] + frame + file[at + 19 :]


def bomb_texts() -> bytes:
    text = zlib.compress(bytes(50_000_000))
    texts = b"".join(chunk(b"zTXt", b"%d\0\0" % index + text) for index in range(50))
    return png(np.zeros((4, 4, 1)), 8, texts)


def avif_of_frames(count: int) -> bytes:
    """An AVIF sequence whose first picture is of so many coded frames of 12 megapixels."""
    size = (4000, 3000)
    file = bytearray(encoded(Image.new("L", size), "AVIF", save_all=True, append_images=[Image.new("L", size, 9)], speed=10))
    sizes, places = file.index(b"stsz") + 16, file.index(b"stco") + 12
    at, first = int.from_bytes(file[places : places + 4], "big"), int.from_bytes(file[sizes : sizes + 4], "big")
    body = file[at : at + first] * count
    file[places : places + 4], file[sizes : sizes + 4] = struct.pack(">I", len(file) + 8), struct.pack(">I", len(body))
    return bytes(file) + struct.pack(">I4s", len(body) + 108, b"mdat") + body + bytes(100)


def jpeg_of_scans(size: tuple[int, int], count: int, arithmetic: bool = False) -> bytes:
    """A JPEG with so many scans of ten bytes, each of which goes through the whole picture."""
    file = encoded(Image.new("L", size), "JPEG", progressive=True)
    if arithmetic:
        file = file.replace(b"\xff\xc2", b"\xff\xca")
    first, last = (1, 63) if arithmetic else (0, 0)
    scan = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, first, last, 16)
    return file[:-2] + scan * count + b"\xff\xd9"


def jpeg_of_segments(count: int) -> bytes:
    file = encoded(SMALL, "JPEG")
    return file[:2] + b"\xff\xc4\0\2" * count + file[2:]


def rle(width: int, height: int, data: bytes) -> bytes:
    """A BMP of 256 colours, packed by runs."""
    palette = b"".join(bytes((index, 0, 0, 0)) for index in range(256))
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(data), 0, 0, 54 + 1024) + head + palette + data


def hidden_exif(count: int) -> bytes:
    """A PNG with many packed texts that say that they are EXIF, and are none."""
    text = zlib.compress(b"\n\n\n" + b"zz" * 130_000)
    return png(np.zeros((4, 4, 1)), 8, chunk(b"zTXt", b"Raw profile type exif\0\0" + text) * count)


def jp2_with_metadata(size: int) -> bytes:
    file = encoded(SMALL, "JPEG2000")
    at = file.index(b"jp2c") - 4
    return file[:at] + struct.pack(">I4s", size + 8, b"uuid") + bytes(size) + file[at:]


EDGES = struct.pack(">II", 10_000, 5_000)
THIN = struct.pack(">II", 1_000_000, 1)

# What makes each, and how it ends with the default limits.
BOMBS = {
    "AVIF, lying": (lambda: lying_avif(8000, 8000), "ImageTooLarge"),
    "WebP, canvas": (lambda: webp_canvas(16384), "ImageTooLarge"),
    "GIF, frame": (lambda: gif_frame(30_000), "ImageTooLarge"),
    "TIFF, one tile": (lambda: tile_of(46336, 46336), "ImageTooLarge"),
    "TIFF, one tile of colours": (lambda: tile_of(11_600, 11_600, 3), "ImageTooLarge"),
    "TIFF, strips": (lambda: many_strips(400_000, 1), "BrokenImage"),
    "TIFF, packed strips": (lambda: many_strips(400_000, 8), "BrokenImage"),
    "JPEG, two sizes": (jpeg_of_two_sizes, "ImageTooLarge"),
    "JPEG, segments": (lambda: jpeg_of_segments(2_000_000), "BrokenImage"),
    "JPEG, scans coded arithmetically": (lambda: jpeg_of_scans((10_000, 5_000), 2_000, True), "BrokenImage"),
    "JPEG 2000, another size": (lambda: jpeg2000({8: struct.pack(">II", 30_000, 30_000)}, container=True), "ImageTooLarge"),
    "JPEG 2000, tiles": (lambda: jpeg2000({24: struct.pack(">II", 1, 1)}), "ImageTooLarge"),
    "JPEG 2000, precincts": (lambda: with_precincts(1), "ImageTooLarge"),
    "JPEG 2000, components": (lambda: jpeg2000({40: struct.pack(">H", 900)}), "BrokenImage"),
    "JPEG 2000, layers": (lambda: jpeg2000({24: struct.pack(">II", 8, 8), 57: b"\xff\xff"}), "ImageTooLarge"),
    "JPEG 2000, blocks of one row": (lambda: jpeg2000({8: THIN, 24: THIN}, codeblock_size=(4, 1024)), "ImageTooLarge"),
    "JPEG 2000, 32 bits": (lambda: jpeg2000({8: EDGES, 24: EDGES, 42: b"\x1f\1\1" * 3}), "ImageTooLarge"),
    "AVIF, frames": (lambda: avif_of_frames(60), "ImageTooLarge"),
    "PPM, comments": (lambda: b"P5" + b"#\n" * 1_000_000 + b"4 4\n255\n" + bytes(16), "BrokenImage"),
    "BMP, one row": (lambda: rle(50_000_000, 1, b"\1\1\0\0\0\1"), "ImageTooLarge"),
    "PNG, EXIF of names": (lambda: with_chunk(png(np.zeros((4, 4, 1)), 8), b"eXIf", b"Exif\0\0" * 300_000), "answered"),
    "WebP, EXIF of names": (lambda: encoded(SMALL, "WEBP", exif=b"Exif\0\0" * 300_000), "answered"),
    "PNG, hidden EXIF": (lambda: hidden_exif(3_000), "answered"),
    "JPEG 2000, metadata": (lambda: jp2_with_metadata(10_000_000), "answered"),
    "PNG, text": (bomb_texts, "answered"),
    "PNG, EXIF": (lambda: with_chunk(png(np.zeros((4, 4, 1)), 8), b"eXIf", exif_bomb(3, 300)), "answered"),
    "WebP, EXIF": (lambda: encoded(SMALL, "WEBP", exif=exif_bomb(3, 300)), "answered"),
    "AVIF, EXIF": (lambda: encoded(SMALL, "AVIF", exif=exif_bomb(3, 300)[:8] + bytes(3_000_000)), "answered"),
}


def bad_fax(rows: int) -> bytes:
    body = b"\x01" * (2 * rows + 16)
    entries = {256: [16], 257: [rows], 258: [1], 259: [3], 262: [0], 273: [8], 278: [rows], 279: [len(body)], 292: [1]}
    return directory(entries, body)
