"""Embeddings: equal to timm's, in each form of answer, alone and beside classes."""

import io

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from export.errors import ExportError
from tests.conftest import export_to
from tests.in_process import handle, jpeg, load, statuses


@pytest.fixture
def expected(tiny_model) -> np.ndarray:
    """timm's pre-logits features [2, 48] of the pictures 1 and 2."""
    model = timm.create_model(f"local-dir:{tiny_model}", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model))
    images = torch.stack([transform(Image.open(io.BytesIO(jpeg(seed))).convert("RGB")) for seed in (1, 2)])
    with torch.inference_mode():
        return model.forward_head(model.forward_features(images), pre_logits=True).numpy()


def served(tiny_model, tmp_path, *options: str):
    return load(export_to(tmp_path / "store", f"local-dir:{tiny_model}", *options), tmp_path / "unpacked")


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 5e-2)])
def test_an_embedding_is_timms(precision, tolerance, expected, tiny_model, tmp_path):
    loaded = served(tiny_model, tmp_path, "--task", "embed", "--precision", precision)
    answers = handle(*loaded, [{"body": jpeg(1)}, {"body": jpeg(2)}])
    np.testing.assert_allclose(answers, expected, atol=tolerance)
    assert loaded[0].predictor.describe()["tasks"] == ["embed"] and loaded[0].predictor.describe()["classes"] == []


@pytest.mark.parametrize("tasks", ["classify,embed", "embed,classify"])
def test_an_archive_may_do_both_in_one_pass(tasks, expected, tiny_model, tmp_path):
    handler, context = served(tiny_model, tmp_path, "--task", tasks, "--precision", "fp32")
    calls, trace = [], handler.predictor.model._trace
    handler.predictor.model._trace = lambda pixels: calls.append(len(pixels)) or trace(pixels)
    rows = [{"body": jpeg(1)}, {"body": jpeg(1), "task": b"embed"}, {"body": jpeg(1), "task": b"classify", "top_k": b"1"}]
    first, embedding, labelled = handle(handler, context, rows)
    assert sum(calls) == 3  # three images, whatever is asked of them
    np.testing.assert_allclose(embedding, expected[0], atol=1e-4)
    assert len(labelled) == 1 and set(labelled) < {"cat", "dog", "owl"}
    if tasks == "classify,embed":
        assert set(first) == {"cat", "dog", "owl"} and sum(first.values()) == pytest.approx(1, abs=1e-5)
    else:
        assert first == embedding


def test_embeddings_come_as_raw_floats_with_their_shape(expected, tiny_model, tmp_path):
    handler, context = served(tiny_model, tmp_path, "--task", "embed", "--precision", "fp32")
    rows = [{"body": jpeg(1)}, {"a": jpeg(1), "b": jpeg(2)}, {"body": b"no image"}]
    one, two, error = handle(handler, context, rows, {"Accept": "application/octet-stream"})
    assert statuses(context) == [200, 200, 415] and error["type"] == "UnsupportedImage"
    for index, (body, shape) in enumerate(((one, (48,)), (two, (2, 48)))):
        headers = context.get_response_headers(index)
        assert headers["content-type"] == "application/octet-stream"
        assert (headers["X-Dtype"], headers["X-Shape"]) == ("float32", ",".join(map(str, shape)))
        np.testing.assert_allclose(np.frombuffer(body, "<f4").reshape(shape), expected[: len(shape)].reshape(shape), atol=1e-4)


def test_embeddings_have_length_one_if_the_archive_says_so(expected, tiny_model, tmp_path):
    loaded = served(tiny_model, tmp_path, "--task", "embed", "--normalize", "--precision", "fp32")
    (answer,) = handle(*loaded, [{"body": jpeg(1)}])
    np.testing.assert_allclose(answer, expected[0] / np.linalg.norm(expected[0]), atol=1e-5)


def test_a_task_that_the_archive_does_not_have_is_refused(tiny_model, tmp_path):
    handler, context = served(tiny_model, tmp_path)
    refused, answered = handle(handler, context, [{"body": jpeg(1), "task": b"embed"}, {"body": jpeg(1)}])
    assert refused["code"] == 400 and "task should be classify for this archive" in refused["message"]
    assert set(answered) == {"cat", "dog", "owl"}


def test_a_model_without_a_head_embeds(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "headless"
    timm.models.save_for_hf(timm.create_model("resnet18", num_classes=0), folder, safe_serialization=True)
    options = ["--img-size", "64", "--precision", "fp32"]
    loaded = load(export_to(tmp_path, f"local-dir:{folder}", "--task", "embed", *options), tmp_path / "unpacked")
    (answer,) = handle(*loaded, [{"body": jpeg(1)}])
    assert len(answer) == 512
    with pytest.raises(ExportError, match="has no classifier head"):
        export_to(tmp_path, f"local-dir:{folder}", "--model-name", "other", *options)


def test_a_module_that_is_not_timms_does_not_embed(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))\n"
    )
    with pytest.raises(ExportError, match="--task embed needs a timm model"):
        export_to(tmp_path, f"{tmp_path / 'net.py'}:build", "--img-size", "32", "--task", "embed")


def test_precisions_are_compared_by_the_direction_of_embeddings(tiny_model, tmp_path):
    agreement = served(tiny_model, tmp_path, "--task", "embed")[0].predictor.archive.record["agreement_with_fp32"]
    for found in agreement.values():
        assert found.keys() == {"images", "agreement", "least_cosine"} and 0.99 < found["least_cosine"] <= 1


@pytest.mark.parametrize("tasks", ["", "classify,classify", "detect", "embed, classify"])
def test_a_task_that_there_is_not_is_said_at_once(tasks, tiny_model, tmp_path, capsys):
    with pytest.raises(SystemExit):
        export_to(tmp_path, f"local-dir:{tiny_model}", "--task", tasks)
    assert "expected classify, embed or both" in capsys.readouterr().err
