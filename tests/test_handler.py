"""The handler in process: what it makes of one request, with TorchServe's own context."""

import io

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from tests.conftest import export_to
from tests.in_process import handle, jpeg, load, statuses
from vit_core import predictor


def test_a_batch_is_answered_as_timm_answers(loaded, tiny_model):
    handler, context = loaded
    model = timm.create_model(f"local-dir:{tiny_model}", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model))
    rows = [{"body": jpeg(1)}, {"data": jpeg(2)}, {"body": jpeg(3)}]
    for row, answer in zip(rows, handle(handler, context, rows), strict=True):
        image = Image.open(io.BytesIO(next(iter(row.values())))).convert("RGB")
        with torch.inference_mode():
            probs = model(transform(image)[None]).softmax(1)[0]
        expected = {label: probs[index].item() for index, label in enumerate(["cat", "dog", "owl"])}
        assert answer == pytest.approx(expected, abs=1e-3)
        assert list(answer.values()) == sorted(answer.values(), reverse=True)
    assert context.metrics.of("BatchSize") == [3]


def test_top_k_is_the_archives(tiny_model, tmp_path):
    archive = export_to(tmp_path / "store", f"local-dir:{tiny_model}", "--top-k", "2")
    handler, context = load(archive, tmp_path / "unpacked")
    assert len(handle(handler, context, [{"body": jpeg(1)}])[0]) == 2


def test_a_request_may_ask_for_fewer_labels(loaded):
    handler, context = loaded
    whole = handle(handler, context, [{"body": jpeg(1)}])[0]
    rows = [{"data": jpeg(1), "top_k": b"2"}, {"data": jpeg(1), "top_k": b"99"}, {"data": jpeg(1)}]
    assert [len(answer) for answer in handle(handler, context, rows)] == [2, 3, 3]
    first, second, _ = whole.values()
    threshold = str((first + second) / 2).encode()
    assert list(handle(handler, context, [{"data": jpeg(1), "threshold": threshold}])[0]) == list(whole)[:1]
    assert handle(handler, context, [{"data": jpeg(1), "threshold": b"1"}])[0] == {}
    assert len(handle(handler, context, [{"body": jpeg(1)}], {"X-Top-K": "1"})[0]) == 1


def test_the_archives_limits_hold(tiny_model, tmp_path):
    options = ("--max-bytes", "3000", "--max-pixels", "2500", "--max-images", "2")
    handler, context = load(export_to(tmp_path, f"local-dir:{tiny_model}", *options), tmp_path / "unpacked")
    large, small = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (51, 50)).save(large, "PNG")
    Image.new("RGB", (50, 50)).save(small, "PNG")
    rows = [{"body": bytes(3001)}, {"body": large.getvalue()}, dict.fromkeys("abc", small.getvalue()), {"a": small.getvalue()}]
    types = [answer.get("type") for answer in handle(handler, context, rows)]
    assert types == ["FileTooLarge", "ImageTooLarge", "TooManyImages", None]
    assert statuses(context) == [413, 413, 413, 200]


@pytest.mark.parametrize("size", [(1, 40_000), (40_000, 1), (3, 1 << 20), (1, 1)])
def test_a_thin_strip_is_answered_without_being_made_whole(size, loaded, monkeypatch):
    handler, context = loaded
    made, resize = [], Image.Image.resize

    def noted(image, size, *rest):
        made.append(size[0] * size[1])
        return resize(image, size, *rest)

    monkeypatch.setattr(Image.Image, "resize", noted)
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, "PNG")
    assert handle(handler, context, [{"body": buffer.getvalue()}])[0].keys() == {"cat", "dog", "owl"}
    assert max(made) < 2_000_000


def test_fast_pixels_are_the_archives_choice(tiny_model, tmp_path, monkeypatch):
    asked = []
    decode = predictor.decode
    monkeypatch.setattr(predictor, "decode", lambda *arguments: asked.append(arguments[-1]) or decode(*arguments))
    for name, options in (("timms", []), ("fast", ["--fast-pixels"])):
        archive = export_to(tmp_path / name, f"local-dir:{tiny_model}", "--precision", "fp32", *options)
        handler, context = load(archive, tmp_path / f"{name} unpacked")
        (answer,) = handle(handler, context, [{"body": jpeg(1)}])
        assert set(answer) == {"cat", "dog", "owl"}
        assert handler.predictor.describe()["fast_pixels"] == bool(options)
    assert asked == [None, 2 * 36]  # 32 pixels are nine tenths of 35.6


@pytest.mark.gpu
def test_the_gpu_answers_as_the_cpu_does_in_fp32(tiny_model, tmp_path):
    tolerances = {"fp32": 1e-4, "fp16": 2e-3, "bf16": 1e-2}
    # All before the first is loaded: a handler may turn fusion on, for the whole process.
    archives = {name: export_to(tmp_path / name, f"local-dir:{tiny_model}", "--precision", name) for name in tolerances}
    rows = [{"body": jpeg(seed)} for seed in range(5)]
    expected = handle(*load(archives["fp32"], tmp_path / "cpu"), rows)
    for name, tolerance in tolerances.items():
        handler, context = load(archives[name], tmp_path / f"{name}-unpacked", gpu_id=0)
        assert handler.predictor.device.type == "cuda"
        assert handle(handler, context, rows) == [pytest.approx(answer, abs=tolerance) for answer in expected]
