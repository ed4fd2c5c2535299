"""What is measured, each in processes of its own that are paused when it is not their turn: servers, and models without one.

All of them have what `make serve` sets in their environment.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import stages
from benchmarks.names import COMPILED, EMPTY, LITSERVE, LITSERVE_TRACE, ONNX, OPENVINO, OURS, STOCK
from benchmarks.subject import EMPTY_NAME, STOCK_NAME, Subject
from benchmarks.turns import Turn, paused
from serve.errors import ServeError
from serve.server import ENVIRONMENT, Server
from serve.settings import free_ports, read
from vit_core.precision import PRECISIONS

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS, STOP_SECONDS = 120, 5
NEED_EAGER, NEED_CPU = (LITSERVE, ONNX, COMPILED), (OPENVINO, ONNX)
LITSERVES = {LITSERVE: "eager", LITSERVE_TRACE: "trace"}  # what each runs


def left_out(subject: Subject, device: str) -> dict[str, str]:
    """name → why it cannot be measured with this model on this device."""
    found = {}
    if subject.embeds:
        found |= dict.fromkeys((STOCK, LITSERVE_TRACE), "has no embeddings")
    if not subject.timm_name:
        found |= dict.fromkeys(NEED_EAGER, "runs the eager model, and an archive has the trace alone")
    if any(PRECISIONS[name].stored for name in subject.contents.settings.precisions):
        found[LITSERVE_TRACE] = "would run a trace in int8 by its plain operators, in fp32"
    if device == "cuda":
        found |= dict.fromkeys(NEED_CPU, "is compared on CPUs alone")
    return found


@dataclass(frozen=True)
class Served:
    """A server that takes `bodies` at `url`; `counters` reads what it has counted of its own work, if it does."""

    url: str
    headers: dict[str, str]
    bodies: list[bytes]
    turn: Turn
    counters: Callable[[], stages.Counter] | None = None


@contextlib.contextmanager
def torchserve(subject: Subject, bodies: list[bytes], clients: int) -> Iterator[tuple[dict[str, Served], dict]]:
    """The archive, and beside it TorchServe's own handler, where that can serve the model, and an empty one, in one server that
    takes `clients` at once; and what the worker of the archive says of itself."""
    beside = {} if subject.embeds else {STOCK: STOCK_NAME}
    beside[EMPTY] = EMPTY_NAME
    config = subject.store / "config.properties"
    queue = max(2 * clients, int(read(ROOT / config.name)["job_queue_size"]))
    config.write_text(f"{(ROOT / config.name).read_text()}\njob_queue_size={queue}\n")
    server = Server(subject.store / "run")
    client = server.start(config, subject.store, free_ports())
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        for archive in (subject.archive, *(f"{name}.mar" for name in beside.values())):
            try:
                client.register(archive)
            except ServeError as error:
                sys.exit(f"bench: TorchServe did not take {archive}: {error}: {server.reason()}")
        described = client.describe(subject.served_as)
        headers = {"Authorization": f"Bearer {client.token('inference')}", "Content-Type": "image/jpeg"}
        front_end = psutil.Process(described["workers"][0]["pid"]).ppid()
        turn = stack.enter_context(paused(front_end))

        url = f"{client.inference}/predictions"
        counters = functools.partial(stages.read, client.metrics, subject.served_as)
        served = {OURS: Served(f"{url}/{subject.served_as}", headers, bodies, turn, counters)}
        served |= {label: Served(f"{url}/{name}", headers, bodies, turn) for label, name in beside.items()}
        yield served, described["customizedMetadata"]


@contextlib.contextmanager
def litserve(name: str, subject: Subject, bodies: list[bytes], precision: str, device: str) -> Iterator[Served]:
    """LitServe with what `name` of LITSERVES runs."""
    port, log = free_ports()["port"], subject.store / f"{name}.log"
    command = [sys.executable, "-m", "benchmarks.litserve_peer", LITSERVES[name], str(subject.store)]
    command += [precision, device, str(port)]
    command += [subject.timm_name] if subject.timm_name else []
    with log.open("w") as file, contextlib.ExitStack() as stack:
        process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT | os.environ, stdout=file, stderr=file)
        stack.callback(_end, process)
        deadline = time.monotonic() + START_SECONDS
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"bench: {name} did not start: {log.read_text()[-500:]}")
            time.sleep(0.5)
        turn = stack.enter_context(paused(process.pid))
        payloads = [json.dumps({"image": base64.b64encode(body).decode()}).encode() for body in bodies]
        yield Served(f"http://127.0.0.1:{port}/predict", {"Content-Type": "application/json"}, payloads, turn)


class LeftOut(Exception):
    """Why something is not measured here."""


@dataclass(frozen=True)
class Bare:
    """A process of `bare_peers`, and what it says of itself."""

    turn: Turn
    runs_in: dict
    ask: Callable[[str], str]

    def per_second(self, count: int, seconds: float) -> float:
        """Images a second in batches of `count`."""
        return float(self.ask(f"{count} {seconds}"))


@contextlib.contextmanager
def bare(name: str, subject: Subject, precision: str, device: str) -> Iterator[Bare]:
    """The peer `name` of `bare_peers`, loaded, compiled and paused. Raises LeftOut where it does not run."""
    command = [sys.executable, "-m", "benchmarks.bare_peers", name, str(subject.store), precision, device]
    command += [subject.timm_name] if subject.timm_name else []
    log, pipe = subject.store / f"{name}.log", subprocess.PIPE
    with log.open("w") as file, contextlib.ExitStack() as stack:
        process = subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT | os.environ, stdin=pipe, stdout=pipe, stderr=file, text=True, bufsize=1
        )
        stack.callback(_end, process)

        def line() -> str:
            if not (said := process.stdout.readline()):
                sys.exit(f"bench: {name} ended: {log.read_text()[-500:]}")
            return said

        def ask(question: str) -> str:
            process.stdin.write(f"{question}\n")
            return line()

        said = json.loads(line())
        if "left_out" in said:
            raise LeftOut(said["left_out"])
        yield Bare(stack.enter_context(paused(process.pid)), said["runs_in"], ask)


def _end(process: subprocess.Popen) -> None:
    """Ends it with what it has started, which need not follow it by itself."""
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for each in tree:
                with contextlib.suppress(psutil.NoSuchProcess):
                    end(each)
            _, tree = psutil.wait_procs(tree, timeout=STOP_SECONDS)
    process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False
