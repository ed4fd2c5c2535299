"""Packs trace, handler, labels and settings into one `.mar`, with torch-model-archiver."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

import handler
from export.errors import ExportError
from export.options import Options
from export.reproducible import normalise, save_trace
from vit_core.archive import CONFIG, LABELS, RECORD, SECTION, TRACE
from vit_core.settings import Serving, Settings

# The trace, the archiver's copy of it, the archive, and the archive without times; and the other files in each.
COPIES, BESIDES = 4, 4_000_000
ENTRY = "vit_handler.py"
CODE = "vit_*"  # the files and folders of handler/ that go into an archive


@dataclass(frozen=True)
class Contents:
    """The contents of an archive, without its code."""

    trace: torch.jit.ScriptModule
    labels: list[str]
    settings: Settings
    serving: Serving
    record: dict  # of `make_record`


def destination(options: Options) -> Path:
    """Returns the path of the new archive. Raises ExportError if it must not go there: one exists already, or no file can be
    written.
    """
    if options.archive.exists() and not options.force:
        raise ExportError(f"{options.archive} is there already: --force replaces it")
    store = options.archive.parent
    there = next(folder for folder in (store, *store.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise ExportError(f"the archive could not be written to {store}: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ExportError(f"the archive could not be written to {store}: {there} cannot be written to")
    return options.archive


def write_archive(archive: Path, contents: Contents, version: str) -> None:
    """Writes `archive`, whole or not at all; its name without .mar becomes the model's name. Raises ExportError."""
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        _check_space(archive.parent, contents.trace)
        # In the model store, so that the finished archive is on the same disk and can be moved into place in one step.
        with _work_folder(archive.parent) as folder:
            os.replace(_pack(folder, contents, archive.stem, version), archive)
    except OSError as error:
        raise ExportError(f"the archive could not be written to {archive.parent}: {error}") from error


def _check_space(folder: Path, trace: torch.jit.ScriptModule) -> None:
    """Raises ExportError if the disk is too full: torch would fail with pages of its own code."""
    needed = COPIES * (sum(tensor.nbytes for tensor in trace.state_dict().values()) + BESIDES)
    if (free := shutil.disk_usage(folder).free) < needed:
        raise ExportError(
            f"the archive could not be written to {folder}: it takes {needed / 1e6:.0f} MB meanwhile, and {free / 1e6:.0f} MB "
            "are free there"
        )


@contextlib.contextmanager
def _work_folder(model_store: Path) -> Iterator[Path]:
    """Makes a folder in the model store for the time of the export, and removes those that killed exports have left there.

    Each export holds a lock on its folder, which ends with its process, so a folder without a lock belongs to nobody.
    """
    with _locked(model_store):  # between creating a folder and locking it no other export may look at it
        for left in model_store.glob(".unfinished-export-*"):
            with contextlib.suppress(OSError), _locked(left, fcntl.LOCK_NB):
                shutil.rmtree(left)
        folder = Path(tempfile.mkdtemp(prefix=".unfinished-export-", dir=model_store))
        lock = contextlib.ExitStack()
        lock.enter_context(_locked(folder))
    with lock:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, flags: int = 0) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
        yield
    finally:
        os.close(descriptor)


def _pack(folder: Path, contents: Contents, model_name: str, version: str) -> Path:
    """Packs the archive inside `folder`."""
    parts, staging, output = (folder / name for name in ("parts", "staging", "output"))
    extra = parts / "extra"
    for created in (parts, extra, staging, output):
        created.mkdir()
    save_trace(contents.trace, parts / TRACE)
    config = {**contents.serving.to_dict(), SECTION: contents.settings.to_dict()}
    (parts / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    (extra / LABELS).write_text(json.dumps(dict(enumerate(contents.labels)), indent=1))
    (extra / RECORD).write_text(json.dumps(contents.record, indent=1))
    for source in handler.FOLDER.glob(CODE):
        if source.is_dir():
            shutil.copytree(source, extra / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, (parts if source.name == ENTRY else extra) / source.name)
    # Relative paths, since the archiver splits them at commas and expands wildcards in them.
    command = [sys.executable, "-P", "-m", "model_archiver.model_packaging"]
    command += ["--model-name", model_name, "--version", version, "--archive-format", "zip-store"]
    command += ["--serialized-file", TRACE, "--handler", ENTRY, "--extra-files", extra.name]
    command += ["--config-file", CONFIG, "--export-path", str(output.resolve())]
    # A process and a temporary directory of its own: it stages in <temporary directory>/<model name>, and deletes what is
    # there first, even if it belongs to another build or to the user.
    environment = {**os.environ, "TMPDIR": str(staging.resolve())}
    result = subprocess.run(command, cwd=parts, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ExportError(f"torch-model-archiver failed: {result.stderr.strip().splitlines()[-1]}")
    normalise(output / f"{model_name}.mar", folder / "finished.mar")
    return folder / "finished.mar"
