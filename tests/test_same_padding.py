"""Padding that timm computes for each image is a constant in an export: the same values, without the computation."""

import pytest
import timm
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from torch import nn

from export.fold import fold
from export.same_padding import LAYERS, fix_padding
from export.trace import trace
from tests.conftest import DIGITS

EDGES = st.integers(1, 3)


@pytest.mark.parametrize("kind", LAYERS)
@settings(max_examples=200)
@given(
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(EDGES, EDGES),
    dilation=st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 2)]),
    size=st.tuples(st.integers(5, 19), st.integers(5, 19)),
    ceil_mode=st.booleans(),
)
def test_a_layer_with_a_constant_gives_the_same(kind, kernel, stride, dilation, size, ceil_mode):
    torch.manual_seed(0)
    if kind is Conv2dSame:
        layer = Conv2dSame(3, 4, kernel, stride, dilation=dilation)
    elif kind is MaxPool2dSame:
        layer = MaxPool2dSame(kernel, stride, dilation=dilation, ceil_mode=ceil_mode)
    else:
        layer = AvgPool2dSame(kernel, stride, ceil_mode=ceil_mode)
    module = nn.Sequential(layer)
    images = torch.randn(2, 3, *size) - 3  # a zero would be the largest number of a window
    expected = module(images)
    assume(expected.numel())
    assert fix_padding(module, (3, *size))
    assert not any(isinstance(each, LAYERS) for each in module.modules())
    # A convolution may be computed by other code, in another order.
    torch.testing.assert_close(module(images), expected, rtol=0, atol=1e-5 if kind is Conv2dSame else 0)


@pytest.mark.parametrize(
    ("name", "pads"), [(f"local-dir:{DIGITS}", 1), ("vit_tiny_r_s16_p8_224", 1), ("tf_efficientnet_b0", 5)]
)
def test_a_trace_computes_no_padding(name, pads):
    """What is left is padding that has one more number on one side, before a convolution, which has no such padding itself."""
    torch.manual_seed(0)
    module = timm.create_model(name, pretrained=name.startswith("local-dir")).eval()
    size = module.pretrained_cfg["input_size"]
    folded = fold(module, size)
    assert not any(isinstance(each, LAYERS) for each in folded.modules())
    graph = torch.jit.freeze(trace(folded, size)).graph
    assert [len(graph.findAllNodes(kind)) for kind in ("aten::pad", "prim::NumToTensor", "aten::ceil")] == [pads, 0, 0]
    pixels = torch.randn(2, *size)
    with torch.inference_mode():
        torch.testing.assert_close(folded(pixels), module(pixels), rtol=1e-4, atol=1e-5)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool, self.unused = MaxPool2dSame(3, 2), MaxPool2dSame(3, 2)

    def forward(self, x):
        return self.pool(self.pool(x))


def test_a_layer_that_is_called_with_two_sizes_or_never_stays_as_it_is():
    twice = Twice()
    before = dict(twice.named_children())
    assert not fix_padding(twice, (3, 12, 12))
    assert dict(twice.named_children()) == before


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = self.other = Conv2dSame(3, 3, 3, 2)

    def forward(self, x):
        return torch.cat([self.one(x), self.other(x)])


def test_a_layer_with_two_names_is_replaced_under_both():
    shared = Shared()
    images = torch.randn(1, 3, 9, 9)
    expected = shared(images)
    assert fix_padding(shared, (3, 9, 9))
    assert shared.one is shared.other and not isinstance(shared.one, LAYERS)
    torch.testing.assert_close(shared(images), expected, rtol=0, atol=1e-5)
