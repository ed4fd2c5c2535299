"""int8 models as a worker runs them: oneDNN fuses what is between their products, and the plain form runs without VNNI."""

from dataclasses import replace

import timm
import torch

from export.trace import trace
from tests.test_int8 import PLAIN, SIZE, SMALL, in_int8, logits, needs_vnni, noise
from tests.test_int8 import vit as vit
from vit_core import way
from vit_core.int8 import PRODUCT, Int8Linear
from vit_core.settings import Explanations, Settings
from vit_core.way import take_way

CPU = torch.device("cpu")
SETTINGS = Settings(
    PLAIN, precisions=("int8",), flops=way.BRIEF, explanations=Explanations(unavailable="nothing is explained here")
)


@needs_vnni
def test_without_vnni_the_plain_form_runs(vit, monkeypatch):
    traced = trace(in_int8(vit, noise(16)), SIZE)
    pictures = noise(4)
    fast, taken = take_way(traced, SETTINGS, CPU, 2)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    slow, other = take_way(traced, SETTINGS, CPU, 2)
    assert "; 8 linear layers multiplied in int8, attention and the others in " in taken.rule
    assert other.rule.endswith("; multiplied in fp32, as this CPU has no VNNI") and not other.fused
    assert not slow.graph.findAllNodes(PRODUCT)
    torch.testing.assert_close(logits(slow, pictures), logits(fast, pictures), rtol=0, atol=0.02)


@needs_vnni
def test_onednn_fuses_the_attention_between_int8_products(vit):
    """torch's own takes twice as long."""
    model, taken = take_way(trace(in_int8(vit, noise(16)), SIZE), SETTINGS, CPU, 2)
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
    assert len(model.graph.findAllNodes(PRODUCT)) == sum(isinstance(layer, Int8Linear) for layer in quantized.modules())
    pictures = noise(3, size)
    expected = logits(quantized, pictures)
    assert (logits(model, pictures) - expected).abs().max() <= 0.04 * expected.abs().max() + 1e-4
