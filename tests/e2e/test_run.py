"""`python -m serve run`: what its probes say, and that it answers what it has before it ends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests

from serve import __main__ as commands
from serve.client import Client
from serve.settings import free_ports
from tests.conftest import ROOT
from tests.e2e.conftest import SAMPLES, altered, assert_same_answer, processes_below
from tests.e2e.test_commands import in_this_folder
from tests.e2e.test_roll import BEGINS

PICTURE = SAMPLES[0][0]
SLOW = {"vit_core/predictor.py": (BEGINS, BEGINS + b"        time.sleep(2)\n")}
SECONDS = 60  # in which all that is waited for here happens, on a busy machine too


class Running:
    """A server that `run` runs, and its probes."""

    def __init__(self, *arguments: str):
        port = free_ports()["port"]
        command = in_this_folder("run", *arguments, "--probes", f"127.0.0.1:{port}")
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> tuple[int, str]:
        try:
            response = requests.get(f"{self.url}/{path}", timeout=10)
        except requests.ConnectionError:
            return 0, ""
        return response.status_code, response.text.strip()

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def end(self) -> tuple[int, str, str]:
        out, error = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out, "\n".join(line for line in error.splitlines() if line.startswith("serve: "))

    def workers(self) -> list[psutil.Process]:
        """Those that are ready."""
        found = [each for each in Client(commands.RUN_DIR).model("digits")["workers"] if each["status"] == "READY"]
        return [psutil.Process(each["pid"]) for each in found if psutil.pid_exists(each["pid"])]


@pytest.fixture
def run(home, ports, digits_store) -> Iterator[Callable[..., Running]]:
    """Starts one with an archive of the model store; what of it is left at the end is killed, which `home` would see."""
    with contextlib.ExitStack() as stack:

        def start(archive: str, *options: str) -> Running:
            running = Running(archive, "--model-store", str(digits_store), *ports, *options)
            stack.callback(running.process.kill)
            return running

        yield start


@pytest.fixture
def slow(digits_store) -> Iterator[str]:
    archive = digits_store / "slow.mar"
    altered(digits_store, archive, SLOW)
    yield archive.stem
    archive.unlink()


@contextlib.contextmanager
def asked(count: int) -> Iterator[list]:
    """So many requests at once, each a future of its response; they are waiting or in a worker when this begins."""
    client = Client(commands.RUN_DIR)
    with ThreadPoolExecutor(count) as pool:
        answers = [pool.submit(client.predict, "digits", PICTURE.read_bytes()) for _ in range(count)]
        deadline = time.monotonic() + SECONDS
        while not sum(client.metric("RequestsInFlight")) and time.monotonic() < deadline:
            time.sleep(0.1)
        yield answers


def waiting(text: str) -> int:
    (line,) = [line for line in text.splitlines() if line.startswith("RequestsWaiting{")]
    labels, value = line.split()
    assert labels == 'RequestsWaiting{ModelName="digits",ModelVersion="1.0"}'
    return int(value)


def test_what_waits_and_what_a_worker_has_is_answered_before_it_ends(run, slow, expected, capsys):
    running = run(slow)
    seen = []
    running.wait(lambda: seen.append(running.get("ready")) or seen[-1][0] == 200)
    assert set(seen[:-1]) <= {(0, ""), (503, "loading")} and (503, "loading") in seen
    assert seen[-1] == (200, "ready") and running.get("live") == (200, "live")
    assert commands.main(["ready"]) == 0 and capsys.readouterr().out == "ready\n"
    assert running.get("") == (404, "/ready, /live and /metrics are here")

    with asked(12) as answers:  # in batches of four, for two workers where there are two cores
        assert waiting(running.get("metrics")[1]) > 0
        assert "RequestsInFlight{" in running.get("metrics")[1]
        running.process.terminate()
        running.wait(lambda: running.get("ready") == (503, "draining"))
        assert running.get("live") == (200, "live")
        assert commands.main(["ready"]) == 1 and capsys.readouterr().out == "draining\n"
        for answer in answers:
            assert answer.result().status_code == 200
            assert_same_answer(answer.result().json(), expected[PICTURE.name])
    status, printed, error = running.end()
    assert (status, error) == (0, "")
    assert printed.splitlines()[-2:] == ["draining: unready", "every request has its answer"]
    assert commands.main(["ready"]) == 1 and capsys.readouterr().out.startswith("no probes: ")


def test_it_is_ready_as_long_as_a_worker_answers(run, expected, digits_store):
    altered(digits_store, digits_store / "two.mar", {"model-config.yaml": (b"minWorkers: 1", b"minWorkers: 2")})
    running = run("two", "--no-tokens")
    running.wait(lambda: running.get("ready")[0] == 200)
    (digits_store / "two.mar").unlink()
    url = f"{Client(commands.RUN_DIR).inference}/predictions/digits"
    workers = running.workers()
    first = workers[0]

    first.kill()  # the other one goes on
    running.wait(lambda: not first.is_running() or first.status() == psutil.STATUS_ZOMBIE)
    lost = 0
    for _ in range(20):
        assert running.get("ready") == (200, "ready")
        try:
            response = requests.post(url, data=PICTURE.read_bytes(), timeout=10)
        except requests.ReadTimeout:  # TorchServe gave it to the dead one, before it knew, and forgets it
            lost += 1
            continue
        if response.status_code in (500, 507):  # it gave it to the dead one as well, and learned of the death meanwhile
            assert response.json()["message"] == "Worker died."
            lost += 1
            continue
        assert response.status_code == 200
        assert_same_answer(response.json(), expected[PICTURE.name])
    assert lost <= 1

    running.wait(lambda: first not in running.workers() and len(running.workers()) == len(workers))
    workers = running.workers()
    for each in workers:  # they hang
        os.kill(each.pid, signal.SIGSTOP)
    running.wait(lambda: running.get("ready")[0] == 503)
    assert "no worker of digits answers: " in running.get("ready")[1]
    for each in workers:
        os.kill(each.pid, signal.SIGCONT)
    running.wait(lambda: running.get("ready")[0] == 200)

    for each in running.workers():
        each.kill()
    running.wait(lambda: running.get("ready")[0] == 503)
    assert running.get("ready")[1].startswith("no worker of digits answers: ")
    assert running.get("live") == (200, "live")
    running.wait(lambda: running.get("ready")[0] == 200)  # TorchServe has started others
    running.process.send_signal(signal.SIGINT)
    assert running.end()[0] == 0


def test_an_end_that_comes_too_early_is_no_success(run, slow):
    running = run(slow, "--grace", "1")
    running.wait(lambda: running.get("ready")[0] == 200)
    with asked(12) as answers:
        running.process.terminate()
        status, _, error = running.end()
        assert (status, error) == (1, "serve: digits/1.0 may have requests after 1 s")
        assert any(answer.exception() or answer.result().status_code != 200 for answer in answers)

    running = run(slow)
    running.wait(lambda: running.get("ready")[0] == 200)
    with asked(40):  # for ten seconds
        running.process.terminate()
        running.wait(lambda: running.get("ready") == (503, "draining"))
        running.process.terminate()
        assert running.end()[0] == 1


def test_what_cannot_be_run_is_one_line_and_leaves_nothing(run, home, digits_store):
    running = run("nothing")
    assert running.end()[::2] == (1, f"serve: there is no nothing.mar in {digits_store}: make archive builds one")
    running = run("digits", "--grace", "5", "--notice", "5")
    assert running.end()[::2] == (1, "serve: --grace 5 includes the notice of 5 s: it must be longer")

    altered(digits_store, digits_store / "broken.mar", {"model-config.yaml": (b"crop_mode", b"crop_mood")})
    status, _, error = run("broken").end()
    (digits_store / "broken.mar").unlink()
    assert status == 1 and error.startswith("serve: digits did not load: ") and "crop_mood" in error

    running = run("digits")
    running.wait(lambda: running.get("ready") == (503, "loading"))
    running.process.terminate()  # nobody has been told that it is ready
    assert running.end()[0] == 143
    assert processes_below(home) == []

    running = run("digits")
    running.wait(lambda: running.get("ready")[0] == 200)
    (java,) = [each for each in psutil.Process(running.process.pid).children(recursive=True) if each.name() == "java"]
    java.kill()
    status, _, error = running.end()
    assert status == 1 and error.startswith("serve: TorchServe has ended by itself: ")
    assert not Path(commands.RUN_DIR / "server.json").exists()


ORPHANS = """
import ctypes, os, subprocess, time, psutil
from serve.run import _reap
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans become this process's, as they become PID 1's
launcher = subprocess.Popen(["sleep", "60"])
subprocess.run(["sh", "-c", "sleep 0 & sleep 0 &"], check=True)
time.sleep(1)
before = [each.status() for each in psutil.Process().children()].count("zombie")
_reap(launcher)
print(before, [each.pid for each in psutil.Process().children()] == [launcher.pid])
launcher.kill()
"""


def test_the_status_of_orphans_is_taken():
    done = subprocess.run(
        [sys.executable, "-c", ORPHANS], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=True
    )
    assert done.stdout == "2 True\n"
