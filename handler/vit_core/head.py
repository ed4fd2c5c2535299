"""Turns the model's logits into scores."""

from __future__ import annotations

import torch

from vit_core.settings import NONE, SIGMOID, SOFTMAX, Head

_ACTIVATIONS = {SOFTMAX: lambda logits: logits.softmax(dim=-1), SIGMOID: torch.sigmoid, NONE: lambda logits: logits}


def scores(logits: torch.Tensor, head: Head) -> torch.Tensor:
    """Logits [..., classes] → scores [..., classes], as `head` defines them."""
    return _ACTIVATIONS[head.activation](logits / head.temperature)
