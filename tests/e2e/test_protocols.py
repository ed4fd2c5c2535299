"""The other ways to ask a real server: the KServe envelope and gRPC; and what it says of itself."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor

import grpc
import requests

from serve import settings
from serve.client import Client
from tests.e2e.conftest import SAMPLES, assert_same_answer, counted, eventually, serving

PICTURES = [picture for picture, _ in SAMPLES[:4]]
BODIES = [picture.read_bytes() for picture in PICTURES]
B64 = [base64.b64encode(body).decode() for body in BODIES]


def post(client: Client, **options) -> requests.Response:
    headers = {"Authorization": f"Bearer {client.token('inference')}"}
    return requests.post(f"{client.inference}/predictions/digits", headers=headers, timeout=60, **options)


def test_the_kserve_envelope_gets_answers_and_errors_of_its_own(digits_store, tmp_path, expected):
    with serving(digits_store, tmp_path / "run", "digits.mar", "service_envelope=kserve") as client:
        good = {"instances": [{"data": image} for image in B64]}
        bad = {"instances": [{"data": B64[0]}, {"data": "bm9uc2Vuc2U="}]}
        with ThreadPoolExecutor(8) as pool:
            responses = list(pool.map(lambda body: post(client, json=body), [good, bad] * 12))
        for good_response, bad_response in zip(responses[::2], responses[1::2], strict=True):
            assert good_response.status_code == 200
            for picture, answer in zip(PICTURES, good_response.json()["predictions"], strict=True):
                assert_same_answer(answer, expected[picture.name])
            assert (bad_response.status_code, bad_response.json()["type"]) == (415, "UnsupportedImage")
            assert bad_response.json()["message"].startswith("image 2 of 2: ")


def grpc_predict(client: Client, model: str, **fields: bytes) -> dict | list:
    """TorchServe's Predictions call. Its messages are written out here: a name, and a map of names to bytes."""

    def field(number: int, value: bytes) -> bytes:
        length, size = len(value), b""
        while length > 127:
            size += bytes([length & 127 | 128])
            length >>= 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + value

    entries = [field(3, field(1, name.encode()) + field(2, value)) for name, value in fields.items()]
    port = settings.read(client.run_dir / "config.properties")["grpc_inference_port"]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary("/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions")
        token = ("authorization", f"Bearer {client.token('inference')}")
        reply = call(field(1, model.encode()) + b"".join(entries), metadata=[("protocol", "gRPC"), token], timeout=60)
    while reply[1] > 127:  # the length of its only field
        reply = reply[1:]
    return json.loads(reply[2:])


def test_grpc_predictions(client, expected):
    assert_same_answer(grpc_predict(client, "digits", data=BODIES[0]), expected[PICTURES[0].name])
    assert len(grpc_predict(client, "digits", data=BODIES[0], top_k=b"2")) == 2
    for picture, answer in zip(PICTURES[:2], grpc_predict(client, "digits", a=BODIES[0], b=BODIES[1]), strict=True):
        assert_same_answer(answer, expected[picture.name])
    # TorchServe has no status for one request of a batch here: the error is the answer.
    assert grpc_predict(client, "digits", data=b"plain text")["type"] == "UnsupportedImage"


# --- what the server says of it ---


def test_the_model_describes_itself(client):
    described = client.describe("digits")["customizedMetadata"]
    assert described["preprocessing"]["input_size"] == [3, 48, 48]
    assert described["classes"] == list("0123456789")
    assert described["device"] in ("cpu", "cuda:0")
    assert described["record"]["model"] == "digits"


def test_metrics_count_what_happened(client):
    before = {
        name: counted(client, name)
        for name in ("PreprocessSeconds_count", "InferenceSeconds_count", "PostprocessSeconds_count", "BatchSize_sum")
    }
    refused = counted(client, "RefusedRequests", Reason="UnsupportedImage")
    for _ in range(3):
        post(client, data=BODIES[0])
        post(client, data=b"plain text")
    assert eventually(lambda: counted(client, "RefusedRequests", Reason="UnsupportedImage") - refused == 3)
    assert eventually(lambda: counted(client, "BatchSize_sum") - before["BatchSize_sum"] == 3)
    assert eventually(lambda: counted(client, "InferenceSeconds_count") - before["InferenceSeconds_count"] == 3)
    assert eventually(lambda: counted(client, "PreprocessSeconds_count") - before["PreprocessSeconds_count"] == 6)
    text = requests.get(f"{client.metrics}/metrics", timeout=10).text
    assert "ts_queue_latency_microseconds{" in text
    assert "ts_inference_requests_total{" in text
