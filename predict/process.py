"""One worker process, as its starter sees it. It survives pictures that end workers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from command_line import UserError
from predict.job import Failed, Job, Part, Ready, Shard

ROOT = Path(__file__).resolve().parent.parent
# Deaths of a worker, one after the other and not on a picture, after which it is not started again.
MOST_DEATHS = 3


class WorkerProcess:
    """Starts a worker for `job` and waits until it is ready. Raises UserError if the archive cannot be loaded.

    It does not import torch, so a process may have several of these, in threads.
    """

    def __init__(self, job: Job):
        self._job, self._closed = job, False
        self.ready = self._start()
        # Its successors run in the precision of the first worker.
        self._job = replace(job, precision=self.ready.precision)

    def answer(self, shard: Shard) -> Part:
        """Returns the rows of a shard. A picture on which the worker dies twice gets an error; the others are answered."""
        deadly: dict[int, str] = {}
        deaths, alone = 0, False
        while True:
            try:
                return self._ask(replace(shard, alone=alone, deadly=deadly))
            except _Died as death:
                if self._closed:
                    raise
                deaths = deaths + 1 if death.on is None else 0
                if death.on is not None:
                    deadly = {**deadly, death.on: f"a worker {death} on this picture"}
                if deaths == MOST_DEATHS:
                    raise UserError(f"a worker {death} {deaths} times: there may be too little memory") from death
                alone = True
                self.ready = self._start()

    def share(self, workers: int) -> None:
        """Tells a worker that was started alone that there are others now."""
        with contextlib.suppress(OSError):  # dead: the next shard will notice
            self._connection.send(workers)

    def close(self) -> None:
        self._closed = True  # ends the wait for an answer
        self._connection.close()  # at which it ends
        self._process.kill()
        self._process.wait()

    def _start(self) -> Ready:
        for deaths in range(1, MOST_DEATHS + 1):
            self._launch()
            try:
                self._send(self._job)
                told = self._receive()
                break
            except _Died as death:
                if deaths == MOST_DEATHS:
                    raise UserError(f"a worker {death} at its start, {deaths} times: there may be too little memory") from death
        if isinstance(told, Failed):
            self.close()
            raise UserError(f"the archive could not be loaded: {told.message}")
        return told

    def _launch(self) -> None:
        ours, its = socket.socketpair()
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "predict.worker", str(its.fileno())]
        self._process = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": path}, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL
        )
        its.close()
        self._connection = Connection(ours.detach())

    def _ask(self, shard: Shard) -> Part:
        at = None
        try:
            self._send(shard)
            while not isinstance(told := self._receive(), Part):
                at = told
        except _Died as death:
            death.on = at
            raise
        return told

    def _send(self, what: Job | Shard) -> None:
        try:
            self._connection.send(what)
        except OSError as error:
            raise self._died() from error

    def _receive(self) -> Ready | Failed | Part | int:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error

    def _died(self) -> _Died:
        self._connection.close()
        code = self._process.wait()
        return _Died(f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}")


class _Died(Exception):
    """A worker has ended by itself; `on` is the index of the picture that it was answering alone, if it was."""

    on: int | None = None
