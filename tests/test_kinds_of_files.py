"""Kinds of files that programs write and that are easily taken for damaged; and refusals that say what is wrong."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from tests.made import chunk, directory, encoded, png, tiff
from tests.seen import LIMITS, RAMP, RGB, pixels, ramp
from vit_core.errors import InputError
from vit_core.files import tiff as tiff_file
from vit_core.image import Deadline, decode
from vit_core.settings import Limits


def pillows(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def test_the_smallest_webp_is_one_of_a_single_colour():
    stream = bytes.fromhex("2f63c01810888808")
    smallest = b"RIFF\x14\0\0\0WEBPVP8L" + struct.pack("<I", len(stream)) + stream
    assert len(smallest) == 28
    assert pixels(smallest).shape == (100, 100, 3)


@pytest.mark.parametrize("deflate", [False, True])
def test_the_places_of_tiles_may_be_written_as_those_of_strips(deflate):
    file = bytearray(tiff(RGB, photometric=2, tile=16, deflate=deflate))
    at = int.from_bytes(file[4:8], "little")
    entries = [file[at + 2 + 12 * each : at + 14 + 12 * each] for each in range(int.from_bytes(file[at : at + 2], "little"))]
    for entry in entries:
        tag = int.from_bytes(entry[:2], "little")
        entry[:2] = struct.pack("<H", {324: 273, 325: 279}.get(tag, tag))
    file[at + 2 : at + 2 + 12 * len(entries)] = b"".join(sorted(entries, key=lambda entry: entry[:2][::-1]))
    assert np.array_equal(pixels(bytes(file)), RGB)


@pytest.mark.parametrize("layout", [{}, {"deflate": True}, {"tile": 16}, {"deflate": True, "predictor": 2}])
def test_eight_bits_that_are_said_to_have_a_sign_have_none(layout):
    """Photographs of 8 bits in such files are as Pillow and viewers show them."""
    file = tiff(RAMP.astype(np.uint8).view(np.int8), **layout)
    assert ramp(file) == list(range(256))
    assert np.array_equal(pixels(file), pillows(file))


@pytest.mark.parametrize("planar", [False, True])
def test_colours_that_are_said_to_have_a_sign_have_none(planar):
    assert np.array_equal(pixels(tiff(RGB.view(np.int8), photometric=2, planar=planar)), RGB)


@pytest.mark.parametrize("deflate", [False, True])
def test_a_fourth_sample_that_the_file_does_not_name_is_data(deflate):
    samples = np.concatenate([RGB, RGB[..., :1] // 128 * 255], axis=2)
    assert np.array_equal(pixels(tiff(samples, photometric=2, deflate=deflate)), RGB)


def test_grey_that_its_coverage_is_multiplied_into_is_laid_over_white():
    samples = np.array([[[0, 0], [100, 255], [50, 128]]], np.uint8)
    assert pixels(tiff(samples, t338=[1]), 1).tolist() == [[255, 100, 177]]


ORDINARY = {mode: encoded(Image.fromarray(RGB).convert(mode), "TIFF") for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK")}


@pytest.mark.parametrize("file", [*ORDINARY.values(), tiff(RGB, photometric=2, order=">")], ids=[*ORDINARY, "big-endian"])
def test_pillow_unpacks_the_pixels_of_an_ordinary_tiff(file):
    """It needs a quarter of the time that it takes to make them of their bytes."""
    (source,) = tiff_file.read(file, LIMITS).sources
    assert not source.of_bytes
    assert np.array_equal(pixels(file), pillows(file))


def test_a_jpeg_that_is_coded_arithmetically_is_read_at_once():
    """Its decoder makes a picture of whatever bytes there are; and it cannot wait for more of them."""
    file = encoded(Image.new("L", (3000, 2000)), "JPEG")
    start = file.index(b"\xff\xda") + 10
    coded = np.random.default_rng(0).integers(0, 255, 200_000).astype(np.uint8).tobytes()
    file = file[:start].replace(b"\xff\xc0", b"\xff\xc9") + coded + b"\xff\xd9"
    image = Image.open(io.BytesIO(file))
    image.decodermaxblock = len(file)
    assert np.array_equal(np.asarray(decode(file, 1, Limits(), Deadline(5))), np.asarray(image))


def damaged(file: bytes, old: bytes, new: bytes) -> bytes:
    assert old in file
    return file.replace(old, new)


SIZES = struct.pack(">II", 60, 60)
REFUSED = {
    "PNG, a chunk that is too long": (png(RGB, 8)[:33] + b"\x7f\0\0\0tEXt" + bytes(20), "it is cut off, or its headers"),
    "PNG, no pixels": (png(RGB, 8)[:33] + bytes(4) + b"IEND\xaeB`\x82", "it has no pixels"),
    "PNG, depth": (
        png(RGB, 8)[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 99, 2, 0, 0, 0)) + png(RGB, 8)[33:],
        "its header is damaged",
    ),
    "TIFF, compression": (directory({256: [4], 257: [4], 258: [8], 259: [28163], 273: [8], 279: [16]}, bytes(16)), "it is cut"),
    "TIFF, pixels": (tiff(RGB, photometric=2, deflate=True).replace(b"x\x9c", b"xx"), "its pixels are damaged, or packed in"),
    "JPEG 2000, size": (
        damaged(encoded(Image.new("L", (60, 60)), "JPEG2000"), SIZES + bytes(8), bytes(8) + SIZES),
        "it has 1 components, or no size",
    ),
    "PPM, largest value": (b"P5 4 4 ;*\x1b \n" + bytes(16), "it is cut off, or its headers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_what_is_wrong_in_words(name):
    file, words = REFUSED[name]
    with pytest.raises(InputError) as caught:
        pixels(file)
    assert caught.value.type == "BrokenImage"
    assert f"could not be decoded: {words}" in caught.value.message
    said = caught.value.message.rpartition("decoded: ")[2]
    assert " " in said and not any(word in said for word in ("driver", "unpack", "literal", "error -", "object"))
