"""Weights of the user's own, put into a model: every key of both, or none."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from export.errors import ExportError
from export.sources.checkpoint_file import Checkpoint
from vit_core.settings import Preprocessing

NAMED = 3  # keys in an error; the others are counted


def load_checkpoint(
    module: nn.Module, checkpoint: Checkpoint, head: str | tuple[str, ...] | None = None, fit_head: bool = False
) -> None:
    """Loads the weights into `module`, every key of both.

    Keys may share a prefix, as Lightning writes them (`model.`), or have the layout of an older timm, if timm can convert it.
    `head` names the classifier of a timm model, as its `pretrained_cfg` does. With `fit_head`, the model gets a new one where
    that of the file has another number of classes. Raises ExportError where the weights do not fit.
    """
    state_dict = _in_the_models_layout(module, checkpoint)
    first = head if isinstance(head, str) or not head else head[0]  # a distilled model has two, of the same classes
    if (weight := state_dict.get(f"{first}.weight")) is not None and len(weight) != module.num_classes:
        if not fit_head:
            asked = module.num_classes
            raise ExportError(f"{checkpoint.file} has a head of {len(weight)} classes, but the model was asked to have {asked}")
        module.reset_classifier(len(weight))
    load_state_dict_strictly(module, state_dict, checkpoint.file)


def load_state_dict_strictly(module: nn.Module, state_dict: dict[str, torch.Tensor], file: Path) -> None:
    """Loads `state_dict`, which came from `file`. Raises ExportError that names keys and shapes that do not fit."""
    expected = {key: tensor.shape for key, tensor in module.state_dict().items()}
    missing, unexpected = expected.keys() - state_dict.keys(), state_dict.keys() - expected.keys()
    if missing or unexpected:
        raise ExportError(f"{file} does not fit the model: {_named('missing', missing)}; {_named('unexpected', unexpected)}")
    for key, shape in expected.items():
        if (found := state_dict[key].shape) != shape:
            same_width = "pos_embed" in key and found[-1] == shape[-1]
            hint = "; --img-size sets the size that the weights are for" if same_width else ""
            raise ExportError(f"{file} does not fit: {key} is {list(found)} in the file, but {list(shape)} in the model{hint}")
    module.load_state_dict(state_dict)


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


def _in_the_models_layout(module: nn.Module, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    expected, state_dict = module.state_dict().keys(), checkpoint.state_dict
    while not expected & state_dict.keys() and len({key.split(".")[0] for key in state_dict}) == 1:
        state_dict = {key.partition(".")[2]: value for key, value in state_dict.items()}
    convert = getattr(sys.modules.get(type(module).__module__), "checkpoint_filter_fn", None)
    if state_dict.keys() == expected or convert is None:
        return state_dict
    try:
        converted = convert(dict(state_dict), module)
    except Exception:  # timm's own code, for keys that it does not know
        return state_dict
    return converted if isinstance(converted, dict) and converted.keys() == expected else state_dict


def _named(kind: str, keys: set[str]) -> str:
    few = ", ".join(sorted(keys)[:NAMED])
    return f"{len(keys)} keys {kind}" + (f" ({few}{', …' if len(keys) > NAMED else ''})" if keys else "")
