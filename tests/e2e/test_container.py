"""The image that `make image` builds, run as a cluster runs it: a read-only root, no capabilities, a user that is not root."""

import contextlib
import json
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from serve.settings import free_ports
from tests.e2e.conftest import SAMPLES, altered
from tests.e2e.test_roll import BEGINS
from vit_core.predictor import Predictor
from vit_core.request import Request

IMAGE = "localhost/vit-serve"
# crun does not run where there are control groups of both versions.
PODMAN = ["podman", *(["--runtime", "runc"] if shutil.which("runc") else [])]
SLOW = {"vit_core/predictor.py": (BEGINS, BEGINS + b"        time.sleep(3)\n")}
SECONDS = 120

pytestmark = [
    pytest.mark.container,
    pytest.mark.skipif(
        not shutil.which("podman") or subprocess.run([*PODMAN, "image", "exists", IMAGE]).returncode != 0,
        reason="there is no podman, or not yet the image that make image builds",
    ),
]


def podman(*arguments: str) -> str:
    return subprocess.run([*PODMAN, *arguments], capture_output=True, text=True, check=True, timeout=SECONDS).stdout


class Container:
    """One of the image, which serves an archive of this folder without tokens."""

    def __init__(self, store: Path, archive: str):
        ports = free_ports()
        probes = free_ports()["port"]
        self.url, self.probes = f"http://127.0.0.1:{ports['port']}", f"http://127.0.0.1:{probes}"
        self.id = podman(
            *("run", "--detach", "--network", "host", "--read-only", "--cap-drop", "ALL"),
            *("--security-opt", "no-new-privileges", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"),
            *("--tmpfs", "/tmp", "--tmpfs", "/app/.torchserve", "--volume", f"{store}:/app/model_store:ro"),
            *(IMAGE, "run", archive, "--no-tokens", "--probes", f"127.0.0.1:{probes}"),
            *(part for name, port in ports.items() for part in (f"--{name}", str(port))),
        ).strip()

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, podman("logs", self.id)
            time.sleep(0.1)

    def ready(self) -> str:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.probes}/ready", timeout=10).text.strip()
        return ""

    def ask(self, picture: Path) -> requests.Response:
        return requests.post(f"{self.url}/predictions/digits", data=picture.read_bytes(), timeout=SECONDS)

    def python(self, program: str) -> str:
        return podman("exec", self.id, "/opt/serve/bin/python", "-c", program).strip()


@contextlib.contextmanager
def running(store: Path, archive: str) -> Iterator[Container]:
    container = Container(store, archive)
    try:
        container.wait(lambda: container.ready() == "ready")
        yield container
    finally:
        podman("rm", "--force", container.id)


@pytest.fixture
def store(digits_store, tmp_path) -> Path:
    """With an archive in it that another user can read."""
    folder = tmp_path / "store"
    folder.mkdir()
    shutil.copy(digits_store / "digits.mar", folder)
    for each in (folder, *tmp_path.parents[:2]):
        each.chmod(0o755)
    return folder


def test_it_answers_as_the_core_does_in_process_and_may_do_nothing_else(store, tmp_path):
    with zipfile.ZipFile(store / "digits.mar") as archive:
        archive.extractall(tmp_path / "unpacked")
    predictor = Predictor.load(tmp_path / "unpacked")
    with running(store, "digits") as container:
        for picture, _ in SAMPLES:
            (expected,) = predictor.answer([Request([picture.read_bytes()])])
            assert container.ask(picture).json() == expected.body

        assert container.python("import os; print(os.getuid(), os.getgid())") == "10001 10001"
        status = dict(line.split(":\t") for line in container.python("print(open('/proc/1/status').read())").splitlines())
        assert {int(status[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
        assert status["Name"].startswith("python") and status["NoNewPrivs"] == "1"
        written = "import pathlib\ntry: pathlib.Path('/app/x').touch()\nexcept OSError as error: print(error.strerror)"
        assert container.python(written) == "Read-only file system"

        listed = {
            each["name"]
            for each in json.loads(container.python("print(open('/opt/serve/sbom.cdx.json').read())"))["components"]
        }
        installed = "import importlib.metadata as m; print(*{each.name for each in m.distributions()})"
        assert listed == {*container.python(installed).split()}
        assert {"torch", "torchserve", "pillow"} <= listed and not {"timm", "torchvision", "pip", "triton"} & listed

        # The parent of such a process ends at once: PID 1 inherits it.
        container.python(
            "import os, time\nif not os.fork():\n os.setsid()\n if not os.fork(): time.sleep(1)\n os._exit(0)\nos.wait()"
        )
        zombies = "import psutil; print(sum(each.status() == 'zombie' for each in psutil.process_iter()))"
        time.sleep(1.5)
        container.wait(lambda: container.python(zombies) == "0")


def test_sigterm_with_six_requests_in_flight_is_six_answers(store, digits_store):
    altered(digits_store, store / "slow.mar", SLOW)
    (store / "slow.mar").chmod(0o644)
    with running(store, "slow") as container, ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(container.ask, SAMPLES[0][0]) for _ in range(6)]
        container.wait(lambda: in_flight(container) > 0)
        podman("kill", "--signal", "TERM", container.id)
        container.wait(lambda: container.ready() == "draining")
        assert [answer.result().status_code for answer in answers] == [200] * 6
        assert podman("wait", container.id).strip() == "0"
        assert podman("logs", container.id).splitlines()[-1] == "every request has its answer"


def in_flight(container: Container) -> float:
    lines = requests.get(f"{container.probes}/metrics", timeout=10).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("RequestsInFlight{"))
