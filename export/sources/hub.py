"""Repositories of the Hugging Face hub that transformers saved. timm reads its own ones by itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError

from export.errors import ExportError

PREFIX = "hf-hub:"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def go_offline_without_network() -> None:
    """Where the hub cannot be reached, has its library look in its cache alone: it would retry for most of a minute."""
    if not sys.stderr.isatty():
        huggingface_hub.utils.disable_progress_bars()
    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=10)
    except Exception:  # of the HTTP library that huggingface_hub uses
        huggingface_hub.constants.HF_HUB_OFFLINE = True


def transformers_repository(name: str) -> Path | None:
    """The folder in the hub's cache of `hf-hub:organization/name`, downloaded, if transformers saved it.

    None for other repositories, and where there is none: timm says what is wrong then. Raises ExportError where it has no
    weights.
    """
    if not name.startswith(PREFIX):
        return None
    repository, _, revision = name.removeprefix(PREFIX).partition("@")

    def download(file: str) -> Path:
        return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision or None))

    try:
        config = download("config.json")
        if "architectures" not in json.loads(config.read_text()):
            return None
    except Exception:  # of the network, the hub or JSON: timm will raise it again, and is handled there
        return None
    for file in ("preprocessor_config.json", "processor_config.json", *WEIGHTS):
        try:
            found = download(file)
        except EntryNotFoundError:
            continue
        if file.endswith(".index.json"):
            for shard in set(json.loads(found.read_text())["weight_map"].values()):
                download(shard)
        if file in WEIGHTS:
            return config.parent
    raise ExportError(f"{name} holds no weights: expected {' or '.join(WEIGHTS)}")
