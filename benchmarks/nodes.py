"""`python -m predict --ray` on one node and on two, each of which a control group holds to a share of a core.

    sudo .venv/bin/python -m benchmarks.nodes                 # minutes: nodes of 0.4 cores, 20,000 pictures
    sudo .venv/bin/python -m benchmarks.nodes --cores 0.9

The head of the cluster and the command itself run outside of the groups and answer no pictures. Turns alternate between one
node and two. A rate counts from the first part that is done, so loading is not in it. Writes "on nodes" into
benchmarks/results/bulk.json.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from benchmarks.bulk import DIGITS, RESULTS, ROOT, draw
from benchmarks.machine import machine
from benchmarks.turns import exit_on_signals
from export.options import Options
from export.pipeline import export
from predict.job import PART
from serve.settings import free_ports

RAY = Path(sys.executable).with_name("ray")
PERIOD = 100_000  # microseconds, the kernel's own
TURNS = 3


@contextmanager
def held_to(cores: float) -> Iterator[Path]:
    """A control group (version 1 or 2) whose processes together have so many cores; the file that takes them in."""
    first = Path("/sys/fs/cgroup/cpu")
    group = (first if first.exists() else Path("/sys/fs/cgroup")) / f"node-{secrets.token_hex(4)}"
    group.mkdir()
    quota = round(cores * PERIOD)
    if first.exists():
        (group / "cpu.cfs_period_us").write_text(str(PERIOD))
        (group / "cpu.cfs_quota_us").write_text(str(quota))
    else:
        (group / "cpu.max").write_text(f"{quota} {PERIOD}")
    yield group / "cgroup.procs"
    while (group / "cgroup.procs").read_text():  # those that were killed are gone in a moment
        time.sleep(0.1)
    group.rmdir()


@contextmanager
def node(place: Path, environment: dict, group: Path | None, *arguments: str) -> Iterator[None]:
    """`ray start` with these arguments, in the control group if one is given; at the end all its processes are killed."""
    folder = Path(tempfile.mkdtemp(dir=place))
    log = folder / "log"
    command = [RAY, "start", *arguments, "--temp-dir", folder, "--block", "--object-store-memory", "100000000"]
    started = subprocess.Popen(
        list(map(str, command)),
        env=environment,
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        preexec_fn=group and (lambda: group.write_text(str(os.getpid()))),
    )
    try:
        while "runtime started" not in log.read_text():
            if started.poll() is not None:
                sys.exit(f"nodes: {log.read_text()}")
            time.sleep(0.1)
        yield
    finally:
        for process in [*psutil.Process(started.pid).children(recursive=True), started]:
            process.kill()
        started.wait()


def rate(archive: Path, pictures: Path, address: str, environment: dict) -> float:
    """Pictures a second from the first part to the last one."""
    out = archive.with_name(f"{secrets.token_hex(4)}.parquet")
    parts = Path(f"{out}.parts")
    command = [sys.executable, "-m", "predict", archive, pictures, "--output", out, "--ray", address]
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    begun = first = latest = done = 0.0
    try:
        while process.poll() is None:
            count = len(list(parts.glob("part-*")))
            if count > done:
                done, latest = count, time.monotonic()
                if not first:
                    begun, first = count, latest
            time.sleep(0.05)
    finally:
        process.terminate()
        process.wait()
    if process.returncode:
        sys.exit("nodes: a run has failed")
    return (done - begun) * PART / (latest - first)


def measured(archive: Path, pictures: Path, cores: float, count: int) -> float:
    """The rate on a new cluster of so many nodes."""
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment["RAY_USAGE_STATS_ENABLED"] = "0"
    port = next(iter(free_ports().values()))
    address = f"127.0.0.1:{port}"
    with ExitStack() as stack:
        # Ray opens sockets below this folder, and their paths have to be short.
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True)))
        head = ("--head", "--port", port, "--num-cpus", "0", "--include-dashboard", "false")
        stack.enter_context(node(place, environment, None, *head))
        for _ in range(count):
            group = stack.enter_context(held_to(cores))
            stack.enter_context(node(place, environment, group, "--address", address, "--num-cpus", "1"))
        return rate(archive, pictures, address, environment)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nodes")
    parser.add_argument("--cores", type=float, default=0.4, help="of each node")
    parser.add_argument("--count", type=int, default=20_000, help="pictures")
    options = parser.parse_args()
    exit_on_signals()
    if os.getuid():
        sys.exit("nodes: control groups are made by root")
    with tempfile.TemporaryDirectory() as place:
        archive = export(Options(DIGITS, model_name="digits", model_store=Path(place))).archive
        pictures = draw(Path(place) / "pictures", options.count)
        rates = {1: [], 2: []}
        for _ in range(TURNS):
            for nodes, seen in rates.items():
                seen.append(round(measured(archive, pictures, options.cores, nodes)))
                print(nodes, seen[-1], flush=True)
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    record.setdefault("on nodes", {})[f"{options.cores} cores each"] = {
        "machine": machine("cpu"),
        "pictures": options.count,
        "one, pictures a second": rates[1],
        "two, pictures a second": rates[2],
        "two to one": round(statistics.median(rates[2]) / statistics.median(rates[1]), 2),
    }
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
