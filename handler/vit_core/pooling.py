"""Lets a model pool with the channels last in memory. Channel by channel, torch's code and oneDNN's for AVX2 compute one number
at a time: the pool of a ResNet's stem takes four to nine times as long.

The values stay the same to the bit.
"""

from __future__ import annotations

import torch

from vit_core.graph import rewrite

# What is pooled is laid out channel by channel again, since torch's group norm is slow with channels that are last. An image
# without a batch has three dimensions: it cannot be laid out so, and stays as it is.
_POOLS = {
    "max_pool2d": "%kernel, %stride, %padding, %dilation, %ceil",
    "avg_pool2d": "%kernel, %stride, %padding, %ceil, %pad_counts, %divisor",
}
_PLAIN = """graph(%x, {options}):
    %out : Tensor = aten::{name}(%x, {options})
    return (%out)"""
_CHANNELS_LAST = """graph(%x, {options}):
    %contiguous : int = prim::Constant[value=0]()
    %channels_last : int = prim::Constant[value=2]()
    %four : int = prim::Constant[value=4]()
    %dimensions : int = aten::dim(%x)
    %batched : bool = aten::eq(%dimensions, %four)
    %factor : int = aten::Int(%batched)
    %layout : int = aten::mul(%factor, %channels_last)
    %laid_out : Tensor = aten::contiguous(%x, %layout)
    %pooled : Tensor = aten::{name}(%laid_out, {options})
    %out : Tensor = aten::contiguous(%pooled, %contiguous)
    return (%out)"""


def pool_channels_last(model: torch.jit.ScriptModule) -> None:
    """Rewrites the graph of a frozen `model` in place."""
    for name, options in _POOLS.items():
        rewrite(model, *(pattern.format(name=name, options=options) for pattern in (_PLAIN, _CHANNELS_LAST)))
