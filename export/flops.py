"""Counts a model's arithmetic, as PyTorch counts it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_flops(module: nn.Module, input_size: tuple[int, int, int]) -> int:
    """Returns the floating-point operations of matrix products and convolutions for one image. A multiply-add counts as two."""
    counter = FlopCounterMode(display=False)
    # As plain matrix products: the counter does not know the fused operator for attention on CPUs.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(torch.zeros(1, *input_size))
    return counter.get_total_flops()
