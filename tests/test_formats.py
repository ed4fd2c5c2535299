"""A file of a format that is not read is refused by its name."""

import struct

import pytest
from PIL import Image

from tests.made import directory, encoded, tiff
from tests.test_pictures import RAMP
from vit_core.errors import InputError
from vit_core.formats import FORMATS, identify
from vit_core.image import Deadline, decode
from vit_core.settings import Limits


def ftyp(*brands: bytes) -> bytes:
    content = brands[0] + bytes(4) + b"".join(brands[1:])
    return struct.pack(">I", 8 + len(content)) + b"ftyp" + content + bytes(400)


IMAGE = Image.new("RGB", (16, 16), "red")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (ftyp(b"heic", b"mif1", b"heic"), "a HEIC image"),
        (ftyp(b"mif1", b"mif1", b"heic"), "a HEIC image"),
        (ftyp(b"msf1", b"hevc"), "a HEIC image"),
        (ftyp(b"heix"), "a HEIC image"),
        (ftyp(b"mif1", b"miaf"), "a HEIF image"),
        (ftyp(b"crx ", b"isom"), r"a RAW photograph \(CR3\)"),
        (ftyp(b"isom", b"mp42"), "a QuickTime or MP4 video"),
        (ftyp(b"qt  "), "a QuickTime or MP4 video"),
        (ftyp(b"M4A "), "a video or another file of MP4's kind"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (b"\xff\x0a\x00\x10", "a JPEG XL image"),
        (encoded(IMAGE, "PDF"), "a PDF document"),
        (encoded(IMAGE, "EPS"), "a PostScript file"),
        (b"\xc5\xd0\xd3\xc6" + bytes(30), "a PostScript file"),
        (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"<svg/>", "an SVG drawing"),
        (b"\n<!DOCTYPE html><html><body>Not found</body>", "an HTML page"),
        (b"<HTML>", "an HTML page"),
        (b"<?xml version='1.0'?><a/>", "an XML file"),
        (b"8BPS\0\x01", r"a Photoshop image \(PSD\)"),
        (bytes(128) + b"DICM", "a DICOM file"),
        (encoded(IMAGE, "ICO"), r"an icon \(ICO\)"),
        (encoded(IMAGE, "ICNS"), r"an icon \(ICNS\)"),
        (encoded(IMAGE, "DDS"), "a DDS texture"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(300), r"a RAW photograph \(CR2\)"),
        (b"IIRO\x08\0\0\0", "a RAW photograph"),
        (directory({50706: [1], 256: [16], 257: [16]}, b""), "a RAW photograph"),
        (directory({254: [1], 256: [16], 257: [16], 330: [8]}, b"", ">"), "a RAW photograph"),
        (directory({262: [32803], 256: [16], 257: [16]}, b""), "a RAW photograph"),
        (b"PK\x03\x04" + bytes(30), "a ZIP archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a Git LFS pointer"),
        (b"\x1aE\xdf\xa3", "a video"),
        (b"RIFF\0\0\0\0AVI LIST", "a video"),
        (b"PF\n4 4\n-1.0\n", "a colour PFM image"),
        (b"/9j/4AAQSkZJRgABAQAAAQABAAD/", "base64 as plain text"),
    ],
)
def test_a_format_that_is_not_read_is_named(data, name):
    with pytest.raises(InputError, match=f"^this is {name}.*, which is not supported: send it as JPEG or PNG") as caught:
        decode(data, 3, Limits(), Deadline(5))
    assert (caught.value.code, caught.value.type) == (415, "UnsupportedImage")
    assert "\n" not in caught.value.message


BEGINNINGS = (
    b"BM",
    b"BM, as in bitmap",
    b"BM" + bytes(60),
    b"GIF89a is a format",
    b"GIF87a\nis older",
    b"P5 times a day",
    b"<p>",
)


@pytest.mark.parametrize("data", [b"hello", b"", b"\0", *BEGINNINGS, bytes(200)])
def test_what_is_not_known_is_refused_too(data):
    with pytest.raises(InputError) as caught:
        decode(data, 3, Limits(), Deadline(5))
    assert caught.value.code == 415


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_read_is_known(format):
    assert identify(encoded(IMAGE, format)) == format


def test_a_jpeg_is_one_whatever_its_text_says():
    assert identify(encoded(IMAGE, "JPEG", comment=b"%PDF-1.4")) == "JPEG"


def test_an_ordinary_tiff_with_smaller_copies_is_read():
    image = decode(tiff(RAMP.astype("u1"), t254=[0], t330=[8]), 1, Limits(), Deadline(5))
    assert image.size == (16, 16)
