"""Requests as programs send them, through TorchServe's own parsing; and what it does not hand on."""

import base64
import gzip
import json
from collections.abc import Iterator
from urllib.parse import quote, unquote

import pytest
import requests

from serve.client import Client
from tests.conftest import DIGITS, export_to
from tests.e2e.conftest import SAMPLES, assert_same_answer, serving

PICTURE, LABEL = SAMPLES[4]
BODY = PICTURE.read_bytes()
B64 = base64.b64encode(BODY).decode()
URLENCODED = {"Content-Type": "application/x-www-form-urlencoded"}


def post(client: Client, *, path: str = "predictions/digits", headers: dict | None = None, **options) -> requests.Response:
    headers = {"Authorization": f"Bearer {client.token('inference')}", **(headers or {})}
    return requests.post(f"{client.inference}/{path}", headers=headers, timeout=60, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"data": B64, "headers": {"Content-Type": "text/plain"}},
        {"data": B64, "headers": {"Content-Type": "application/json"}},
        {"data": {"data": B64}},
        {"data": f"data={B64}", "headers": URLENCODED},
        {"files": {"data": (None, B64)}},
        {"files": {"data": (None, BODY)}},
        {"data": gzip.compress(BODY), "headers": {"Content-Encoding": "gzip"}},
        {"data": gzip.compress(json.dumps({"data": B64}).encode()), "headers": {"Content-Encoding": "gzip"}},
        {"data": b"\xef\xbb\xbf" + json.dumps({"data": B64}).encode(), "headers": {"Content-Type": "application/json"}},
        {"data": json.dumps({"data": B64}).encode("utf-16"), "headers": {"Content-Type": "application/json; charset=utf-16"}},
        {"json": {"data": f"DATA:image/jpeg;base64,{quote(B64, safe='')}"}},
        {"json": {"data": B64.rstrip("=")}},
        {"data": BODY, "path": "models/digits/invoke?top_k=5"},
        {"data": BODY, "path": "invocations?model_name=digits"},
    ],
)
def test_an_image_comes_in_the_forms_that_programs_send(options, client, expected):
    response = post(client, **options)
    assert response.status_code == 200, response.text
    assert_same_answer(response.json(), expected[PICTURE.name])


@pytest.mark.parametrize(
    ("options", "code", "type", "part"),
    [
        ({"files": {"data": BODY}, "headers": {"Content-Type": "multipart/form-data"}}, 400, "BadForm", "names no boundary"),
        ({"files": {"data": BODY}, "headers": {"Content-Type": "application/json"}}, 400, "BadForm", "'application/json'"),
        ({"files": {"data": BODY}, "headers": {"Content-Type": "multipart/form-data; boundary=abc"}}, 400, "BadForm", "'abc'"),
        ({"data": json.dumps({"data": B64}), "headers": URLENCODED}, 400, "BadForm", "Content-Type: application/json"),
        ({"data": '{"data": "YWJj"}', "headers": URLENCODED}, 400, "BadForm", "has no field"),
        ({"files": {"data": BODY}, "data": {"submit": "Upload"}}, 400, "UnknownField", "unknown field 'submit'"),
        ({"files": {"data": BODY}, "data": {"topk": "2"}}, 400, "UnknownField", "did you mean 'top_k'?"),
        ({"files": {"data": BODY, "top_k": (None, "2"), "c": b""}}, 400, "EmptyBody", "the field 'c' is empty"),
        ({"files": [("data", BODY), ("top_k", (None, "2")), ("top_k", (None, "3"))]}, 400, "BadOption", "there twice"),
        ({"data": BODY, "headers": {"Content-Encoding": "br"}}, 415, "UnsupportedEncoding", "'br'"),
        ({"data": BODY, "headers": {"Content-Encoding": "gzip"}}, 400, "BadEncoding", "is not gzip"),
        ({"data": BODY, "headers": {"X-TopK": "2"}}, 400, "BadOption", "did you mean 'x-top-k'?"),
        ({"data": BODY, "headers": {"Accept": "text/html"}}, 406, "NotAcceptable", "application/json"),
        ({"data": b"", "headers": {"describe": "True"}}, 400, "EmptyBody", "no image"),
        ({"data": b"", "headers": {"describe": "True"}, "path": "digits/predict"}, 400, "EmptyBody", "no image"),
        (
            {"data": b"", "headers": {"describe": "True", **URLENCODED}, "path": "models/digits/invoke"},
            400,
            "EmptyBody",
            "no image",
        ),
        ({"data": b"[" * 90_000, "headers": {"Content-Type": "application/json"}}, 400, "BadJSON", "nested too deeply"),
    ],
)
def test_a_mistake_is_said_by_name(options, code, type, part, client):
    response = post(client, **options)
    assert (response.status_code, response.json()["type"]) == (code, type), response.text
    assert part in response.json()["message"]


def test_a_compressed_body_may_be_as_large_as_another(client):
    bomb = gzip.compress(bytes(20_000_001))
    response = post(client, data=bomb, headers={"Content-Encoding": "gzip"})
    assert (response.status_code, response.json()["type"]) == (413, "FileTooLarge")
    assert "more than 20000000 bytes once it is decompressed" in response.json()["message"]


def test_options_of_the_address_are_not_handed_on(client):
    assert len(post(client, path="predictions/digits?top_k=2", data=BODY).json()) == 5


# --- labels of all scripts ---

LABELS = ["零", "один", "اثنان", "three\nlines", "fier é", "fünf", "😀", "7", "8", "9"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[Client]:
    """The digits with labels that ASCII has not, and few seconds for explanations."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "labels.json").write_text(json.dumps(LABELS))
    export_to(folder / "store", f"local-dir:{DIGITS}", "--labels", str(folder / "labels.json"))
    with serving(folder / "store", folder / "run", "digits.mar") as client:
        yield client


@pytest.mark.parametrize("label", LABELS)
def test_a_class_is_named_in_a_header_and_told_in_one(label, world):
    sent = {"X-Target": quote(label), "Accept": "image/png"}
    response = post(world, path="explanations/digits", data=BODY, headers=sent)
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
    assert unquote(response.headers["X-Class"]) == label
    if "\n" not in label:  # as curl sends it
        response = post(world, path="explanations/digits", data=BODY, headers={"X-Target": label.encode()})
        assert response.json()["class"] == label


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("application/json, image/png;q=0.1", "application/json"),
        ("image/png;q=0, */*", "application/json"),
        ("image/*", "image/png"),
        ("*/*", "application/json"),
    ],
)
def test_an_explanation_comes_as_what_is_accepted(accept, content_type, world):
    response = post(world, path="explanations/digits", data=BODY, headers={"Accept": accept})
    assert (response.status_code, response.headers["content-type"]) == (200, content_type)


def test_explanations_have_a_limit_of_their_own(world):
    files = [("data", BODY)] * 5
    refused = post(world, path="explanations/digits", files=files)
    assert refused.status_code == 413
    assert refused.json()["message"] == "the request has 5 images to explain: at most 4 are allowed"
    assert post(world, files=files).status_code == 200
