"""int8 models as the handler rewrites them: the numbers of the plain form, in few passes over memory."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from export.fold import fold
from tests.test_int8 import SMALL, in_int8, logits, needs_vnni, noise, packed
from tests.test_int8 import vit as vit
from vit_core.graph import constant, only_user
from vit_core.int8.products import OUTPUT_TYPE, PRODUCT
from vit_core.residual import FLOAT

BFLOAT16 = 15  # as a graph has it


@needs_vnni
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("between", "tolerance"), [(torch.float32, 0.02), (torch.bfloat16, 0.04)])
def test_products_give_what_the_plain_form_gives(name, between, tolerance):
    """Up to a step here and there: what is half between two of them may be rounded either way."""
    options, size = SMALL[name]
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **options).eval()
    for layer in model.modules():
        if isinstance(layer, nn.LayerNorm):  # a new one neither scales nor shifts
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
    quantized = in_int8(fold(model, (3, size, size)), noise(8, size))
    pictures = noise(3, size)
    expected = logits(quantized, pictures)
    found = logits(packed(quantized, between, size), pictures)
    assert (found - expected).abs().max() <= tolerance * expected.abs().max() + 1e-4


@needs_vnni
def test_a_block_takes_no_more_passes_than_it_must(vit):
    """Four products; GELU in one of them, whose output is the next one's input; two norms that count in steps; two that add."""
    graph = packed(in_int8(vit, noise(16)), torch.bfloat16).graph
    expected = {
        PRODUCT: 8,
        "aten::quantize_per_tensor": 6,
        "aten::layer_norm": 5,
        "aten::gelu": 0,
        "aten::mul": 0,
        "aten::add": 1,
    }
    assert {kind: len(graph.findAllNodes(kind)) for kind in expected} == expected
    casts = graph.findAllNodes("aten::to")
    assert len(casts) == 2 + 2 + 2  # of the patches, of what attention gives in two blocks, of the classifier: in or out
    for node in graph.findAllNodes("aten::scaled_dot_product_attention"):  # the cast lays the heads of a patch side by side
        assert only_user(only_user(node.output()).output()).kind() == "aten::to"


@needs_vnni
def test_a_stem_of_convolutions_is_cast_at_its_two_ends():
    """Convolutions that are cast one by one make a model slower in int8 than in bf16. These are not in int8."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            first = (nn.Conv2d(3, 8, 3, 2), nn.GroupNorm(2, 8), nn.ReLU(inplace=True))
            self.stem = nn.Sequential(*first, nn.MaxPool2d(2), nn.Conv2d(8, 32, 3, padding=1), nn.Conv2d(32, 32, 3, groups=32))
            self.norm, self.layer = nn.LayerNorm(32), nn.Linear(32, 8)

        def forward(self, pixels):
            return self.layer(self.norm(self.stem(pixels).flatten(2).transpose(1, 2))).flatten(1)

    graph = packed(in_int8(Net().eval(), noise(8)), torch.bfloat16).graph
    assert {kind: len(graph.findAllNodes(f"aten::{kind}")) for kind in ("_convolution", "relu", "relu_", "to")} == {
        "_convolution": 3,
        "relu": 1,
        "relu_": 0,
        "to": 2,
    }


@needs_vnni
def test_attention_that_is_spelled_out_runs_in_bf16():
    """Its products do, with what is added to them; the softmax does not. What is read by nothing else comes in bf16."""
    options, size = SMALL["swin_tiny_patch4_window7_224"]
    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, **options).eval()
    graph = packed(in_int8(swin, noise(8, size)), torch.bfloat16, size).graph
    products = graph.findAllNodes("aten::matmul")
    assert len(products) == 2 * 4 and not graph.findAllNodes("aten::scaled_dot_product_attention")
    casts = [(node.inputsAt(0).node().kind(), node.output()) for node in graph.findAllNodes("aten::to")]
    found = [(before, only_user(cast).kind()) for before, cast in casts]
    assert found[2:-2] == 4 * [  # the others are of the patches and of the classifier
        ("aten::add", "aten::softmax"),
        ("aten::softmax", "aten::matmul"),
        ("aten::transpose", "aten::reshape"),
    ]
    given = [constant(node.inputsAt(OUTPUT_TYPE)) for node in graph.findAllNodes(PRODUCT)]
    assert given.count(BFLOAT16) == 4


@needs_vnni
@pytest.mark.parametrize("other", [lambda q, k: q @ k + k.sum(), lambda q, k: q @ (k + 1)])
def test_a_product_whose_numbers_something_else_reads_stays_in_fp32(other):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.layer = nn.LayerNorm(32), nn.Linear(32, 32)

        def forward(self, pixels):
            x = self.layer(self.norm(pixels[:, 0]))
            return other(x * 0.5, x.transpose(1, 2)).flatten(1)

    torch.manual_seed(0)
    quantized = in_int8(Net().eval(), noise(16))
    model = packed(quantized, torch.bfloat16)
    assert constant(model.graph.findNode(PRODUCT).inputsAt(OUTPUT_TYPE)) == FLOAT
    pictures = noise(3)
    expected = logits(quantized, pictures)
    torch.testing.assert_close(logits(model, pictures), expected, rtol=0, atol=0.02 * expected.abs().max().item())


class Masked(nn.Module):
    """Attention with a mask that it computes, which is boolean or is added."""

    def __init__(self, mask):
        super().__init__()
        self.norm, self.layer, self.mask = nn.LayerNorm(32), nn.Linear(32, 96), mask

    def forward(self, pixels):
        q, k, v = self.layer(self.norm(pixels[:, 0])).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v, self.mask(q @ k.transpose(1, 2))).flatten(1)


class Pooled(nn.Module):
    """A convolution, a mean that may give fp32, and a convolution."""

    def __init__(self, dtype):
        super().__init__()
        self.stem, self.gate, self.dtype = nn.Conv2d(3, 32, 8, 8), nn.Conv2d(32, 32, 1), dtype
        self.norm, self.layer = nn.LayerNorm(32), nn.Linear(32, 8)

    def forward(self, pixels):
        x = self.stem(pixels)
        x = x * self.gate(x.mean((2, 3), keepdim=True, dtype=self.dtype)).sigmoid()
        return self.layer(self.norm(x.flatten(2).transpose(1, 2))).flatten(1)


@needs_vnni
@pytest.mark.parametrize(
    ("net", "casts"),
    [
        (lambda: Masked(lambda scores: scores > scores.mean(-1, keepdim=True)), None),
        (lambda: Masked(lambda scores: 5 * scores.sigmoid()), None),
        (lambda: Pooled(None), 2),  # of the stem: in and out
        (lambda: Pooled(torch.float32), 4),
    ],
)
def test_what_is_not_numbers_of_the_products_keeps_its_type(net, casts):
    torch.manual_seed(0)
    quantized = in_int8(net().eval(), noise(16))
    model = packed(quantized, torch.bfloat16)
    if casts:
        assert len(model.graph.findAllNodes("aten::to")) == casts
    pictures = noise(3)
    expected = logits(quantized, pictures)
    near = (logits(model, pictures) - expected).abs() <= 0.03 * expected.abs().max()
    assert near.float().mean() >= 0.99  # a score next to the mean may be masked or not


@needs_vnni
def test_windows_are_shifted_padded_and_cut_in_eight_bits():
    """Of a Swin whose patches fill no whole number of windows. What is padded is the step of zero, not zero steps."""
    torch.manual_seed(0)
    options = SMALL["swin_tiny_patch4_window7_224"][0] | {"img_size": 72, "depths": (2, 1, 1, 1)}
    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, **options).eval()
    quantized = in_int8(swin, noise(8, 72))
    model = packed(quantized, torch.float32, 72)
    rolled = [node.inputsAt(0).node().kind() for node in model.graph.findAllNodes("aten::roll")]
    assert rolled == ["aten::set_", "aten::contiguous"]  # there, and back in fp32
    padded = [node.inputsAt(0).node().kind() for node in model.graph.findAllNodes("aten::pad")]
    assert padded.count("aten::set_") == 4 and padded.count("aten::roll") == 1  # and what merges patches
    pictures = noise(3, 72)
    expected = logits(quantized, pictures)
    torch.testing.assert_close(logits(model, pictures), expected, rtol=0, atol=0.02 * expected.abs().max().item())


@needs_vnni
@pytest.mark.parametrize(
    ("move", "first"),
    [
        (lambda x: F.pad(x, (0, 0, 1, 1)), True),
        (lambda x: F.pad(x, (0, 0, 1, 1), value=3), False),
        (lambda x: F.pad(x, (0, 0, 1, 1), mode="reflect"), False),
        (lambda x: x.roll(1, 1) + x.mean(), False),
    ],
)
def test_numbers_are_rounded_before_they_move_if_that_is_the_same(move, first):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.layer = nn.LayerNorm(32), nn.Linear(32, 8)

        def forward(self, pixels):
            return self.layer(move(self.norm(pixels[:, 0]))).flatten(1)

    torch.manual_seed(0)
    quantized = in_int8(Net().eval(), noise(16) + 0.5)
    model = packed(quantized, torch.float32)
    rounded = model.graph.findNode("aten::quantize_per_tensor").inputsAt(0).node().inputsAt(0).node()
    assert (rounded.kind() == "aten::layer_norm") == first
    pictures = noise(3) + 0.5
    expected = logits(quantized, pictures)
    torch.testing.assert_close(logits(model, pictures), expected, rtol=0, atol=0.02 * expected.abs().max().item())


def test_a_packed_graph_inserts_at_a_node_that_it_has(vit):
    """At a removed one the next rewrite would write into freed memory: other graphs would change, or the process end."""
    assert packed(in_int8(vit, noise(16)), torch.float32).graph.insertPoint().kind() == "prim::Return"
