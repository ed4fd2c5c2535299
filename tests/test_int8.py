"""The linear layers of a model in int8: near to fp32, and independent of the neighbours in a batch."""

import copy

import pytest
import timm
import torch
from torch import nn

from export.int8 import Int8Linear, quantize
from tests.conftest import TINY


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", num_classes=3, **TINY).eval()


def test_int8_is_near_fp32_and_leaves_the_module_as_it_was(vit):
    before = copy.deepcopy(vit.state_dict())
    quantized = quantize(vit, (3, 32, 32))
    assert {type(layer) for layer in quantized.modules() if hasattr(layer, "out_features")} == set()
    assert sum(isinstance(layer, Int8Linear) for layer in quantized.modules()) == 5
    assert all(torch.equal(vit.state_dict()[key], value) for key, value in before.items())
    pixels = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        difference = (quantized(pixels).softmax(1) - vit(pixels).softmax(1)).abs().max().item()
    assert 0 < difference < 0.02


def test_an_int8_answer_does_not_depend_on_its_neighbours(vit):
    quantized = quantize(vit, (3, 32, 32))
    pixels = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    loud = torch.cat([pixels[:1], pixels[1:] * 1000])  # one scale for the batch would leave the first image nothing
    with torch.inference_mode():
        torch.testing.assert_close(quantized(loud)[0], quantized(pixels[:1])[0], rtol=0, atol=1e-5)


def test_a_layer_whose_weights_are_read_elsewhere_stays_as_it_is():
    beit = timm.create_model("beit_base_patch16_224", num_classes=3, depth=1, embed_dim=48, num_heads=3).eval()
    quantized = quantize(beit, (3, 224, 224))
    assert type(quantized.blocks[0].attn.qkv) is nn.Linear
    assert isinstance(quantized.blocks[0].mlp.fc1, Int8Linear)
