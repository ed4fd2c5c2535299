"""int8 models as a worker runs them: oneDNN fuses what is between their products, and without VNNI their weights are fp32."""

from dataclasses import replace

import pytest
import timm
import torch

from export.fold import fold
from export.trace import trace
from tests.test_int8 import PLAIN, SIZE, SMALL, in_int8, logits, needs_vnni, noise
from tests.test_int8 import vit as vit
from vit_core import way
from vit_core.int8.layers import Int8Layer
from vit_core.int8.products import PRODUCT
from vit_core.settings import Explanations, Settings
from vit_core.way import take_way

CPU = torch.device("cpu")
SETTINGS = Settings(
    PLAIN, precisions=("int8",), flops=way.BRIEF, explanations=Explanations(unavailable="nothing is explained here")
)
NOT_FUSED = {"eva02_tiny_patch14_224"}  # in fp32


@pytest.mark.parametrize("name", SMALL)
def test_without_vnni_the_weights_are_multiplied_in_fp32_at_its_rate(name, monkeypatch):
    options, size = SMALL[name]
    torch.manual_seed(0)
    quantized = in_int8(fold(timm.create_model(name, num_classes=5, **options).eval(), (3, size, size)), noise(8, size))
    settings = replace(SETTINGS, preprocessing=replace(PLAIN, input_size=(3, size, size)))
    without = {**torch.cpu.get_capabilities(), "avx512_vnni": False, "avx_vnni": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: without)
    model, taken = take_way(trace(quantized, (3, size, size)), settings, CPU, 2)
    assert "; multiplied in fp32, as this CPU has no VNNI; " in taken.rule and taken.fused == (name not in NOT_FUSED)
    kinds = {node.kind() for node in model.graph.nodes()}
    assert not kinds & {PRODUCT, "aten::round"}
    assert ("aten::linear" in kinds) == taken.fused  # for oneDNN to fuse; else they are its products already
    pictures = noise(3, size)
    for layer in quantized.modules():
        if isinstance(layer, Int8Layer):
            layer.rounds = False
    expected = logits(quantized, pictures)
    torch.testing.assert_close(logits(model, pictures), expected, rtol=0, atol=1e-4 * expected.abs().max().item())


@needs_vnni
def test_onednn_fuses_the_attention_between_int8_products(vit):
    """torch's own takes twice as long."""
    model, taken = take_way(trace(in_int8(vit, noise(16)), SIZE), SETTINGS, CPU, 2)
    assert "; 8 layers multiplied in int8, attention and the others in " in taken.rule
    assert taken.fused and taken.rule.endswith("; fused by oneDNN")
    logits(model, noise(1))
    graph = torch.jit.last_executed_optimized_graph()
    fused = [group.g("Subgraph") for group in graph.findAllNodes("prim::oneDNNFusionGroup")]
    assert sum(len(each.findAllNodes("aten::softmax")) for each in fused) == 2
    assert not graph.findAllNodes("aten::scaled_dot_product_attention")


@needs_vnni
def test_int8_products_stay_where_onednn_does_not_take_the_rest():
    options, size = SMALL["swin_tiny_patch4_window7_224"]
    torch.manual_seed(0)
    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, **options).eval()
    quantized = in_int8(swin, noise(8, size))
    settings = replace(SETTINGS, preprocessing=replace(PLAIN, input_size=(3, size, size)))
    model, taken = take_way(trace(quantized, (3, size, size)), settings, CPU, 2)
    assert not taken.fused and "not fused, as oneDNN does not take this model" in taken.rule
    assert len(model.graph.findAllNodes(PRODUCT)) == sum(isinstance(layer, Int8Layer) for layer in quantized.modules())
    pictures = noise(3, size)
    expected = logits(quantized, pictures)
    assert (logits(model, pictures) - expected).abs().max() <= 0.04 * expected.abs().max() + 1e-4
