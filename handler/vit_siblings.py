"""What the workers of a model agree on: a note in the folder that TorchServe has made for its archive, which they share."""

from __future__ import annotations

import json
from pathlib import Path


def noted(folder: Path) -> dict | None:
    """What a worker has noted, or None."""
    try:
        return json.loads(_note(folder).read_text())
    except (OSError, ValueError):  # there is none, or it is being written
        return None


def agree(folder: Path, own: dict) -> dict:
    """Notes `own` if no other worker has been first; what is noted then. Where nothing can be written it is `own`."""
    try:
        with _note(folder).open("x") as note:
            json.dump(own, note)
    except OSError:
        return noted(folder) or own
    return own


def _note(folder: Path) -> Path:
    # TorchServe links to the folder of an archive that was registered unpacked. That is its owner's, and stays as it is.
    return (folder.parent if folder.is_symlink() else folder) / "agreed.json"
