"""Reads the fields of a form as TorchServe's front end does: the same forms pass, and give the same bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl

from vit_core.body import MULTIPART, URLENCODED
from vit_core.errors import InputError
from vit_core.request import distinct

MOST_FIELDS = 1000  # the most fields of a form: archives allow far fewer images, and each field takes time
NAME = re.compile(rb';\s*name\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))', re.IGNORECASE)
BOUNDARY = re.compile(r';\s*boundary\s*=\s*(?:"([^"]+)"|([^;\s]+))', re.IGNORECASE)


def fields_of(body: bytes, headers: Mapping[str, str]) -> dict[str, bytes]:
    """Returns the fields of a form; any other body is the field `body`. The names of headers are in lower case.

    Raises InputError 400 for a form that is cut off, has a field without a name, or has too many fields.
    """
    kind = headers.get("content-type", "")
    boundary = BOUNDARY.search(kind)
    if kind.lower().startswith(MULTIPART) and boundary:
        found = list(_parts(body, (boundary[1] or boundary[2]).encode("latin-1")))
    elif kind.split(";")[0].strip().lower() == URLENCODED:
        found = _pairs(body)
    else:
        return {"body": body}
    names = distinct(name for name, _ in found)
    return {name: value for name, (_, value) in zip(names, found, strict=True)}


def _pairs(body: bytes) -> list[tuple[str, bytes]]:
    try:
        pairs = parse_qsl(body, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise _too_many() from error
    # A name alone, without "=", is no field: so a body that is no form has none, and gets the error that says so.
    return [(name.decode(errors="replace"), value) for name, value in pairs if b"=" in body]


def _parts(body: bytes, boundary: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields name and content of each part; none for a body that does not begin with the boundary. Lines may end without CR."""
    opening = b"--" + boundary
    start = re.match(rb"(?:\r?\n)*", body).end()
    if not body.startswith(opening, start):
        return
    at, count = start + len(opening), 0
    while not body.startswith(b"--", at):
        head = re.compile(rb"[ \t]*\r?\n((?:[^\r\n]+\r?\n)*)\r?\n").match(body, at)
        end = body.find(b"\n" + opening, head.end() - 1) if head else -1
        if end < 0:
            if count:
                raise InputError(400, "BadForm", f"the form is cut off, or damaged, behind its field {count}")
            return
        count += 1
        if count > MOST_FIELDS:
            raise _too_many()
        content = body[head.end() : end].removesuffix(b"\r") if end >= head.end() else b""
        yield _name(head[1]), content
        at = end + 1 + len(opening)


def _name(head: bytes) -> str:
    line = next((line for line in head.splitlines() if line.lower().startswith(b"content-disposition:")), b"")
    found = NAME.search(line)
    name = re.sub(rb"\\(.)", rb"\1", found[1]) if found and found[1] is not None else found[2] if found else b""
    if not name:
        raise InputError(400, "BadForm", "the form has a field without a name")
    return name.decode(errors="replace")


def _too_many() -> InputError:
    return InputError(400, "BadForm", f"the form has more than {MOST_FIELDS} fields")
