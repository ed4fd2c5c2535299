"""Finds the files that a user's paths stand for."""

from __future__ import annotations

import glob
import os
import shlex
from pathlib import Path

from PIL import Image

from command_line import UserError
from vit_core.image import FORMATS

# Suffixes of pictures in a folder. A file that the user names is tried under any name.
SUFFIXES = {suffix for suffix, format in Image.registered_extensions().items() if format in FORMATS}


def pictures(paths: list[Path]) -> list[Path]:
    """Returns the files, and the pictures in the folders by their suffix, at any depth and sorted within each folder.

    Names that begin with a dot are left out. Raises UserError if a path does not exist, or if no picture is left.
    """
    found = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if _is_picture(file, path))
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"there is no file or folder {path}")
    if not found:
        raise UserError(f"there are no pictures in {', '.join(map(str, paths))}")
    return found


def named_paths(texts: list[str]) -> list[Path]:
    """Splits texts that `make` passes on whole: each is one path, or several, quoted and with patterns as in a shell."""
    found = []
    for text in texts:
        if Path(text).expanduser().exists():
            found.append(Path(text).expanduser())
            continue
        try:
            parts = shlex.split(text)
        except ValueError as error:
            raise UserError(f"{text} cannot be read as paths: {error}") from error
        for part in map(os.path.expanduser, parts):
            found += sorted(map(Path, glob.glob(part))) or [Path(part)]
    return found


def _is_picture(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.suffix.lower() in SUFFIXES and not hidden and file.is_file()
