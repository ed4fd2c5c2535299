"""What a client of a real TorchServe sees: answers, batches, workers, refusals."""

import io
import os
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from PIL import Image

from serve.errors import ServeError
from serve.server import ENVIRONMENT
from tests.conftest import export_to
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


def test_idle_threads_of_a_worker_leave_the_cores_to_others(client):
    (worker,) = client.describe("digits")["workers"]
    environment = psutil.Process(worker["pid"]).environ()
    for name, value in ENVIRONMENT.items():
        assert environment[name] == os.environ.get(name, value)  # who sets one has a reason to


def test_workers_can_be_scaled(client, expected):
    first = {worker["pid"] for worker in client.describe("digits")["workers"]}
    client.scale("digits", 2)
    both = client.describe("digits")["workers"]
    assert len(both) == 2 and first < {worker["pid"] for worker in both}
    assert {worker["status"] for worker in both} == {"READY"}
    for picture, _ in SAMPLES[:6]:
        answers = [client.predict("digits", picture.read_bytes()).json() for _ in range(6)]
        assert_same_answer(answers[0], expected[picture.name])
        assert answers == answers[:1] * 6  # to the last digit, whichever worker gave it
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
