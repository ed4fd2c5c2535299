"""Writes an archive again with another head and with this project's handler, which knows the temperature."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import yaml
from scipy.special import expit, logit

import handler
from command_line import UserError
from export.archive import CODE
from export.reproducible import MANIFEST, normalise
from vit_core.archive import CONFIG, RECORD, SECTION
from vit_core.settings import Head, Settings


def with_temperature(archive: Path, output: Path, fitted: dict, version: str | None) -> None:
    """Writes `archive` to `output`, whole or not at all, with the temperature of `fitted` and its record.

    The name of the file becomes the model's name. The same inputs make the same bytes. Raises UserError.
    """
    with zipfile.ZipFile(archive) as file:
        code = {name: None for name in file.namelist() if name.startswith(CODE.rstrip("*"))}
        config = yaml.safe_load(file.read(CONFIG))
        record, manifest = (json.loads(file.read(name)) for name in (RECORD, MANIFEST))
    settings = Settings.from_dict(config[SECTION])
    head = at_temperature(settings.head, fitted["temperature"])
    config[SECTION] = replace(settings, head=head).to_dict()
    record |= {"head": config[SECTION]["head"], "calibration": fitted}
    manifest["model"] |= {"modelName": output.stem} | ({"modelVersion": version} if version else {})
    changed = {
        **code,  # files that the handler no longer has are removed
        **_code(),
        CONFIG: yaml.safe_dump(config, sort_keys=False).encode(),
        RECORD: json.dumps(record, indent=1).encode(),
        MANIFEST: json.dumps(manifest).encode(),
    }
    try:
        descriptor, unfinished = tempfile.mkstemp(prefix=".unfinished-", dir=output.parent)
        try:
            os.close(descriptor)
            normalise(archive, Path(unfinished), changed)
            os.chmod(unfinished, 0o666 & ~_umask())
            os.replace(unfinished, output)
        finally:
            Path(unfinished).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"the archive could not be written to {output}: {error.strerror or error}") from error


def at_temperature(head: Head, temperature: float) -> Head:
    """Returns the head at another temperature. Its thresholds move with it, so they let the same labels through."""
    thresholds = head.thresholds
    if thresholds:
        scale = head.temperature / temperature
        thresholds = tuple(float(expit(logit(each) * scale)) for each in thresholds)
    return replace(head, temperature=temperature, thresholds=thresholds)


def _code() -> dict[str, bytes]:
    """Returns the files of handler/ by their names in an archive."""
    found = [file for top in handler.FOLDER.glob(CODE) for file in ([top] if top.is_file() else top.rglob("*.py"))]
    return {file.relative_to(handler.FOLDER).as_posix(): file.read_bytes() for file in found}


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
