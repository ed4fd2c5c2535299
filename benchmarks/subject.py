"""What is measured: an archive of this project; its trace with TorchServe's own handler; a handler that does nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import timm
import torch
import yaml

from export.errors import ExportError
from export.options import Options
from export.pipeline import export
from export.sources.name import ModelName
from vit_core.archive import CONFIG, LABELS, SECTION, TRACE, Archive, opened
from vit_core.machine import threads_per_worker
from vit_core.settings import EMBED, ArchiveError, Serving

UNPACKED, WEIGHTS = "unpacked", "weights.pth"  # in the store of a `Subject`
# Of the archives beside it: names that no archive of a user's has.
STOCK_NAME, EMPTY_NAME = "stock-image-classifier", "empty-handler"
RESPONSE_TIMEOUT = 300  # seconds: a peer may be slow


@dataclass(frozen=True)
class Subject:
    """An archive in the model store `store`, with its files in UNPACKED there.

    `timm_name` is the model whose eager weights are in WEIGHTS there. None: there is a trace alone.
    """

    name: str
    store: Path
    archive: str
    timm_name: str | None

    @property
    def unpacked(self) -> Path:
        return self.store / UNPACKED

    @cached_property
    def contents(self) -> Archive:
        return Archive.read(self.unpacked)

    @property
    def serving(self) -> Serving:
        return self.contents.serving

    @property
    def served_as(self) -> str:
        return json.loads((self.unpacked / "MAR-INF" / "MANIFEST.json").read_text())["model"]["modelName"]

    @property
    def classes(self) -> int:
        return len(self.contents.labels)

    @property
    def embeds(self) -> bool:
        """Whether its trace has an embedding among its outputs, which TorchServe's handler would take for classes."""
        return EMBED in self.contents.settings.tasks

    @property
    def origin(self) -> str:
        """The model and where its weights are from."""
        if self.timm_name:
            return f"{self.timm_name}, random weights, seed 0"
        return f"{self.contents.record['model']}, {self.contents.record['weights']}"


def from_timm(model: str, batch_size: int, workers: int, precision: str, store: Path) -> Subject:
    """Exports a timm model with seeded random weights: their values cost no time. One without classes gives embeddings."""
    weights = store / WEIGHTS
    options = Options(model, checkpoint=weights, model_store=store, model_name="ours", batch_size=batch_size)
    options = replace(options, workers=workers, precision=precision)
    torch.manual_seed(0)
    try:
        module = timm.create_model(model)
        torch.save(module.state_dict(), weights)
        export(options if module.num_classes else replace(options, tasks=(EMBED,)))
    except (RuntimeError, ExportError) as error:
        sys.exit(f"bench: {error}")
    return _prepared(Subject(ModelName.parse(model).short, store, options.archive.name, model))


def from_archive(archive: Path, batch_size: int | None, workers: int | None, store: Path) -> Subject:
    """An archive that the export step has made, as it is or with another batch size or number of workers."""
    wanted = {"batch_size": batch_size, "min_workers": workers, "max_workers": workers}
    changes = {name: value for name, value in wanted.items() if value}
    try:
        with opened(archive):
            pass
    except ArchiveError as error:
        sys.exit(f"bench: {error}")
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(store / archive.name, "w") as copy:
        for file in source.infolist():
            data = source.read(file)
            if file.filename == CONFIG and changes:
                data = yaml.safe_dump(_changed(yaml.safe_load(data), **changes), sort_keys=False)
            copy.writestr(file, data)
    return _prepared(Subject(archive.stem, store, archive.name, None))


def _prepared(subject: Subject) -> Subject:
    with zipfile.ZipFile(subject.store / subject.archive) as archive:
        archive.extractall(subject.unpacked)
    if not subject.embeds:
        _pack_stock(subject)
    pack(subject, EMPTY_NAME, "empty_handler.py", serving_config(subject))
    return subject


def serving_config(subject: Subject) -> dict:
    """TorchServe's settings of the model, with a timeout for slow peers: number of workers, batch size, delay, and what else
    its owner has added."""
    config = yaml.safe_load((subject.unpacked / CONFIG).read_text())
    del config[SECTION]
    return _changed(config, response_timeout=RESPONSE_TIMEOUT)


def _changed(config: dict, **changes: int) -> dict:
    """A `model-config.yaml` with other values of fields of `Serving`."""
    return config | replace(Serving.from_dict(config), **changes).to_dict()


def _pack_stock(subject: Subject) -> None:
    """The trace with TorchServe's image_classifier."""
    config, handler = serving_config(subject), "image_classifier"
    if _stock_changes(subject):
        handler = "stock_handler.py"
        config["stock"] = {
            "input_size": subject.contents.settings.preprocessing.input_size,
            "classes": subject.classes,
            "threads": threads_per_worker(subject.serving.min_workers),
        }
    pack(subject, STOCK_NAME, handler, config, "--serialized-file", TRACE, "--extra-files", LABELS)


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
    size = subject.contents.settings.preprocessing.input_size
    changes = {
        f"a transform to {' x '.join(map(str, size))}": size != (3, 224, 224),
        f"{subject.classes} labels": subject.classes < 5,
        "a share of the cores for each worker": subject.serving.min_workers > 1,
    }
    return [change for change, needed in changes.items() if needed]
