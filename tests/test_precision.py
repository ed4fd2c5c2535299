"""Precisions: how far each is from fp32, which of them an archive allows, and which one a device gets."""

import json
import math
import zipfile

import pytest
import timm
import torch
import yaml
from torch import nn

from export.outputs import outputs
from export.pictures import pictures
from export.precision import Agreement, choose_precisions
from export.trace import trace
from tests.conftest import TINY, export_to
from tests.in_process import handle, jpeg, load
from vit_core import way
from vit_core.cost import Bounds
from vit_core.precision import PRECISIONS, choose
from vit_core.request import Sent
from vit_core.settings import Head, Preprocessing

CPU = torch.device("cpu")
PREPROCESSING = Preprocessing(
    input_size=(3, 32, 32),
    interpolation="bicubic",
    crop_pct=0.9,
    crop_mode="center",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


def measured(module: nn.Module, wanted: str = "auto") -> tuple[tuple[str, ...], dict[str, Agreement | str]]:
    classes = module(torch.zeros(1, 3, 32, 32)).shape[1]
    shown = list(pictures(PREPROCESSING))
    traced = trace(module, (3, 32, 32))
    return choose_precisions(wanted, traced, shown, outputs(module, shown), classes, Head(), lambda step: None)


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
    precisions, found = measured(vit)
    assert precisions == ("bf16", "fp16", "fp32")
    assert found.keys() == {"bf16", "fp16"}
    for agreement in found.values():
        assert agreement.images == 12
        assert agreement.top1_agreement >= 0.9
        assert 0 < agreement.largest_score_difference < 0.02
    assert found["fp16"].largest_score_difference < found["bf16"].largest_score_difference


def test_a_precision_that_overflows_or_fails_is_not_allowed():
    precisions, found = measured(Fragile(lambda x: x * 1e6 / 1e6))
    assert precisions == ("bf16", "fp32")
    assert found["fp16"] == "its numbers overflow"

    weight = torch.eye(5)  # a constant: casting the trace does not reach it
    precisions, found = measured(Fragile(lambda x: x @ weight))
    assert precisions == ("fp32",)
    assert "same dtype" in found["bf16"]


def test_a_precision_that_is_far_off_is_not_allowed():
    precisions, found = measured(Fragile(lambda x: ((x + 60) - 60) * 3))  # bf16 counts in quarters at 60
    assert precisions == ("fp16", "fp32")
    assert found["bf16"].largest_score_difference > 0.05


def test_the_figures_and_the_choice_are_in_the_archive(tiny_model, tmp_path):
    for wanted, chosen in {"auto": ["bf16", "fp16", "fp32"], "fp16": ["fp16"], "fp32": ["fp32"], "int8": ["int8"]}.items():
        archive = export_to(tmp_path / wanted, f"local-dir:{tiny_model}", "--precision", wanted)
        with zipfile.ZipFile(archive) as file:
            config = yaml.safe_load(file.read("model-config.yaml"))
            record = json.loads(file.read("record.json"))
        assert config["handler"]["precisions"] == chosen
        assert list(record["agreement_with_fp32"]) == [name for name in chosen if name != "fp32"]
        assert config.get("deviceType") == ("cpu" if wanted == "int8" else None)


# --- which one a device gets ---


@pytest.mark.parametrize(
    ("precisions", "fast", "expected"),
    [
        (("bf16", "fp16", "fp32"), True, "bf16"),
        (("bf16", "fp16", "fp32"), False, "fp32"),
        (("fp16", "fp32"), True, "fp32"),
        (("int8",), True, "int8"),
        (("bf16",), False, "bf16"),  # its maker asked for it, fast or not
        (("fp16",), False, "fp16"),
    ],
)
def test_a_cpu_gets_the_first_precision_that_it_multiplies_fast(precisions, fast, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "AMD EPYC", "avx512_bf16": fast})
    precision, rule = choose(precisions, CPU)
    assert precision is PRECISIONS[expected] and rule.startswith(f"{expected}, as ")
    assert rule.endswith(", though this CPU is slow at it") == (precisions in (("bf16",), ("fp16",)))


@pytest.mark.parametrize(
    ("cpu_name", "has", "expected"),
    [
        ("Intel Xeon", {"avx512_bf16": True, "avx512_fp16": True, "amx_tile": True}, "bf16"),  # Sapphire Rapids
        ("Intel Xeon", {"avx512_bf16": True, "avx512_fp16": True, "amx_tile": False}, "fp32"),  # the same, AMX hidden
        ("Intel Xeon", {"avx512_bf16": True, "avx512_fp16": False}, "bf16"),  # Cooper Lake
        ("Intel Xeon", {"avx512_bf16": False, "avx512_fp16": False}, "fp32"),  # Ice Lake
        ("AMD EPYC", {"avx512_bf16": True, "avx512_fp16": False}, "bf16"),  # Zen 4 and 5
        ("AMD EPYC", {"avx512_bf16": True, "avx512_fp16": True}, "bf16"),
        ("AMD EPYC", {"avx2": True}, "fp32"),
        ("Neoverse V1", {"neon": True, "bf16": True}, "fp32"),  # ARM, on which nothing was measured
    ],
)
def test_bf16_is_not_taken_where_its_instruction_is_slower_than_fp32s(cpu_name, has, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": cpu_name, **has})
    precision, _ = choose(("bf16", "fp16", "fp32"), CPU)
    assert precision is PRECISIONS[expected]
    assert way.between() is precision


@pytest.mark.parametrize(("capability", "first"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((6, 1), "fp32")])
def test_a_gpu_gets_what_its_generation_multiplies(capability, first, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    precision, rule = choose(("bf16", "fp16", "fp32"), torch.device("cuda:0"))
    assert precision.name == first and "this GPU multiplies it fast" in rule


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 1e-2), ("fp16", 2e-3), ("int8", 2e-2)])
def test_the_handler_answers_in_each_precision_alone_and_in_a_batch(precision, tolerance, tiny_model, tmp_path):
    eager = timm.create_model(f"local-dir:{tiny_model}", pretrained=True).eval()
    archive = export_to(tmp_path, f"local-dir:{tiny_model}", "--precision", precision)
    handler, context = load(archive, tmp_path / "unpacked")
    assert handler.predictor.model.way.precision == precision
    rows = [{"body": jpeg(seed)} for seed in range(5)]
    together = handle(handler, context, rows)
    assert together == [pytest.approx(handle(handler, context, [row])[0], abs=tolerance) for row in rows]
    pixels = torch.cat([handler.predictor._prepare(Sent(row), Bounds(), math.inf)[1][0][None] for row in rows])
    with torch.inference_mode():
        expected = eager(pixels.float() / 127.5 - 1).softmax(1)
    for answer, probs in zip(together, expected.tolist(), strict=True):
        assert answer == pytest.approx(dict(zip(["cat", "dog", "owl"], probs, strict=True)), abs=tolerance)
