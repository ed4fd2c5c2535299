"""From the model's numbers for the classes to scores."""

from __future__ import annotations

import torch

from vit_core.settings import NONE, SIGMOID, SOFTMAX

_ACTIVATIONS = {SOFTMAX: lambda logits: logits.softmax(dim=-1), SIGMOID: torch.sigmoid, NONE: lambda logits: logits}


def scores(logits: torch.Tensor, activation: str) -> torch.Tensor:
    """Logits [..., classes] → scores [..., classes], as one of `settings.ACTIVATIONS` has them."""
    return _ACTIVATIONS[activation](logits)
