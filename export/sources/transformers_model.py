"""Image classifiers that transformers itself runs: an extra dependency, for the architectures that timm has not."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from export.errors import ExportError

# Image classifiers whose input is not the pixels of one image, by model type.
OTHER_INPUTS = {
    "imagegpt": "numbers of clusters of colours",
    "shieldgemma2": "a text with each image",
    "siglip2": "patches with a mask and their numbers of rows and columns",
}
INSTALL = "python -m pip install transformers -c constraints.txt"


class Logits(nn.Module):
    """A transformers classifier as a plain function: float32 [N, C, H, W] → logits [N, classes]."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.num_classes = model.config.num_labels

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=pixels, return_dict=True).logits


class BlueFirst(nn.Module):
    """Gives a model the channels of its images the other way round."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.num_classes = model.num_classes

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model(pixels.flip(1))


def check_inputs(folder: Path, model_type: str | None) -> None:
    """Raises ExportError for a type of model that transformers calls with something else than the pixels of an image."""
    if takes := OTHER_INPUTS.get(model_type):
        raise ExportError(f"{folder} holds a model of the type {model_type}, which takes {takes}: the handler has pixels alone")


def load_with_transformers(folder: Path) -> nn.Module:
    """Raises ExportError where transformers is not installed or cannot load the folder, and where a weight is missing."""
    try:
        from transformers import AutoModelForImageClassification, utils
    except ImportError as error:
        raise ExportError(f"{folder} holds a model that timm has not: {INSTALL} installs what runs it") from error
    utils.logging.set_verbosity_error()
    utils.logging.disable_progress_bar()
    try:
        model, found = AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # transformers raises whatever its models and its readers do
        reason = " ".join(str(error).split())
        raise ExportError(f"transformers could not load {folder}: {type(error).__name__}: {reason[:300]}") from error
    for kind in ("missing_keys", "mismatched_keys"):
        if keys := sorted(map(str, found.get(kind, ()))):
            raise ExportError(f"{folder} lacks weights of its model, which would be random: {len(keys)} keys ({keys[0]}, …)")
    return Logits(model.eval())
