"""The same run on a cluster with Ray Data: shards go out as blocks, actors with a worker each answer them, and parts come back.

The shards that are left are chosen here, before Ray sees them, so there is one stage, and only the actors need a processor. On
a cluster of two, a filter and the actors would wait for each other for ever.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from command_line import UserError
from predict.job import LOCAL, Job, Part, Shard
from predict.packed import Packed
from predict.process import ROOT, WorkerProcess
from predict.sources.item import Item
from vit_core.machine import WORKERS_PER_GPU, cores
from vit_core.way import BRIEF

# Shards that are handed to Ray at once: 128 bytes for each of their half a million pictures are in its memory.
WAVE = 2000
CONNECT = 10  # seconds that a connection to the cluster may take
# What a worker of the cluster needs of this project.
CODE = ("predict", "handler", "command_line.py")


class Pin:
    """Makes the workers agree on a precision: the first one that is ready decides."""

    def __init__(self, precision: str | None):
        self._precision = precision

    def agree(self, precision: str) -> str:
        self._precision = self._precision or precision
        return self._precision


class Answering:
    """Ray's actor on a node. It holds a worker process, so a picture that ends the process does not end the actor."""

    def __init__(self, job: Job, archive: list, roots: list[str], pin):
        import ray

        self._failure = _unseen(roots)
        if self._failure:
            return
        self._folder = tempfile.TemporaryDirectory(prefix="archive-")
        path = Path(self._folder.name) / "archive.mar"
        path.write_bytes(ray.get(archive[0]))
        job = replace(job, archive=str(path))
        try:
            self._worker = WorkerProcess(job)
            precision = ray.get(pin.agree.remote(self._worker.ready.precision))
            if precision != self._worker.ready.precision:  # a machine of another kind than the first
                self._worker.close()
                self._worker = WorkerProcess(replace(job, precision=precision))
        except UserError as error:
            self._failure = str(error)

    def __call__(self, batch: dict) -> dict:
        (shard,) = batch["shard"]
        if not self._failure:
            number, first_id, items = json.loads(shard)
            try:
                part = self._worker.answer(Shard(number, first_id, [Item(*item) for item in items]))
                precision = self._worker.ready.precision
                return _row(part.number, part.rows, part.errors, part.data, precision, "")
            except UserError as error:
                self._failure = str(error)
        return _row(0, 0, 0, b"", "", f"{socket.gethostname()}: {self._failure}")


def _row(*values) -> dict:
    return {
        name: [value] for name, value in zip(("number", "rows", "errors", "data", "precision", "failure"), values, strict=True)
    }


def _unseen(roots: list[str]) -> str:
    missing = next((root for root in roots if not os.path.exists(root)), None)
    return f"there is no {missing} on this node: pictures have to be where all nodes see them" if missing else ""


class Cluster:
    """Answers shards on the cluster at `address`, or for LOCAL on a new one on this machine. `close` ends it."""

    def __init__(self, job: Job, packed: Packed, sources: list[str], address: str):
        self._ray, self._job, self._flops = _imported(), job, packed.settings.flops
        paths = [os.path.join(job.folder, source) for source in sources]
        self._roots = [path for path in paths if os.path.exists(path)]  # others are URLs and patterns
        self._connect(address)
        ray = self._ray
        self._archive = [ray.put(packed.bytes())]
        node = ray.get_runtime_context().get_node_id()
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        self._pin = ray.remote(Pin).options(num_cpus=0, scheduling_strategy=strategy).remote(job.precision)
        cpu_only = packed.serving.device_type == "cpu" or (job.device or "").startswith("cpu")
        self._gpus = not cpu_only and ray.cluster_resources().get("GPU", 0) > 0
        self.precision = job.precision  # known with the first part

    def answered(self, shards: Iterator[Shard], most: int) -> Iterator[Part]:
        """Yields the parts of the shards when they are done. Raises UserError if workers cannot run, or if Ray fails."""
        while wave := list(itertools.islice(shards, WAVE)):
            try:
                yield from self._wave(wave)
            except (self._ray.exceptions.RayError, self._ray.exceptions.RayTaskError) as error:
                raise UserError(f"Ray could not go on: {_first_line(error)}") from error

    def _wave(self, wave: list[Shard]) -> Iterator[Part]:
        import pyarrow
        from ray.data import ActorPoolStrategy

        texts = [json.dumps([shard.number, shard.first_id, shard.items]) for shard in wave]
        blocks = self._ray.data.from_blocks([pyarrow.table({"shard": [text]}) for text in texts])
        resources, slots = self._resources()
        actors = max(1, min(slots, len(wave)))
        answered = blocks.map_batches(
            Answering,
            batch_size=1,
            fn_constructor_args=(self._job, self._archive, self._roots, self._pin),
            # All begin to load at once: Ray would wait for the first one to be busy. One that finds no room is not waited for.
            compute=ActorPoolStrategy(min_size=1, initial_size=actors, max_size=actors),
            **resources,
        )
        for row in answered.iter_rows():
            if row["failure"]:
                raise UserError(row["failure"])
            self.precision = row["precision"]
            yield Part(row["number"], row["rows"], row["errors"], row["data"])

    def _resources(self) -> tuple[dict, int]:
        """Returns what an actor needs, and for how many there is room; more when nodes join."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cpus = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
        if self._gpus:
            gpus = int(sum(node.get("GPU", 0) for node in nodes))
            return {"num_gpus": 1 / WORKERS_PER_GPU, "num_cpus": 1}, gpus * WORKERS_PER_GPU
        wanted = 1 if self._flops < BRIEF else min(cpus, default=1)
        return {"num_cpus": wanted}, sum(count // wanted for count in cpus)

    def _connect(self, address: str) -> None:
        ray = self._ray
        self._code = tempfile.TemporaryDirectory(prefix="code-")
        for name in CODE:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, Path(self._code.name) / name)
        _check(address)
        where = {"num_cpus": cores(), "include_dashboard": False} if address == LOCAL else {"address": address}
        try:
            ray.init(
                **where,
                namespace=f"predict-{uuid.uuid4()}",
                runtime_env={"working_dir": self._code.name},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise UserError(f"the Ray cluster at {address} could not be reached: {_first_line(error)}") from error
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)

    def close(self) -> None:
        with contextlib.suppress(Exception):  # errors of a cluster that has ended
            self._ray.shutdown()
        self._code.cleanup()


def _imported():
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's core prints on stderr what it makes of each actor; what ends a run comes as an exception.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError("--ray needs Ray: .venv/bin/python -m pip install -r requirements-ray.txt") from error
    return ray


def _check(address: str) -> None:
    """Raises UserError if nothing listens at the address, since Ray itself would try for many minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon and address in (LOCAL, "auto"):
        return
    if not host or not port.isdigit():
        raise UserError(f"the address of a Ray cluster is HOST:PORT or auto, not {address}")
    try:
        socket.create_connection((host, int(port)), CONNECT).close()
    except OSError as error:
        raise UserError(f"the Ray cluster at {address} could not be reached: {error.strerror or error}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
