"""Pictures come out upright, whichever place their orientation stands in; and broken metadata spoil none."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.made import directory, encoded, exif, exif_bomb, png, tiff, with_chunk
from vit_core.image import Deadline, decode
from vit_core.orientation import UPRIGHT, from_exif
from vit_core.settings import Limits

LIMITS = Limits()
STORED = np.random.default_rng(5).integers(0, 256, (24, 40, 3)).astype(np.uint8)
PICTURE = Image.fromarray(STORED)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


def decoded(data: bytes) -> Image.Image:
    return decode(data, 3, LIMITS, Deadline(5))


def upright(orientation: int, image: Image.Image = PICTURE) -> Image.Image:
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def hexadecimal(block: bytes) -> bytes:
    return b"\nexif\n%8d\n%s\n" % (len(block), block.hex().encode())


def jpeg_with(kind: bytes, content: bytes) -> bytes:
    file = encoded(PICTURE, "JPEG", quality=95)
    return file[:2] + kind + struct.pack(">H", 2 + len(content)) + content + file[2:]


def containers(orientation: int, order: str) -> dict[str, bytes]:
    block = exif(orientation, order)
    plain, text = png(STORED, 8), b"Raw profile type exif\0"
    xmp = XMP % orientation
    return {
        "JPEG": jpeg_with(b"\xff\xe1", block),
        "JPEG, XMP": jpeg_with(b"\xff\xe1", b"http://ns.adobe.com/xap/1.0/\0" + xmp),
        "PNG": with_chunk(plain, b"eXIf", block[6:]),
        "PNG, after the pixels": with_chunk(plain, b"eXIf", block[6:], after=True),
        "PNG, text": with_chunk(plain, b"tEXt", text + hexadecimal(block)),
        "PNG, packed text": with_chunk(plain, b"zTXt", text + b"\0" + zlib.compress(hexadecimal(block))),
        "PNG, international text": with_chunk(plain, b"iTXt", text + b"\0\0\0\0" + hexadecimal(block), after=True),
        "PNG, XMP": with_chunk(plain, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        "WebP": encoded(PICTURE, "WEBP", lossless=True, exif=block),
        "WebP, XMP": encoded(PICTURE, "WEBP", lossless=True, xmp=xmp),
        "TIFF": tiff(STORED, order=order, photometric=2, t274=[orientation]),
        "TIFF, packed": tiff(STORED, order=order, photometric=2, deflate=True, tile=16, t274=[orientation]),
        "TIFF, XMP": tiff(STORED, order=order, photometric=2, t700=xmp),
    }


@pytest.mark.parametrize("name", containers(1, "<"))
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", "<>")
def test_a_picture_is_upright_whatever_says_so(name, orientation, order):
    file = containers(orientation, order)[name]
    stored = Image.open(io.BytesIO(encoded(PICTURE, "JPEG", quality=95))) if name.startswith("JPEG") else PICTURE
    actual = decoded(file)
    assert actual.size == upright(orientation).size
    assert np.array_equal(np.asarray(actual), np.asarray(upright(orientation, stored)))
    assert np.array_equal(np.asarray(actual), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_turned_once(orientation):
    file = encoded(PICTURE, "AVIF", quality=100, subsampling="4:4:4", exif=exif(orientation))
    actual = np.asarray(decoded(file), int)
    assert actual.shape == np.asarray(upright(orientation)).shape
    assert np.abs(actual - np.asarray(upright(orientation), int)).mean() < 10


def test_an_avif_is_turned_by_its_own_boxes_and_not_by_its_metadata():
    other = directory({0x0113: [6]}, b"")  # Pillow takes the orientation out of what it writes
    file = encoded(PICTURE, "AVIF", exif=other)
    assert file.count(other) == 1
    assert decoded(file.replace(other, directory({0x0112: [6]}, b""))).size == PICTURE.size


@settings(max_examples=300)
@given(st.binary(max_size=80), st.sampled_from([b"", b"II*\0", b"MM\0*", b"Exif\0\0II*\0\x08\0\0\0"]))
def test_any_bytes_are_read_as_exif_without_an_error(rest, begin):
    assert isinstance(from_exif(begin + rest), int | None)


BROKEN = [
    b"",
    b"Exif",
    b"Exif\0\0",
    b"Exif\0\0II*\0\xff\xff\xff\xff",
    b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
    exif(6)[:-8],
    b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 1, 0x0112, 3, 2**32 - 1, 2**32 - 1),
    exif(99),
    b"\xff" * 300,
]


@pytest.mark.parametrize("block", BROKEN)
def test_broken_metadata_do_not_spoil_a_whole_picture(block):
    plain = png(STORED, 8)
    files = [
        with_chunk(plain, b"eXIf", block),
        with_chunk(plain, b"eXIf", block, after=True),
        with_chunk(plain, b"tEXt", b"Raw profile type exif\0" + block),
        with_chunk(plain, b"zTXt", b"Raw profile type exif\0\0" + block),
        encoded(PICTURE, "WEBP", lossless=True, exif=block or b"\0"),
        tiff(STORED, photometric=2, t274=[99], t34665=[2**32 - 1], t700=block or b"\0", t33723=[7]),
    ]
    for file in files:
        assert np.array_equal(np.asarray(decoded(file)), STORED)
    expected = Image.open(io.BytesIO(encoded(PICTURE, "JPEG", quality=95))).tobytes()
    for kind in (b"\xff\xe1", b"\xff\xe2", b"\xff\xed", b"\xff\xfe"):
        assert decoded(jpeg_with(kind, block)).tobytes() == expected
    for begin in (b"MPF\0", b"ICC_PROFILE\0", b"FPXR\0"):
        assert decoded(jpeg_with(b"\xff\xe2", begin + block)).tobytes() == expected


@pytest.mark.parametrize("order", "<>")
def test_an_entry_of_another_type_is_read_too(order):
    block = struct.pack(order + "IHHHII", 8, 1, 0x0112, 4, 1, 6)
    assert from_exif((b"II*\0" if order == "<" else b"MM\0*") + block) == 6


def test_of_a_bomb_the_orientation_is_read():
    assert from_exif(exif_bomb(1, 100)) == 6
    assert decoded(with_chunk(png(STORED, 8), b"eXIf", exif_bomb(1, 100))).size == (24, 40)
