"""Decoding: every format as timm reads it, or better on purpose; and the limits."""

import io
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from vit_core.errors import InputError
from vit_core.image import Deadline
from vit_core.image import decode as decode_within
from vit_core.orientation import UPRIGHT
from vit_core.settings import Limits

LIMITS = Limits(max_bytes=1_000_000, max_pixels=1_000_000, max_images=4, max_decode_seconds=5)


def decode(data: bytes, channels: int = 3, limits: Limits = LIMITS) -> Image.Image:
    return decode_within(data, channels, limits, Deadline(limits.max_decode_seconds))


def noise(mode: str = "RGB", size: tuple[int, int] = (30, 20)) -> Image.Image:
    pixels = np.random.default_rng(2).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(pixels).convert("RGB").convert(mode)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


PLAIN = {
    "jpeg": encoded(noise(), "JPEG"),
    "progressive jpeg": encoded(noise(), "JPEG", progressive=True),
    "cmyk jpeg": encoded(noise("CMYK"), "JPEG"),
    "grey jpeg": encoded(noise("L"), "JPEG"),
    "png": encoded(noise(), "PNG"),
    "palette png": encoded(noise("P"), "PNG"),
    "one-bit png": encoded(noise("1"), "PNG"),
    "grey png": encoded(noise("L"), "PNG"),
    "webp": encoded(noise(), "WEBP"),
    "gif": encoded(noise(), "GIF", save_all=True, append_images=[Image.new("RGB", (30, 20), "red")]),
    "apng": encoded(noise(), "PNG", save_all=True, append_images=[Image.new("RGB", (30, 20), "red")]),
    "bmp": encoded(noise(), "BMP"),
    "tiff": encoded(noise(), "TIFF"),
    "compressed tiff": encoded(noise(), "TIFF", compression="tiff_lzw"),
    "jpeg 2000": encoded(noise(), "JPEG2000"),
    "avif": encoded(noise(), "AVIF"),
    "ppm": encoded(noise(), "PPM"),
    "mpo": encoded(noise(), "MPO", save_all=True, append_images=[Image.new("RGB", (30, 20), "red")]),
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_plain_image_is_decoded_as_timm_does(name, channels):
    expected = Image.open(io.BytesIO(PLAIN[name])).convert("RGB" if channels == 3 else "L")
    actual = decode(PLAIN[name], channels)
    assert (actual.mode, actual.size) == (expected.mode, expected.size)
    assert actual.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "image",
    [
        encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "PNG"),
        encoded(Image.new("LA", (4, 4), (0, 0)), "PNG"),
        encoded(Image.new("P", (4, 4), 0), "PNG", transparency=0),
        encoded(Image.new("RGB", (4, 4), "blue"), "PNG", transparency=(0, 0, 255)),
        encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "WEBP", lossless=True),
        encoded(Image.new("P", (4, 4), 0), "GIF", transparency=0),
    ],
    ids=["rgba", "grey and alpha", "palette", "colour key", "webp", "gif"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_transparency_is_laid_over_white(image, channels):
    assert decode(image, channels).convert("RGB").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_cameras_orientation_is_applied(orientation, format):
    upright = Image.new("RGB", (48, 32), "white")
    upright.paste("red", (0, 0, 16, 16))  # the corner at the top left, whichever way the camera was held
    inverse = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    stored = upright.transpose(inverse.get(orientation, UPRIGHT.get(orientation))) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(stored, format, exif=exif))
    assert image.size == (48, 32)
    assert np.abs(np.asarray(image, int) - np.asarray(upright, int)).mean() < 5


def test_broken_metadata_does_not_spoil_a_whole_picture():
    data = encoded(noise(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert decode(data).tobytes() == Image.open(io.BytesIO(data)).convert("RGB").tobytes()


# --- more than eight bits: scaled, where Pillow's convert cuts off ---

RAMP = np.linspace(0, 1, 256, dtype=np.float64).reshape(16, 16)


@pytest.mark.parametrize(
    ("values", "format"),
    [
        ((RAMP * 65535).round().astype(np.uint16), "PNG"),
        ((RAMP * 65535).round().astype(np.uint16), "TIFF"),
        ((RAMP * 65535).round().astype(">u2"), "TIFF"),
        (RAMP.astype(np.float32), "TIFF"),
        ((RAMP * 255).astype(np.float32), "TIFF"),
        ((RAMP * 65535).astype(np.float32), "TIFF"),
        ((RAMP * 5 - 3).astype(np.float32), "TIFF"),
        ((RAMP * 255).round().astype(np.int32), "TIFF"),
        ((RAMP * 65535).round().astype(np.int32), "TIFF"),
        ((RAMP * 2e9 - 1e9).astype(np.int32), "TIFF"),
    ],
    ids=[
        "png16",
        "tiff16",
        "tiff16 big endian",
        "0..1",
        "0..255",
        "0..65535",
        "stretched",
        "int 255",
        "int 65535",
        "int stretched",
    ],
)
def test_many_bits_are_scaled_to_eight(values, format):
    image = decode(encoded(Image.fromarray(values), format), 1)
    assert np.asarray(image, int).reshape(-1).tolist() == list(range(256))


def test_a_float_image_that_holds_no_numbers_is_refused():
    with pytest.raises(InputError, match="not numbers"):
        decode(encoded(Image.fromarray(np.full((4, 4), np.inf, np.float32)), "TIFF"))


def test_an_even_image_of_many_bits_is_decoded():
    assert decode(encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF")).getextrema() == ((0, 0),) * 3
    assert decode(encoded(Image.fromarray(np.full((4, 4), -7, np.float32)), "TIFF")).getextrema()[0][0] in (0, 1)


# --- what is refused ---


@pytest.mark.parametrize(
    ("data", "code", "type"),
    [
        (b"hello", 415, "UnsupportedImage"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", 415, "UnsupportedImage"),
        (encoded(noise(), "PDF"), 415, "UnsupportedImage"),
        (encoded(noise(), "ICO"), 415, "UnsupportedImage"),
        (encoded(noise(), "JPEG")[:700], 400, "BrokenImage"),
        (encoded(noise(), "PNG")[:1500], 400, "BrokenImage"),
        (encoded(noise(), "WEBP")[:300], 400, "BrokenImage"),
        (encoded(noise(), "TIFF")[:500], 400, "BrokenImage"),
        (b"x" * 1_000_001, 413, "FileTooLarge"),
        (encoded(Image.new("1", (20_000, 20_000)), "PNG"), 413, "ImageTooLarge"),
        (encoded(Image.new("RGB", (1001, 1000)), "JPEG"), 413, "ImageTooLarge"),
    ],
    ids=["text", "eps", "pdf", "ico", "cut jpeg", "cut png", "cut webp", "cut tiff", "bytes", "bomb", "one column too many"],
)
def test_what_cannot_be_decoded_says_why(data, code, type):
    with pytest.raises(InputError) as caught:
        decode(data)
    assert (caught.value.code, caught.value.type) == (code, type)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "TIFF", "JPEG2000", "BMP"])
def test_a_bomb_is_refused_before_memory_is_taken(format):
    data = encoded(Image.new("L", (8000, 8000)), format)
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            decode(data, limits=Limits(100_000_000, 1_000_000, 1, 5))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.type == "ImageTooLarge"
    assert peak < len(data) + 1_000_000


def test_an_image_at_the_limit_is_decoded():
    assert decode(encoded(Image.new("RGB", (1000, 1000)), "JPEG")).size == (1000, 1000)


def many_scans() -> bytes:
    """A progressive JPEG of 900 x 900 pixels whose refinement scan is there 20,000 times: 200 kB, minutes of decoding."""
    data = encoded(Image.new("L", (900, 900)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 3000 + data[-2:]


def test_decoding_ends_at_its_deadline():
    with pytest.raises(InputError) as caught:
        decode(many_scans(), limits=Limits(10_000_000, 1_000_000, 1, 0.2))
    assert (caught.value.code, caught.value.type) == (413, "DecodeTimeout")


def test_the_clock_is_looked_at_while_decoding(monkeypatch):
    looked = []
    monkeypatch.setattr(time, "monotonic", lambda: looked.append(None) or float(len(looked)))  # a second passes at each look
    with pytest.raises(InputError) as caught:
        decode(many_scans(), limits=Limits(10_000_000, 1_000_000, 1, 8))
    assert caught.value.type == "DecodeTimeout"
    assert len(looked) == 10  # it is made, eight looks are in time, the next is not
