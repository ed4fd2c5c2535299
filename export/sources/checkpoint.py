"""Weights of the user's own, from a file, without running any code that is in it."""

from __future__ import annotations

from pathlib import Path

import torch
from timm.models import load_state_dict
from torch import nn

from export.errors import ExportError

NAMED = 3  # keys in an error; the others are counted


def load_checkpoint(module: nn.Module, file: Path, head: str | tuple[str, ...] | None = None, fit_head: bool = False) -> None:
    """Loads the weights in `file` into `module`, every key of both.

    `file` is `.safetensors`, or what `torch.save` wrote: a state dict, or a training checkpoint that holds one under
    `state_dict` or `model` (EMA weights first), its keys with or without the prefixes of data-parallel and compiled models.
    `head` names the classifier of a timm model, as its `pretrained_cfg` does. With `fit_head`, the model gets a new one where
    that of the file has another number of classes.
    Raises ExportError where the file cannot be read, wants to run code, or does not fit.
    """
    state_dict = read_state_dict(file)
    first = head if isinstance(head, str) or not head else head[0]  # a distilled model has two, of the same classes
    if (weight := state_dict.get(f"{first}.weight")) is not None and len(weight) != module.num_classes:
        if not fit_head:
            asked = module.num_classes
            raise ExportError(f"{file} has a head of {len(weight)} classes, but the model was asked to have {asked}")
        module.reset_classifier(len(weight))
    load_state_dict_strictly(module, state_dict, file)


def load_state_dict_strictly(module: nn.Module, state_dict: dict[str, torch.Tensor], file: Path) -> None:
    """Loads `state_dict`, which came from `file`. Raises ExportError that names keys and shapes that do not fit."""
    expected = {key: tensor.shape for key, tensor in module.state_dict().items()}
    missing, unexpected = expected.keys() - state_dict.keys(), state_dict.keys() - expected.keys()
    if missing or unexpected:
        raise ExportError(f"{file} does not fit the model: {_named('missing', missing)}; {_named('unexpected', unexpected)}")
    for key, shape in expected.items():
        if (found := state_dict[key].shape) != shape:
            raise ExportError(f"{file} does not fit: {key} is {list(found)} in the file, but {list(shape)} in the model")
    module.load_state_dict(state_dict)


def read_state_dict(file: Path) -> dict[str, torch.Tensor]:
    """The tensors in `file`, by name. Raises ExportError where it cannot be read, or wants to run code."""
    if not file.is_file():
        raise ExportError(f"no checkpoint at {file}")
    try:
        state_dict = load_state_dict(str(file), weights_only=True)
    except Exception as error:  # torch, pickle and safetensors raise whatever they meet
        reason = " ".join(str(error).split())
        if "weights_only" in reason:
            reason = "it holds Python objects besides weights, and loading those could run code: save a state dict alone"
        raise ExportError(f"no weights could be read from {file}: {reason[:300] or type(error).__name__}") from error
    if not state_dict or not all(isinstance(value, torch.Tensor) for value in state_dict.values()):
        raise ExportError(f"{file} holds no state dict: expected tensors by name, or a checkpoint with 'state_dict' or 'model'")
    return state_dict


def _named(kind: str, keys: set[str]) -> str:
    few = ", ".join(sorted(keys)[:NAMED])
    return f"{len(keys)} keys {kind}" + (f" ({few}{', …' if len(keys) > NAMED else ''})" if keys else "")
