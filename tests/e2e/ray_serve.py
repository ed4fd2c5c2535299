"""`python -m deploy.ray` as a user runs it, in a folder and on a port of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

from serve.settings import free_ports
from tests.conftest import ROOT

COMMAND = """
import pathlib, sys
from deploy.ray import __main__ as command
command.RUN_DIR = pathlib.Path(sys.argv[1])
sys.exit(command.main(sys.argv[2:]))
"""
REPLICA = "ray::ServeReplica:digits"  # what the title of a replica's process begins with


@dataclass(frozen=True)
class RayServer:
    run_dir: Path
    url: str
    metrics: str
    process: psutil.Process

    @property
    def token(self) -> str:
        return (self.run_dir / "tokens").read_text().split()[0]

    def request(self, method: str, path: str, token: str | None = None, **options) -> requests.Response:
        headers = {"Authorization": f"Bearer {token or self.token}", **options.pop("headers", {})}
        return requests.request(method, f"{self.url}/{path}", headers=headers, timeout=60, **options)

    def replicas(self) -> list[psutil.Process]:
        found = []
        for process in self.process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.cmdline() and process.cmdline()[0].startswith(REPLICA):
                    found.append(process)
        return found


def command(run_dir: Path, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", COMMAND, str(run_dir), *map(str, arguments)]


@contextlib.contextmanager
def ray_serving(folder: Path, *arguments: str | Path) -> Iterator[RayServer]:
    """Ray Serve with these archives. At the end it gets Ctrl+C, and must leave nothing: no process, no file."""
    temporary = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))  # short: Ray opens sockets below it
    port, metrics_port, *_ = free_ports().values()
    options = ["--port", str(port), "--metrics-port", str(metrics_port)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    run_dir, log = folder / "run", folder / "ray.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            command(run_dir, *arguments, *options), cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    family = set()
    try:
        deadline = time.monotonic() + 400  # on a busy machine Ray alone takes minutes
        while "Ctrl+C" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        family |= set(psutil.Process(process.pid).children(recursive=True))
        addresses = (f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}")
        yield RayServer(run_dir, *addresses, psutil.Process(process.pid))
        family |= set(psutil.Process(process.pid).children(recursive=True))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 0, log.read_text()
        assert psutil.wait_procs(family, timeout=10)[1] == []
        left = [*temporary.iterdir(), *run_dir.iterdir()]
        assert left == [], left
    finally:
        process.kill()
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        shutil.rmtree(temporary, ignore_errors=True)
