"""Image towers of CLIP and SigLIP, which have a projection where others have a classifier; and classes made from texts."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from export.errors import ExportError
from export.options import Options

# timm's names for such models. Fine-tuned ones have these names, too, but as many outputs as ImageNet has classes.
NAMES = re.compile(r"clip|siglip|pe_core|_mci")
CLASSES = (1000, 11821, 12000, 21841, 21842, 21843)


def projects(module: nn.Module) -> bool:
    """Whether a timm model has a projection in the place of a classifier."""
    own = module.pretrained_cfg.get("num_classes")
    return _is_tower(module) and module.num_classes == own and own not in (0, *CLASSES)


def _is_tower(module: nn.Module) -> bool:
    config = module.pretrained_cfg
    return bool(NAMES.search(f"{config.get('architecture', '')}.{config.get('tag', '')}"))


class Tower(nn.Module):
    """A timm image tower whose embedding is what CLIP compares with texts: with the projection, before it is made length 1.

    float32 [N, C, H, W] → [N, features]. The parts of timm's model that explanations ask for are passed on.
    """

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.tower = tower
        self.num_classes = 0
        for name in ("num_prefix_tokens", "global_pool", "output_fmt", "patch_embed", "pretrained_cfg"):
            if hasattr(tower, name):
                setattr(self, name, getattr(tower, name))

    def forward_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.tower.forward_features(pixels)

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return self.tower.forward_head(features)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(pixels))


class ZeroShot(Tower):
    """Such a tower with classes made from texts: the logit of a class is the cosine between picture and text, scaled.

    `texts` is [classes, features], one row for each class; `scale` and `bias` are the model's own (exp of CLIP's logit_scale).
    """

    def __init__(self, tower: nn.Module, texts: torch.Tensor, scale: float, bias: float):
        super().__init__(tower)
        self.num_classes = len(texts)
        self.scale, self.bias = scale, bias
        self.register_buffer("texts", F.normalize(texts, dim=1))

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        embedding = self.tower.forward_head(features)
        return embedding if pre_logits else self.scale * (F.normalize(embedding, dim=1) @ self.texts.T) + self.bias


def zero_shot(module: nn.Module, options: Options) -> ZeroShot:
    """The tower `module` with the classes that the options have as texts.

    Raises ExportError where it is no tower, the file cannot be read, or its rows are not of the features that the model gives.
    """
    if not (projects(module) or (_is_tower(module) and not module.num_classes)):
        raise ExportError(f"{options.model} is no image tower of CLIP or SigLIP: --text-embeddings are for those")
    file, texts = options.text_embeddings, _read(options.text_embeddings)
    features = module.num_classes or module.num_features  # SigLIP's have no projection
    if texts.dim() != 2 or texts.shape[1] != features:
        found = " x ".join(map(str, texts.shape))
        raise ExportError(
            f"{file} holds {found} numbers: expected one row of {features} for each class, as the model's text tower gives them"
        )
    if not texts.isfinite().all() or not (texts.norm(dim=1) > 0).all():
        raise ExportError(f"{file} holds a row of zeros, or numbers that are not finite")
    return ZeroShot(module, texts, options.logit_scale, options.logit_bias)


def _read(file: Path) -> torch.Tensor:
    """A matrix from .npy, from .safetensors with one tensor in it, or from what torch.save wrote of one."""
    try:
        if file.suffix == ".npy":
            return torch.from_numpy(np.load(file, allow_pickle=False)).float()
        if file.suffix == ".safetensors":
            (found,) = safetensors.torch.load_file(file).values()
            return found.float()
        return torch.load(file, map_location="cpu", weights_only=True).float()
    except Exception as error:  # each library raises errors of its own
        reason = " ".join(str(error).split())
        raise ExportError(
            f"no text embeddings could be read from {file}: expected a matrix as .npy, .safetensors or from torch.save "
            f"({reason[:150]})"
        ) from error
