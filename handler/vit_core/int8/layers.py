"""Layers in int8 as an archive stores them: plain operators, which run anywhere, in more passes than needed.

Weights have a scale for each output channel. Activations have 8 bits, with one scale and zero point that the export step has
found, so an answer does not depend on the images that share its batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

STEPS = 255  # from the least to the largest number of 8 bits


class Int8Layer(nn.Module):
    """What linear layers and convolutions in int8 have in common.

    `inverse`, a scalar or [in_features], is the number of steps for an activation of 1; `lowest` is the lowest step; `scale`
    [out] is the value of one step of the product. With `rounds` unset, activations stay as they are and only the weights are
    int8: then it has gradients, which an explanation needs.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor,
        inverse: torch.Tensor,
        lowest: int,
        rounds: bool = True,
    ):
        super().__init__()
        self.register_buffer("weight", weight)  # int8 [out, ...]
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)  # [out]
        self.register_buffer("inverse", inverse)
        self.lowest, self.rounds = lowest, rounds

    def steps(self, x: torch.Tensor) -> torch.Tensor:
        steps = x * self.inverse
        return steps.round().clamp(self.lowest, self.lowest + STEPS) if self.rounds else steps


class Int8Linear(Int8Layer):
    """`linear` with weights int8 [out_features, in_features]: float32 [..., in_features] → float32 [..., out_features]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.steps(x), self.weight.to(x.dtype)) * self.scale + self.bias


class Int8Conv2d(Int8Layer):
    """`conv2d` with weights int8 [out, in, height, width]: float32 [N, in, H, W] → float32 [N, out, H', W'].

    It pads with zeros, and has one group of channels.
    """

    def __init__(self, *numbers: torch.Tensor | int, stride: tuple[int, int], padding: tuple | str, dilation: tuple[int, int]):
        super().__init__(*numbers)
        self.stride, self.padding, self.dilation = stride, padding, dilation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product = F.conv2d(self.steps(x), self.weight.to(x.dtype), None, self.stride, self.padding, self.dilation)
        return product * self.scale[:, None, None] + self.bias[:, None, None]
