"""A model's linear layers in int8, for CPUs.

Weights have a scale for each output channel, activations one for each token, taken when they are seen (dynamic quantization).
torch's own `quantize_dynamic` takes one scale for the whole batch, which makes an answer depend on the images that happen to
be in the same batch; a scale for each token does not, and is nearer to fp32.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

LARGEST = 127  # of a symmetric int8


class Int8Linear(nn.Module):
    """`linear` with int8 weights: float32 [..., in_features] → float32 [..., out_features]."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight = linear.weight.detach()
        scale = _scale(weight)
        self.register_buffer("weight", (weight / scale).round().to(torch.int8))  # [out, in]
        self.register_buffer("scale", scale.flatten())  # [out]
        self.register_buffer("bias", torch.zeros(len(weight)) if linear.bias is None else linear.bias.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        scale = _scale(tokens)
        product = torch._int_mm((tokens / scale).round_().to(torch.int8), self.weight.t())  # int32
        y = product.float().mul_(scale).mul_(self.scale).add_(self.bias)
        return y.view(*x.shape[:-1], y.shape[-1])


@torch.no_grad()
def quantize(module: nn.Module, input_size: tuple[int, int, int]) -> nn.Module:
    """A copy of `module` with each linear layer that it calls in int8; the module is not changed.

    Some models read the weights of a layer without calling it (BEiT's qkv): those stay as they are.
    """
    quantized = copy.deepcopy(module)
    called = set()
    layers = [layer for layer in quantized.modules() if type(layer) is nn.Linear]
    hooks = [layer.register_forward_pre_hook(lambda layer, _: called.add(layer)) for layer in layers]
    quantized(torch.zeros(1, *input_size))
    for hook in hooks:
        hook.remove()
    for parent in list(quantized.modules()):
        for name, layer in parent.named_children():
            if layer in called:
                setattr(parent, name, Int8Linear(layer))
    return quantized


def _scale(rows: torch.Tensor) -> torch.Tensor:
    """[rows, features] → [rows, 1]: what one step of int8 stands for in each row."""
    return rows.abs().amax(1, keepdim=True).clamp_min(1e-12).div(LARGEST)
