"""What every source gives: an eager model with all that serving it needs to know, as data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vit_core.settings import Preprocessing


@dataclass(frozen=True)
class Classifier:
    """An eager model in evaluation mode, and the pixels and classes that it has."""

    module: nn.Module
    num_classes: int
    pretrained_cfg: dict  # timm's own record of the model; empty for a module without timm in it
    preprocessing: Preprocessing
    weights: str  # the source of the weights: the name of a checkpoint, or a repository
    problem_type: str | None = None  # transformers' word for what the outputs mean
    warnings: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())
