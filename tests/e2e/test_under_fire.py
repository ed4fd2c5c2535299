"""A real server under load, with bad requests, with its worker killed, with more than it can take."""

import io
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests
from PIL import Image

from serve.client import Client
from tests.e2e.conftest import SAMPLES, assert_same_answer, serving

BODIES = {picture.name: picture.read_bytes() for picture, _ in SAMPLES}


class Caller:
    """Posts to the digits model over one connection for each thread."""

    def __init__(self, client: Client):
        self.url = f"{client.inference}/predictions/digits"
        self.headers = {"Authorization": f"Bearer {client.token('inference')}"}
        self._local = threading.local()

    def __call__(self, body: bytes) -> requests.Response:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.trust_env = False
        return self._local.session.post(self.url, data=body, headers=self.headers, timeout=120)


def worker(client: Client) -> psutil.Process:
    (only,) = client.describe("digits")["workers"]
    return psutil.Process(only["pid"])


def bad_bodies() -> list[tuple[int, bytes]]:
    jpeg = BODIES["0-a.jpg"]
    bomb = io.BytesIO()
    Image.new("1", (9000, 9000)).save(bomb, "PNG")
    return [
        (400, b""),
        (415, b"plain text"),
        (400, jpeg[: len(jpeg) // 2]),
        (413, bomb.getvalue()),
        (400, b'{"data": "not base64!"}'),
        (400, b'{"data": '),
        (400, b'{"pictures": []}'),
        (415, bytes(1000)),
    ]


def test_two_thousand_mixed_requests_each_get_their_own_answer(client, expected):
    before = worker(client)
    choose = random.Random(0)
    bad = bad_bodies()
    asked = [choose.choice(bad) if choose.random() < 0.1 else choose.choice(list(BODIES)) for _ in range(2000)]
    call = Caller(client)
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(lambda each: call(BODIES[each] if isinstance(each, str) else each[1]), asked))
    for each, response in zip(asked, responses, strict=True):
        if isinstance(each, str):
            assert response.status_code == 200
            assert_same_answer(response.json(), expected[each])
        else:
            assert (response.status_code, response.json()["code"]) == (each[0], each[0])
    assert sum(not isinstance(each, str) for each in asked) > 150
    assert worker(client) == before  # by process id and time of creation


def test_a_worker_that_is_killed_comes_back_and_only_requests_in_flight_are_lost(digits_store, tmp_path, expected):
    with serving(digits_store, tmp_path / "run", "digits.mar") as client:
        victim = worker(client)
        call, picture = Caller(client), SAMPLES[0][0]
        codes, killed = [], threading.Event()

        def ask() -> None:
            # On until the new worker has answered for a while.
            while not killed.is_set() or codes[-100:].count(200) < 100:
                response = call(BODIES[picture.name])
                codes.append(response.status_code)
                if response.status_code == 200:
                    assert_same_answer(response.json(), expected[picture.name])

        with ThreadPoolExecutor(8) as pool:
            asking = [pool.submit(ask) for _ in range(8)]
            while len(codes) < 200:
                time.sleep(0.01)
            assert set(codes) == {200}
            victim.kill()
            killed.set()
            for each in asking:
                each.result(timeout=120)
        assert set(codes) <= {200, 500, 503, 507}  # 507 is what TorchServe says of a worker that died
        first, last = codes.index(next(code for code in codes if code != 200)), len(codes)
        assert set(codes[:first]) == {200} and set(codes[last - 50 :]) == {200}
        assert worker(client).pid != victim.pid


def test_what_is_more_than_it_can_take_is_refused_and_the_rest_is_answered(digits_store, tmp_path, expected):
    with serving(digits_store, tmp_path / "run", "digits.mar", "job_queue_size=10") as client:
        before, call = worker(client), Caller(client)
        codes = Counter()

        def insist(name: str) -> None:
            while (response := call(BODIES[name])).status_code != 200:
                assert (response.status_code, response.json()["type"]) == (503, "ServiceUnavailableException")
                codes[503] += 1
                time.sleep(0.2)
            codes[200] += 1
            assert_same_answer(response.json(), expected[name])

        with ThreadPoolExecutor(100) as pool:  # a hundred at once for a queue of ten
            list(pool.map(insist, [name for name in BODIES for _ in range(15)]))
        assert codes[200] == 300 and codes[503] >= 50
        for name, body in BODIES.items():  # afterwards all is as before
            assert_same_answer(call(body).json(), expected[name])
        assert worker(client) == before


@pytest.mark.large
def test_memory_stays_flat(client):
    process, call = worker(client), Caller(client)
    bodies = list(BODIES.values())

    def resident() -> int:
        return process.memory_info().rss

    def ask(count: int) -> None:
        with ThreadPoolExecutor(16) as pool:
            assert all(response.status_code == 200 for response in pool.map(call, (bodies * (count // 20 + 1))[:count]))

    ask(5000)
    warm = resident()
    ask(20_000)
    assert resident() - warm < 20_000_000
