"""Precisions: how far each is from fp32, which of them an archive allows, and which one a device gets."""

import copy
import json
import zipfile

import pytest
import timm
import torch
import yaml
from torch import nn

import vit_precision
from export.int8 import Int8Linear, quantize
from export.precision import choose_precisions
from export.trace import trace
from tests.conftest import TINY, export_to
from tests.in_process import handle, jpeg, load
from vit_precision import Way, fastest, native_precisions
from vit_siblings import agree, noted

CPU = torch.device("cpu")
PREPROCESSING = {
    "input_size": (3, 32, 32),
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "crop_mode": "center",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
}


def choose(module: nn.Module, wanted: str = "auto") -> tuple[list[str], dict]:
    classes = module(torch.zeros(1, 3, 32, 32)).shape[1]
    return choose_precisions(wanted, module, trace(module, [3, 32, 32]), classes, PREPROCESSING, lambda step: None)


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", num_classes=3, **TINY).eval()


class Fragile(nn.Module):
    """A linear classifier whose last step a precision may not take."""

    def __init__(self, last):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(3, 5)
        self.last = last

    def forward(self, pixels):
        return self.last(self.head(pixels.mean((2, 3))))


# --- what the export step finds out ---


def test_each_precision_is_measured_on_photographs_and_noise(vit):
    precisions, measured = choose(vit)
    assert precisions == ["bf16", "fp16", "fp32"]
    assert measured.keys() == {"bf16", "fp16"}
    for found in measured.values():
        assert found["images"] == 12
        assert found["top1_agreement"] >= 0.9
        assert 0 < found["largest_probability_difference"] < 0.02
    assert measured["fp16"]["largest_probability_difference"] < measured["bf16"]["largest_probability_difference"]


def test_a_precision_that_overflows_or_fails_is_not_allowed():
    precisions, measured = choose(Fragile(lambda x: x * 1e6 / 1e6))
    assert precisions == ["bf16", "fp32"]
    assert measured["fp16"] == {"error": "its numbers overflow"}

    weight = torch.eye(5)  # a constant: casting the trace does not reach it
    precisions, measured = choose(Fragile(lambda x: x @ weight))
    assert precisions == ["fp32"]
    assert "same dtype" in measured["bf16"]["error"]


def test_a_precision_that_is_far_off_is_not_allowed():
    precisions, measured = choose(Fragile(lambda x: ((x + 60) - 60) * 3))  # bf16 counts in quarters at 60
    assert precisions == ["fp16", "fp32"]
    assert measured["bf16"]["largest_probability_difference"] > 0.05


def test_the_figures_and_the_choice_are_in_the_archive(tiny_model, tmp_path):
    for wanted, chosen in {"auto": ["bf16", "fp16", "fp32"], "fp16": ["fp16"], "fp32": ["fp32"], "int8": ["int8"]}.items():
        archive = export_to(tmp_path / wanted, f"local-dir:{tiny_model}", "--precision", wanted)
        with zipfile.ZipFile(archive) as file:
            config = yaml.safe_load(file.read("model-config.yaml"))
            record = json.loads(file.read("record.json"))
        assert config["handler"]["precision"] == chosen
        assert list(record["agreement_with_fp32"]) == [name for name in chosen if name != "fp32"]
        assert config.get("deviceType") == ("cpu" if wanted == "int8" else None)


# --- int8 ---


def test_int8_is_near_fp32_and_leaves_the_module_as_it_was(vit):
    before = copy.deepcopy(vit.state_dict())
    quantized = quantize(vit, [3, 32, 32])
    assert {type(layer) for layer in quantized.modules() if hasattr(layer, "out_features")} == set()
    assert sum(isinstance(layer, Int8Linear) for layer in quantized.modules()) == 5
    assert all(torch.equal(vit.state_dict()[key], value) for key, value in before.items())
    pixels = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        difference = (quantized(pixels).softmax(1) - vit(pixels).softmax(1)).abs().max().item()
    assert 0 < difference < 0.02


def test_an_int8_answer_does_not_depend_on_its_neighbours(vit):
    quantized = quantize(vit, [3, 32, 32])
    pixels = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    loud = torch.cat([pixels[:1], pixels[1:] * 1000])  # one scale for the batch would leave the first image nothing
    with torch.inference_mode():
        torch.testing.assert_close(quantized(loud)[0], quantized(pixels[:1])[0], rtol=0, atol=1e-5)


def test_a_layer_whose_weights_are_read_elsewhere_stays_as_it_is():
    beit = timm.create_model("beit_base_patch16_224", num_classes=3, depth=1, embed_dim=48, num_heads=3).eval()
    quantized = quantize(beit, [3, 224, 224])
    assert type(quantized.blocks[0].attn.qkv) is nn.Linear
    assert isinstance(quantized.blocks[0].mlp.fc1, Int8Linear)


# --- what the handler does with it ---


@pytest.mark.parametrize(
    ("precisions", "natively", "expected"),
    [
        (["bf16", "fp16", "fp32"], True, ["bf16", "fp32"]),
        (["bf16", "fp16", "fp32"], False, ["fp32"]),
        (["fp16", "fp32"], True, ["fp32"]),
        (["int8"], True, ["int8"]),
        (["bf16"], False, ["bf16"]),  # its maker asked for it, native or not
        (["fp16"], False, ["fp16"]),
    ],
)
def test_a_cpu_tries_the_precisions_that_it_multiplies_natively(precisions, natively, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: natively)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert native_precisions(precisions, CPU) == expected


@pytest.mark.parametrize(("capability", "first"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((6, 1), "fp32")])
def test_a_gpu_gets_what_its_generation_multiplies(capability, first, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert native_precisions(["bf16", "fp16", "fp32"], torch.device("cuda:0"))[0] == first


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({("fp32", False): 9, ("fp32", True): 8, ("bf16", False): 5, ("bf16", True): 3}, ("bf16", True)),
        ({("fp32", False): 9, ("fp32", True): 8, ("bf16", False): 3.1, ("bf16", True): 3}, ("bf16", False)),
        ({("fp32", False): 3, ("fp32", True): 12, ("bf16", False): 3, ("bf16", True): 3}, ("fp32", False)),
        ({("fp32", False): 9, ("fp32", True): 3, ("bf16", False): 5, ("bf16", True): None}, ("fp32", True)),
        ({("fp32", False): 9, ("fp32", True): None, ("bf16", False): 5, ("bf16", True): None}, ("bf16", False)),
    ],
)
def test_a_cpu_runs_the_model_in_the_way_that_is_fastest(seconds, chosen, vit, monkeypatch):
    """Where ways are as fast, it is the one nearer to fp32, and the simpler one; one that fails is left out."""

    def timed(model, way, shape):
        if seconds[way.precision, way.fused] is None:
            raise RuntimeError("could not add op to the graph")
        return seconds[way.precision, way.fused] / 1000  # a short call: all are tried

    monkeypatch.setattr(vit_precision, "_seconds", timed)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    _, way = fastest(trace(vit, [3, 32, 32]), ["bf16", "fp16", "fp32"], CPU, (3, 32, 32), 8)
    assert (way.precision, way.fused) == chosen
    assert torch.jit.onednn_fusion_enabled() == way.fused


def test_a_slow_moment_does_not_decide_how_a_brief_model_runs(vit, monkeypatch):
    """Its ways are tried in turns, and the least time counts."""
    asked = []

    def timed(model, way, shape):
        asked.append(way)
        slow_moment = way.fused and asked.count(way) == 1
        return 0.001 if way.fused and not slow_moment else 0.003

    monkeypatch.setattr(vit_precision, "_seconds", timed)
    _, way = fastest(trace(vit, [3, 32, 32]), ["fp32"], CPU, (3, 32, 32), 8)
    assert way == Way("fp32", fused=True)


def test_where_bf16_fails_a_large_model_runs_in_fp32(vit, monkeypatch):
    def timed(model, way, shape):
        if way.precision == "bf16":
            raise RuntimeError("not implemented for 'BFloat16'")
        return 0.5

    monkeypatch.setattr(vit_precision, "_seconds", timed)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    _, way = fastest(trace(vit, [3, 32, 32]), ["bf16", "fp16", "fp32"], CPU, (3, 32, 32), 8)
    assert way == Way("fp32", fused=False)


def test_a_large_model_is_not_tried_in_fp32_where_bf16_is_native(vit, monkeypatch):
    tried = []
    monkeypatch.setattr(vit_precision, "_seconds", lambda model, way, shape: tried.append((way.precision, shape[0])) or 0.5)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    fastest(trace(vit, [3, 32, 32]), ["bf16", "fp16", "fp32"], CPU, (3, 32, 32), 8)
    assert set(tried) == {("bf16", 1)}


@pytest.mark.parametrize(("two", "one", "threads"), [(0.002, 0.003, 1), (0.002, 0.006, 2), (0.006, 0.004, 2)])
def test_a_model_of_milliseconds_is_left_to_one_thread(two, one, threads, vit, monkeypatch):
    """Where one thread takes less than five for an image; a model that takes more with all threads is not tried with one."""
    timed = []
    monkeypatch.setattr(
        vit_precision, "_seconds", lambda *_: timed.append(torch.get_num_threads()) or (one if timed[-1] == 1 else two)
    )
    torch.set_num_threads(2)
    fastest(trace(vit, [3, 32, 32]), ["fp32"], CPU, (3, 32, 32), 8)
    assert torch.get_num_threads() == threads == timed[-1]
    assert (1 in timed) == (two < 0.005)


def test_workers_of_a_model_run_it_as_the_first_one_found_best(vit, tmp_path, monkeypatch):
    """However fast the ways are when the second one loads; and that one does not try them."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    traced, timed, best = trace(vit, [3, 32, 32]), [], Way("bf16", fused=False)
    monkeypatch.setattr(vit_precision, "_seconds", lambda model, way, _: timed.append(way) or (0.001 if way == best else 0.009))

    def load_worker(folder):
        timed.clear()
        torch.set_num_threads(2)
        _, way = fastest(traced, ["bf16", "fp16", "fp32"], CPU, (3, 32, 32), 8, folder)
        return way, torch.get_num_threads(), len(set(timed))

    assert load_worker(tmp_path) == (best, 1, 4)
    best = Way("fp32", fused=False)
    assert load_worker(tmp_path) == (Way("bf16", fused=False), 1, 1)
    assert load_worker(None) == (best, 2, 4)


def test_of_two_workers_that_load_at_once_the_second_does_as_the_first(vit, tmp_path, monkeypatch):
    times = {"bf16": 0.009, "fp32": 0.001}

    def timed(model, way, shape):
        agree(tmp_path, {"precision": "bf16", "fused": True, "threads": 1})  # meanwhile, by the first
        return times[way.precision]

    monkeypatch.setattr(vit_precision, "_seconds", timed)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    _, way = fastest(trace(vit, [3, 32, 32]), ["bf16", "fp32"], CPU, (3, 32, 32), 8, tmp_path)
    assert way == Way("bf16", fused=True)
    assert torch.get_num_threads() == 1 and torch.jit.onednn_fusion_enabled()


def test_what_workers_agree_on_is_not_written_into_a_folder_of_the_user(tmp_path):
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "server").mkdir()
    link = tmp_path / "server" / "unpacked"
    link.symlink_to(tmp_path / "unpacked")
    assert agree(link, {"threads": 1}) == agree(link, {"threads": 2}) == noted(link) == {"threads": 1}
    assert list((tmp_path / "unpacked").iterdir()) == []
    assert agree(tmp_path / "nowhere", {"threads": 3}) == {"threads": 3}


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 1e-2), ("fp16", 2e-3), ("int8", 2e-2)])
def test_the_handler_answers_in_each_precision_alone_and_in_a_batch(precision, tolerance, tiny_model, tmp_path):
    eager = timm.create_model(f"local-dir:{tiny_model}", pretrained=True).eval()
    archive = export_to(tmp_path, f"local-dir:{tiny_model}", "--precision", precision)
    handler, context = load(archive, tmp_path / "unpacked")
    assert handler.model.way.precision == precision
    rows = [{"body": jpeg(seed)} for seed in range(5)]
    together = handle(handler, context, rows)
    assert together == [pytest.approx(handle(handler, context, [row])[0], abs=tolerance) for row in rows]
    pixels = torch.cat([handler._prepare(row, {})[1][0][None] for row in rows])
    with torch.inference_mode():
        expected = eager(pixels.float() / 127.5 - 1).softmax(1)
    for answer, probs in zip(together, expected.tolist(), strict=True):
        assert answer == pytest.approx(dict(zip(["cat", "dog", "owl"], probs, strict=True)), abs=tolerance)
