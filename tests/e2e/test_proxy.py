"""examples/production/haproxy.cfg before a real server: what TorchServe does not defend by itself."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from serve.client import Client
from tests.e2e.conftest import SAMPLES, assert_same_answer, eventually, serving
from tests.e2e.proxy import BODY, HAPROXY, KEY, LARGE, OTHER_KEY, Proxy, flood, java, proxy_before

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def served(digits_store, tmp_path_factory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("behind")
    with serving(digits_store, folder / "run", "digits.mar", "vmargs=-Xmx2g", "token_expiration_min=525600") as client:
        client.scale("digits", 2)
        yield client


@pytest.fixture(scope="module")
def proxy(served, tmp_path_factory) -> Iterator[Proxy]:
    if HAPROXY is None:
        pytest.skip("there is no HAProxy: apt install haproxy")
    with proxy_before(served, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


# --- without a proxy ---


def test_bodies_without_a_token_take_no_more_memory_than_java_may_have(digits_store, tmp_path):
    """TorchServe takes bodies in before it looks at the token. What does not fit is refused, and all is well afterwards."""
    with serving(digits_store, tmp_path / "run", "digits.mar", "vmargs=-Xmx150m") as client:
        process, address = java(client), urlsplit(client.inference)
        before = process.memory_info().rss
        connections = flood(lambda: socket.create_connection((address.hostname, address.port)), "", 25)
        taken = process.memory_info().rss - before
        for connection in connections:
            connection.close()
        assert taken < 400 * MEGABYTE < 25 * LARGE
        assert eventually(lambda: client.predict("digits", BODY).status_code == 200)
        assert [worker["status"] for worker in client.model("digits")["workers"]] == ["READY"]


# --- behind the proxy ---


def test_a_client_with_a_key_is_answered_and_needs_no_token(proxy, served, expected):
    assert_same_answer(proxy.predict().json(), expected[SAMPLES[0][0].name])
    explained = proxy.send("POST", "/explanations/digits/1.0", data=BODY, headers={"Accept": "image/png"})
    assert explained.ok and explained.content.startswith(b"\x89PNG")
    for key in (None, "Bearer wrong", KEY + "x", KEY.removeprefix("Bearer "), f"Bearer {served.token('inference')}"):
        refused = proxy.predict(key=key)
        assert (refused.status_code, refused.json()["type"]) == (401, "Unauthorized")
    assert proxy.send("GET", "/alive", None).text == "ok"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in ("/ping", "/predictions/digits", "/models", "/", "/metrics", "/api-description")),
        *(("POST", path) for path in ("/models?url=digits.mar", "/v1/models/digits:predict", "/invocations", "/token")),
        *((method, "/predictions/digits") for method in ("OPTIONS", "PUT", "DELETE")),
    ],
)
def test_only_predictions_and_explanations_pass(method, path, proxy):
    refused = proxy.send(method, path)
    assert (refused.status_code, refused.json()["type"]) == (404, "NotFound")


def test_a_body_that_is_too_large_is_refused_from_its_header(proxy):
    with proxy.connect() as connection:
        length = f"Authorization: {KEY}\r\nContent-Length: 20000001\r\n"
        connection.sendall(f"POST /predictions/digits HTTP/1.1\r\nHost: x\r\n{length}\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_bodies_without_a_key_are_not_taken_in(proxy, served):
    process = java(served)
    before = process.memory_info().rss
    with ThreadPoolExecutor(1) as pool:
        flooding = pool.submit(flood, proxy.connect, "", 60)
        answered = []
        while not flooding.done() or len(answered) < 20:
            answered.append(proxy.predict().status_code)
    assert set(answered) == {200}
    assert process.memory_info().rss - before < 100 * MEGABYTE
    for connection in flooding.result():
        connection.close()


def test_a_client_that_sends_slowly_leaves_places_for_the_others(proxy):
    connections = flood(proxy.connect, f"Authorization: {KEY}\r\n", 70, length=1000)
    refused = proxy.predict()
    assert (refused.status_code, refused.json()["type"]) == (429, "TooManyRequests")
    assert [proxy.predict(key=OTHER_KEY).status_code for _ in range(20)] == [200] * 20
    for connection in connections:
        connection.close()
    assert eventually(lambda: proxy.predict().status_code == 200)


def test_http_is_spoken_as_it_should_be(proxy, expected):
    """TorchServe keeps a connection open that should be closed, and mixes up the answers to requests sent ahead."""

    def request(body: bytes, version: str, *headers: str) -> bytes:
        head = [f"POST /predictions/digits HTTP/{version}", "Host: x", f"Authorization: {KEY}", *headers]
        return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body

    for version, headers in (("1.1", ["Connection: close"]), ("1.0", [])):
        with proxy.connect() as connection:
            connection.settimeout(20)
            connection.sendall(request(BODY, version, *headers))
            received = b"".join(iter(lambda connection=connection: connection.recv(100_000), b""))  # until it is closed
            assert received.split()[1] == b"200"

    names = [picture.name for picture, _ in SAMPLES] * 2
    bodies = {picture.name: picture.read_bytes() for picture, _ in SAMPLES}
    with proxy.connect() as connection:
        connection.sendall(b"".join(request(bodies[name], "1.1") for name in names))
        answers, file = [], connection.makefile("rb")
        for _ in names:
            head = list(iter(lambda: file.readline().strip().lower(), b""))
            length = next(int(line.split(b":")[1]) for line in head if line.startswith(b"content-length"))
            answers.append(json.loads(file.read(length)))
    for name, answer in zip(names, answers, strict=True):
        assert_same_answer(answer, expected[name])
