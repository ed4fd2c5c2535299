"""Reads a request from what the client sent: the bytes of its images, its options, and the form of its answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vit_core.body import IMAGE_KEYS, Form, check_form, decompressed, file_of, read_field
from vit_core.errors import InputError
from vit_core.options import OPTIONS, options_of, read_options
from vit_core.settings import Limits

__all__ = ["IMAGE_KEYS", "OPTIONS", "Form", "Request", "Sent", "distinct", "read_request"]

ROUTING = "model_name"  # TorchServe's /invocations takes the model's name as a parameter, and passes it on as a field


@dataclass(frozen=True)
class Sent:
    """One request as the client sent it."""

    fields: Mapping[str, bytes]  # `body` is a raw body; the other names are fields of a form
    headers: Mapping[str, str] = field(default_factory=dict)
    explains: bool = False  # whether the request asks for an explanation


@dataclass(frozen=True)
class Request:
    """One request that is read but not decoded. An option is None if the request leaves it to the archive."""

    images: list[bytes]
    form: Form = Form.ONE
    top_k: int | None = None
    threshold: float | None = None
    task: str | None = None  # classify or embed
    target: str | None = None  # the class to explain: a label, or its index
    method: str | None = None  # to explain with
    raw_scores: bool | None = None  # whether to answer with the model's outputs before the activation of the head
    explains: bool = False
    accept: str = ""  # the header Accept


def read_request(sent: Sent, max_images: int, max_bytes: int = Limits.max_bytes) -> Request:
    """Reads one request.

    Each field that is not an option is an image file, base64, or JSON that contains images in base64. Options come from the
    fields or the JSON, else from headers: `X-Top-K` for `top_k`. Raises InputError 400 or 415 if the request cannot be
    understood, and 413 for more than `max_images` images or a decompressed body of more than `max_bytes`.
    """
    headers = {name.lower(): value for name, value in sent.headers.items() if isinstance(value, str)}  # others are of fields
    check_form(sent.fields, headers)
    options: dict[str, object] = options_of(headers)
    images, form = [], Form.ONE
    for name, value in sent.fields.items():
        if name == ROUTING:
            continue
        if name in OPTIONS:
            options[name] = bytes(value).decode(errors="replace")
            continue
        _check_once(name)
        found = read_field(name, decompressed(value, headers, max_bytes) if name == "body" and value else value, headers)
        images += found.images
        form = found.form if found.form != Form.ONE else form
        options |= found.options
    if not images:
        raise InputError(400, "EmptyBody", "no image in the request: send one as the body, as a form field, or in JSON")
    if len(images) > max_images:
        what = "images to explain" if sent.explains else "images"
        raise InputError(413, "TooManyImages", f"the request has {len(images)} {what}: at most {max_images} are allowed")
    if form == Form.ONE and len(images) > 1:
        form = Form.LIST
    values = read_options(options)  # first, since decoding is more work
    return Request(
        [file_of(image) for image in images],
        form,
        **values,
        explains=sent.explains,
        accept=headers.get("accept", ""),
    )


def distinct(names: Iterable[str]) -> list[str]:
    """Makes the names of a form's fields distinct, in order: a repeated name gets its position, as in `data 1`."""
    found: list[str] = []
    seen: set[str] = set()
    for position, name in enumerate(names):
        while name in seen:
            name = f"{name} {position}"
        seen.add(name)
        found.append(name)
    return found


def _check_once(name: str) -> None:
    """Raises InputError 400 if a form has an option twice; by now the second one has a number in its name."""
    option, _, number = name.partition(" ")
    if option in OPTIONS and number.isdigit():
        raise InputError(400, "BadOption", f"{option} is there twice")
