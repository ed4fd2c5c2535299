"""Does once what a model computes anew for every image: the same function with fewer steps and less rounding in bf16."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, LayerScale, StdConv2d, StdConv2dSame
from timm.models import beit, eva, vision_transformer
from torch import nn

from export.same_padding import fix_padding
from export.windows import order_by_windows

BLOCKS = (vision_transformer.Block, beit.Block, eva.EvaBlock)


@torch.no_grad()
def fold(module: nn.Module, input_size: tuple[int, int, int]) -> nn.Module:
    """Returns a copy of `module` that computes the same for inputs of this size (channels, height, width) with fewer steps, or
    `module` itself if there is nothing to fold.

    Convolutions with weight standardization (the stems of hybrid ViTs) become plain ones: in bf16, standardizing weights that
    are rounded already doubles the digits example's distance to fp32. LayerScale (DeiT III, DINOv2, BEiT v2) goes into the
    linear layer before it, because oneDNN's fusion fails on its multiplication. Padding that depends on the size of an input
    becomes a constant. A Swin's tokens stay in the order of windows. The trace is checked against the original module.
    """
    folded = copy.deepcopy(module)
    found = False
    for parent in list(folded.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, (StdConv2d, StdConv2dSame)):
                setattr(parent, name, _plain_convolution(layer))
                found = True
        if isinstance(parent, BLOCKS):
            found |= _fold_layer_scale(parent)
    found |= fix_padding(folded.eval(), input_size)
    found |= order_by_windows(folded, input_size)
    return folded if found else module


def _fold_layer_scale(block: nn.Module) -> bool:
    """Whether there was a LayerScale. In timm it is a module `ls1`, or a parameter `gamma_1`; `ls2` and `gamma_2` belong to the
    mlp.
    """
    found = False
    for number, linear in ((1, getattr(block.attn, "proj", None)), (2, getattr(block.mlp, "fc2", None))):
        if not isinstance(linear, nn.Linear):
            continue
        if isinstance(scale := getattr(block, f"ls{number}", None), LayerScale):
            gamma = scale.gamma
            setattr(block, f"ls{number}", nn.Identity())
        elif isinstance(gamma := getattr(block, f"gamma_{number}", None), nn.Parameter):
            setattr(block, f"gamma_{number}", None)
        else:
            continue
        linear.weight.mul_(gamma[:, None])
        if linear.bias is not None:
            linear.bias.mul_(gamma)
        found = True
    return found


def _plain_convolution(layer: StdConv2d | StdConv2dSame) -> nn.Conv2d:
    same = getattr(layer, "same_pad", False)  # its padding depends on the size of its input
    plain = (Conv2dSame if same else nn.Conv2d)(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        0 if same else layer.padding,
        layer.dilation,
        layer.groups,
        bias=layer.bias is not None,
    )
    flat = layer.weight.reshape(1, layer.out_channels, -1)
    weight = F.batch_norm(flat, None, None, training=True, momentum=0.0, eps=layer.eps)
    plain.weight.copy_(weight.reshape_as(layer.weight))
    if layer.bias is not None:
        plain.bias.copy_(layer.bias)
    return plain
