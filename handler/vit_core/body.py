"""Tells what a body or a form field holds: an image file, JSON, a data URL, base64, or a mistake that has a name."""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from vit_core.base64_text import begins_as_image, from_base64, is_base64_of_an_image
from vit_core.errors import InputError
from vit_core.options import OPTIONS, nearest, shown, unknown

IMAGE_KEYS = ("data", "b64", "image", "image_bytes")
URLENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
SENT_BY_CURL = "With curl: -H 'Content-Type: application/json' for JSON, -T FILE for an image"
ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # name → zlib's `wbits`
LONGEST_INTEGER = 20  # digits of an integer in JSON: Python refuses thousands of them, and no option needs more
LONGEST_TEXT = 1 << 16  # bytes of a field of unknown name that may be text; the handler takes a longer field for a file


class Form(Enum):
    """The form in which the answers for the images of one request are returned."""

    ONE = auto()  # the answer itself
    LIST = auto()  # a list of answers
    PREDICTIONS = auto()  # {"predictions": a list of answers}, the V1 protocol of KServe and TensorFlow Serving


@dataclass(frozen=True)
class Found:
    """The contents of one body or field. Its images are files, or base64 that is not decoded yet."""

    images: list[bytes | str]
    form: Form = Form.ONE
    options: Mapping[str, object] = field(default_factory=dict)


def decompressed(body: bytes, headers: Mapping[str, str], max_bytes: int) -> bytes:
    """Undoes the body's Content-Encoding. Raises InputError 415 for an unsupported encoding, 400 for a damaged body, and 413 if
    the result exceeds `max_bytes`.
    """
    encodings = [each.strip().lower() for each in headers.get("content-encoding", "").split(",")]
    encodings = [each for each in encodings if each not in ("", "identity")]
    if not encodings:
        if bytes(body[:3]) == b"\x1f\x8b\x08":
            raise InputError(415, "UnsupportedEncoding", "the body is compressed: say so with Content-Encoding: gzip")
        return body
    if len(encodings) > 1 or encodings[0] not in ENCODINGS:
        named = ", ".join(encodings)[:50]
        raise InputError(415, "UnsupportedEncoding", f"Content-Encoding {named!r} is not supported: send gzip, deflate or none")
    bits = ENCODINGS[encodings[0]]
    if encodings[0] == "deflate" and (body[0] & 15 != 8 or int.from_bytes(body[:2]) % 31):  # as RFC 9110 warns: no zlib header
        bits = -bits
    stream = zlib.decompressobj(bits)
    try:
        whole = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise InputError(400, "BadEncoding", f"the body is not {encodings[0]}: {error}") from error
    if len(whole) > max_bytes:
        raise InputError(413, "FileTooLarge", f"the body has more than {max_bytes} bytes once it is decompressed")
    if not stream.eof or stream.unused_data:
        end = "cut off" if not stream.eof else "followed by something else"
        raise InputError(400, "BadEncoding", f"the body's {encodings[0]} is {end}")
    return whole


def check_form(fields: Mapping[str, bytes], headers: Mapping[str, str]) -> None:
    """Raises InputError 400 if the body claims to be a form and is not one, as far as TorchServe lets such bodies through."""
    kind = headers.get("content-type", "").lower()
    if not kind.startswith((URLENCODED, MULTIPART)):
        return
    if not fields and headers.get("content-length", "0").strip() not in ("", "0"):
        if headers.get("content-encoding"):
            raise InputError(415, "UnsupportedEncoding", "a form cannot be compressed here: send the image or JSON as the body")
        if kind.startswith(MULTIPART):
            boundary = kind.partition("boundary=")[2].split(";")[0]
            raise InputError(
                400, "BadForm", f"the body has no part with the boundary {shown(boundary)} that its Content-Type names"
            )
        raise InputError(400, "BadForm", f"the Content-Type is {URLENCODED}, and the body has no field. {SENT_BY_CURL}")
    if kind.startswith(URLENCODED):
        for name, value in fields.items():
            if name.lstrip()[:1] in ("{", "[", '"') or (not value and (len(name) > 100 or not name.isprintable())):
                raise InputError(400, "BadForm", f"the Content-Type is {URLENCODED}, and the body is no form. {SENT_BY_CURL}")


def read_field(name: str, value: bytes, headers: Mapping[str, str]) -> Found:
    """Reads the field `name`; the name `body` stands for the body itself. Raises InputError 400 or 415 if the contents have
    none of the supported forms.
    """
    is_body, kind = name == "body", headers.get("content-type", "")
    if not value:
        if is_body:
            return Found([])
        raise InputError(400, "EmptyBody", f"the field {shown(name)} is empty")
    if begins_as_image(bytes(value[:16])):
        return Found([value])
    start = _text_start(value).lstrip()
    if start.startswith(("{", "[", '"')):
        return _read_json(value)
    if kind.lower().startswith(URLENCODED):
        value = bytes(value).replace(b" ", b"+")  # a plus sign of base64 that the client has not encoded
    if start[:5].lower() == "data:":
        return Found([bytes(value).decode(errors="replace").lstrip("\ufeff")])
    if is_base64_of_an_image(value):
        return Found([bytes(value).decode("utf-8-sig", errors="replace")])
    if is_body and start.startswith("--") and b"content-disposition:" in bytes(value[:2048]).lower():
        wrong = "names no boundary" if kind.lower().startswith(MULTIPART) else f"is {shown(kind)}"
        raise InputError(
            400, "BadForm", f"the body is {MULTIPART}, and its Content-Type {wrong}: let the client set that header"
        )
    if kind.startswith("application/json") and start[:1].isalnum() and start.isascii():
        return _read_json(value)  # says what is wrong with it
    if not is_body and name not in IMAGE_KEYS and _is_text(value):
        raise InputError(400, "UnknownField", unknown("field", name, (*OPTIONS, *IMAGE_KEYS)))
    return Found([value])


def _text_start(value: bytes) -> str:
    """Decodes the first characters, in the encoding that JSON would use."""
    start = bytes(value[:64])
    # Incremental: the last of these characters may be cut in two.
    return codecs.getincrementaldecoder(json.detect_encoding(start))("replace").decode(start).lstrip("\ufeff")


def _is_text(value: bytes) -> bool:
    try:
        return len(value) <= LONGEST_TEXT and re.sub(r"\s", "", bytes(value).decode()).isprintable()
    except UnicodeDecodeError:
        return False


def _read_json(value: bytes) -> Found:
    try:
        parsed = json.loads(value, object_pairs_hook=_object, parse_constant=_no_number, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(400, "BadJSON", f"the body is not JSON: {reason[:200]}") from error
    if not isinstance(parsed, dict):
        images = parsed if isinstance(parsed, list) else [parsed]
        return Found([_image_in(image) for image in images], Form.LIST if isinstance(parsed, list) else Form.ONE)
    options = {name: parsed.pop(name) for name in OPTIONS if name in parsed}
    keys = [key for key in ("instances", *IMAGE_KEYS) if key in parsed]
    if not keys:
        meant = next((close for key in parsed if (close := nearest(key, (*IMAGE_KEYS, "instances")))), None)
        hint = f": did you mean {meant!r}?" if meant else ""
        raise InputError(400, "BadJSON", f"no image in the JSON: expected one of {', '.join(IMAGE_KEYS)}, instances{hint}")
    if len(keys) > 1:
        raise InputError(400, "BadJSON", f"{keys[0]!r} and {keys[1]!r} both hold images: use one of them, with a list")
    images = parsed.pop(keys[0])
    if keys[0] == "instances" and not isinstance(images, list):
        raise InputError(400, "BadJSON", "'instances' should be a list of images")
    if parsed:
        raise InputError(400, "BadJSON", unknown("key", next(iter(parsed)), (*IMAGE_KEYS, "instances", *OPTIONS)))
    form = Form.PREDICTIONS if keys[0] == "instances" else Form.LIST if isinstance(images, list) else Form.ONE
    return Found([_image_in(image) for image in (images if isinstance(images, list) else [images])], form, options)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shown(twice)} is there twice")
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= LONGEST_INTEGER else float(digits)


def _image_in(image: object) -> str:
    """Finds the base64 or data URL of one image in JSON, also in an object: `{"b64": …}`, `{"image": {"b64": …}}`."""
    for _ in range(2):
        if isinstance(image, dict) and len(image) == 1 and next(iter(image)) in IMAGE_KEYS:
            image = next(iter(image.values()))
    if not isinstance(image, str):
        raise InputError(400, "BadJSON", f"an image should be base64 in a string, not {type(image).__name__}")
    return image


def file_of(image: bytes | str) -> bytes:
    """Returns the image file for one of `Found.images`, which is a file already or base64."""
    return from_base64(image) if isinstance(image, str) else image
