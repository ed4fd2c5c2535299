"""Reads images that are sent as text: base64 in the forms that programs write, and data URLs."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote

from vit_core.errors import InputError

# The alphabet, the one for URLs, and line breaks. Fewer characters than the least here cannot hold an image file.
_BASE64 = re.compile(rb"[A-Za-z0-9+/_\r\n-]{24,}={0,2}")
_IMAGE = re.compile(
    rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF|BM|II[*+]\0|MM\0[*+]|....ftyp|\0\0\0\x0cjP|\xff\x4f\xff\x51|P[1-6]\s", re.DOTALL
)


def begins_as_image(start: bytes) -> bool:
    """Whether these first bytes are those of a supported image format."""
    return bool(_IMAGE.match(start))


def is_base64_of_an_image(text: bytes) -> bool:
    """Whether the text begins like base64 of a supported image format."""
    start = bytes(text[:96]).removeprefix(b"\xef\xbb\xbf").strip()
    if begins_as_image(start) or not (found := _BASE64.match(start)):
        return False
    characters = re.sub(rb"[\r\n]", b"", found[0])[:24].replace(b"-", b"+").replace(b"_", b"/")
    return len(characters) == 24 and b"=" not in characters and begins_as_image(base64.b64decode(characters))


def from_base64(text: str) -> bytes:
    """Decodes base64 with or without padding, in either alphabet, with line breaks, or in a data URL.

    Raises InputError 400 if the text is not base64, or is empty.
    """
    text = text.strip().removeprefix("\ufeff")
    if text[:5].lower() == "data:":
        kind, comma, text = text.partition(",")
        if not comma or not kind.lower().endswith(";base64"):
            raise InputError(400, "BadBase64", "a data URL should be 'data:image/…;base64,' and base64 after it")
        text = unquote(text)
    characters = "".join(text.split()).translate({45: 43, 95: 47}).rstrip("=")
    try:
        image = base64.b64decode(characters + "=" * (-len(characters) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(400, "BadBase64", f"the image is not base64: {error}") from error
    if not image:
        raise InputError(400, "EmptyBody", "an image in the request is empty")
    return image
