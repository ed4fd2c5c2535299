"""What an archive says of itself: one JSON file in it, readable without torch."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from export.errors import ExportError

FILE = "record.json"


def make_record(source: dict, classifier, tasks: list[str], proof, agreement: dict[str, dict], explanation: dict) -> dict:
    """The record of a `Classifier` with its `Proof`. `source` says where model and weights came from (`weights_source`),
    `agreement` how near other precisions come to fp32 (`choose_precisions`), `explanation` how its answers can be explained
    (`explanation_settings`).

    No path of the building machine is in it, and no clock: the same inputs make the same record.
    """
    return {
        **source,
        "weights_sha256": _weights_sha256(classifier.module),
        "parameters": classifier.parameters,
        "num_classes": classifier.num_classes,
        "tasks": tasks,
        "preprocessing": classifier.preprocessing,
        "proof": asdict(proof),
        "agreement_with_fp32": agreement,
        "explain": explanation,
        "versions": {package: version(package) for package in ("torch", "timm")},
    }


def weights_source(model: str, checkpoint: Path | None, pretrained: bool, pretrained_cfg: dict) -> dict[str, str]:
    """The model's name and where its weights came from: paths by their last part, a hub by its repository."""
    local = model.startswith("local-dir:") or ".py:" in model
    name = model.rstrip("/").split("/")[-1].removeprefix("local-dir:") if local else model
    if checkpoint is not None:
        weights = f"checkpoint {checkpoint.name}"
    elif local:
        weights = "its own"
    elif pretrained:
        weights = f"pretrained, {pretrained_cfg.get('hf_hub_id') or model}"
    else:
        weights = "random"
    return {"model": name, "weights": weights}


def show(archive: Path) -> str:
    """The record in `archive`, as indented JSON. Raises ExportError where there is none."""
    try:
        with zipfile.ZipFile(archive) as file:
            record = json.loads(file.read(FILE))
    except (OSError, zipfile.BadZipFile) as error:
        raise ExportError(f"{archive} cannot be read as an archive: {error}") from error
    except (KeyError, ValueError) as error:
        raise ExportError(f"{archive} has no record of itself: it was not made by this export step") from error
    return json.dumps(record, indent=2, ensure_ascii=False)


def _weights_sha256(module) -> str:
    """SHA-256 over the names, types, shapes and bytes of a module's tensors, whatever file they came from."""
    import torch  # not at the top: `show` does not need it

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
