"""The options of a request: their names, where they come from, and the values that they take."""

from __future__ import annotations

import contextlib
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

from vit_core.errors import InputError

# How similar an unknown header must be to a known one to count as a typo: `X-Topk` is, another program's `X-Task-Id` is not.
ALIKE = 0.85
SHOWN = 50  # the most characters of a value that a message repeats


def options_of(headers: Mapping[str, str]) -> dict[str, str | None]:
    """Returns the options in the headers (names in lower case): `x-top-k` for `top_k`. Raises InputError 400 for a misspelt
    name.
    """
    ours = {f"x-{name.replace('_', '-')}": name for name in OPTIONS}
    for name in headers:
        if name.startswith("x-") and name not in ours and (meant := nearest(name, ours, ALIKE)):
            raise InputError(400, "BadOption", f"the header {shown(name)} is not known: did you mean {meant!r}?")
    return {name: header_text(headers[header]) if header in headers else None for header, name in ours.items()}


def header_text(value: str) -> str:
    """Decodes the value of a header: UTF-8, Latin-1 (as which TorchServe reads it), or percent-encoded, also as in RFC 8187."""
    with contextlib.suppress(UnicodeError):  # Latin-1, or decoded already
        value = value.encode("latin-1").decode()
    return unquote(re.sub(r"^utf-8'[^']*'", "", value, flags=re.IGNORECASE))


def nearest(name: str, known: Iterable[str], alike: float = 0.7) -> str | None:
    """Returns the known name that `name` resembles."""
    found = difflib.get_close_matches(name[:SHOWN].lower(), known, 1, alike)
    return found[0] if found else None


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Returns a sentence about a name that is not among `known`."""
    meant = nearest(name, known)
    return f"unknown {what} {shown(name)}: {f'did you mean {meant!r}? ' if meant else ''}known are {', '.join(known)}"


def shown(value: object) -> str:
    """Returns what the client sent, short enough for a message."""
    return repr(str(value)[:SHOWN])


def read_options(options: Mapping[str, object]) -> dict[str, object]:
    """Returns the values of the options, each in its type; None where the request leaves an option to the archive.

    Raises InputError 400 for a value that an option cannot have.
    """
    return {name: None if options[name] is None else read(options[name]) for name, read in _READERS.items()}


def _top_k(value: object) -> int:
    whole = isinstance(value, int) or (isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]+\s*", value))
    if isinstance(value, bool) or not whole or len(str(value)) > SHOWN:
        raise InputError(400, "BadOption", f"top_k should be a whole number, not {shown(value)}")
    if int(value) < 1:
        raise InputError(400, "BadOption", f"top_k should be a whole number of at least 1, not {int(value)}")
    return int(value)


def _threshold(value: object) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(400, "BadOption", f"threshold should be a number, not {shown(value)}") from error
    if not math.isfinite(number):
        raise InputError(400, "BadOption", f"threshold should be a number, not {number}")
    return number


def _raw_scores(value: object) -> bool:
    known = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
    asked = value.lower() if isinstance(value, str) else value
    if not isinstance(asked, (str, bool)) or asked not in known:
        raise InputError(400, "BadOption", f"raw_scores should be true or false, not {shown(value)}")
    return known[asked]


def _text(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InputError(400, "BadOption", f"{name} should be text, not {shown(value)}")
    return str(value)


_READERS = {
    "top_k": _top_k,
    "threshold": _threshold,
    "raw_scores": _raw_scores,
    **{name: (lambda value, name=name: _text(name, value)) for name in ("task", "target", "method")},
}
OPTIONS = tuple(_READERS)
