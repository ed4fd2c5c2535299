"""What TorchServe's doors let through to a worker: none of it ends one, and nobody waits for another one's work."""

import base64
import json
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import requests
import timm
import torch
from timm.models import save_for_hf

from serve import __main__ as commands
from serve import settings
from serve.client import Client
from serve.errors import ServeError
from serve.server import Server
from serve.settings import free_ports
from tests.conftest import ROOT, TINY, export_to
from tests.e2e.conftest import SAMPLES, altered, counted, eventually, serving
from tests.e2e.test_security import self_signed

BODY = SAMPLES[0][0].read_bytes()
B64 = base64.b64encode(BODY).decode()
CLASSES, LABEL = 3000, "a class whose name is as long as those of a flora or a fauna may be, number "


def post(client: Client, model: str, body: dict, **headers: str) -> requests.Response:
    url = f"{client.inference}/predictions/{model}"
    return client.request("POST", url, "inference", json=body, headers=headers)


def workers(client: Client, model: str) -> list[int]:
    return [worker["pid"] for worker in client.describe(model)["workers"]]


# --- answers that are larger than the server sends ---


@pytest.fixture(scope="module")
def wide_store(tmp_path_factory):
    """A model of many classes with long names; it waits for requests, so that a few share a batch."""
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, **TINY)
    save_for_hf(model, folder / "model", model_config={"model_args": TINY}, safe_serialization=True)
    (folder / "labels.json").write_text(json.dumps([f"{LABEL}{index}" for index in range(CLASSES)]))
    options = ("--model-name", "wide", "--max-batch-delay", "300", "--labels", str(folder / "labels.json"))
    export_to(folder / "store", f"local-dir:{folder / 'model'}", *options, "--precision", "fp32")
    return folder / "store"


@pytest.fixture(scope="module")
def wide(wide_store, tmp_path_factory) -> Iterator[Client]:
    with serving(wide_store, tmp_path_factory.mktemp("server") / "run", "wide.mar") as client:
        yield client


@pytest.fixture(scope="module")
def production(wide_store, tmp_path_factory) -> Iterator[Client]:
    """examples/production with this model: TLS, and no address to register one."""
    folder = tmp_path_factory.mktemp("production")
    self_signed(folder)
    shutil.copyfile(ROOT / "metrics.yaml", folder / "metrics.yaml")
    text = (ROOT / "examples" / "production" / "config.properties").read_text()
    (folder / "config.properties").write_text(text.replace("load_models=digits.mar", "load_models=wide.mar"))
    server = Server(folder / "run")
    client = server.start(folder / "config.properties", wide_store, free_ports())
    try:
        assert eventually(lambda: [each["status"] for each in client.describe("wide")["workers"]] == ["READY"])
        yield client
    finally:
        server.stop()


@pytest.mark.parametrize("server", ["wide", "production"])
def test_an_answer_that_is_too_large_is_refused_and_its_neighbours_are_answered(server, request):
    client = request.getfixturevalue(server)
    most = int(settings.read(client.run_dir / "config.properties")["max_response_size"])
    before = workers(client, "wide")
    whole = {"instances": [B64] * 32, "top_k": CLASSES}
    refused = post(client, "wide", whole)
    assert (refused.status_code, refused.json()["type"]) == (413, "ResponseTooLarge")
    assert f"the server sends at most {most}: ask for at most " in refused.json()["message"]
    count = int(refused.json()["message"].split("at most ")[2].split()[0])
    fits = {"instances": [B64] * count, "top_k": CLASSES}
    # The limit is for each answer, not for those of a batch together.
    with ThreadPoolExecutor(6) as pool:
        responses = list(pool.map(lambda body: post(client, "wide", body), [fits, whole, fits, fits, whole, {"data": B64}]))
    assert [response.status_code for response in responses] == [200, 413, 200, 200, 413, 200]
    assert most * 0.8 < len(responses[0].content) <= most < sum(len(response.content) for response in responses)
    assert workers(client, "wide") == before


def test_metrics_have_the_models_version(wide):
    assert post(wide, "wide", {"data": B64}).status_code == 200
    for metric in ("BatchSize_count", "InferenceSeconds_count", "PredictionTime"):
        assert eventually(lambda metric=metric: counted(wide, metric, ModelName="wide", ModelVersion="1.0") > 0)
    assert post(wide, "wide", {"data": ""}).status_code == 400
    assert eventually(
        lambda: counted(wide, "RefusedRequests", ModelName="wide", ModelVersion="1.0", Reason="EmptyBody", Level="Model") > 0
    )


# --- registration ---


def test_who_asks_does_not_wait_for_an_archive_that_is_registered(wide, wide_store):
    shutil.copyfile(wide_store / "wide.mar", wide_store / "other.mar")
    stop, longest = threading.Event(), []
    headers = {"Authorization": f"Bearer {wide.token('inference')}"}

    def ping() -> None:
        slowest = 0.0
        with requests.Session() as session:  # a connection of its own, and so one of the front end's threads
            session.trust_env = False
            while not stop.is_set():
                started = time.monotonic()
                session.get(f"{wide.inference}/ping", headers=headers, timeout=60)
                slowest = max(slowest, time.monotonic() - started)
                time.sleep(0.05)
        longest.append(slowest)

    wide.unregister("wide")
    try:
        with ThreadPoolExecutor(16) as pool:
            for _ in range(16):
                pool.submit(ping)
            time.sleep(0.5)
            started = time.monotonic()
            wide.register("other.mar")
            took = time.monotonic() - started
            stop.set()
        assert [worker["status"] for worker in wide.describe("wide")["workers"]] == ["READY"]
        assert max(longest) < took / 2, f"{max(longest):.2f} s of {took:.2f} s"
    finally:
        stop.set()


def test_a_version_beside_another_is_waited_for_and_registered_once(client, digits_store):
    second = digits_store / "second.mar"
    altered(digits_store, second, {"MAR-INF/MANIFEST.json": (b'"modelVersion": "1.0"', b'"modelVersion": "2.0"')})
    try:
        client.register(second.name)
        assert [worker["status"] for worker in client.describe("digits/2.0")["workers"]] == ["READY"]
        with pytest.raises(ServeError, match="already registered"):
            client.register(second.name)
        assert client.predict("digits/2.0", BODY).status_code == 200
        assert eventually(lambda: counted(client, "BatchSize_count", ModelVersion="2.0") > 0)
    finally:
        client.unregister("digits/2.0")
        second.unlink()


def test_an_archive_whose_worker_dies_is_not_left_registered(client, digits_store):
    broken = digits_store / "broken.mar"
    changes = {
        "model-config.yaml": (b"crop_mode", b"crop_mood"),
        "MAR-INF/MANIFEST.json": (b'"modelName": "digits"', b'"modelName": "broken"'),
    }
    altered(digits_store, broken, changes)
    try:
        with pytest.raises(ServeError, match=r"Failed to start workers for model broken version: 1\.0"):
            client.register(broken.name)
        assert client.models() == ["digits"]
    finally:
        broken.unlink()


@pytest.mark.parametrize("content", [b"", b"text", "half"], ids=["empty", "text", "half"])
def test_a_damaged_archive_leaves_nothing_behind(content, client, digits_store):
    damaged = digits_store / "damaged.mar"
    whole = (digits_store / "digits.mar").read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    temporary = Path(json.loads((client.run_dir / "server.json").read_text())["temporary"])
    before = sorted(temporary.rglob("*"))
    try:
        with pytest.raises(ServeError, match=r"damaged\.mar is no archive of a model"):
            client.register(damaged.name)
        assert sorted(temporary.rglob("*")) == before
        assert client.models() == ["digits"]
    finally:
        damaged.unlink()


def test_a_refusal_without_a_body_is_one_line(client, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(commands, "RUN_DIR", client.run_dir)
    (tmp_path / "large.jpg").write_bytes(bytes(20_000_001))
    assert commands.main(["predict", str(tmp_path / "large.jpg")]) == 1
    printed = capsys.readouterr()
    assert printed.out.endswith("large.jpg  refused: 413: more bytes than max_request_size in config.properties\n")
    assert not printed.err


# --- gRPC ---

SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService"


def message(number: int, value: bytes) -> bytes:
    """A field of a message: its number, its length, its bytes."""
    length, size = len(value), b""
    while length > 127:
        size += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + value


@pytest.fixture
def calls(client) -> Iterator[tuple[grpc.Channel, dict]]:
    port = settings.read(client.run_dir / "config.properties")["grpc_inference_port"]
    token = ("authorization", f"Bearer {client.token('inference')}")
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield channel, {"metadata": [("protocol", "gRPC"), token], "timeout": 10}


PREDICTION = message(1, b"digits") + message(3, message(1, b"data") + message(2, BODY))
IN_SEQUENCE = PREDICTION + message(4, b"a sequence")


def test_a_stream_of_answers_has_one(client, calls):
    channel, options = calls
    before = workers(client, "digits")
    for _ in range(3):
        (answer,) = channel.unary_stream(f"{SERVICE}/StreamPredictions")(PREDICTION, **options)
        assert b'"0": 0.9' in answer
    assert workers(client, "digits") == before


@pytest.mark.parametrize("messages", [[IN_SEQUENCE], [IN_SEQUENCE] * 5, [PREDICTION]], ids=["one", "five", "no sequence"])
def test_a_stream_of_requests_gets_no_answer_and_ends_no_worker(messages, client, calls):
    channel, options = calls
    before = workers(client, "digits")
    try:
        answers = list(channel.stream_stream(f"{SERVICE}/StreamPredictions2")(iter(messages), **options))
    except grpc.RpcError:
        answers = []
    assert not any(b'"0": 0.9' in answer for answer in answers)
    for _ in range(2):
        token = {"Authorization": f"Bearer {client.token('inference')}"}
        answered = requests.post(f"{client.inference}/predictions/digits", BODY, headers=token, timeout=20)
        assert answered.status_code == 200
        time.sleep(1)  # a worker that ends does so after its answer
    assert workers(client, "digits") == before
