"""The result of a format's reader: what the decoder gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Source:
    """A file for Pillow to decode."""

    data: bytes
    rawmode: str | None = None  # how Pillow is to unpack the samples, where it is not to decide that itself
    of_bytes: bool = (
        False  # its pixels are bytes of samples: several for each of the picture, whose number the reader has checked
    )
    block: int | None = None  # how many bytes the decoder reads between two looks at the clock, where the reader is to say that


@dataclass(frozen=True)
class Readable:
    """The files that hold the pixels of a picture (usually one), and how their decoded images are combined."""

    sources: tuple[Source, ...]
    pixels: int  # of the picture, as its header says
    orientation: int | None = None  # as in EXIF; None: where Pillow finds the metadata itself
    finish: Callable[..., Image.Image] | None = None  # takes the decoded image of each source
