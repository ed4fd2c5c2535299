"""From what was sent to a request: the bytes of its images, its options, and the form that its answer takes."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from vit_core.errors import InputError

IMAGE_KEYS = ("data", "b64", "image", "image_bytes")


class Form(Enum):
    """How the answers to the images of one request go back."""

    ONE = auto()  # the answer itself
    LIST = auto()  # a list of answers
    PREDICTIONS = auto()  # {"predictions": a list of answers}, the V1 protocol of KServe and TensorFlow Serving


@dataclass(frozen=True)
class Sent:
    """One request as it was sent."""

    fields: Mapping[str, bytes]  # `body` is a raw body, other names are those of a form's fields
    headers: Mapping[str, str] = field(default_factory=dict)
    explains: bool = False  # asks for an explanation, not for a prediction


@dataclass(frozen=True)
class Request:
    """One request, read but not decoded. An option is None where the request leaves it to the archive."""

    images: list[bytes]
    form: Form = Form.ONE
    top_k: int | None = None
    threshold: float | None = None
    task: str | None = None  # what to answer with: classify or embed
    target: str | None = None  # the class to explain: a label, or its index
    method: str | None = None  # to explain with
    explains: bool = False
    accepts: tuple[str, ...] = ()  # types of content, as in the header Accept


def read_request(sent: Sent, max_images: int) -> Request:
    """Reads what was sent.

    Each field that is no option is an image file, or JSON that holds images in base64. Options are read from the fields or the
    JSON, else from headers: `X-Top-K` for `top_k`.
    Raises InputError 400 where the request is not understood, 413 for more than `max_images` images.
    """
    headers = {name.lower(): value for name, value in sent.headers.items() if isinstance(value, str)}  # others are of fields
    options = {name: headers.get(f"x-{name.replace('_', '-')}") for name in OPTIONS}
    images, form = [], Form.ONE
    for name, value in sent.fields.items():
        if name in OPTIONS:
            options[name] = bytes(value).decode(errors="replace")
            continue
        found, found_form, found_options = _read_value(value, headers)
        images += found
        form = found_form if found_form != Form.ONE else form
        options |= found_options
    if not images:
        raise InputError(400, "EmptyBody", "no image in the request: send one as the body, as a form field, or in JSON")
    if len(images) > max_images:
        raise InputError(413, "TooManyImages", f"{len(images)} images in one request: {max_images} are allowed")
    if form == Form.ONE and len(images) > 1:
        form = Form.LIST
    return Request(
        images,
        form,
        **{name: read(options[name]) for name, read in _READERS.items()},
        explains=sent.explains,
        accepts=tuple(each.split(";")[0].strip().lower() for each in headers.get("accept", "").split(",")),
    )


def _read_value(value: bytes, headers: Mapping[str, str]) -> tuple[list[bytes], Form, dict]:
    """Images, form and options in one body or field: an image file, a data URL, or JSON. No image file starts as those do."""
    start = bytes(value[:64]).lstrip()
    if not value:
        return [], Form.ONE, {}
    if start.startswith((b"{", b"[", b'"')):
        return _read_json(value)
    if start.startswith(b"data:"):
        return [_from_base64(bytes(value).decode(errors="replace"))], Form.ONE, {}
    if headers.get("content-type", "").startswith("application/json") and start[:1].isalnum() and start.isascii():
        return _read_json(value)  # says what is wrong with it
    return [value], Form.ONE, {}


def _read_json(value: bytes) -> tuple[list[bytes], Form, dict]:
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(400, "BadJSON", f"the body is not JSON: {reason}") from error
    if not isinstance(parsed, dict):
        images = parsed if isinstance(parsed, list) else [parsed]
        return [_from_json(image) for image in images], Form.LIST if isinstance(parsed, list) else Form.ONE, {}
    options = {name: parsed.pop(name) for name in OPTIONS if name in parsed}
    if "instances" in parsed:
        images, form = parsed.pop("instances"), Form.PREDICTIONS
        if not isinstance(images, list):
            raise InputError(400, "BadJSON", "'instances' should be a list of images")
    else:
        key = next((key for key in IMAGE_KEYS if key in parsed), None)
        if key is None:
            raise InputError(400, "BadJSON", f"no image in the JSON: expected one of {', '.join(IMAGE_KEYS)}, instances")
        images = parsed.pop(key)
        form = Form.LIST if isinstance(images, list) else Form.ONE
        images = images if isinstance(images, list) else [images]
    if parsed:
        known = ", ".join((*IMAGE_KEYS, "instances", *OPTIONS))
        raise InputError(400, "BadJSON", f"unknown key {next(iter(parsed))[:50]!r}: known are {known}")
    return [_from_json(image) for image in images], form, options


def _from_json(image: object) -> bytes:
    """The bytes of one image: base64 or a data URL, or an object that holds one: `{"b64": …}`, `{"image": {"b64": …}}`."""
    for _ in range(2):
        if isinstance(image, dict) and len(image) == 1 and next(iter(image)) in IMAGE_KEYS:
            image = next(iter(image.values()))
    if not isinstance(image, str):
        raise InputError(400, "BadJSON", f"an image should be base64 in a string, not {type(image).__name__}")
    return _from_base64(image)


def _from_base64(text: str) -> bytes:
    if text.startswith("data:"):
        kind, comma, text = text.partition(",")
        if not comma or not kind.endswith(";base64"):
            raise InputError(400, "BadBase64", "a data URL should be 'data:image/…;base64,' and base64 after it")
    try:
        # The alphabet for URLs counts too; line breaks are in what the command base64 prints.
        image = base64.b64decode("".join(text.split()).translate({45: 43, 95: 47}), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(400, "BadBase64", f"the image is not base64: {error}") from error
    if not image:
        raise InputError(400, "EmptyBody", "an image in the request is empty")
    return image


def _top_k(value: object) -> int | None:
    number = _number(value, "top_k", int)
    if number is not None and number < 1:
        raise InputError(400, "BadOption", f"top_k should be a whole number of at least 1, not {number}")
    return number


def _threshold(value: object) -> float | None:
    number = _number(value, "threshold", float)
    if number is not None and not 0 <= number <= 1:
        raise InputError(400, "BadOption", f"threshold should be a probability from 0 to 1, not {number}")
    return number


def _number(value: object, name: str, kind: type) -> int | float | None:
    if value is None:
        return None
    try:
        if isinstance(value, bool) or (kind is int and isinstance(value, float)):
            raise ValueError
        return kind(value)
    except (TypeError, ValueError) as error:
        wanted = "a whole number" if kind is int else "a number"
        raise InputError(400, "BadOption", f"{name} should be {wanted}, not {str(value)[:50]!r}") from error


def _text(value: object) -> str | None:
    return None if value is None else str(value)


_READERS = {"top_k": _top_k, "threshold": _threshold, "task": _text, "target": _text, "method": _text}
OPTIONS = tuple(_READERS)
