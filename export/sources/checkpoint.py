"""Weights of the user's own, put into a model: every key of both, or none."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from export.errors import ExportError
from export.sources.checkpoint_file import Checkpoint
from export.sources.checkpoint_layout import fitting, named
from vit_core.settings import Preprocessing


def load_checkpoint(
    module: nn.Module, checkpoint: Checkpoint, head: str | tuple[str, ...] | None = None, fit_head: bool = False
) -> list[str]:
    """Loads the weights into `module`, every key of it. Returns a sentence about those of the file that are left out, if any.

    Keys may have a prefix, as Lightning writes them (`model.`), with those of a loss or a metric beside them; or they have the
    layout of an older timm, if timm can convert it. `head` names the classifier of a timm model, as its `pretrained_cfg` does.
    With `fit_head`, the model gets a new one where that of the file has another number of classes. Raises ExportError where the
    weights do not fit.
    """
    found = fitting(module, checkpoint)
    state_dict = found.weights
    first = head if isinstance(head, str) or not head else head[0]  # a distilled model has two, of the same classes
    if (weight := state_dict.get(f"{first}.weight")) is not None and len(weight) != module.num_classes:
        if not fit_head:
            asked = module.num_classes
            raise ExportError(f"{checkpoint.file} has a head of {len(weight)} classes, but the model was asked to have {asked}")
        module.reset_classifier(len(weight))
    load_state_dict_strictly(module, state_dict, checkpoint.file, found.beside)
    if not found.beside:
        return []
    return [f"{checkpoint.file.name} has {named(found.beside)} beside the model's: they are left out"]


def load_state_dict_strictly(
    module: nn.Module, state_dict: dict[str, torch.Tensor], file: Path, beside: frozenset[str] = frozenset()
) -> None:
    """Loads `state_dict`, which came from `file`, where other keys are `beside` it.

    Raises ExportError that names keys and shapes that do not fit.
    """
    expected = module.state_dict()
    missing, unexpected = expected.keys() - state_dict.keys(), state_dict.keys() - expected.keys()
    if missing or unexpected:
        others = f"; beside them it has {named(beside)}" if beside else ""
        raise ExportError(
            f"{file} does not fit the model: {named(missing, ' missing')}; {named(unexpected, ' unexpected')}{others}"
        )
    for key, tensor in expected.items():
        if (found := state_dict[key].shape) != (shape := tensor.shape):
            same_width = "pos_embed" in key and found[-1:] == shape[-1:]
            hint = "; --img-size sets the size that the weights are for" if same_width else ""
            raise ExportError(f"{file} does not fit: {key} is {list(found)} in the file, but {list(shape)} in the model{hint}")
        if not state_dict[key].is_floating_point() and tensor.is_floating_point():
            raise ExportError(
                f"{file} does not fit: {key} is {state_dict[key].dtype} in the file, but {tensor.dtype} in the model"
            )
    try:
        module.load_state_dict(state_dict)
    except RuntimeError as error:  # for tensors without numbers, or sparse ones
        raise ExportError(f"{file} could not be loaded: {' '.join(str(error).split())[:300]}") from error


def check_architecture(checkpoint: Checkpoint, architecture: str) -> None:
    """Raises ExportError where the training says that it was of another one: the weights might fit, and mean something else."""
    trained = checkpoint.arguments.get("arch") or checkpoint.arguments.get("model")
    if isinstance(trained, str) and trained.removeprefix("timm/").split(".")[0] != architecture:
        raise ExportError(f"{checkpoint.file} says that it was trained as {trained}, and not as {architecture}")


def differing_pixels(checkpoint: Checkpoint, preprocessing: Preprocessing) -> list[str]:
    """What the training says of its pixels, where they are served otherwise: a sentence for each setting."""
    said = checkpoint.arguments
    size = said.get("input_size") or (said.get("img_size") and [preprocessing.input_size[0], *[said["img_size"]] * 2])
    found = {"input_size": size, **{name: said.get(name) for name in ("mean", "std", "crop_pct", "interpolation")}}
    warnings = []
    for name, value in found.items():
        served = getattr(preprocessing, name)
        value = tuple(value) if isinstance(value, list) else value
        if value and value != "random" and value != served:
            option = "img-size" if name == "input_size" else name.replace("_", "-")
            trained = f"{checkpoint.file.name} was trained with {name} {value}"
            warnings.append(f"{trained}, and is served with {served}: see --{option}")
    return warnings
