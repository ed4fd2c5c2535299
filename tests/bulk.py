"""Runs of predict in bulk, in processes of their own, and what the core itself says to the same pictures."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.conftest import DIGITS, ROOT
from vit_core.errors import RequestError
from vit_core.predictor import Predictor
from vit_core.request import Request

# Agents of a Ray cluster that stay for minutes after a driver that was killed and had started it.
RAYS_OWN = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
PARTS = "part-*-?"  # those that are complete: one that is being written has a longer name
SAMPLES = sorted((DIGITS / "samples").glob("*.*g"))


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "predict", *map(str, arguments)]


def start(*arguments: object, **options) -> subprocess.Popen:
    """A run in the project's folder, in a session of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen(command(*arguments), **{"cwd": ROOT, **pipes, **options})


def finished(*arguments: object, **options) -> str:
    """What a run that has to succeed prints on stdout."""
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def repeated(folder: Path, count: int) -> Path:
    """A list of `count` paths to the sample pictures, over and over."""
    file = folder / "list.txt"
    file.write_text("".join(f"{SAMPLES[index % len(SAMPLES)]}\n" for index in range(count)))
    return file


def kill_after(process: subprocess.Popen, out: Path, parts: int) -> str:
    """Ends the run at once (SIGKILL) when it has so many parts, or has ended; and sees that its workers go. Returns
    what it said on stderr."""
    folder, workers = out.with_name(f"{out.name}.parts"), []
    while process.poll() is None and len(list(folder.glob(PARTS))) < parts:
        workers = psutil.Process(process.pid).children(recursive=True) or workers
        time.sleep(0.01)
    if process.poll() is None:
        workers = psutil.Process(process.pid).children(recursive=True) or workers
        os.kill(process.pid, signal.SIGKILL)
    _, said = process.communicate()
    deadline = time.monotonic() + 30
    while (left := titles(workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    kill(workers)
    assert left == []
    return said


def kill(found: list[psutil.Process]) -> None:
    """One of them may have ended meanwhile: the processes of a node end when its first one does."""
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def titles(processes: list[psutil.Process]) -> list[str]:
    """Those of the ones that run, without Ray's own."""
    found: list[str] = []
    for each in processes:
        with contextlib.suppress(psutil.Error):
            found += each.cmdline()[:1] if each.is_running() else []
    return [title for title in found if title not in RAYS_OWN]


class Core:
    """The core's own answers, one picture at a time."""

    def __init__(self, archive: Path):
        self._predictor = Predictor.load(archive)

    def expected(self, data: bytes) -> dict:
        """The columns of both tasks, or the error."""
        labels, embedding = (self._predictor.answer([Request([data], task=task)])[0] for task in ("classify", "embed"))
        if isinstance(labels, RequestError):
            empty = dict.fromkeys(("label", "score", "labels", "scores", "embedding"))
            return {**empty, "error": f"{labels.type}: {labels.message}"}
        label, score = next(iter(labels.body.items()))
        row = {"label": label, "score": score, "labels": list(labels.body), "scores": list(labels.body.values())}
        return {**row, "embedding": embedding.body, "error": None}
