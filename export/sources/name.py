"""The name of a model, taken apart: what kind it is, and what its archive is called.

`python export/sources/name.py MODEL` prints the latter, for the Makefile. This file needs nothing but Python.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

LOCAL = "local-dir:"


class Kind(Enum):
    TIMM = auto()  # a name from timm.list_models()
    HUB = auto()  # hf-hub:organization/name, or another scheme of timm's
    FOLDER = auto()  # local-dir:FOLDER, saved by timm or by transformers
    MODULE = auto()  # path/to/file.py:callable


@dataclass(frozen=True)
class ModelName:
    """A model as the user has named it."""

    given: str
    kind: Kind

    @classmethod
    def parse(cls, given: str) -> ModelName:
        if re.fullmatch(r".+\.py:\w+", given):
            return cls(given, Kind.MODULE)
        if given.startswith(LOCAL):
            return cls(given, Kind.FOLDER)
        return cls(given, Kind.HUB if ":" in given else Kind.TIMM)

    @property
    def path(self) -> Path:
        """The folder of a FOLDER, the file of a MODULE."""
        return Path(self.given.removeprefix(LOCAL) if self.kind == Kind.FOLDER else self.given.rpartition(":")[0])

    @property
    def callable(self) -> str:
        """The callable of a MODULE."""
        return self.given.rpartition(":")[2]

    @property
    def public(self) -> str:
        """The name without the folders of the machine that it was given on."""
        return self.given.rstrip("/").split("/")[-1].removeprefix(LOCAL) if self.is_local else self.given

    @property
    def is_local(self) -> bool:
        return self.kind in (Kind.FOLDER, Kind.MODULE)

    @property
    def short(self) -> str:
        """The last part: digits of local-dir:examples/digits, vit-x of hf-hub:org/vit-x. Archives are called so by default."""
        return re.split(r"[:/]", self.given.rstrip("/"))[-1]


if __name__ == "__main__":
    print(ModelName.parse(sys.argv[1]).short)
