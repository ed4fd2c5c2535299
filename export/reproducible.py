"""Removes from an archive what differs between builds: times, paths, the order of files."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold
MANIFEST = "MAR-INF/MANIFEST.json"


def save_trace(traced: torch.jit.ScriptModule, path: Path) -> None:
    """Writes `traced` to `path` as `ScriptModule.save` does, without its debug records.

    Those contain the paths of the source files on the machine that traced the model; TorchScript loads without them.
    """
    whole = path.with_suffix(".whole")
    traced.save(str(whole))
    reader = torch._C.PyTorchFileReader(str(whole))
    writer = torch._C.PyTorchFileWriter(str(path))
    # The writer adds the last two itself; the id is a hash of the records, the paths in the debug ones included.
    own = ("version", ".data/serialization_id")
    for name in reader.get_all_records():
        if not name.endswith(".debug_pkl") and name not in own:
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    whole.unlink()


def normalise(archive: Path, output: Path, changed: Mapping[str, bytes | None] | None = None) -> None:
    """Rewrites the zip file `archive` as `output`: sorted, stored, with the same time and permissions everywhere.

    The files of `changed` get these contents, whether they were there before or not; None leaves a file out.
    """
    changed = changed or {}
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(output, "w", zipfile.ZIP_STORED) as target:
        for name in sorted({*source.namelist(), *changed} - {name for name, data in changed.items() if data is None}):
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = 0o100644 << 16
            info.create_system = 3  # Unix, wherever it was built
            if name == MANIFEST:
                manifest = json.loads(changed.get(name) or source.read(name)) | {"createdOn": "01/01/1980 00:00:00"}
                target.writestr(info, json.dumps(manifest, indent=2))
                continue
            if name in changed:
                target.writestr(info, changed[name])
                continue
            # zipfile refuses files above 2 GiB unless it knows the size beforehand.
            info.file_size = source.getinfo(name).file_size
            with source.open(name) as read, target.open(info, "w") as written:
                shutil.copyfileobj(read, written, 1 << 20)
