"""What a request costs with Ray Serve, beside TorchServe: the same archive, clients and machine, in one run.

    python -m benchmarks.ray_serve model_store/digits.mar

Both serve with as many workers as the archive says, and rounds alternate between them. Cost is the processor time of all
processes of a server, divided by its answers. Writes ray_serve.json into benchmarks/results/here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.load import percentile, photographs, post
from benchmarks.machine import machine
from serve.archive import identity
from serve.register import register
from serve.server import Server
from serve.settings import free_ports

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results" / "here"
CLIENTS = (1, 8)
ROUNDS = 3


@dataclass(frozen=True)
class Served:
    """A server that runs: where it answers, its token, and the processes that it is made of."""

    url: str
    token: str
    processes: Callable[[], list[psutil.Process]]

    def seconds(self) -> dict[psutil.Process, float]:
        """Processor time so far, by process."""
        found = {}
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                found[process] = times.user + times.system
        return found

    def megabytes(self) -> float:
        """Memory of all processes, with what they share counted once."""
        return sum(process.memory_full_info().pss for process in self.processes()) / 1e6


@contextlib.contextmanager
def torchserve(archive: Path, folder: Path) -> Iterator[Served]:
    server, name = Server(folder / "torchserve"), identity(archive)[0]
    client = server.start(ROOT / "config.properties", archive.parent, free_ports())
    try:
        register(server, client, archive.name, name)
        java = psutil.Process(json.loads((server.run_dir / "server.json").read_text())["processes"][0][0])
        yield Served(f"{client.inference}/predictions/{name}", client.token("inference"), lambda: _family(java))
    finally:
        server.stop()


@contextlib.contextmanager
def ray_serve(archive: Path, folder: Path) -> Iterator[Served]:
    port, name, log = free_ports()["port"], identity(archive)[0], folder / "ray.log"
    command = [sys.executable, "-m", "deploy.ray", str(archive), "--port", str(port)]
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
    try:
        while "is served" not in log.read_text():
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.2)
        token = (ROOT / ".ray-serve" / "tokens").read_text().split()[0]
        own = psutil.Process(process.pid)
        yield Served(f"http://127.0.0.1:{port}/predictions/{name}", token, lambda: _family(own))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def measure(served: Served, bodies: list[bytes], clients: int, seconds: float) -> dict[str, float]:
    before, begun = served.seconds(), time.perf_counter()
    headers = {"Authorization": f"Bearer {served.token}"}
    load = post(served.url, headers, bodies, clients, seconds)
    spent = sum(seconds - before.get(process, 0) for process, seconds in served.seconds().items())
    if load.errors:
        raise SystemExit(f"{load.errors} answers were not 200")
    return {
        "per_second": load.per_second,
        "p50_ms": 1e3 * percentile(load.latencies, 0.5),
        "p99_ms": 1e3 * percentile(load.latencies, 0.99),
        "processor_seconds_per_second": spent / (time.perf_counter() - begun),
    }


def summary(rounds: list[dict[str, float]], idle: float) -> dict[str, float]:
    """Medians of the rounds. Processor time that a server takes without requests is left out of what one costs."""
    found = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
    busy = found["processor_seconds_per_second"] - idle
    return {
        key: round(value, 2) for key, value in (found | {"processor_ms_per_request": 1e3 * busy / found["per_second"]}).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_serve", description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--seconds", type=float, default=6, help="for each server and number of clients (default: %(default)s)")
    options = parser.parse_args()
    archive, bodies = options.archive.resolve(), photographs()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        servers = {}
        for name, start in (("TorchServe", torchserve), ("Ray Serve", ray_serve)):
            servers[name] = stack.enter_context(start(archive, Path(folder)))
        for served in servers.values():
            measure(served, bodies, max(CLIENTS), options.seconds)  # Java compiles, pages are touched
        idle = {}
        for name, served in servers.items():
            before = sum(served.seconds().values())
            time.sleep(options.seconds)
            idle[name] = (sum(served.seconds().values()) - before) / options.seconds
        rounds = [
            {
                (name, clients): measure(served, bodies, clients, options.seconds)
                for clients in CLIENTS
                for name, served in servers.items()
            }
            for _ in range(ROUNDS)
        ]
        results = {
            name: {
                "megabytes": round(served.megabytes()),
                "processor_seconds_per_second_idle": round(idle[name], 3),
                **{f"{clients} clients": summary([each[name, clients] for each in rounds], idle[name]) for clients in CLIENTS},
            }
            for name, served in servers.items()
        }
    record = {
        "command": f"python -m benchmarks.ray_serve {archive.name} --seconds {options.seconds:g}",
        "machine": machine("cpu"),
        "versions": {name: version(name) for name in ("ray", "torch", "torchserve")},
        **results,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "ray_serve.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
