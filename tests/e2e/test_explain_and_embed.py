"""Explanations and embeddings as TorchServe carries them: addresses, types of content, headers."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
import requests
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from serve.client import Client
from tests.conftest import DIGITS, export_to
from tests.e2e.conftest import SAMPLES, counted, eventually, serving

PICTURE, LABEL = SAMPLES[4]


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[Client]:
    store = tmp_path_factory.mktemp("model_store")
    export_to(store, f"local-dir:{DIGITS}", "--task", "classify,embed", "--max-batch-delay", "20")
    with serving(store, tmp_path_factory.mktemp("server") / "run", "digits.mar") as client:
        yield client


def post(client: Client, path: str, headers: dict | None = None, **options) -> requests.Response:
    headers = {"Authorization": f"Bearer {client.token('inference')}", **(headers or {})}
    return requests.post(f"{client.inference}/{path}", headers=headers, timeout=60, **options)


def test_an_explanation_is_json_or_a_picture(client):
    before = counted(client, "ExplanationSeconds_count")
    answer = post(client, "explanations/digits", data=PICTURE.read_bytes())
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found = answer.json()
    assert found["class"] == LABEL and np.array(found["relevance"]).shape == (6, 6)
    answer = post(client, "explanations/digits", {"Accept": "image/png", "X-Method": "rollout"}, data=PICTURE.read_bytes())
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(answer.content)).size[0] == 288
    assert eventually(lambda: counted(client, "ExplanationSeconds_count") == before + 2)


def test_several_images_are_explained_in_one_request(client):
    files = [("data", picture.read_bytes()) for picture, _ in SAMPLES[:3]]
    answer = post(client, "explanations/digits", files=files, data={"target": LABEL})
    assert [found["class"] for found in answer.json()] == [LABEL] * 3


def test_mistakes_have_their_status(client):
    assert post(client, "explanations/digits", data=b"no image").status_code == 415
    assert post(client, "explanations/digits", {"X-Target": "cat"}, data=PICTURE.read_bytes()).status_code == 400
    assert post(client, "predictions/digits", {"X-Task": "detect"}, data=PICTURE.read_bytes()).status_code == 400


def test_an_embedding_is_timms_as_json_and_as_raw_floats(client):
    model = timm.create_model(f"local-dir:{DIGITS}", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model))
    with torch.inference_mode():
        features = model.forward_features(transform(Image.open(PICTURE).convert("RGB"))[None])
        expected = model.forward_head(features, pre_logits=True)[0].numpy()
    listed = post(client, "predictions/digits", {"X-Task": "embed"}, data=PICTURE.read_bytes())
    raw = post(
        client,
        "predictions/digits",
        {"X-Task": "embed", "Accept": "application/octet-stream"},
        data=PICTURE.read_bytes(),
    )
    assert raw.headers["content-type"] == "application/octet-stream"
    assert (raw.headers["x-dtype"], raw.headers["x-shape"]) == ("float32", "64")
    for found in (np.array(listed.json()), np.frombuffer(raw.content, "<f4")):
        cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
        assert cosine > 0.999
        np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


def test_labels_are_still_the_answer_where_nothing_is_said(client):
    assert next(iter(post(client, "predictions/digits", data=PICTURE.read_bytes()).json())) == LABEL


def test_several_embeddings_fit_into_one_answer(client):
    files = [("data", picture.read_bytes()) for picture, _ in SAMPLES] + [("task", b"embed")]
    assert np.array(post(client, "predictions/digits", files=files).json()).shape == (20, 64)
