"""Reads from an archive's manifest which model it holds, because TorchServe does not tell before it has loaded it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from serve.errors import ServeError


def identity(archive: Path) -> tuple[str, str]:
    """Returns the name and the version of the model, whatever the file is called. Raises ServeError if there is none."""
    try:
        with zipfile.ZipFile(archive) as file:
            model = json.loads(file.read("MAR-INF/MANIFEST.json"))["model"]
        return model["modelName"], model["modelVersion"]
    except FileNotFoundError as error:
        raise ServeError(f"there is no {archive.name} in {archive.parent}: make archive builds one") from error
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise ServeError(f"{archive} is no archive of a model: {error}") from error
