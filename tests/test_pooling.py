"""What pools in a model is laid out with the channels last: the same values to the bit, by the code that is fast."""

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.conftest import DIGITS
from vit_core.pooling import pool_channels_last
from vit_core.precision import PRECISIONS
from vit_core.way import prepared

POOLS = {
    "max, a stem's": nn.MaxPool2d(3, 2, 1),
    "max, hanging over": nn.MaxPool2d(3, 2, ceil_mode=True),
    "max, its stride its size": nn.MaxPool2d((2, 3)),
    "max, dilated": nn.MaxPool2d(2, 1, dilation=2),
    "average": nn.AvgPool2d(2),
    "average, padded": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "average, of a divisor": nn.AvgPool2d(3, 2, divisor_override=5),
}


def frozen(module: nn.Module, *example: int) -> torch.jit.ScriptModule:
    return torch.jit.freeze(torch.jit.trace(module.eval(), torch.randn(*example)))


@given(
    pool=st.sampled_from(sorted(POOLS)),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(7, 20), st.integers(7, 20)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    last=st.booleans(),
)
def test_a_pool_gives_the_same_to_the_bit(pool, shape, dtype, last):
    pooling = frozen(POOLS[pool], 2, 3, 9, 9)
    pool_channels_last(pooling)
    pixels = torch.randn(shape).to(dtype)
    given = pixels.contiguous(memory_format=torch.channels_last) if last else pixels
    assert torch.equal(pooling(given), POOLS[pool](pixels))


@pytest.mark.parametrize("pool", sorted(POOLS))
def test_its_pool_reads_channels_that_are_last(pool):
    pooling = frozen(POOLS[pool], 2, 3, 9, 9)
    pool_channels_last(pooling)
    (node,) = [node for kind in ("max_pool2d", "avg_pool2d") for node in pooling.graph.findAllNodes(f"aten::{kind}")]
    laid_out = node.inputsAt(0)
    assert laid_out.node().kind() == "aten::contiguous"
    pooling.graph.eraseOutput(0)
    pooling.graph.registerOutput(laid_out)
    layout = torch._C._create_function_from_graph("layout", pooling.graph.copy())
    read = layout(pooling, torch.randn(2, 5, 9, 9))
    assert read.is_contiguous(memory_format=torch.channels_last) and not read.is_contiguous()


def test_an_image_without_a_batch_is_pooled_too():
    pool = nn.MaxPool2d(2)
    pooling = frozen(pool, 3, 8, 8)
    pool_channels_last(pooling)
    image = torch.randn(5, 12, 12)
    assert torch.equal(pooling(image), pool(image))


@pytest.mark.parametrize(
    ("fused", "avx512", "rewritten"), [(False, True, True), (False, False, True), (True, False, True), (True, True, False)]
)
def test_only_onednn_with_avx512_pools_as_fast_channel_by_channel(fused, avx512, rewritten, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: avx512)
    digits = timm.create_model(f"local-dir:{DIGITS}", pretrained=True).eval()
    model = prepared(torch.jit.trace(digits, torch.randn(2, 3, 48, 48)), PRECISIONS["fp32"], fused)
    (pool,) = model.graph.findAllNodes("aten::max_pool2d")
    assert (pool.inputsAt(0).node().kind() == "aten::contiguous") == rewritten
    pixels = torch.randn(3, 3, 48, 48)
    with torch.inference_mode():
        for _ in range(3):  # profiled, compiled, run
            found = model(pixels)
        torch.testing.assert_close(found, digits(pixels), rtol=1e-4, atol=1e-4)
