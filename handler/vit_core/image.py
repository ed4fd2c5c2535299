"""Decodes the bytes of an image file to an RGB or grey image of 8 bits, within limits."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import time
import warnings
from collections.abc import Iterator

from PIL import Image

from vit_core.bounds import broken, check_bytes, check_pixels, reason
from vit_core.errors import InputError
from vit_core.files import avif, bmp, gif, jpeg, jpeg2000, png, ppm, tiff, webp
from vit_core.files.readable import Readable, Source
from vit_core.formats import FORMATS, identify
from vit_core.orientation import from_metadata, upright
from vit_core.quiet import silence_libtiff
from vit_core.samples import grey_of_eight_bits
from vit_core.settings import Limits
from vit_core.transparency import over_white

__all__ = ["FORMATS", "Deadline", "decode"]

# Several threads decode images at once. They decode images of more pixels than this one at a time, to bound the memory.
LARGE = 4_000_000
# Above this number of pixels a file is read in pieces of 16 KiB, so that the clock is checked more often; 64 KiB are faster.
QUICK = 300_000
_large_images = threading.Lock()

_READERS = {
    "AVIF": avif.read,
    "BMP": bmp.read,
    "GIF": gif.read,
    "JPEG": jpeg.read,
    "JPEG2000": jpeg2000.read,
    "PNG": png.read,
    "PPM": ppm.read,
    "TIFF": tiff.read,
    "WEBP": webp.read,
}

Image.init()  # registers the formats
Image.MAX_IMAGE_PIXELS = None  # `Limits.max_pixels` takes its place
warnings.filterwarnings("ignore", module="PIL")  # Pillow would log odd metadata for each such image
silence_libtiff()


class Deadline:
    """The deadline for decoding one request. The time starts when the object is created."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @contextlib.contextmanager
    def waiting_for(self, lock: threading.Lock) -> Iterator[None]:
        """Holds `lock`. The time spent waiting for it does not count."""
        start = time.monotonic()
        with lock:
            self._end += time.monotonic() - start
            yield

    def check(self) -> None:
        """Raises InputError 413 if the time is over."""
        if time.monotonic() > self._end:
            raise InputError(413, "DecodeTimeout", f"decoding took longer than {self.seconds:g} s")


class _Stream(io.BytesIO):
    """Bytes that cannot be read after the deadline; decoders read them piece by piece."""

    def __init__(self, data: bytes, deadline: Deadline):
        super().__init__(data)
        self._deadline = deadline

    def read(self, size: int | None = -1) -> bytes:
        self._deadline.check()
        return super().read(size)


def decode(data: bytes, channels: int, limits: Limits, deadline: Deadline, least_edge: int | None = None) -> Image.Image:
    """Decodes the image in `data` to Pillow mode RGB (3 channels) or L (1); of an animation, the first frame.

    With `least_edge`, a JPEG may be decoded at a half, a quarter or an eighth of its size, with no edge shorter than
    `least_edge`: its decoder then skips the rest of the work.

    A plain RGB image comes out as timm's `Image.open(...).convert("RGB")` decodes it. Three things differ, because they change
    what a person sees in the picture. The camera's orientation is applied. Transparency is laid over white, where `convert`
    would show whatever colour hides under it (mostly black: black ink on black). Samples of more than 8 bits are scaled to 8,
    where `convert` would clip all above 255, which turns most of them white.

    Raises InputError 415 for an unsupported format, 413 for an image beyond the limits (by its header, before memory is
    allocated for its pixels), and 400 for a broken file.
    """
    check_bytes(len(data), limits)
    data = bytes(data)
    format = identify(data)
    readable = _read(data, format, limits)
    deadline.check()
    try:
        with deadline.waiting_for(_large_images) if readable.pixels > LARGE else contextlib.nullcontext():
            return _picture(readable, format, "RGB" if channels == 3 else "L", limits, deadline, least_edge)
    except InputError as error:
        refusal = error.with_traceback(None)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others
        refusal = _late(deadline) or broken(format, reason(error))
    # Raised here, the error does not keep the other error alive, nor the frames that hold the image.
    try:
        raise refusal
    finally:
        del refusal


def _late(deadline: Deadline) -> InputError | None:
    """Returns the timeout error if the time is over: OpenJPEG, whose stream then ends, reports a broken file."""
    try:
        deadline.check()
    except InputError as error:
        return error.with_traceback(None)
    return None


def _read(data: bytes, format: str, limits: Limits) -> Readable:
    """Runs the format's reader. Raises InputError, also if the reader came upon the end of the file or a place outside it."""
    try:
        return _READERS[format](data, limits)
    except (IndexError, OverflowError, struct.error):
        raise broken(format, "it is cut off, or its headers are damaged") from None


def _picture(
    readable: Readable, format: str, mode: str, limits: Limits, deadline: Deadline, least_edge: int | None
) -> Image.Image:
    """Returns the picture in `mode`, upright."""
    images = [_open(source, format, limits, deadline, least_edge) for source in readable.sources]
    for image in images:
        image.load()
        deadline.check()
    orientation = readable.orientation
    if orientation is None:
        orientation = from_metadata(images[0].info.get("exif"), images[0].info.get("xmp"))
    picture = readable.finish(*images) if readable.finish else images[0]
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        picture = grey_of_eight_bits(picture)
    picture = over_white(upright(picture, orientation))
    deadline.check()
    return picture if picture.mode == mode else picture.convert(mode)  # convert would copy it


def _open(source: Source, format: str, limits: Limits, deadline: Deadline, least_edge: int | None) -> Image.Image:
    """Opens a source: reads the header of its image, and not yet its pixels."""
    # The plugin itself, since `Image.open` says of any fault that the file cannot be identified.
    plugin, _ = Image.OPEN[format]
    image = plugin(_Stream(source.data, deadline))
    if not source.of_bytes:
        check_pixels(image.width, image.height, limits)
    if source.block:
        image.decodermaxblock = source.block
    elif image.width * image.height > QUICK:
        image.decodermaxblock = 1 << 14
    if least_edge:
        image.draft(None, (least_edge, least_edge))
    if source.rawmode:
        image.tile = [tile._replace(args=source.rawmode) for tile in image.tile]
    return image
