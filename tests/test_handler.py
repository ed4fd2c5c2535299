"""The handler in process: what it makes of a batch, with TorchServe's own context."""

import io

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from tests.conftest import export_to
from tests.in_process import handle, jpeg, load


@pytest.fixture
def loaded(tiny_model, tmp_path):
    return load(export_to(tmp_path / "store", f"local-dir:{tiny_model}"), tmp_path / "unpacked")


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
    assert context.metrics.added == [("BatchSize", 3)]


def test_a_bad_request_leaves_the_batch_and_its_neighbours_do_not_notice(loaded):
    handler, context = loaded
    good = handle(handler, context, [{"body": jpeg(1)}, {"body": jpeg(2)}])
    rows = [{"body": b"not an image"}, {"body": jpeg(1)}, {}, {"body": jpeg(2)}, {"body": {"parsed": "json"}}]
    answers = handle(handler, context, rows)
    assert [answers[1], answers[3]] == [pytest.approx(answer, abs=1e-6) for answer in good]
    statuses = [context.get_response_status(index)[0] for index in range(5)]
    assert statuses == [415, 200, 400, 200, 415]
    for index in (0, 2, 4):
        assert set(answers[index]) == {"code", "type", "message"}
        assert answers[index]["code"] == statuses[index]
    assert context.metrics.added[-1] == ("BatchSize", 2)


def test_a_batch_of_bad_requests_alone_does_not_run_the_model(loaded):
    handler, context = loaded
    handler.model = None
    assert [answer["code"] for answer in handle(handler, context, [{"body": b"x"}, {}])] == [415, 400]
    assert context.metrics.added == []


def test_top_k_is_the_archives(tiny_model, tmp_path):
    archive = export_to(tmp_path / "store", f"local-dir:{tiny_model}", "--top-k", "2")
    handler, context = load(archive, tmp_path / "unpacked")
    assert len(handle(handler, context, [{"body": jpeg(1)}])[0]) == 2


@pytest.mark.gpu
def test_the_gpu_answers_as_the_cpu_does(tiny_model, tmp_path):
    archive = export_to(tmp_path / "store", f"local-dir:{tiny_model}")
    on_cpu, on_gpu = (load(archive, tmp_path / name, gpu_id) for name, gpu_id in (("cpu", None), ("gpu", 0)))
    assert on_gpu[0].device.type == "cuda"
    rows = [{"body": jpeg(seed)} for seed in range(5)]
    for expected, actual in zip(handle(*on_cpu, rows), handle(*on_gpu, rows), strict=True):
        assert actual == pytest.approx(expected, abs=1e-3)
