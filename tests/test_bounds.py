"""Nothing in a file makes its decoder take memory that the picture has no use for, or print, or stay."""

import io
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bombs import BOMBS, SMALL, bad_fax, jpeg_of_scans
from tests.conftest import DIGITS, export_to
from tests.made import chunk, encoded, png, tiff
from vit_core.bounds import LONGEST_EDGE
from vit_core.errors import InputError
from vit_core.files.boxes import sequence_size
from vit_core.image import Deadline, decode
from vit_core.predictor import Predictor
from vit_core.request import Sent
from vit_core.settings import Limits

LIMITS = Limits()


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


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_little_memory_and_time(name):
    make, outcome = BOMBS[name]
    data, start = make(), time.perf_counter()
    taken, actual = megabytes(data)
    assert actual == outcome
    assert taken < 40
    assert time.perf_counter() - start < 1


def test_the_clock_is_looked_at_between_the_scans_of_a_jpeg():
    file, start = jpeg_of_scans((4000, 3000), 10_000), time.perf_counter()
    with pytest.raises(InputError) as caught:
        decode(file, 3, LIMITS, Deadline(0.3))
    assert caught.value.type == "DecodeTimeout"
    assert time.perf_counter() - start < 1.5


def test_a_jpeg_2000_that_takes_too_long_is_not_called_broken():
    file = encoded(Image.effect_noise((900, 900), 90).convert("RGB"), "JPEG2000")
    with pytest.raises(InputError) as caught:
        decode(file, 3, LIMITS, Deadline(0.05))
    assert caught.value.type == "DecodeTimeout"


@pytest.mark.parametrize("size", [(1, LONGEST_EDGE), (LONGEST_EDGE, 1)])
def test_an_edge_may_be_of_a_million_pixels(size):
    assert decoded(encoded(Image.new("1", size), "PNG")).size == size
    longer = tuple(edge + (edge > 1) for edge in size)
    with pytest.raises(InputError, match=f"{longer[0]} x {longer[1]} pixels: at most {LONGEST_EDGE} along an edge"):
        decoded(encoded(Image.new("1", longer), "PNG"))


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


@pytest.mark.parametrize("format", ["AVIF", "JPEG2000", "TIFF", "PNG", "GIF", "WEBP", "JPEG", "BMP", "PPM"])
def test_a_header_may_end_anywhere(format):
    file = encoded(Image.new("P", (60, 60)) if format == "GIF" else SMALL, format)
    for cut in range(min(len(file), 700)):
        try:
            decoded(file[:cut])
        except InputError as error:
            assert error.code in (400, 415)
            assert "\n" not in error.message


def test_the_place_of_a_frame_outside_of_a_track_is_none():
    file = encoded(SMALL, "AVIF")
    box = struct.pack(">I4sIII", 20, b"stco", 0, 1, 8)
    assert decoded(file + box).size == SMALL.size


def test_the_tiles_of_an_avif_may_not_all_be_one():
    """Each is decoded, though the file holds it once."""
    file = encoded(SMALL, "AVIF")
    parts = struct.pack(">II", 0, len(file)) * 4000
    places = struct.pack(">IHHHHH", 0, 0x4400, 1, 1, 0, 4000) + parts
    file += struct.pack(">I4s", 8 + len(places), b"iloc") + places
    assert decoded(file).size == SMALL.size
    with pytest.raises(InputError, match="its items lie over each other"):
        decoded(file.replace(parts, struct.pack(">II", 0, len(file)) * 4000))


@pytest.mark.parametrize("length", [2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("format", ["AVIF", "JPEG2000"])
def test_a_box_may_be_said_to_be_of_any_length(format, length):
    file = encoded(SMALL, format)
    first = int.from_bytes(file[:4], "big")
    with pytest.raises(InputError) as caught:
        decoded(file[:first] + struct.pack(">I4sQ", 1, b"free", length) + file[first:])
    assert caught.value.type == "BrokenImage"


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


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(("dtype", "bands"), [("f4", 1), ("u2", 1), ("u2", 3), ("u2", 4)])
def test_samples_of_many_bytes_are_not_taken_for_pixels(dtype, bands, planar):
    """An image of as many pixels as are allowed is read, however many bytes its samples have."""
    samples = np.zeros((20, 30, bands), dtype)
    extra = {"t338": [0]} if bands == 4 else {}
    file = tiff(samples, photometric=2 if bands > 1 else 1, planar=planar, t281=[4095], **extra)
    assert decoded(file, Limits(max_pixels=600)).size == (30, 20)
    with pytest.raises(InputError, match="30 x 20 pixels: at most 599 in all"):
        decoded(file, Limits(max_pixels=599))


@pytest.mark.parametrize("extra", [chunk(b"tRNS", bytes(6)), chunk(b"sBIT", bytes([12] * 3))], ids=["key", "used bits"])
def test_a_large_png_of_16_bits_takes_what_its_pixels_need(extra):
    data = png(np.ones((2000, 2000, 3), np.uint16), 16, extra)
    taken, outcome = megabytes(data)
    assert outcome == "answered"
    assert taken < 4 * 24  # bytes for each of 4 megapixels: 24, as of WebP with alpha
