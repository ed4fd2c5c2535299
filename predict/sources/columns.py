"""What columns of tables are called, by whoever makes tables of pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Columns of paths, and columns of ids, which are names of files in some data sets; both as `plain` has them.
PATHS = ("path", "paths", "file", "files", "filename", "filepath", "filenames", "image", "imagepath", "imagefile", "img")
PATHS += ("imgpath", "picture", "picturepath", "imagename", "imagefilename", "url", "imageurl")
IDS = ("imageid", "imageindex")


def path_columns(names: Sequence[str]) -> list[int]:
    """The places of the columns that may have paths; those of ids where no other may."""
    for known in (PATHS, IDS):
        if found := [place for place, name in enumerate(names) if plain(name) in known]:
            return found
    return []


def plain(name: str) -> str:
    """A column's name in lower case, without spaces, dashes and underscores."""
    return re.sub(r"[\s_-]", "", str(name)).lower()
