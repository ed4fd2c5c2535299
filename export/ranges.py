"""Samples the inputs of a model's linear layers on pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

ROWS = 512  # tokens to keep for each layer


@dataclass
class Seen:
    """The activations that some linear layers read; several layers if they read the same, as queries, keys and values do."""

    names: list[str]
    layers: list[nn.Linear]
    after_norm: bool  # directly the output of a LayerNorm
    rows: list[torch.Tensor] = field(default_factory=list)  # a sample, float32 [n, in_features] each
    low: torch.Tensor | None = None  # [in_features]: the least of each channel, over all pictures
    high: torch.Tensor | None = None

    def see(self, x: torch.Tensor, count: int, generator: torch.Generator) -> None:
        rows = x.detach().reshape(-1, x.shape[-1]).float()
        low, high = rows.amin(0), rows.amax(0)
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)
        self.rows.append(rows[torch.randint(len(rows), (min(count, len(rows)),), generator=generator)])


@torch.inference_mode()
def see(module: nn.Module, batches: Sequence[torch.Tensor]) -> list[Seen]:
    """Records what each linear layer of `module` reads over the batches, if the layer is called on tokens.

    It leaves out layers that read one row for each image, as the classifier does, because they cost next to nothing; and layers
    whose weights are used without a call (BEiT's qkv).
    """
    groups = _groups(module, batches[0][:1])
    generator = torch.Generator().manual_seed(0)
    count = -(-ROWS // len(batches))
    hooks = []
    for group in groups:

        def hook(_: nn.Module, inputs: tuple, group: Seen = group) -> None:
            group.see(inputs[0], count, generator)

        hooks.append(group.layers[0].register_forward_pre_hook(hook))
    try:
        for batch in batches:
            module(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return groups


def _groups(module: nn.Module, picture: torch.Tensor) -> list[Seen]:
    """Groups the linear layers by the tensor that they read, by running one picture."""
    kept, normed, found = [], set(), {}  # keeps the tensors alive, so that ids stay unique

    def norm_hook(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        kept.append(output)
        normed.add(id(output))

    def linear_hook(name: str, layer: nn.Linear, inputs: tuple) -> None:
        (x,) = inputs
        if x.dim() > 2 and id(layer) not in called:
            called.add(id(layer))
            kept.append(x)
            group = found.setdefault(id(x), Seen([], [], id(x) in normed))
            group.names.append(name)
            group.layers.append(layer)

    called: set[int] = set()
    hooks = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.LayerNorm):
            hooks.append(layer.register_forward_hook(norm_hook))
        elif type(layer) is nn.Linear:
            hooks.append(layer.register_forward_pre_hook(lambda layer, inputs, name=name: linear_hook(name, layer, inputs)))
    try:
        module(picture)
    finally:
        for hook in hooks:
            hook.remove()
    return list(found.values())
