"""A batch whose explanations would take longer than TorchServe waits for a worker, which it then ends."""

import base64
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from serve.client import Client
from tests.e2e.conftest import SAMPLES, altered, assert_same_answer, counted, eventually, serving

PICTURE = SAMPLES[0][0]
SECONDS = 5  # of the response timeout


@pytest.fixture(scope="module")
def slow(digits_store, tmp_path_factory) -> Iterator[Client]:
    """A server whose explanations take half a second each, and whose worker has to answer within SECONDS."""
    folder = tmp_path_factory.mktemp("slow")
    begins = b"        # Without TorchScript's optimizations"
    changes = {
        "vit_core/explain.py": (begins, b"        __import__('time').sleep(0.5)\n" + begins),
        "model-config.yaml": (b"responseTimeout: 120", b"responseTimeout: %d" % SECONDS),
    }
    (folder / "store").mkdir()
    altered(digits_store, folder / "store" / "digits.mar", changes)
    with serving(folder / "store", folder / "run", "digits.mar") as client:
        yield client


def test_explanations_end_before_the_worker_is_ended_and_predictions_are_answered(slow, expected):
    (worker,) = slow.describe("digits")["workers"]
    url, token = slow.inference, {"Authorization": f"Bearer {slow.token('inference')}"}
    images = {"data": [base64.b64encode(PICTURE.read_bytes()).decode()] * 4}

    def post(path: str) -> requests.Response:
        return requests.post(f"{url}/{path}/digits", json=images, headers=token, timeout=60)

    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        # The batch size is 4: the first batch may have a request alone, the second is full of four images each, 8 s of work.
        responses = list(pool.map(post, ["explanations"] * 6 + ["predictions"] * 2))
    took = time.monotonic() - started
    codes = Counter(response.status_code for response in responses[:6])
    assert set(codes) == {200, 503} and codes[200] >= 2, codes
    assert {response.json()["type"] for response in responses if response.status_code == 503} == {"Busy"}
    for response in responses[6:]:
        assert_same_answer(response.json()[3], expected[PICTURE.name])
    assert took < 3 * SECONDS
    assert slow.describe("digits")["workers"][0]["pid"] == worker["pid"]
    assert eventually(lambda: counted(slow, "RefusedRequests", Reason="Busy") == codes[503])
