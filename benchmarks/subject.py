"""What is measured: an archive of this project; its trace with TorchServe's own handler; a handler that does nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import timm
import torch
import yaml

from export.__main__ import main as export
from export.errors import ExportError
from export.record import show

CONFIG = "model-config.yaml"
# Of the archives beside it: names that no archive of a user's has.
STOCK_NAME, EMPTY_NAME = "stock-image-classifier", "empty-handler"


@dataclass(frozen=True)
class Subject:
    """An archive in the model store `store`, with its files in `unpacked` there.

    `timm_name` is the model whose eager weights are in `store`/weights.pth. None: there is a trace alone.
    """

    name: str
    store: Path
    archive: str
    timm_name: str | None

    @property
    def unpacked(self) -> Path:
        return self.store / "unpacked"

    @cached_property
    def config(self) -> dict:
        """TorchServe's settings of the model, and the handler's in `handler`."""
        return yaml.safe_load((self.unpacked / CONFIG).read_text())

    @property
    def batch_size(self) -> int:
        return self.config["batchSize"]

    @property
    def served_as(self) -> str:
        return json.loads((self.unpacked / "MAR-INF" / "MANIFEST.json").read_text())["model"]["modelName"]

    @property
    def classes(self) -> int:
        return len(json.loads((self.unpacked / "index_to_name.json").read_text()))

    @property
    def embeds(self) -> bool:
        """Whether its trace has an embedding among its outputs, which TorchServe's handler would take for classes."""
        return "embed" in self.config["handler"].get("tasks", [])  # older archives only classify

    @property
    def origin(self) -> str:
        """The model and where its weights are from."""
        if self.timm_name:
            return f"{self.timm_name}, random weights, seed 0"
        record = json.loads((self.unpacked / "record.json").read_text())
        return f"{record['model']}, {record['weights']}"


def from_timm(model: str, batch_size: int, workers: int, store: Path) -> Subject:
    """Exports a timm model with seeded random weights: their values cost no time."""
    torch.manual_seed(0)
    try:
        torch.save(timm.create_model(model).state_dict(), store / "weights.pth")
    except RuntimeError as error:
        sys.exit(f"bench: {error}")
    arguments = [model, "--checkpoint", str(store / "weights.pth"), "--model-store", str(store), "--model-name", "ours"]
    if export([*arguments, "--batch-size", str(batch_size), "--workers", str(workers)]):
        sys.exit("the export failed")
    return _prepared(Subject(re.split("[:/]", model)[-1], store, "ours.mar", model))


def from_archive(archive: Path, batch_size: int | None, workers: int | None, store: Path) -> Subject:
    """An archive that the export step has made, as it is or with another batch size or number of workers."""
    wanted = {"batchSize": batch_size, "minWorkers": workers, "maxWorkers": workers}
    changes = {key: value for key, value in wanted.items() if value}
    try:
        show(archive)
    except ExportError as error:
        sys.exit(f"bench: {error}")
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(store / archive.name, "w") as copy:
        for file in source.infolist():
            data = source.read(file)
            if file.filename == CONFIG and changes:
                data = yaml.safe_dump(yaml.safe_load(data) | changes, sort_keys=False)
            copy.writestr(file, data)
    return _prepared(Subject(archive.stem, store, archive.name, None))


def _prepared(subject: Subject) -> Subject:
    with zipfile.ZipFile(subject.store / subject.archive) as archive:
        archive.extractall(subject.unpacked)
    if not subject.embeds:
        _pack_stock(subject)
    pack(subject, EMPTY_NAME, "empty_handler.py", _serving(subject))
    return subject


def _serving(subject: Subject) -> dict:
    """TorchServe's settings of the model: number of workers, batch size, delay."""
    return {key: value for key, value in subject.config.items() if key != "handler"} | {"responseTimeout": 300}


def _pack_stock(subject: Subject) -> None:
    """The trace with TorchServe's image_classifier."""
    config, handler = _serving(subject), "image_classifier"
    if _stock_changes(subject):
        handler = "stock_handler.py"
        config["stock"] = {"input_size": subject.config["handler"]["input_size"], "classes": subject.classes}
    pack(subject, STOCK_NAME, handler, config, "--serialized-file", "model.pt", "--extra-files", "index_to_name.json")


def pack(subject: Subject, name: str, handler: str, config: dict, *files: str) -> None:
    """An archive with a `handler` of TorchServe's or of this folder, these settings, and these files of the model's."""
    if handler.endswith(".py"):
        shutil.copyfile(Path(__file__).parent / handler, subject.unpacked / handler)
    (subject.unpacked / "serving.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "model_archiver.model_packaging", "--model-name", name, "--version", "1.0"]
    command += ["--handler", handler, *files, "--config-file", "serving.yaml", "--export-path", str(subject.store)]
    packed = subprocess.run(command, cwd=subject.unpacked, capture_output=True, text=True, check=False)
    if packed.returncode:
        sys.exit(f"bench: torch-model-archiver failed: {packed.stderr[-500:]}")


def stock_handler(subject: Subject) -> str:
    """What TorchServe's handler is here, in words."""
    changes = _stock_changes(subject)
    return f"image_classifier{' with ' if changes else ''}{' and '.join(changes)}"


def _stock_changes(subject: Subject) -> list[str]:
    """What image_classifier needs to serve this model well: it crops 224 x 224 in colour, answers with five labels, and each of
    its workers has a thread for each core."""
    size = subject.config["handler"]["input_size"]
    changes = {
        f"a transform to {' x '.join(map(str, size))}": size != [3, 224, 224],
        f"{subject.classes} labels": subject.classes < 5,
        "a share of the cores for each worker": subject.config["minWorkers"] > 1,
    }
    return [change for change, needed in changes.items() if needed]
