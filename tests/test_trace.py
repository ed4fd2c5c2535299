"""The check that a trace is the model: each of these is traced without complaint, and is not the model."""

import copy

import pytest
import timm
import torch
from torch import nn

from export.errors import ExportError
from export.trace import check_trace, trace

INPUT_SIZE = (3, 32, 32)


class BakedBatch(nn.Module):
    """Reshapes to the batch size of the traced example."""

    def forward(self, pixels):
        return pixels.reshape(int(pixels.shape[0]), -1)[:, :10]


class BakedBroadcast(nn.Module):
    """Adds a tensor of the batch size of the traced example, which fails for most others."""

    def forward(self, pixels):
        return pixels.flatten(1)[:, :10] + torch.zeros(len(pixels), 1)


class Random(nn.Module):
    def forward(self, pixels):
        return nn.functional.dropout(pixels.flatten(1)[:, :10], training=True)


class DependsOnItsInput(nn.Module):
    """Takes, in Python, the branch that the traced example asks for."""

    def forward(self, pixels):
        logits = pixels.flatten(1)[:, :10]
        return logits if pixels.shape[0] == 2 else -logits


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (BakedBatch(), "batch of 2 baked in"),
        (BakedBroadcast(), "batch of 2 baked in"),
        (Random(), "is random"),
        (DependsOnItsInput(), "depends on the input in Python"),
    ],
    ids=["batch size", "broadcast", "dropout", "branch"],
)
def test_the_check_fails_when_the_trace_is_wrong(module, reason):
    module.eval()
    with pytest.raises(ExportError, match=reason):
        check_trace(module, trace(module, INPUT_SIZE), INPUT_SIZE)


def test_the_check_fails_for_one_changed_weight(tiny_model):
    module = timm.create_model(f"local-dir:{tiny_model}", pretrained=True).eval()
    traced = trace(copy.deepcopy(module), INPUT_SIZE)
    assert check_trace(module, traced, INPUT_SIZE).top1_agreement == 1
    with torch.no_grad():
        module.head.bias[0] += 0.01
    with pytest.raises(ExportError, match=r"differs from the model by 0\.01"):
        check_trace(module, traced, INPUT_SIZE)
