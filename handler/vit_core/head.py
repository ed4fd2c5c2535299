"""From the model's numbers for the classes to scores."""

from __future__ import annotations

import torch


def scores(logits: torch.Tensor) -> torch.Tensor:
    """Logits [N, classes] → probabilities of classes that exclude each other: each row adds up to 1."""
    return logits.softmax(dim=1)
