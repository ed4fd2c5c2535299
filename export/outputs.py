"""Checks a model's outputs for real pictures: can it be served as intended?"""

from __future__ import annotations

import torch
from torch import nn

from export.errors import ExportError
from vit_core.head import scores
from vit_core.settings import NONE, SIGMOID, SOFTMAX, Head

# Relative to the largest output. For another batch size sums have another order, which changes the sixth digit.
TOLERANCE = 1e-3
SUMS_UP = 1e-3  # the largest distance from 1 of a sum of probabilities
SAME = 0.01  # between scores: smaller differences count as the same answer


def check_weights(module: nn.Module) -> None:
    """Raises ExportError for the first tensor of the model that has numbers that are not finite."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ExportError(f"the weights {name} hold numbers that are not finite: was the model trained to its end?")


@torch.inference_mode()
def outputs(module: nn.Module, batches: list[torch.Tensor]) -> torch.Tensor:
    """Returns float32 [pictures, outputs]. Raises ExportError if an image's row depends on the other images of its batch."""
    found = [_run(module, batch) for batch in batches]
    rows = torch.cat(found)
    if not rows.isfinite().all():
        raise ExportError("the model's outputs are not finite for real pictures")
    alone = torch.cat([_run(module, picture) for picture in batches[0].split(1)])
    difference = (alone - found[0]).abs().max().item()
    if not difference <= TOLERANCE * max(1.0, alone.abs().max().item()):
        raise ExportError(
            f"the model mixes the images of a batch: an output differs by {difference:.2g} where an image is alone "
            "(nn.TransformerEncoder without batch_first=True does that, and so does a batch norm in training mode)"
        )
    return rows


def _run(module: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    try:
        return module(batch)
    except Exception as error:  # the model's own code may raise anything
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"the model fails on a batch of {len(batch)} with {type(error).__name__}: {reason}") from error


def check_head(logits: torch.Tensor, head: Head) -> list[str]:
    """Returns warnings, a sentence each, about these logits [pictures, classes] under this head. Raises ExportError if the head
    cannot be intended.
    """
    warnings = []
    if head.activation == SOFTMAX and logits.shape[1] == 1:
        raise ExportError(
            "a model of one class always answers 1.0 with softmax: --head sigmoid is for a probability, --head none for a score"
        )
    if head.activation == SOFTMAX and logits.min() >= 0 and bool((logits.sum(1) - 1).abs().max() < SUMS_UP):
        raise ExportError(
            "the model's outputs are probabilities already (none is below 0, and those of a picture add up to 1), and softmax "
            "would flatten them: take the softmax out of the model, or serve them as they are with --head none"
        )
    if head.activation == SIGMOID and logits.min() >= 0 and logits.max() <= 1:
        warnings.append("all outputs are between 0 and 1: if the model ends with a sigmoid itself, --head none is right")
    shown = scores(logits, head)
    scale = 1.0 if head.activation != NONE else max(1.0, shown.abs().max().item())
    return [*warnings, *_all_the_same(shown, scale, "answer")]


def check_embedding(embedding: torch.Tensor) -> list[str]:
    """Returns a warning if all pictures have the same embedding [pictures, features]."""
    return _all_the_same(embedding, embedding.abs().max().item(), "embedding")


def _all_the_same(rows: torch.Tensor, scale: float, what: str) -> list[str]:
    if (rows.amax(0) - rows.amin(0)).max() >= SAME * scale:
        return []
    return [
        f"all {len(rows)} pictures, photographs and noise, get the same {what}: are these the trained weights, and are "
        "mean and std those of the training?"
    ]
