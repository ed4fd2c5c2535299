"""Versions come and go under load: every request gets its answer, from one version or the other."""

import os
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve import __main__ as commands
from serve.client import Client, _is_loading, waiting
from tests.e2e.conftest import SAMPLES, altered, assert_same_answer, eventually, serving
from tests.e2e.test_under_fire import BODIES, Caller

SECOND = {"MAR-INF/MANIFEST.json": (b'"modelVersion": "1.0"', b'"modelVersion": "2.0"')}
BEGINS = b"        stages, bounds = stages or Stages(), bounds or Bounds()\n"
SLOW = {"vit_core/predictor.py": (BEGINS, BEGINS + b"        time.sleep(3)\n")}
FAILING = {"vit_core/predictor.py": (BEGINS, BEGINS + b"        raise RuntimeError\n")}


@pytest.fixture
def served(digits_store, tmp_path, monkeypatch) -> Iterator[Client]:
    with serving(digits_store, tmp_path / "run", "digits.mar") as client:
        monkeypatch.setattr(commands, "RUN_DIR", client.run_dir)
        yield client


@pytest.fixture
def second(digits_store) -> Iterator[str]:
    archive = digits_store / "second.mar"
    altered(digits_store, archive, SECOND)
    yield archive.stem
    archive.unlink()


class Load:
    """Clients that ask, each the next picture as soon as it has its answer, and check what they get."""

    def __init__(self, client: Client, expected: dict, clients: int = 8):
        self.codes, self._stop, self._call, self._expected = Counter(), threading.Event(), Caller(client), expected
        self._pool = ThreadPoolExecutor(clients)
        self._asking = [self._pool.submit(self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        while not self._stop.is_set():
            for name in BODIES:
                response = self._call(BODIES[name])
                self.codes[response.status_code] += 1
                if response.status_code == 200:
                    assert_same_answer(response.json(), self._expected[name])

    def __enter__(self) -> Counter:
        assert eventually(lambda: self.codes[200] > 50)
        return self.codes

    def __exit__(self, *_) -> None:
        self._stop.set()
        for each in self._asking:
            each.result(timeout=60)
        self._pool.shutdown()


def test_a_new_version_takes_over_under_load_and_the_old_one_comes_back_the_same_way(served, second, expected, capsys):
    with Load(served, expected) as codes:
        for archive, version, old in ((second, "2.0", "1.0"), ("digits", "1.0", "2.0")):
            assert commands.main(["roll", archive]) == 0
            assert capsys.readouterr().out.splitlines() == [
                f"digits {old} is served; loading {version}",
                "asked 20 pictures: the first label is the same for 20 of 20, scores differ by at most 0",
                f"digits {version} is the default; waiting for the last answers of {old}",
                f"digits {old} is unregistered",
            ]
            assert served.versions("digits") == [version]
            before = codes[200]
            assert eventually(lambda before=before: codes[200] > before + 50)
    assert set(codes) == {200}


def test_a_version_that_does_not_load_or_answer_leaves_the_old_one(served, digits_store, expected, capsys):
    broken = digits_store / "broken.mar"
    try:
        with Load(served, expected) as codes:
            for change, said in (
                ({"model-config.yaml": (b"crop_mode", b"crop_mood")}, "Failed to start workers for model digits version: 2.0"),
                (FAILING, "digits/2.0 answers 0-a.jpg with 503"),
            ):
                altered(digits_store, broken, {**SECOND, **change})
                assert commands.main(["roll", "broken"]) == 1
                assert said in capsys.readouterr().err
                assert served.versions("digits") == ["1.0"]
            assert commands.main(["roll", "digits"]) == 1
            assert capsys.readouterr().err.startswith("serve: digits 1.0 is registered already")
            assert commands.main(["roll", "nothing"]) == 1
            assert "nothing.mar" in capsys.readouterr().err
        assert set(codes) == {200}
    finally:
        broken.unlink(missing_ok=True)


def test_what_is_removed_has_answered_what_waits_and_what_it_has(digits_store, tmp_path, monkeypatch, capsys):
    slow = digits_store / "slow.mar"
    altered(digits_store, slow, SLOW)
    try:
        with serving(digits_store, tmp_path / "run", "slow.mar") as client, ThreadPoolExecutor(20) as pool:
            monkeypatch.setattr(commands, "RUN_DIR", client.run_dir)
            answers = [pool.submit(client.predict, "digits", SAMPLES[0][0].read_bytes()) for _ in range(20)]  # three batches
            assert eventually(lambda: waiting(client.model("digits")) > 0)
            assert commands.main(["remove", "digits", "--patience", "1"]) == 1
            assert "digits/1.0 may have requests after 1 s, and stays registered" in capsys.readouterr().err
            assert commands.main(["remove", "digits"]) == 0
            assert client.models() == []
            assert [answer.result(timeout=1).status_code for answer in answers] == [200] * 20
    finally:
        slow.unlink()


def test_a_worker_that_is_loading_is_not_ended(served, second, capsys):
    """TorchServe would now and then answer with an error, and from then on its /ping would never answer."""

    def life(worker: str) -> list[str]:
        return re.findall(rf"{worker} State change \w+ -> WORKER_(\w+)", (served.run_dir / "logs/ts_log.log").read_text())[:3]

    served._manage("POST", "models", url=f"{second}.mar", synchronous="false")
    assert [worker["status"] for worker in served.model("digits/2.0")["workers"]] == ["UNLOADING"]
    assert commands.main(["remove", "digits/2.0"]) == 0
    assert capsys.readouterr().out == "digits 2.0 is unregistered\n"
    assert life("W-9001-digits_2.0") == ["STARTED", "MODEL_LOADED", "SCALED_DOWN"]

    served._manage("PUT", "models/digits", min_worker=2, max_worker=2, synchronous="false")
    served.scale("digits", 1)
    assert life("W-9002-digits_1.0") == ["STARTED", "MODEL_LOADED", "SCALED_DOWN"]
    assert served.is_healthy() and served.versions("digits") == ["1.0"]


def test_a_worker_that_has_died_is_not_waited_for():
    ended = subprocess.Popen(["true"])
    ended.wait()
    states = [("READY", os.getpid()), ("UNLOADING", os.getpid()), ("UNLOADING", -1), ("UNLOADING", ended.pid)]
    assert [_is_loading({"status": status, "pid": pid}) for status, pid in states] == [False, True, True, False]


def test_the_requests_that_a_worker_has_are_told(digits_store, tmp_path):
    slow = digits_store / "slow.mar"
    altered(digits_store, slow, SLOW)
    try:
        with serving(digits_store, tmp_path / "run", "slow.mar") as client, ThreadPoolExecutor(4) as pool:
            gauge = {"ModelName": "digits", "ModelVersion": "1.0", "WorkerName": "9000"}
            assert eventually(lambda: client.metric("RequestsInFlight", **gauge) == [0])
            answers = list(pool.map(lambda _: pool.submit(client.predict, "digits", SAMPLES[0][0].read_bytes()), range(4)))
            assert eventually(lambda: client.metric("RequestsInFlight", **gauge) > [0])
            assert [answer.result().status_code for answer in answers] == [200] * 4
            assert eventually(lambda: client.metric("RequestsInFlight", **gauge) == [0])
    finally:
        slow.unlink()
