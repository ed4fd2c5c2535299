"""The result of a format's reader: what the decoder gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Source:
    """A file for Pillow to decode."""

    data: bytes
    rawmode: str | None = None  # the mode in which Pillow unpacks the samples; None: Pillow decides
    of_bytes: bool = False  # its pixels are bytes of samples, several for each pixel; the reader has checked their number
    block: int | None = None  # bytes that the decoder reads between two looks at the clock; None: the usual number


@dataclass(frozen=True)
class Readable:
    """The files that hold the pixels of a picture (usually one), and how their decoded images are combined."""

    sources: tuple[Source, ...]
    pixels: int  # of the picture, from its header
    orientation: int | None = None  # as in EXIF; None: Pillow finds it in the metadata
    finish: Callable[..., Image.Image] | None = None  # converts the decoded image of each source
