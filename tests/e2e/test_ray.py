"""Ray Serve gives the answers that TorchServe gives, and loses none while versions and replicas come and go."""

import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.conformance.__main__ import compare, main, parse
from tests.conformance.cases import cases
from tests.conformance.servers import InProcess, Server
from tests.conftest import DIGITS, LAST_DIGITS, ROOT, export_to
from tests.e2e.conftest import SAMPLES, altered, assert_same_answer, eventually, serving
from tests.e2e.ray_serve import RayServer, command, ray_serving
from tests.e2e.test_roll import SECOND

PICTURES = [picture for picture, _ in SAMPLES]
BODIES = {picture.name: picture.read_bytes() for picture in PICTURES}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """An archive with all tasks, that two workers serve."""
    store = tmp_path_factory.mktemp("model_store")
    export_to(store, f"local-dir:{DIGITS}", "--task", "classify,embed", "--batch-size", "4", "--workers", "2")
    return store


@pytest.fixture(scope="module")
def ray(store, tmp_path_factory) -> Iterator[RayServer]:
    with ray_serving(tmp_path_factory.mktemp("ray"), store / "digits.mar") as server:
        yield server


class Load:
    """Clients that ask, each the next picture as soon as it has its answer, and check what they get."""

    def __init__(self, server: RayServer, expected: dict, clients: int = 4):
        self.codes, self._stop, self._expected = Counter(), threading.Event(), expected
        self._url, self._headers = f"{server.url}/predictions/digits", {"Authorization": f"Bearer {server.token}"}
        self._pool = ThreadPoolExecutor(clients)
        self._asking = [self._pool.submit(self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        with requests.Session() as session:
            while not self._stop.is_set():
                for name, body in BODIES.items():
                    response = session.post(self._url, data=body, headers=self._headers, timeout=120)
                    self.codes[response.status_code] += 1
                    if response.status_code == 200:
                        assert_same_answer(response.json(), self._expected[name])
                    time.sleep(0.02)  # or the replicas that start would have no time on the same cores

    def goes_on(self) -> bool:
        before = self.codes[200]
        return eventually(lambda: self.codes[200] > before + 30)

    def __enter__(self) -> "Load":
        assert self.goes_on()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        for each in self._asking:
            each.result(timeout=120)
        self._pool.shutdown()


# --- the same answers ---


def test_torchserve_ray_serve_and_the_core_give_the_same_answers(ray, store, tmp_path, capsys):
    archive = store / "digits.mar"
    asked, core, tolerance = cases(PICTURES), InProcess(archive), ("--tolerance", str(LAST_DIGITS))
    assert len(asked) > 140 and len({case.name for case in asked}) == len(asked)
    assert list(compare(Server(ray.url, "digits", ray.token), core, asked, tolerance=LAST_DIGITS)) == []
    with serving(store, tmp_path / "run", "digits.mar") as client:
        assert main([client.inference, "--archive", str(archive), "--token", client.token("inference"), *tolerance]) == 0
    assert capsys.readouterr().out.startswith(f"{len(asked)} of {len(asked)} answers are the same: ")


def test_what_differs_is_said(ray, store, tmp_path, capsys):
    other = tmp_path / "digits.mar"
    altered(store, other, {"model-config.yaml": (b"top_k: 5", b"top_k: 4")})
    assert main([ray.url, "--archive", str(other), "--token", ray.token]) == 1
    *different, last = capsys.readouterr().out.splitlines()
    assert "good: bytes: the answer: {'0': " in different[0]
    same, every = map(int, re.match(r"(\d+) of (\d+)", last).groups())
    assert every - same == len(different) > 20


def test_a_token_may_begin_with_a_dash():
    assert parse(["http://127.0.0.1:8080", "--token", "-x", "--token=y", "--token", "--z"]).token == ["-x", "y", "--z"]


# --- who may ask, and what is told ---


def test_the_file_of_tokens_is_read_again_when_it_changes(ray):
    file, first = ray.run_dir / "tokens", ray.token
    assert file.stat().st_mode & 0o077 == 0
    file.write_text(f"{first}\nsecond\n")
    assert [ray.request("GET", "ping", token).status_code for token in (first, "second", "third")] == [200, 200, 400]
    file.write_text("")
    assert ray.request("GET", "ping", "second").status_code == 400
    file.write_text(first)
    assert [ray.request("GET", "ping", token).status_code for token in (first, "second")] == [200, 400]


def test_a_model_describes_itself(ray):
    (found,) = ray.request("GET", "models/digits").json()
    assert (found["modelName"], found["modelVersion"]) == ("digits", "1.0")
    assert found["customizedMetadata"]["classes"] == list("0123456789")
    assert ray.request("GET", "models/digits/3.0").json()["type"] == "ModelVersionNotFoundException"
    # The front passes nothing on to applications of other kinds: itself, here.
    assert ray.request("POST", "predictions/front", data=b"x").json()["type"] == "ModelNotFoundException"


def test_the_metrics_have_the_projects_names(ray):
    for body in (BODIES["0-a.jpg"], b"no image"):
        ray.request("POST", "predictions/digits", data=body)

    def told() -> set[str]:
        text = requests.get(f"{ray.metrics}/metrics", timeout=10).text
        lines = re.findall(r'^ray_(\w+)\{(.*ModelName="digits".*)\} ', text, re.MULTILINE)
        assert all('ModelVersion="' in labels for _, labels in lines)
        return {name for name, _ in lines}

    names = {"BatchSize_sum", "InferenceSeconds_count", "PreprocessSeconds_bucket", "RefusedRequests", "RequestsInFlight"}
    assert eventually(lambda: {name.lower() for name in names} <= {name.removesuffix("_total") for name in told()})


# --- nothing is lost ---


def test_a_replica_that_dies_under_load_loses_no_request(ray, expected):
    victim = ray.replicas()[0]
    with Load(ray, expected) as load:
        victim.kill()
        assert load.goes_on()
        assert eventually(lambda: len(ray.replicas()) == 2 and victim not in ray.replicas(), seconds=60)
    assert set(load.codes) == {200}


def test_a_new_version_takes_over_under_load(ray, store, expected, tmp_path):
    altered(store, tmp_path / "second.mar", SECOND)
    with Load(ray, expected) as load:
        again = [command(ray.run_dir, archive) for archive in (tmp_path / "second.mar", tmp_path / "second.mar")]
        deployed = subprocess.run(again[0], cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert (deployed.returncode, deployed.stdout, deployed.stderr) == (0, "digits 2.0 is served\n", "")
        assert ray.request("GET", "models/digits").json()[0]["modelVersion"] == "2.0"
        assert load.goes_on()
    assert set(load.codes) == {200}
    broken = tmp_path / "broken.mar"  # its trace is no file of torch
    altered(store, broken, {**SECOND, "model.pt": (b"PK\3\4", b"PK\3\5")})
    with Load(ray, expected) as load:
        failed = subprocess.run(command(ray.run_dir, broken), cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert (failed.returncode, failed.stdout) == (1, "")
        assert "Deploying application digits failed" in failed.stderr and failed.stderr.count("\n") == 1
        assert load.goes_on()
    assert set(load.codes) == {200}
    refused = subprocess.run([*again[1], "--no-tokens"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "deploy.ray: the front runs already: its address and its tokens stay as they are\n"


def test_what_is_in_flight_at_the_end_is_answered(ray):
    """The last test here: it ends the server, and the fixture looks at what is left."""
    slow = {"files": [("data", body) for body in BODIES.values()]}
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(ray.request, "POST", "predictions/digits", **slow) for _ in range(20)]
        assert eventually(lambda: any(answer.done() for answer in answers))
        ray.process.terminate()
        assert [answer.result().status_code for answer in answers] == [200] * 20
