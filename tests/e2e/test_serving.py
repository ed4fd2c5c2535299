"""What a client of a real TorchServe sees: answers, batches, workers, refusals."""

import io
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from PIL import Image

from serve.errors import ServeError
from serve.server import Server
from serve.settings import free_ports
from tests.conftest import ROOT, export_to
from tests.e2e.conftest import SAMPLES, assert_same_answer, counted, eventually


def test_every_sample_picture_is_answered_as_timm_answers(client, expected):
    for picture, _ in SAMPLES:
        response = client.predict("digits", picture.read_bytes())
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        assert_same_answer(response.json(), expected[picture.name])
    assert len(SAMPLES) >= 10 and {label for _, label in SAMPLES} == set("0123456789")


def test_a_picture_can_come_as_a_form_field(client, expected):
    picture, _ = SAMPLES[0]
    url = f"{client.inference}/predictions/digits"
    response = client.request("POST", url, "inference", files={"data": picture.open("rb")})
    assert_same_answer(response.json(), expected[picture.name])


def test_many_at_once_share_batches_and_get_their_own_answers(client, expected):
    images, batches = counted(client, "BatchSize_sum"), counted(client, "BatchSize_count")
    asked = [SAMPLES[index % len(SAMPLES)][0] for index in range(80)]
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(lambda picture: client.predict("digits", picture.read_bytes()), asked))
    for picture, response in zip(asked, responses, strict=True):
        assert_same_answer(response.json(), expected[picture.name])
    assert eventually(lambda: counted(client, "BatchSize_sum") - images == len(asked))
    # Fewer calls of the model than images: at least one had more than one of them.
    assert counted(client, "BatchSize_count") - batches < len(asked)


def test_bad_requests_among_good_ones_get_their_own_error(client, expected):
    good = SAMPLES[0][0]
    half = good.read_bytes()[: good.stat().st_size // 2]
    bad = {b"": (400, "EmptyBody"), b"plain text": (415, "UnsupportedImage"), half: (400, "BrokenImage")}
    asked = [*bad, good.read_bytes(), good.read_bytes()] * 6
    with ThreadPoolExecutor(12) as pool:
        responses = list(pool.map(lambda body: client.predict("digits", body), asked))
    for body, response in zip(asked, responses, strict=True):
        if body in bad:
            code, type = bad[body]
            assert response.status_code == code
            assert response.json().keys() == {"code", "type", "message"}
            assert (response.json()["code"], response.json()["type"]) == (code, type)
        else:
            assert_same_answer(response.json(), expected[good.name])
    assert len(client.describe("digits")["workers"]) == 1


def test_workers_can_be_scaled(client, expected):
    first = {worker["pid"] for worker in client.describe("digits")["workers"]}
    client.scale("digits", 2)
    both = client.describe("digits")["workers"]
    assert len(both) == 2 and first < {worker["pid"] for worker in both}
    assert {worker["status"] for worker in both} == {"READY"}
    for picture, _ in SAMPLES[:6]:
        assert_same_answer(client.predict("digits", picture.read_bytes()).json(), expected[picture.name])
    client.scale("digits", 1)
    assert len(client.describe("digits")["workers"]) == 1


def test_an_archive_can_be_registered_and_unregistered(client, digits_store, tiny_model):
    export_to(digits_store, f"local-dir:{tiny_model}")
    with pytest.raises(ServeError, match="Model not found: tiny"):
        client.describe("tiny")
    client.register("tiny.mar")
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "orange").save(buffer, "PNG")
    assert client.predict("tiny", buffer.getvalue()).json().keys() == {"cat", "dog", "owl"}
    client.unregister("tiny")
    assert client.predict("tiny", buffer.getvalue()).status_code == 404
    assert client.models() == ["digits"]


@pytest.mark.parametrize("authorization", [{}, {"Authorization": "Bearer wrong"}, "management"], ids=["none", "wrong", "other"])
def test_predictions_are_refused_without_the_inference_token(client, authorization):
    headers = authorization
    if authorization == "management":
        headers = {"Authorization": f"Bearer {client.token('management')}"}
    url = f"{client.inference}/predictions/digits"
    response = requests.post(url, data=SAMPLES[0][0].read_bytes(), headers=headers, timeout=10)
    assert (response.status_code, response.json()["type"]) == (400, "InvalidKeyException")


def test_management_is_refused_without_the_management_token(client):
    for headers in ({}, {"Authorization": f"Bearer {client.token('inference')}"}):
        for method, path in (("GET", "models"), ("DELETE", "models/digits"), ("POST", "models?url=digits.mar")):
            response = requests.request(method, f"{client.management}/{path}", headers=headers, timeout=10)
            assert (response.status_code, response.json()["type"]) == (400, "InvalidKeyException")
    assert client.models() == ["digits"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/evil.mar", "file:///etc/evil.mar", "../evil.mar"])
def test_archives_from_elsewhere_are_refused(client, url):
    with pytest.raises(ServeError, match=r"does not match any allowed URL|Relative path is not allowed"):
        client.register(url)


def test_an_expired_token_is_refused_and_the_client_gets_a_new_one(digits_store, tmp_path):
    (tmp_path / "config.properties").write_text((ROOT / "config.properties").read_text() + "token_expiration_min=0.02\n")
    server = Server(tmp_path / "run")
    client = server.start(tmp_path / "config.properties", digits_store, free_ports())
    try:
        old = client.token("inference")
        time.sleep(1.5)
        refused = requests.get(f"{client.inference}/ping", headers={"Authorization": f"Bearer {old}"}, timeout=10)
        assert (refused.status_code, refused.json()["type"]) == (400, "InvalidKeyException")
        assert client.request("GET", f"{client.inference}/ping", "inference").json() == {"status": "Healthy"}
    finally:
        server.stop()
