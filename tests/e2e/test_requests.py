"""Every form of request, and every error in docs/requests.md, on a real server."""

import base64
import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
from PIL import Image

from serve.client import Client
from tests.conftest import DIGITS, ROOT, export_to
from tests.e2e.conftest import SAMPLES, assert_same_answer, counted, eventually, serving

PICTURES = [picture for picture, _ in SAMPLES[:4]]
BODIES = [picture.read_bytes() for picture in PICTURES]
B64 = [base64.b64encode(body).decode() for body in BODIES]


def post(client: Client, **options) -> requests.Response:
    headers = {"Authorization": f"Bearer {client.token('inference')}", **options.pop("headers", {})}
    path = options.pop("path", "predictions")
    return requests.post(f"{client.inference}/{path}/digits", headers=headers, timeout=60, **options)


# --- forms ---


@pytest.mark.parametrize(
    "options",
    [
        {"data": BODIES[0]},
        {"data": BODIES[0], "headers": {"Content-Type": "image/jpeg"}},
        {"data": BODIES[0], "headers": {"Content-Type": "text/plain"}},
        {"data": BODIES[0], "headers": {"Content-Type": "application/json"}},
        {"files": {"data": BODIES[0]}},
        {"files": {"picture": ("a.jpg", BODIES[0], "image/jpeg")}},
        {"files": {"picture": ("a.txt", BODIES[0], "text/plain")}},
        {"json": {"data": B64[0]}},
        {"json": {"b64": B64[0]}},
        {"json": {"data": f"data:image/jpeg;base64,{B64[0]}"}},
        {"data": f"data:image/jpeg;base64,{B64[0]}"},
    ],
)
def test_one_image_comes_in_many_forms(options, client, expected):
    response = post(client, **options)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert_same_answer(response.json(), expected[PICTURES[0].name])


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"json": {"data": B64}}, None),
        ({"json": B64}, None),
        ({"files": [("data", body) for body in BODIES]}, None),
        ({"files": {f"picture{index}": body for index, body in enumerate(BODIES)}}, None),
        ({"json": {"instances": [{"data": image} for image in B64]}}, "predictions"),
        ({"json": {"instances": [{"image_bytes": {"b64": image}} for image in B64]}}, "predictions"),
    ],
    ids=["data", "list", "fields of one name", "fields of several names", "KServe", "TensorFlow Serving"],
)
def test_several_images_get_a_list_of_answers(options, key, client, expected):
    answers = post(client, **options).json()
    if key:
        assert answers.keys() == {key}
        answers = answers[key]
    assert len(answers) == len(PICTURES)
    for picture, answer in zip(PICTURES, answers, strict=True):
        assert_same_answer(answer, expected[picture.name])


@pytest.mark.parametrize(
    "options",
    [
        {"files": {"data": BODIES[0]}, "data": {"top_k": "2"}},
        {"json": {"data": B64[0], "top_k": 2}},
        {"data": BODIES[0], "headers": {"X-Top-K": "2"}},
    ],
)
def test_a_request_says_how_many_labels_it_wants(options, client):
    assert len(post(client, **options).json()) == 2


def test_a_threshold_leaves_out_the_improbable(client):
    answer = post(client, data=BODIES[0], headers={"X-Threshold": "0.5"}).json()
    assert list(answer) == ["0"]
    assert answer["0"] > 0.9


# --- errors ---


def many_scans() -> bytes:
    """A progressive JPEG whose last scan is there 3,000 times."""
    buffer = io.BytesIO()
    Image.new("L", (1000, 1000)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 3000 + data[-2:]


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


ERRORS = {
    "EmptyBody": (400, [{"data": b""}, {"json": {"data": ""}}, {"files": {"top_k": (None, "3")}}, {"json": {"instances": []}}]),
    "BadJSON": (
        400,
        [
            {"data": b'{"data": '},
            {"data": b"[" * 50_000},
            {"data": b"hello", "headers": {"Content-Type": "application/json"}},
            {"json": {"image_url": "http://127.0.0.1/cat.jpg"}},
            {"json": {"instances": {"data": B64[0]}}},
            {"json": {"data": [1, 2, 3]}},
        ],
    ),
    "BadBase64": (400, [{"json": {"data": "not base64!"}}, {"data": "data:image/png,plain"}]),
    "BadOption": (
        400,
        [
            {"data": BODIES[0], "headers": {"X-Top-K": "many"}},
            {"json": {"data": B64[0], "top_k": 0}},
            {"files": {"data": BODIES[0]}, "data": {"threshold": "2"}},
            {"data": BODIES[0], "headers": {"X-Task": "embed"}},
            {"data": BODIES[0], "path": "explanations", "headers": {"X-Target": "cat"}},
        ],
    ),
    "OneImageOnly": (406, [{"json": B64[:2], "path": "explanations", "headers": {"Accept": "image/png"}}]),
    "BrokenImage": (400, [{"data": BODIES[0][: len(BODIES[0]) // 2]}, {"json": {"data": B64[2][:400]}}]),
    "UnsupportedImage": (415, [{"data": b"plain text"}, {"data": b"%PDF-1.7 ..."}, {"data": "text=1", "headers": {}}]),
    "FileTooLarge": (413, [{"data": bytes(2_000_001)}]),
    "ImageTooLarge": (413, [{"data": png(1001, 1000)}, {"data": png(30_000, 30_000)}]),
    "TooManyImages": (413, [{"json": B64}]),
    "DecodeTimeout": (413, [{"data": many_scans()}]),
}


@pytest.fixture(scope="module")
def limited(tmp_path_factory) -> Iterator[Client]:
    """A server whose archive has limits that a test can reach."""
    folder = tmp_path_factory.mktemp("limited")
    options = ("--max-bytes", "2000000", "--max-pixels", "1000000", "--max-images", "3", "--max-decode-seconds", "1")
    export_to(folder / "store", f"local-dir:{DIGITS}", *options)
    with serving(folder / "store", folder / "run", "digits.mar") as client:
        yield client


def documented() -> dict[str, int]:
    """The errors of the handler that docs/requests.md has in its table: type → code."""
    rows = re.findall(r"^\| (4\d\d) \| `(\w+)` \|", (ROOT / "docs" / "requests.md").read_text(), re.MULTILINE)
    return {type: int(code) for code, type in rows}


def test_the_table_of_errors_is_whole():
    assert documented() == {type: code for type, (code, _) in ERRORS.items()}


def test_each_error_of_the_table_is_given_while_others_are_answered(limited, expected):
    (worker,) = limited.describe("digits")["workers"]
    cases = [(type, code, options) for type, (code, all_options) in ERRORS.items() for options in all_options]
    good = [(None, 200, {"data": body}) for body in BODIES] * 5
    asked = [case for pair in zip(good, cases * 2, strict=False) for case in pair] + good
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda case: post(limited, **case[2]), asked))
    for (type, code, options), response in zip(asked, responses, strict=True):
        assert response.status_code == code, (type, options, response.text)
        if type is None:
            assert_same_answer(response.json(), expected[PICTURES[BODIES.index(options["data"])].name])
        else:
            assert response.json().keys() == {"code", "type", "message"}
            assert (response.json()["code"], response.json()["type"]) == (code, type)
            assert eventually(lambda type=type: counted(limited, "RefusedRequests", Reason=type) >= 1)
    assert limited.describe("digits")["workers"][0]["pid"] == worker["pid"]


def test_a_body_beyond_what_the_server_takes_is_refused_at_once(client):
    response = post(client, data=bytes(20_000_001))
    assert (response.status_code, response.content) == (413, b"")  # the handler's own refusal says why


def test_noise_of_every_size_is_answered_or_refused(client):
    random = np.random.default_rng(0)
    with ThreadPoolExecutor(8) as pool:
        bodies = [random.bytes(int(size)) for size in 10 ** random.uniform(0, 6, 60)]
        responses = list(pool.map(lambda body: post(client, data=body), bodies))
    assert {response.status_code for response in responses} <= {400, 413, 415}
