"""Finds the shapes of what the layers of a model read."""

from __future__ import annotations

import torch
from torch import nn


def input_shapes(module: nn.Module, kinds: tuple[type, ...], input_size: tuple[int, int, int]) -> dict[nn.Module, torch.Size]:
    """Returns the shape of each layer's input without its first dimension, for the layers of these kinds that are called, and
    with inputs of one shape alone.
    """
    shapes: dict[nn.Module, set[torch.Size]] = {each: set() for each in module.modules() if isinstance(each, kinds)}
    if not shapes:
        return {}

    def note(layer: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        shapes[layer].add(inputs[0].shape[1:])

    hooks = [each.register_forward_pre_hook(note) for each in shapes]
    try:
        with torch.no_grad():
            module(torch.zeros(1, *input_size))
    finally:
        for hook in hooks:
            hook.remove()
    return {layer: next(iter(found)) for layer, found in shapes.items() if len(found) == 1}
