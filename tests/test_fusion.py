"""What a model is rewritten to so that oneDNN can fuse it: the same values, and none that it refuses."""

import pytest
import timm
import torch
from torch import nn

from export.fold import fold
from export.trace import trace
from tests.conftest import DIGITS, TINY
from vit_core.fusion import prepare_for_fusion
from vit_core.precision import PRECISIONS
from vit_core.way import _frozen

ROPE = TINY | {"depth": 2}


@pytest.mark.parametrize(
    ("name", "options", "size", "rotations"),
    [
        (f"local-dir:{DIGITS}", {"pretrained": True}, 48, 0),  # a ResNet's stem, with relu_
        ("vit_small_patch16_rope_224", ROPE, 32, 4),
        ("eva02_tiny_patch14_224", ROPE, 32, 4),
        ("vit_small_patch16_dinov3", ROPE, 32, 4),
    ],
)
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 2e-2)])
def test_hybrids_and_rotary_embeddings_can_be_fused(name, options, size, rotations, precision, tolerance):
    """In bf16 oneDNN refuses them as they are; rotations, of queries and of keys in each layer, are left to torch."""
    torch.manual_seed(0)
    model = timm.create_model(name, **options).eval()
    pixels = torch.randn(5, 3, size, size)
    torch.jit.enable_onednn_fusion(True)
    prepared = _frozen(trace(fold(model, (3, size, size)), (3, size, size)), PRECISIONS[precision])
    prepare_for_fusion(prepared)
    assert str(prepared.graph).count("aten::addcmul") == 2 * rotations
    with torch.inference_mode():
        expected = model(pixels)
        for _ in range(3):  # profiled, compiled, run
            outputs = prepared(pixels.to(PRECISIONS[precision].dtype))
    torch.testing.assert_close(outputs.float(), expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def test_attention_is_spelled_out_for_fusion_and_stays_the_same():
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=3, **TINY).eval()
    frozen = torch.jit.freeze(trace(vit, [3, 32, 32]))
    assert "scaled_dot_product_attention" in str(frozen.graph)
    prepare_for_fusion(frozen)
    assert "scaled_dot_product_attention" not in str(frozen.graph)
    for count in (1, 5):
        pixels = torch.randn(count, 3, 32, 32)
        torch.testing.assert_close(frozen(pixels), vit(pixels), rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{"attn_mask": torch.zeros(4, 4)}, {"is_causal": True}, {"scale": 0.5}])
def test_attention_with_a_mask_or_a_scale_of_its_own_is_left_as_it_is(options):
    class Masked(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x, **options)

    x = torch.randn(1, 2, 4, 8)
    frozen = torch.jit.freeze(torch.jit.trace(Masked().eval(), x))
    prepare_for_fusion(frozen)
    torch.testing.assert_close(frozen(x), Masked()(x))
    assert "scaled_dot_product_attention" in str(frozen.graph)
