"""Refuses files by what their headers say, before a decoder allocates memory for them."""

from __future__ import annotations

import re
import struct

from vit_core.errors import InputError
from vit_core.settings import Limits

# Pixels of an edge. Pillow keeps eight bytes for each row in each copy that it makes, twice what a narrow picture itself takes;
# and it fills up a row of a BMP that is packed by runs byte by byte, without a look at the clock.
LONGEST_EDGE = 1 << 20


def check_bytes(size: int, limits: Limits) -> None:
    """Raises InputError 413 if an image file has more bytes than the limit."""
    if size > limits.max_bytes:
        raise InputError(413, "FileTooLarge", f"the image file has {size} bytes: at most {limits.max_bytes} are allowed")


def check_pixels(width: int, height: int, limits: Limits) -> None:
    """Raises InputError 413 if an image has more pixels than the limit, or too long an edge.

    The same limits apply to a part of an image that a decoder allocates as a whole.
    """
    if width * height > limits.max_pixels:
        message = f"the image has {width} x {height} pixels: at most {limits.max_pixels} in all are allowed"
        raise InputError(413, "ImageTooLarge", message)
    if max(width, height) > LONGEST_EDGE:
        message = f"the image has {width} x {height} pixels: at most {LONGEST_EDGE} along an edge are allowed"
        raise InputError(413, "ImageTooLarge", message)


def broken(format: str, reason: str) -> InputError:
    """Returns the error for a file that is damaged, or that uses an unsupported feature of its format."""
    return InputError(400, "BrokenImage", f"the {format} image could not be decoded: {reason}")


def reason(error: Exception) -> str:
    """Says in words what Pillow's `error` means. Some of Pillow's messages are only numbers, some only Python's own."""
    if isinstance(error, SyntaxError) and isinstance(error.args[0] if error.args else None, Exception):
        error = error.args[0]  # as Pillow raises what its readers of headers came upon
    if isinstance(error, struct.error | LookupError | TypeError) or "invalid literal" in str(error):
        return "it is cut off, or its headers are damaged"
    if str(error) == "not identified by this driver":
        return "its header is damaged"
    if str(error) == "cannot load this image":
        return "it has no pixels"
    if re.fullmatch(r"decoder error -\d+", str(error)):
        return "its pixels are damaged, or packed in a way that is not supported"
    return str(error) or type(error).__name__
