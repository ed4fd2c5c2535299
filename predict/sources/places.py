"""Paths and URLs alike: which one a text is, what is below it, and its bytes. fsspec is imported for URLs alone."""

from __future__ import annotations

import functools
import glob
import os
import re
import stat
from collections.abc import Iterator
from typing import BinaryIO

from command_line import UserError


def is_url(place: str) -> bool:
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", place) is not None


def reason(error: Exception) -> str:
    """What was wrong, without the path, which stands beside it."""
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__


@functools.cache
def filesystem(protocol: str):
    """fsspec's, for the part of a URL before `://`. Raises UserError where a package is missing or the protocol is unknown."""
    try:
        import fsspec
    except ImportError as error:
        raise UserError(f"{protocol}:// needs fsspec: .venv/bin/python -m pip install -r requirements-bulk.txt") from error
    try:
        return fsspec.filesystem(protocol)
    except ImportError as error:
        said = " ".join(str(error).split())
        raise UserError(f"{protocol}:// needs a package that is not installed: {said}") from error
    except Exception as error:  # any error: each package authenticates in its own way
        raise UserError(f"{protocol}:// cannot be read: {reason(error)}") from error


def of_url(url: str):
    """The filesystem of a URL; its methods take the URL as it is."""
    return filesystem(url.partition("://")[0].lower())


def kind(place: str) -> str | None:
    """`file`, `folder`, or None where there is neither. Raises UserError for a bucket that does not answer."""
    if not is_url(place):
        return "folder" if os.path.isdir(place) else "file" if os.path.isfile(place) else None
    found = of_url(place)
    try:
        return "folder" if found.isdir(place) else "file" if found.isfile(place) else None
    except Exception as error:
        raise UserError(f"{place} cannot be reached: {reason(error)}") from error


def is_pattern(place: str) -> bool:
    return bool(re.search(r"[*?\[]|\{\d+\.\.\d+\}|\{[^{}]*,[^{}]*\}", place))


def expand(pattern: str) -> list[str]:
    """The places that a pattern with `*`, `?`, `[…]`, `{000..123}` or `{a,b}` stands for, sorted. Those in braces are there or
    not: whoever opens them says so."""
    places = []
    for each in _braces(pattern):
        if not re.search(r"[*?\[]", each):
            places.append(each)
        elif is_url(each):
            found = of_url(each)
            places += sorted(map(found.unstrip_protocol, found.glob(each)))
        else:
            places += sorted(glob.glob(each, recursive=True))
    return places


def _braces(text: str) -> Iterator[str]:
    found = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", text)
    if not found:
        yield text
        return
    if found[3] is not None:
        middles = found[3].split(",")
    else:
        first, last = found[1], found[2]
        middles = (f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1))
    for middle in middles:
        yield from _braces(text[: found.start()] + middle + text[found.end() :])


def walk(folder: str) -> Iterator[tuple[str, str]]:
    """The files below a folder at any depth, sorted, as (path, ""); what cannot be listed as (path, why).

    Names that begin with a dot are left out, and links to folders are not followed, which might not end.
    """
    try:
        entries = sorted(_entries(folder))
    except Exception as error:
        if not isinstance(error, OSError) and not is_url(folder):
            raise
        yield folder, reason(error)
        return
    for name, is_folder in entries:
        if name.startswith("."):
            continue
        path = f"{folder.rstrip('/')}/{name}" if folder != "." else name
        if is_folder:
            yield from walk(path)
        else:
            yield path, ""


def _entries(folder: str) -> Iterator[tuple[str, bool]]:
    """The names in a folder, and whether each is a folder."""
    if not is_url(folder):
        with os.scandir(folder) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                if is_folder or entry.is_file():
                    yield entry.name, is_folder
        return
    found = of_url(folder)
    own = found._strip_protocol(folder).strip("/")
    for each in found.ls(folder, detail=True):
        path = each["name"].strip("/")
        if path != own:  # buckets list their folders as files in themselves
            yield path.rpartition("/")[2], each["type"] == "directory"


def opened(place: str) -> BinaryIO:
    """The file, open for reading at any place in it. Raises OSError, and what the makers of buckets' packages thought of."""
    if is_url(place):
        return of_url(place).open(place, "rb")
    if not stat.S_ISREG(os.stat(place).st_mode):  # reading a pipe would block, and /dev/zero never ends
        raise OSError(None, "not a file")
    return open(place, "rb")


def stamp(place: str) -> str:
    """What changes when a file does: its size and time, or what its bucket has for it."""
    if is_url(place):
        return str(of_url(place).ukey(place))
    status = os.stat(place)
    return f"{status.st_size} {status.st_mtime_ns}"


def named_as(path: str, suffixes: tuple[str, ...] | set[str]) -> bool:
    return os.path.splitext(path)[1].lower() in suffixes
