"""A model that is no timm model by itself: `path/to/file.py:callable`, a timm backbone inside a module of the user's, say."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import torch
from torch import nn

from export.errors import ExportError


def is_own_module(name: str) -> bool:
    return re.fullmatch(r".+\.py:\w+", name) is not None


def create_own_module(name: str) -> nn.Module:
    """Runs the file and calls the callable, which takes nothing and returns the module. Raises ExportError if it does not.

    The file can import what lies beside it.
    """
    path, _, callable_name = name.rpartition(":")
    file = Path(path).resolve()
    if not file.is_file():
        raise ExportError(f"no file at {path}")
    sys.path.insert(0, str(file.parent))
    try:
        spec = importlib.util.spec_from_file_location(file.stem, file)
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        if not callable(getattr(loaded, callable_name, None)):
            raise ExportError(f"{path} has no callable named {callable_name}")
        module = getattr(loaded, callable_name)()
    except ExportError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ExportError(f"{name} failed with {type(error).__name__}: {reason}") from error
    finally:
        sys.path.remove(str(file.parent))
    if not isinstance(module, nn.Module):
        raise ExportError(f"{name} returned a {type(module).__name__}, expected a torch.nn.Module")
    return module


def backbone_config(module: nn.Module) -> dict:
    """The `pretrained_cfg` of the timm model that `module` is or holds; empty if there is none."""
    return next((each.pretrained_cfg for each in module.modules() if hasattr(each, "pretrained_cfg")), {})


def count_classes(name: str, module: nn.Module, input_size: list[int]) -> int:
    """How many logits `module` gives for an image of `input_size`. Raises ExportError if it gives anything else."""
    try:
        with torch.inference_mode():
            logits = module(torch.zeros(2, *input_size))
    except Exception as error:
        reason = " ".join(str(error).split())
        size = " x ".join(map(str, input_size))
        raise ExportError(f"{name} failed on an input of {size}: {reason[:300]} (--img-size sets another one)") from error
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != 2:
        given = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ExportError(f"{name} gives {given} for two images, expected logits [2, classes]")
    return logits.shape[1]
