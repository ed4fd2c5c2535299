"""Names the files of an archive and reads them. Needs neither torch nor TorchServe."""

from __future__ import annotations

import contextlib
import json
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from vit_core.settings import CLASSIFY, ArchiveError, Serving, Settings

TRACE = "model.pt"  # TorchScript, in fp32 unless the export was asked for int8
CONFIG = "model-config.yaml"  # `Serving`, and `Settings` in its section SECTION
SECTION = "handler"
LABELS = "index_to_name.json"  # class index → label, as TorchServe's own handlers read it
RECORD = "record.json"  # the record of the export


@dataclass(frozen=True)
class Archive:
    """The contents of an unpacked archive, except for its code. The trace is at `folder` / TRACE."""

    folder: Path
    settings: Settings
    serving: Serving
    labels: tuple[str, ...]  # in the order of the classes; empty if the archive does not classify
    record: dict

    @classmethod
    def read(cls, folder: Path) -> Archive:
        """Reads an unpacked archive. Raises ArchiveError if the folder holds no archive of this project, or one with another
        contract.
        """
        try:
            config = yaml.safe_load((folder / CONFIG).read_text())
            names, record = (json.loads((folder / name).read_text()) for name in (LABELS, RECORD))
            settings = Settings.from_dict(config[SECTION])
            labels = tuple(names[str(index)] for index in range(len(names)))
        except OSError as error:
            raise ArchiveError(f"{folder} is no archive of this project: {error.filename}: {error.strerror}") from error
        except (KeyError, TypeError, RecursionError, yaml.YAMLError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ArchiveError(f"{folder} is no archive of this project: {' '.join(str(error).split())}") from error
        if not isinstance(record, dict) or not all(isinstance(label, str) for label in labels):
            raise ArchiveError(f"{folder} is no archive of this project: expected texts in {LABELS} and an object in {RECORD}")
        if CLASSIFY in settings.tasks and len(labels) != record.get("num_classes"):
            raise ArchiveError(f"{folder} has {len(labels)} labels in {LABELS}, and {RECORD} says {record.get('num_classes')}")
        return cls(folder, settings, Serving.from_dict(config), labels, record)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Opens the archive at `path`: a `.mar` file, or the folder that it was unpacked into. Raises ArchiveError, as
    `Archive.read` does.
    """
    if path.is_dir():
        yield Archive.read(path)
    else:
        with unpack(path) as folder:
            yield Archive.read(Path(folder))


def unpack(archive: Path) -> tempfile.TemporaryDirectory:
    """Unpacks a `.mar` into a temporary folder, without its code. The folder is removed with the returned object.

    Raises ArchiveError for a file that is not an archive of this project.
    """
    if archive.exists() and not archive.is_file():  # reading a pipe would block
        raise ArchiveError(f"{archive} is no file")
    folder = tempfile.TemporaryDirectory(prefix="archive-")
    try:
        with zipfile.ZipFile(archive) as file:
            for name in (TRACE, CONFIG, LABELS, RECORD):
                file.extract(name, folder.name)
    except OSError as error:
        raise ArchiveError(f"{archive} cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, KeyError) as error:
        raise ArchiveError(f"{archive} is no archive of this project: {error}") from error
    return folder
