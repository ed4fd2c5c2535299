"""The refusals of what a file says, before memory is taken for it."""

from __future__ import annotations

from vit_core.errors import InputError
from vit_core.settings import Limits


def check_pixels(width: int, height: int, limits: Limits) -> None:
    """Raises InputError 413 for an image, or a part of one that a decoder makes whole, of more pixels than are allowed."""
    if width * height > limits.max_pixels:
        message = f"an image of {width} x {height} pixels: {limits.max_pixels} in all are allowed"
        raise InputError(413, "ImageTooLarge", message)


def broken(format: str, reason: str) -> InputError:
    """The refusal of a file that is damaged, or of a kind of its format that is not read."""
    return InputError(400, "BrokenImage", f"the {format} image could not be decoded: {reason}")
