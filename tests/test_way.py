"""How a worker runs a model: by rules, which nothing but the device and the archive decide."""

import time
from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from export.trace import trace
from tests.conftest import DIGITS, TINY, export_to
from tests.in_process import handle, jpeg, load
from vit_core import way
from vit_core.fusion import why_not_fused
from vit_core.precision import PRECISIONS
from vit_core.settings import Explanations, Preprocessing, Settings
from vit_core.way import BRIEF, take_way

CPU = torch.device("cpu")
SIZE = (3, 32, 32)
SETTINGS = Settings(
    Preprocessing(SIZE, "bicubic", 0.9, "center", (0.5,) * 3, (0.5,) * 3),
    precisions=("bf16", "fp16", "fp32"),
    flops=BRIEF,
    explanations=Explanations(unavailable="not asked for here"),
)


@pytest.fixture(scope="module")
def traced() -> torch.jit.ScriptModule:
    torch.manual_seed(0)
    return trace(timm.create_model("vit_tiny_patch16_224", num_classes=3, **TINY).eval(), SIZE)


class Gated(nn.Module):
    """A gated layer as EVA-02 has it: one half of a tensor times the other."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.narrow = nn.Linear(96, 128), nn.Linear(64, 3)

    def forward(self, pixels):
        gate, x = self.wide(pixels.reshape(-1, 32, 96)).chunk(2, dim=-1)
        return self.narrow(nn.functional.silu(gate) * x).mean(1)


class RelativePositions(nn.Module):
    """Attention with relative positions added in six dimensions, as MViT has it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.head = nn.Linear(96, 16), nn.Linear(16, 3)
        self.rows, self.columns = nn.Linear(16, 4), nn.Linear(16, 8)

    def forward(self, pixels):
        x = self.tokens(pixels.reshape(-1, 32, 96))
        scores = (x @ x.transpose(1, 2)).view(-1, 1, 4, 8, 4, 8)
        scores = scores + self.rows(x).view(-1, 1, 4, 8, 4, 1) + self.columns(x).view(-1, 1, 4, 8, 1, 8)
        return self.head(scores.view(-1, 32, 32).softmax(-1) @ x).mean(1)


# --- the rules ---


def test_nothing_is_timed_so_that_a_busy_machine_runs_a_model_as_an_idle_one_does(traced, monkeypatch):
    first = take_way(traced, SETTINGS, CPU, 2)

    def slow_freeze(*given, **options):
        time.sleep(0.3)
        return torch.jit._freeze.freeze(*given, **options)

    monkeypatch.setattr(way.torch.jit, "freeze", slow_freeze)
    second = take_way(traced, SETTINGS, CPU, 2)
    assert first[1] == second[1]
    for dtype in {PRECISIONS[first[1].precision].dtype}:
        pixels = torch.randn(4, *SIZE).to(dtype)
        with torch.inference_mode():
            assert torch.equal(first[0](pixels), second[0](pixels))


def test_two_loads_of_an_archive_answer_alike_to_the_last_digit(tiny_model, tmp_path):
    archive = export_to(tmp_path / "store", f"local-dir:{tiny_model}")
    rows = [{"body": jpeg(seed)} for seed in range(5)]
    answers = []
    for number in range(2):
        handler, context = load(archive, tmp_path / str(number))
        answers.append(handle(handler, context, rows))
    assert answers[0] == answers[1]


@pytest.mark.parametrize(("flops", "threads"), [(BRIEF - 1, 1), (BRIEF, 2)])
def test_a_model_of_few_operations_runs_on_one_thread(flops, threads, traced):
    _, taken = take_way(traced, replace(SETTINGS, flops=flops), CPU, 2)
    assert taken.threads == torch.get_num_threads() == threads
    assert ("one thread for 0.5 billion operations an image" in taken.rule) == (threads == 1)


@pytest.mark.parametrize(("flops", "calls"), [(BRIEF - 1, TINY["depth"]), (BRIEF, 0)])
def test_a_fused_model_of_few_operations_keeps_torchs_attention_in_fp32(flops, calls, traced):
    """oneDNN computes attention head by head, at a cost for each that is more than it saves."""
    model, taken = take_way(traced, replace(SETTINGS, flops=flops, precisions=("fp32",)), CPU, 2)
    assert taken.fused
    assert len(model.graph.findAllNodes("aten::scaled_dot_product_attention")) == calls


@pytest.mark.parametrize("fast", sorted({False, PRECISIONS["bf16"].is_fast(CPU)}))
def test_the_rule_says_which_precision_and_why(fast, traced, monkeypatch):
    without = {**torch.cpu.get_capabilities(), "amx_tile": False, "avx512_bf16": False}
    if not fast:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: without)
    _, taken = take_way(traced, SETTINGS, CPU, 2)
    said = "bf16, as this CPU multiplies it fast" if fast else "fp32, as this CPU multiplies it fast, and not bf16 or fp16"
    assert taken.rule == f"{said}; fused by oneDNN"
    assert taken.fused and torch.jit.onednn_fusion_enabled()


def test_an_archive_of_one_precision_leaves_no_choice(traced):
    _, taken = take_way(traced, replace(SETTINGS, precisions=("fp32",)), CPU, 2)
    assert taken.precision == "fp32" and taken.rule.startswith("fp32, as no other precision is allowed")


def test_a_model_that_onednn_does_not_take_runs_without_fusion(tmp_path):
    torch.manual_seed(0)
    options = {"img_size": 56, "embed_dim": 24, "depths": (1, 1, 1, 1)}
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=3, **options).eval()
    settings = replace(SETTINGS, preprocessing=replace(SETTINGS.preprocessing, input_size=(3, 56, 56)), precisions=("fp32",))
    prepared, taken = take_way(trace(model, (3, 56, 56)), settings, CPU, 2)
    assert not taken.fused and not torch.jit.onednn_fusion_enabled()
    assert "not fused, as oneDNN does not take this model" in taken.rule
    # Its products are oneDNN's all the same, with GELU in them.
    kinds = ("aten::linear", "aten::gelu", "mkldnn::_linear_pointwise")
    linear = sum(isinstance(layer, nn.Linear) for layer in model.modules())
    assert [len(prepared.graph.findAllNodes(kind)) for kind in kinds] == [0, 0, linear]
    pixels = torch.randn(3, 3, 56, 56)
    with torch.inference_mode():
        torch.testing.assert_close(prepared(pixels), model(pixels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("module", [Gated(), RelativePositions()], ids=lambda module: type(module).__name__)
def test_a_model_with_an_operator_that_onednn_is_slow_at_runs_without_fusion(module):
    module.eval()
    prepared, taken = take_way(trace(module, SIZE), replace(SETTINGS, precisions=("fp32",)), CPU, 2)
    assert not taken.fused and "not fused, as oneDNN is slow at aten::" in taken.rule
    pixels = torch.randn(3, *SIZE)
    with torch.inference_mode():
        torch.testing.assert_close(prepared(pixels), module(pixels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", [name for name in ("fp32", "bf16") if PRECISIONS[name].is_fast(CPU)])
def test_a_plain_vit_has_no_operator_that_onednn_is_slow_at(precision, traced):
    _, why_not = way._fused(traced, PRECISIONS[precision], SIZE, brief=False)
    assert why_not is None
    graph = torch.jit.last_executed_optimized_graph()
    assert graph.findAllNodes("prim::oneDNNFusionGroup") and why_not_fused(graph) is None


def test_a_model_of_which_onednn_fuses_nothing_does_not_say_that_it_is_fused():
    _, taken = take_way(trace(nn.Flatten(), SIZE), replace(SETTINGS, precisions=("fp32",)), CPU, 2)
    assert not taken.fused and taken.rule.endswith("; not fused, as oneDNN fuses none of its operators on this CPU")


def test_a_gpu_runs_the_first_fast_precision_without_fusion(traced, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    _, taken = take_way(traced, SETTINGS, torch.device("cuda:0"), 4)
    assert (taken.precision, taken.fused, taken.threads) == ("bf16", False, 4)
    assert taken.rule == "bf16, as this GPU multiplies it fast"


def test_the_handler_says_by_which_rule_it_runs(tmp_path):
    handler, _ = load(export_to(tmp_path, f"local-dir:{DIGITS}"), tmp_path / "unpacked")
    described = handler.predictor.describe()
    assert described["rule"] == handler.predictor.model.way.rule
    assert "one thread for 0.035 billion operations an image" in described["rule"]
