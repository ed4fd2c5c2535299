"""From the bytes of an image file to an RGB or grey image of 8 bits, within limits."""

from __future__ import annotations

import contextlib
import io
import math
import threading
import time
import warnings
from collections.abc import Iterator

from PIL import Image

from vit_core.errors import InputError
from vit_core.settings import Limits

# Decoders that read pixels from the bytes alone. EPS, for one, would run Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")

# What to do with an image that says so in its EXIF data, to have it upright.
EXIF_ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Images are decoded in several threads at once. Those of more pixels than this are one at a time: they take the memory.
LARGE = 4_000_000
# The file of an image of more pixels than this is read in pieces of 16 KiB, for a nearer look at the clock; 64 KiB are faster.
QUICK = 300_000
_large_images = threading.Lock()

Image.init()  # registers the formats
Image.MAX_IMAGE_PIXELS = None  # `Limits.max_pixels` takes its place
warnings.filterwarnings("ignore", module="PIL")  # about odd metadata, in the log, for each such image


class Deadline:
    """The end of the time that a request has for decoding. It starts when it is made."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @contextlib.contextmanager
    def waiting_for(self, lock: threading.Lock) -> Iterator[None]:
        """Holds `lock`; the time until it is free does not count."""
        start = time.monotonic()
        with lock:
            self._end += time.monotonic() - start
            yield

    def check(self) -> None:
        """Raises InputError 413 when the time is over."""
        if time.monotonic() > self._end:
            raise InputError(413, "DecodeTimeout", f"decoding took longer than {self.seconds:g} s")


class _Stream(io.BytesIO):
    """Bytes that cannot be read any more after the deadline: decoders read them piece by piece."""

    def __init__(self, data: bytes, deadline: Deadline):
        super().__init__(data)
        self._deadline = deadline

    def read(self, size: int | None = -1) -> bytes:
        self._deadline.check()
        return super().read(size)


def decode(data: bytes, channels: int, limits: Limits, deadline: Deadline, least_edge: int | None = None) -> Image.Image:
    """The image in `data` as Pillow mode RGB (3 channels) or L (1); of an animation the first frame.

    With `least_edge`, a JPEG may come out at a half, a quarter or an eighth of its size, with no edge shorter than that: its
    decoder then leaves out the work for the rest.

    A plain RGB image comes out as timm's `Image.open(...).convert("RGB")` has it. Three things differ, since they change what
    a person sees in the picture: a camera's EXIF orientation is applied; transparency is laid over white, where `convert`
    would show whatever colour hides under it (black, mostly: black ink on black); and samples of more than 8 bits are scaled
    to 8, where `convert` would cut off all above 255, which leaves most of them white.

    Raises InputError 415 for a format that is not read, 413 for an image beyond the limits (from its header, before memory is
    taken for its pixels), 400 for a file that is broken.
    """
    if len(data) > limits.max_bytes:
        raise InputError(413, "FileTooLarge", f"an image file of {len(data)} bytes: {limits.max_bytes} are allowed")
    try:
        image = Image.open(_Stream(data, deadline), formats=FORMATS)
    except InputError:
        raise
    except Exception as error:
        if format := _begins_as(data):
            raise InputError(
                400,
                "BrokenImage",
                f"the {format} image could not be decoded: it is damaged, cut off, or of a kind not read here",
            ) from error
        formats = ", ".join(FORMATS)
        raise InputError(415, "UnsupportedImage", f"not an image in a format that is read here ({formats})") from error
    if image.width * image.height > limits.max_pixels:
        raise InputError(
            413,
            "ImageTooLarge",
            f"an image of {image.width} x {image.height} pixels: {limits.max_pixels} in all are allowed",
        )
    if image.width * image.height > QUICK:
        image.decodermaxblock = 1 << 14
    if least_edge:
        image.draft(None, (least_edge, least_edge))
    large = image.width * image.height > LARGE
    try:
        with deadline.waiting_for(_large_images) if large else contextlib.nullcontext():
            image.load()
            deadline.check()
            return _convert(_upright(image), "RGB" if channels == 3 else "L")
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others
        reason = str(error) or type(error).__name__
        raise InputError(400, "BrokenImage", f"the {image.format} image could not be decoded: {reason}") from error


def _begins_as(data: bytes) -> str | None:
    """The format that the first bytes are of."""
    for format in FORMATS:
        _, accept = Image.OPEN[format]
        if accept and accept(bytes(data[:16])) is True:
            return format
    return None


def _upright(image: Image.Image) -> Image.Image:
    orientation = image.getexif().get(EXIF_ORIENTATION)
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)  # convert would copy it


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 or 32 bits, or of floats, as 0..255.

    16 bits are 0..65535. Others do not say what their white is: 1 for floats, 255 or 65535 if none is above it; an image with
    values outside of those is stretched from its darkest to its brightest.
    """
    low, high = 0, 65535
    if image.mode in ("I", "F"):
        values = image.getextrema()
        if not all(map(math.isfinite, values)):
            raise ValueError("it holds values that are not numbers")
        whites = [white for white in ((1, 255, 65535) if image.mode == "F" else (255, 65535)) if values[1] <= white]
        low, high = (0, whites[0]) if whites and values[0] >= 0 else values
    scale = 255 / (high - low) if high > low else 0
    # Half a step more, since the conversion to L cuts off what is behind the point.
    return image.convert("F").point(lambda value: value * scale + (0.5 - low * scale)).convert("L")
