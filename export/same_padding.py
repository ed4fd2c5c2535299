"""Makes padding that timm computes from the size of a layer's input, for each image anew, a constant: the size is known.

The computation is a dozen operators on single numbers for each such layer, a tenth of the time of a small hybrid. The values
stay the same, up to the rounding of convolutions.
"""

from __future__ import annotations

import math

from timm.layers import get_same_padding
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from torch import nn

from export.input_shapes import input_shapes

LAYERS = (Conv2dSame, MaxPool2dSame, AvgPool2dSame)
Pair = tuple[int, int]


def fix_padding(module: nn.Module, input_size: tuple[int, int, int]) -> bool:
    """Replaces the layers of `module` that compute their padding, in place, and returns whether it has any.

    A layer that is called with inputs of several sizes, or not at all, stays as it is.
    """
    found = False
    for layer, shape in input_shapes(module, LAYERS, input_size).items():
        fixed = _fixed(layer, tuple(shape[-2:]))
        for parent in module.modules():
            for name, child in list(parent._modules.items()):  # `named_children` leaves out the second name of a layer
                if child is layer:
                    setattr(parent, name, fixed)
                    found = True
    return found


def _fixed(layer: nn.Module, size: Pair) -> nn.Module:
    """Returns a layer that computes the same for an input of this height and width."""
    kernel, stride = layer.kernel_size, layer.stride
    dilation = (1, 1) if isinstance(layer, AvgPool2dSame) else layer.dilation
    totals = [get_same_padding(*axis) for axis in zip(size, kernel, stride, dilation, strict=True)]
    before = tuple(total // 2 for total in totals)
    max_pool = isinstance(layer, MaxPool2dSame)
    if not (max_pool and dilation != (1, 1)):  # torch's own padding of a max pool is at most half of its kernel
        if all(total % 2 == 0 for total in totals):
            return _plain(layer, before)
        if max_pool and _rounds_up(layer, size, before):
            return _plain(layer, before, ceil_mode=True)
    after = [total - half for total, half in zip(totals, before, strict=True)]
    value = -math.inf if max_pool else 0.0
    return nn.Sequential(nn.ConstantPad2d((before[1], after[1], before[0], after[0]), value), _plain(layer, (0, 0)))


def _rounds_up(layer: MaxPool2dSame, size: Pair, before: Pair) -> bool:
    """Whether a pool that is padded by `before` on both sides, and whose last windows may hang over, has the same windows."""
    return all(
        math.ceil((edge + 2 * pad - kernel) / stride) + 1 == math.ceil(edge / stride)
        for edge, kernel, stride, pad in zip(size, layer.kernel_size, layer.stride, before, strict=True)
    )


def _plain(layer: nn.Module, padding: Pair, ceil_mode: bool = False) -> nn.Module:
    """Returns the layer with the same weights and this padding."""
    if isinstance(layer, MaxPool2dSame):
        return nn.MaxPool2d(layer.kernel_size, layer.stride, padding, layer.dilation, ceil_mode=ceil_mode or layer.ceil_mode)
    if isinstance(layer, AvgPool2dSame):
        return nn.AvgPool2d(layer.kernel_size, layer.stride, padding, layer.ceil_mode)  # timm counts what it pads with
    channels = (layer.in_channels, layer.out_channels)
    plain = nn.Conv2d(*channels, layer.kernel_size, layer.stride, padding, layer.dilation, layer.groups, layer.bias is not None)
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain
