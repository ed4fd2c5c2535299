"""One request as bytes, what came back for it, and where both differ."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import requests

OURS = ("content-type", "x-class", "x-shape", "x-dtype")  # headers of an answer that a client may go by


@dataclass(frozen=True)
class Case:
    """A request to `path`, in which `MODEL` stands for the model's name."""

    name: str
    path: str
    headers: dict[str, str]  # with names in lower case
    body: bytes
    token: bool = True  # whether the request carries the server's token
    method: str = "POST"

    @classmethod
    def of(cls, name: str, path: str = "/predictions/MODEL", *, token: bool = True, method: str = "POST", **options) -> Case:
        """From what `requests.request` takes: data, json, files, headers. The boundary of a form is fixed here."""
        prepared = requests.Request(method, "http://localhost", **options).prepare()
        headers = {name.lower(): _text(value) for name, value in prepared.headers.items()}
        body = prepared.body or b""
        return cls(name, path, headers, body.encode() if isinstance(body, str) else body, token, method)


@dataclass(frozen=True)
class Got:
    """What came back: `body` is parsed JSON, the numbers of a raw embedding, or bytes."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: object = b""

    @classmethod
    def of(cls, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> Got:
        kept = {name.lower(): value for name, value in headers if name.lower() in OURS}
        if kept.get("content-type", "").startswith("application/json"):
            return cls(status, kept, json.loads(body))
        return cls(status, kept, np.frombuffer(body, kept["x-dtype"]).tolist() if "x-dtype" in kept else body)


def difference(one: Got, other: Got, tolerance: float = 0) -> str | None:
    """Where two answers differ, in a line; None where they do not. Numbers may differ by `tolerance`."""
    if one.status != other.status:
        return f"status {one.status} and {other.status}: {_short(one.body)} and {_short(other.body)}"
    if one.headers != other.headers:
        return f"headers {one.headers} and {other.headers}"
    return between(one.body, other.body, tolerance)


def between(one: object, other: object, tolerance: float, place: str = "the answer") -> str | None:
    """Where two bodies, or what is like them, differ."""
    if isinstance(one, float) and isinstance(other, float) and abs(one - other) <= tolerance:
        return None
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        if list(one) != list(other) and not tolerance:
            return f"{place}: in another order: {_short(list(one))} and {_short(list(other))}"
        pairs = [(one[key], other[key], f"{place}, {key}") for key in one]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(*each, f"{place}, {index}") for index, each in enumerate(zip(one, other, strict=True))]
    else:
        return None if one == other else f"{place}: {_short(one)} and {_short(other)}"
    return next(filter(None, (between(a, b, tolerance, where) for a, b, where in pairs)), None)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
