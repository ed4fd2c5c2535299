"""One picture of a source, as it is listed before anything is read."""

from __future__ import annotations

from typing import NamedTuple


class Item(NamedTuple):
    """Where a picture is, or why that is not known."""

    path: str  # as its row has it
    file: str = ""  # where its bytes are: a path or a URL
    offset: int = -1  # in a tar: its first byte; in a table: its row
    size: int = -1  # in a tar: its bytes
    column: str = ""  # in a table: where the bytes are
    error: str = ""  # of a place that cannot be listed, which is a row too
