"""Converts frozen dataclasses to mappings for YAML and JSON, and back. Imports neither torch nor TorchServe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

# Marks a field that was added later. It is not written at its default, so that older handlers can read the archive.
LATER = {"later": True}


class ArchiveError(ValueError):
    """This handler cannot run an archive. The message is one line: the fault, and what to do about it."""


def to_dict(value: Any) -> Any:
    """Converts dataclasses to mappings, and tuples to lists, as YAML and JSON have them. It leaves out what is None, and what
    is `LATER` and at its default.
    """
    if is_dataclass(value):
        found = {
            each.name: getattr(value, each.name)
            for each in fields(value)
            if not each.metadata.get("later") or getattr(value, each.name) != each.default
        }
        return {name: to_dict(each) for name, each in found.items() if each is not None}
    return [to_dict(each) for each in value] if isinstance(value, tuple) else value


def from_dict(cls: type, data: Any, place: str) -> Any:
    """Restores the dataclass that `to_dict` converted to `data`.

    Raises ArchiveError, which names a field that is missing, unknown or of the wrong type; `place` names the mapping in the
    message.
    """
    if not isinstance(data, Mapping):
        raise ArchiveError(f"{place} should be a mapping, not {type(data).__name__}")
    types = get_type_hints(cls)
    if unknown := sorted(map(str, data.keys() - types.keys())):
        raise ArchiveError(f"{place} have {unknown[0]!r}, which this handler does not know")
    values = {
        name: from_dict(types[name], value, f"{place} ({name})")
        if is_dataclass(types[name])
        else (tuple(value) if isinstance(value, list) else value)
        for name, value in data.items()
    }
    for name, value in values.items():
        if not _is(value, types[name]):
            raise ArchiveError(f"{place} have {name} {value!r:.60}, which is of another kind than this handler reads")
    try:
        return cls(**values)
    except TypeError as error:  # a setting without a default is missing
        raise ArchiveError(f"{place} are not complete: {error}") from error


def _is(value: Any, kind: Any) -> bool:
    """Whether a value has the type of its field."""
    if isinstance(kind, UnionType):
        return any(_is(value, each) for each in get_args(kind))
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        kinds = kinds if kinds[-1] is not Ellipsis else kinds[:1] * (len(value) if isinstance(value, tuple) else 0)
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is, value, kinds))
    return isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))
