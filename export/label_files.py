"""Reads the labels of a file in the order of the classes: by index if the file has one, else as they stand.

It refuses a file whose order is unclear, because labels in another order are wrong answers that nobody notices.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.errors import ExportError
from export.label_data import from_json, from_yaml
from export.label_lines import from_lines
from export.label_tables import from_csv

READERS: dict[str, Callable[[Path, str], list[str]]] = {
    ".json": from_json,
    ".yaml": from_yaml,
    ".yml": from_yaml,
    ".csv": from_csv,
    ".tsv": from_csv,
}


def read_labels(file: Path) -> list[str]:
    """Reads a file of labels. Raises ExportError, which names the file and the line, if it cannot be read or its order is
    unclear.
    """
    try:
        text = _decoded(file.read_bytes())
    except (OSError, UnicodeError) as error:
        raise ExportError(f"the labels could not be read from {file}: {error}") from error
    return READERS.get(file.suffix.lower(), from_lines)(file, text)


def _decoded(data: bytes) -> str:
    """Decodes UTF-8, or UTF-16 if the first bytes say so."""
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    if "\0" in text:
        raise UnicodeError("it holds zeros, as UTF-16 without its mark does: save it as UTF-8")
    return text
