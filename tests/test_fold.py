"""What is computed once, when a model is exported: the same function with fewer steps."""

import pytest
import timm
import torch
from timm.layers import StdConv2dSame
from torch import nn

from export.fold import fold
from tests.conftest import TINY


def test_weight_standardization_is_done_once_and_changes_nothing():
    torch.manual_seed(0)
    hybrid = timm.create_model("vit_tiny_r_s16_p8_224", num_classes=3).eval()
    folded = fold(hybrid, (3, 224, 224))
    assert any(isinstance(layer, StdConv2dSame) for layer in hybrid.modules())
    assert not any(isinstance(layer, StdConv2dSame) for layer in folded.modules())
    pixels = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(folded(pixels), hybrid(pixels), rtol=1e-5, atol=1e-5)
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=3, **TINY)
    assert fold(plain, (3, 32, 32)) is plain


@pytest.mark.parametrize("name", ["deit3_small_patch16_224", "vit_small_patch14_reg4_dinov2", "beitv2_base_patch16_224"])
def test_layer_scale_goes_into_the_layer_before_it_and_changes_nothing(name):
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=3, depth=2, img_size=28 if "dinov2" in name else 32).eval()
    gammas = [parameter for key, parameter in module.named_parameters() if "gamma" in key]
    for gamma in gammas:
        nn.init.normal_(gamma)
    folded = fold(module, (3, *module.patch_embed.img_size))
    assert len(gammas) == 4
    assert not [key for key, _ in folded.named_parameters() if "gamma" in key]
    pixels = torch.randn(2, 3, *folded.patch_embed.img_size)
    with torch.inference_mode():
        torch.testing.assert_close(folded(pixels), module(pixels), rtol=1e-4, atol=1e-4)
