"""Reads an address: those of TorchServe's inference API, and that of a model's description."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from vit_core.errors import InputError

NAME = re.compile(r"[\w.-]{1,200}")  # of a model, as the export step allows it


@dataclass(frozen=True)
class Asked:
    """The request that an address makes of one model."""

    name: str
    version: str | None = None  # None: whichever is served
    explains: bool = False
    describes: bool = False
    fields: Mapping[str, bytes] = field(default_factory=dict)  # of the query, where TorchServe hands it on


def read_address(path: str, query: bytes = b"") -> Asked:
    """Reads a path, percent-encoded as it came. `/ping` is for the server itself.

    Raises InputError 404 for an unknown path, and 400 for one without the name of a model that it needs.
    """
    parts = [unquote(part) for part in path.split("/")[1:]]
    options = {name.decode(errors="replace"): value for name, value in parse_qsl(query, keep_blank_values=True)}
    match parts:
        case ["predictions" | "explanations" as kind, name, *rest] if name:
            return Asked(_name(name), next(filter(None, rest), None), explains=kind == "explanations")
        case ["v1", "models", last] if ":predict" in last or ":explain" in last:
            return Asked(_name(last.split(":")[0]), explains=":explain" in last)
        case ["models", name, "invoke"]:
            return Asked(_name(name), fields=options)
        case ["models", name, *rest] if name and len(rest) <= 1:
            return Asked(_name(name), next(filter(None, rest), None), describes=True)
        case ["invocations"]:
            if not options.get("model_name"):
                raise InputError(400, "BadRequestException", "Parameter model_name is required.")
            return Asked(_name(options["model_name"].decode(errors="replace")), fields=options)
        case [name, "predict"]:
            return Asked(_name(name), fields=options)
        case [name, version, "predict"]:
            return Asked(_name(name), version, fields=options)
    raise InputError(404, "ResourceNotFoundException", "Requested resource is not found, please refer to API document.")


def no_model(name: str) -> InputError:
    return InputError(404, "ModelNotFoundException", f"Model not found: {name}")


def no_version(name: str, version: str) -> InputError:
    return InputError(404, "ModelVersionNotFoundException", f"Model version: {version} does not exist for model: {name}")


def _name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise no_model(name)
    return name
