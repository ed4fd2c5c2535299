"""Nothing in a file makes its decoder take memory that the picture has no use for, or print, or stay."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import DIGITS, export_to
from tests.made import chunk, directory, encoded, exif_bomb, png, tiff, with_chunk
from vit_core.errors import InputError
from vit_core.files.boxes import sequence_size
from vit_core.image import Deadline, decode
from vit_core.predictor import Predictor
from vit_core.request import Sent
from vit_core.settings import Limits

LIMITS = Limits()
SMALL = Image.new("RGB", (64, 64), "red")


def decoded(data: bytes, limits: Limits = LIMITS) -> Image.Image:
    return decode(data, 3, limits, Deadline(5))


def status(name: str) -> int:
    """Megabytes of this process: VmRSS now, or VmHWM at its highest."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) // 1000


def megabytes(data: bytes) -> tuple[int, str]:
    """How much more memory decoding `data` takes than there was, and how it ends."""
    Path("/proc/self/clear_refs").write_text("5")  # the highest counts from here
    before = status("VmHWM")
    try:
        decoded(data)
        outcome = "answered"
    except InputError as error:
        assert "\n" not in error.message
        outcome = error.type
    return status("VmHWM") - before, outcome


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


BOMBS = {
    "AVIF, lying": (lambda: lying_avif(8000, 8000), "ImageTooLarge"),
    "WebP, canvas": (lambda: webp_canvas(16384), "ImageTooLarge"),
    "GIF, frame": (lambda: gif_frame(30_000), "ImageTooLarge"),
    "TIFF, one tile": (lambda: tile_of(46336, 46336), "ImageTooLarge"),
    "TIFF, one tile of colours": (lambda: tile_of(11_600, 11_600, 3), "ImageTooLarge"),
    "TIFF, strips": (lambda: many_strips(400_000, 1), "BrokenImage"),
    "TIFF, packed strips": (lambda: many_strips(400_000, 8), "BrokenImage"),
    "JPEG, two sizes": (jpeg_of_two_sizes, "ImageTooLarge"),
    "JPEG 2000, another size": (lambda: jpeg2000({8: struct.pack(">II", 30_000, 30_000)}, container=True), "ImageTooLarge"),
    "JPEG 2000, tiles": (lambda: jpeg2000({24: struct.pack(">II", 1, 1)}), "ImageTooLarge"),
    "JPEG 2000, precincts": (lambda: with_precincts(1), "ImageTooLarge"),
    "JPEG 2000, components": (lambda: jpeg2000({40: struct.pack(">H", 900)}), "BrokenImage"),
    "PNG, text": (bomb_texts, "answered"),
    "PNG, EXIF": (lambda: with_chunk(png(np.zeros((4, 4, 1)), 8), b"eXIf", exif_bomb(3, 300)), "answered"),
    "WebP, EXIF": (lambda: encoded(SMALL, "WEBP", exif=exif_bomb(3, 300)), "answered"),
    "AVIF, EXIF": (lambda: encoded(SMALL, "AVIF").replace(b"mif1", b"mif1"), "answered"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_little_memory(name):
    make, outcome = BOMBS[name]
    data = make()
    taken, actual = megabytes(data)
    assert actual == outcome
    assert taken < 40


@pytest.mark.parametrize("size", [(10, 10), (64, 48), (640, 480), (1, 1), (2000, 3)])
@pytest.mark.parametrize("frames", [1, 3])
def test_the_size_of_what_is_coded_is_read_from_an_avif(size, frames):
    later = [Image.new("RGB", size, "blue")] * (frames - 1)
    file = encoded(Image.new("RGB", size), "AVIF", save_all=frames > 1, append_images=later)
    assert decoded(file, Limits(max_pixels=size[0] * size[1])).size == size


def test_a_sequence_header_of_the_long_form_says_how_many_bits_a_size_has():
    bits = "000" + "0" + "0" + "0" + "0" + "00000" + "0" * 12 + "01000" + "0" + "1110" + "1101" + "0" * 29
    assert sequence_size(int(bits.ljust(80, "0"), 2).to_bytes(10, "big")) == (1 << 15, 1 << 14)


@pytest.mark.parametrize("options", [{}, {"tile_size": (64, 64)}, {"precinct_size": (256, 256)}, {"codeblock_size": (32, 32)}])
def test_an_ordinary_jpeg_2000_is_read(options):
    assert decoded(encoded(Image.effect_noise((700, 500), 50), "JPEG2000", **options)).size == (700, 500)


@pytest.mark.parametrize("cut", [10, 60, 300, 600])
@pytest.mark.parametrize("format", ["AVIF", "JPEG2000", "TIFF", "PNG", "GIF", "WEBP", "JPEG", "BMP", "PPM"])
def test_a_file_that_is_cut_off_is_refused(format, cut):
    file = encoded(Image.effect_noise((60, 60), 50).convert("RGB"), format)
    with pytest.raises(InputError) as caught:
        decoded(file[:cut])
    assert caught.value.code in (400, 415)
    assert "\n" not in caught.value.message


@pytest.fixture
def printed(tmp_path):
    """What decoders in C print on stdout and stderr."""
    saved, file = (os.dup(1), os.dup(2)), os.open(tmp_path / "printed", os.O_CREAT | os.O_RDWR)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        yield tmp_path / "printed"
    finally:
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for each in (*saved, file):
            os.close(each)


def bad_fax(rows: int) -> bytes:
    body = b"\x01" * (2 * rows + 16)
    entries = {256: [16], 257: [rows], 258: [1], 259: [3], 262: [0], 273: [8], 278: [rows], 279: [len(body)], 292: [1]}
    return directory(entries, body)


def test_decoders_print_nothing(printed):
    image = Image.effect_noise((60, 60), 50).convert("RGB")
    files = [bad_fax(300)]
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000"):
        whole = encoded(image, format)
        files += [whole[: len(whole) * 2 // 3], whole[: len(whole) // 2] + bytes(200) + whole[len(whole) // 2 + 100 :]]
    for compression in ("jpeg", "tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd"):
        whole = encoded(image, "TIFF", compression=compression)
        files.append(whole[:100] + bytes(200) + whole[300:])
    refused = 0
    for file in files:
        try:
            decoded(file)
        except InputError:
            refused += 1
    assert refused > len(files) / 2
    assert printed.read_bytes() == b""


def test_a_thousand_refusals_leave_nothing_behind(tmp_path):
    whole = encoded(Image.effect_noise((1200, 1000), 60).convert("RGB"), "JPEG", quality=60)
    cut = {"body": whole[: len(whole) * 9 // 10]}
    predictor = Predictor.load(export_to(tmp_path, f"local-dir:{DIGITS}"))

    def refuse(count: int) -> list:
        return [answer for _ in range(count) for answer in predictor.answer([Sent(cut)])]

    refused = refuse(20)
    before = status("VmRSS")
    # Kept, as they are until the answers are sent: 5 MB of pixels hang on each that holds its picture.
    refused += refuse(980)
    assert {answer.type for answer in refused} == {"BrokenImage"}
    assert status("VmRSS") - before < 60


def test_a_refusal_holds_no_picture():
    file = encoded(Image.effect_noise((300, 200), 60), "JPEG")
    with pytest.raises(InputError) as caught:
        decoded(file[: len(file) // 2])
    error, held, trace = caught.value, [], caught.value.__traceback__
    assert error.__cause__ is None and error.__context__ is None
    while trace:
        held += [value for value in trace.tb_frame.f_locals.values() if isinstance(value, Image.Image)]
        trace = trace.tb_next
    assert not held


def test_the_last_row_of_strips_may_be_longer_than_the_picture():
    samples = np.arange(10 * 7).reshape(10, 7, 1).astype(np.uint8)
    file = tiff(samples)
    entry = struct.pack("<HHIH", 278, 3, 1, 10)
    assert entry in file
    longer = file.replace(entry, struct.pack("<HHIH", 278, 3, 1, 65535))
    assert np.array_equal(np.asarray(decode(longer, 1, LIMITS, Deadline(5))), samples[..., 0])
    assert io.BytesIO(longer).read(4) == b"II*\0"
