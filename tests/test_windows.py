"""A Swin whose tokens stay in the order of windows: the same values, in fewer passes."""

import pytest
import timm
import torch
from torch import nn

from export.fold import fold
from export.trace import trace
from export.windows import WindowedBlocks
from tests.test_int8 import in_int8, logits, needs_vnni, noise, packed
from vit_core.int8.layers import Int8Layer
from vit_core.int8.products import PRODUCT
from vit_core.residual import ALONE

V1, V2 = "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"
DEPTHS = {"embed_dim": 24, "depths": (2, 3, 2, 1), "num_heads": (2, 2, 4, 4), "num_classes": 5}
# Options of a model, by the number of its stages that are rewritten.
SWINS = [
    (V1, {"img_size": 112}, 4),
    (V1, {"img_size": 112, "window_size": 4}, 2),  # the last two stages are 7 x 7 and 4 x 4
    (V1, {"img_size": (56, 112)}, 4),
    (V1, {"img_size": 112, "window_size": (7, 14, 7, 2)}, 4),
    (V1, {"img_size": 112, "qkv_bias": False}, 4),
    (V1, {"img_size": 112, "always_partition": True}, 3),
    (V1, {"img_size": 112, "strict_img_size": False}, 0),  # its masks are made for each image
    (V1, {"img_size": 120}, 1),
    (V2, {"img_size": 128}, 4),
    (V2, {"img_size": (64, 128)}, 4),
    (V2, {"img_size": 128, "window_size": 12}, 2),
    (V2, {"img_size": 128, "qkv_bias": False}, 4),
]


def swin(name: str, options: dict) -> nn.Module:
    """A model whose attention matters: timm's first weights make it nearly an average of each window."""
    torch.manual_seed(0)
    model = timm.create_model(name, **DEPTHS | options).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "norm" in key:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            elif parameter.dim() < 2 or "table" in key or "cpb" in key:
                parameter.normal_()
            elif "attn" in key:
                parameter.normal_(std=0.4)
    return model


def size_of(model: nn.Module) -> tuple[int, int, int]:
    return (3, *model.patch_embed.img_size)


@torch.inference_mode()
@pytest.mark.parametrize(("name", "options", "stages"), SWINS)
def test_the_values_stay_the_same(name, options, stages):
    model = swin(name, options)
    folded = fold(model, size_of(model))
    assert sum(isinstance(each, WindowedBlocks) for each in folded.modules()) == stages
    pixels = torch.randn(3, *size_of(model))
    expected = model(pixels)
    torch.testing.assert_close(folded(pixels), expected, rtol=0, atol=2e-5 * expected.abs().max().item())


@torch.inference_mode()
def test_an_image_of_another_size_than_the_masks_were_made_for():
    """timm's blocks take one whose windows are as many as the mask's."""
    model = swin(V1, {"img_size": (56, 112)})
    model.patch_embed.strict_img_size = False
    pixels = torch.randn(3, 3, 112, 56)
    expected = model(pixels)
    folded = fold(model, (3, 112, 56))
    torch.testing.assert_close(folded(pixels), expected, rtol=0, atol=2e-5 * expected.abs().max().item())


@torch.inference_mode()
def test_a_stage_with_a_block_of_ones_own_stays():
    class Mine(type(swin(V1, {"img_size": 56}).layers[0].blocks[0])):
        def forward(self, x):
            return 2 * super().forward(x)

    model = swin(V1, {"img_size": 112})
    model.layers[0].blocks[1].__class__ = Mine
    folded = fold(model, size_of(model))
    assert sum(isinstance(each, WindowedBlocks) for each in folded.modules()) == 3
    pixels = torch.randn(3, *size_of(model))
    expected = model(pixels)
    torch.testing.assert_close(folded(pixels), expected, rtol=0, atol=2e-5 * expected.abs().max().item())


@torch.inference_mode()
def test_a_layer_in_the_place_of_timms_is_called():
    """The factor of the queries cannot go into the weights of a layer that nothing is known of."""

    class Mine(nn.Linear):
        def forward(self, x):
            return super().forward(x).tanh()

    model = swin(V1, {"img_size": 112})
    for block in model.layers[0].blocks:
        block.attn.qkv.__class__ = Mine
    pixels = torch.randn(3, *size_of(model))
    expected = model(pixels)
    folded = fold(model, size_of(model))
    torch.testing.assert_close(folded(pixels), expected, rtol=0, atol=2e-5 * expected.abs().max().item())


@torch.inference_mode()
@pytest.mark.parametrize("name", [V1, V2])
def test_what_stands_in_the_place_of_a_drop_path_is_called(name):
    model = swin(name, {"img_size": 112 if name == V1 else 128})
    for block in model.layers[0].blocks:
        block.drop_path1, block.drop_path2 = nn.Tanh(), nn.Sigmoid()
    pixels = torch.randn(3, *size_of(model))
    expected = model(pixels)
    folded = fold(model, size_of(model))
    assert sum(isinstance(each, WindowedBlocks) for each in folded.modules()) == 4
    torch.testing.assert_close(folded(pixels), expected, rtol=0, atol=2e-5 * expected.abs().max().item())


@pytest.mark.parametrize("name", [V1, V2])
def test_a_block_moves_its_tokens_once(name):
    model = swin(name, {"img_size": 112 if name == V1 else 128})
    graph = torch.jit.freeze(trace(fold(model, size_of(model)), size_of(model))).graph
    # And back at the end of a stage. The last two stages are one window each.
    moves = (DEPTHS["depths"][0] + 1) + (DEPTHS["depths"][1] + 1)
    kinds = ("aten::index_select", "aten::roll", "aten::index")  # the last one: positions and masks are constants
    assert [len(graph.findAllNodes(kind)) for kind in kinds] == [moves, 0, 0]


def test_queries_keys_and_values_of_a_v2_are_in_int8():
    model = swin(V2, {"img_size": 64})
    quantized = in_int8(fold(model, size_of(model)), noise(8, 64))
    layers = [name for name, layer in quantized.named_modules() if isinstance(layer, Int8Layer) and name.endswith("qkv")]
    assert len(layers) == sum(DEPTHS["depths"])


@needs_vnni
def test_residuals_are_added_within_int8_products():
    model = swin(V1, {"img_size": 112})
    quantized = in_int8(fold(model, size_of(model)), noise(8, 112))
    graph = packed(quantized, torch.float32, 112)
    products = [len(list(node.inputs())) > ALONE for node in graph.graph.findAllNodes(PRODUCT)]
    assert sum(products) == 2 * sum(DEPTHS["depths"])
    pictures = noise(3, 112)
    expected = logits(quantized, pictures)
    torch.testing.assert_close(logits(graph, pictures), expected, rtol=0, atol=0.02 * expected.abs().max().item())
