"""A model that is no timm model by itself: `path/to/file.py:callable`, a timm backbone inside a module of the user's, say."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from export.errors import ExportError
from export.options import Options
from export.preprocessing import guessed, resolve_preprocessing
from export.sources.checkpoint import load_checkpoint
from export.sources.checkpoint_file import read_checkpoint
from export.sources.classifier import Classifier
from export.sources.name import ModelName


def own_classifier(options: Options) -> Classifier:
    """The module that a callable of the user's returns. Raises ExportError."""
    module = create_own_module(options.name).eval()
    checkpoint = read_checkpoint(options.checkpoint, options.checkpoint_key) if options.checkpoint else None
    left_out = load_checkpoint(module, checkpoint) if checkpoint else []
    config = backbone_config(module)
    preprocessing = resolve_preprocessing(config, options.preprocessing)
    said = [*left_out, *([] if config else guessed(options.preprocessing, preprocessing))]
    counted = count_classes(options.model, module, preprocessing.input_size)
    if options.num_classes not in (None, counted):
        raise ExportError(f"{options.model} has {counted} classes, not the {options.num_classes} of --num-classes")
    weights = checkpoint.description if checkpoint else "its own"
    return Classifier(module, counted, {}, preprocessing, weights, warnings=tuple(said))


def create_own_module(name: ModelName) -> nn.Module:
    """Runs the file and calls the callable, which takes nothing and returns the module. Raises ExportError if it does not.

    The file can import what lies beside it, also with a dot, and also when the model runs.
    """
    file = name.path.resolve()
    if not file.is_file():
        raise ExportError(f"no file at {name.path}")
    try:
        loaded = _import(file)
        if not callable(getattr(loaded, name.callable, None)):
            raise ExportError(f"{name.path} has no callable named {name.callable}")
        module = getattr(loaded, name.callable)()
    except ExportError:
        raise
    except (Exception, SystemExit) as error:  # a script that exits must not end the export without a message
        reason = " ".join(str(error).split())
        raise ExportError(f"{name.given} failed with {type(error).__name__}: {reason}") from error
    if not isinstance(module, nn.Module):
        raise ExportError(f"{name.given} returned a {type(module).__name__}, expected a torch.nn.Module")
    return module


def _import(file: Path) -> ModuleType:
    # They stay there: a forward may import, and it runs until the archive is packed.
    sys.path[:0] = [folder for folder in (str(file.parent), str(file.parent.parent)) if folder not in sys.path]
    if re.search(r"^\s*from\s+\.", file.read_text(), re.MULTILINE):  # relative to the folder, which is a package then
        return importlib.import_module(f"{file.parent.name}.{file.stem}")
    spec = importlib.util.spec_from_file_location(f"own_module_{file.stem}", file)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses, for example, look up the module of a class there
    spec.loader.exec_module(loaded)
    return loaded


def backbone_config(module: nn.Module) -> dict:
    """The `pretrained_cfg` of the timm model that `module` is or holds; empty if there is none."""
    return next((each.pretrained_cfg for each in module.modules() if hasattr(each, "pretrained_cfg")), {})


def count_classes(name: str, module: nn.Module, input_size: tuple[int, int, int]) -> int:
    """How many logits `module` gives for an image of `input_size`. Raises ExportError if it gives anything else."""
    try:
        with torch.inference_mode():
            logits = module(torch.zeros(2, *input_size))
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        size = " x ".join(map(str, input_size))
        raise ExportError(f"{name} failed on an input of {size}: {reason[:300]} (--img-size sets another one)") from error
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != 2:
        given = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ExportError(f"{name} gives {given} for two images, expected logits [2, classes]")
    if not logits.is_floating_point() or not logits.shape[1]:
        raise ExportError(
            f"{name} gives {logits.shape[1]} numbers of {logits.dtype} for an image, expected floating-point logits"
        )
    return logits.shape[1]
