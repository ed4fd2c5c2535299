"""The record of an archive: one JSON file in it, which can be read without torch."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from export.errors import ExportError
from vit_core.archive import RECORD

if TYPE_CHECKING:  # these need torch, and `show` does not
    from export.options import Options
    from export.precision import Agreement
    from export.sources.classifier import Classifier
    from export.trace import Check
    from vit_core.settings import Settings


def make_record(
    options: Options,
    classifier: Classifier,
    settings: Settings,
    check: Check,
    agreement: dict[str, Agreement | str],
    merging: Agreement | None,
    int8: dict | None,
) -> dict:
    """Records the model's source, the findings about it, its serving settings, and for int8 the calibration.

    It contains no path of the building machine and no time: the same inputs make the same record.
    """
    from export.precision import recorded

    return {
        "model": options.name.public,
        "weights": classifier.weights,
        "weights_sha256": _weights_sha256(classifier.module),
        "parameters": classifier.parameters,
        "num_classes": classifier.num_classes,
        **settings.to_dict(),
        "check": asdict(check),
        "agreement_with_fp32": {name: recorded(found) for name, found in agreement.items()},
        **({"merged_tokens": {"pairs_in_each_block": options.merge_tokens, **recorded(merging)}} if merging else {}),
        **({"int8": int8} if int8 else {}),
        "versions": {package: version(package) for package in ("torch", "timm")},
    }


def show(archive: Path) -> str:
    """Returns the record in `archive` as indented JSON. Raises ExportError if there is none."""
    try:
        with zipfile.ZipFile(archive) as file:
            record = json.loads(file.read(RECORD))
    except (OSError, zipfile.BadZipFile) as error:
        raise ExportError(f"{archive} cannot be read as an archive: {error}") from error
    except (KeyError, ValueError) as error:
        raise ExportError(f"{archive} has no record of itself: it was not made by this export step") from error
    return json.dumps(record, indent=2, ensure_ascii=False)


def _weights_sha256(module) -> str:
    """Returns the SHA-256 over the names, types, shapes and bytes of a module's tensors, whatever file they came from."""
    import torch  # here: `show` does not need it

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
