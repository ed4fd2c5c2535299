"""Runs Ray on this machine for the duration of one command, and leaves a note by which other commands find it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from command_line import UserError, undisturbed
from serve.environment import ENVIRONMENT
from vit_core.machine import cores

ROOT = Path(__file__).resolve().parent.parent.parent
TOKENS = "tokens"  # the file of tokens, where a command makes one
STORE_BYTES = 512 << 20  # of shared memory, for bodies on their way from the front to a replica; Ray spills the rest to disk


class Running:
    """The Ray that a command has started from this checkout, found by the note `running.json` in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._note = folder / "running.json"

    def address(self) -> str | None:
        """Returns the address of the running Ray, and puts its token into the environment; None if none runs."""
        try:
            note = json.loads(self._note.read_text())
            if psutil.Process(note["process"]).create_time() != note["created"]:
                return None
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=note["auth_token"])
        return note["address"]

    @contextlib.contextmanager
    def started(self, host: str, port: int, metrics_port: int | None) -> Iterator[None]:
        """Starts Ray and Serve's proxy on this machine, and ends both: requests in flight are answered first, and nothing is
        left.

        Raises UserError if something listens on one of the ports.
        """
        check_port(host, port)
        if metrics_port:
            check_port("", metrics_port)
        self.folder.mkdir(exist_ok=True)
        auth_token = secrets.token_hex(32)
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=auth_token)
        temporary = tempfile.mkdtemp(prefix="ray-")  # short: Ray opens sockets below it
        os.environ["TMPDIR"] = temporary  # of the replicas, since a replica that is killed does not clean up
        try:
            # Twice the cores that there are: one half is for the replicas of a new version, while those of the old one drain.
            sizes = {"num_cpus": 2 * cores(), "object_store_memory": STORE_BYTES}
            connect(include_dashboard=False, _temp_dir=temporary, _metrics_export_port=metrics_port, **sizes)
            from ray import get_runtime_context, serve

            serve.start(http_options={"host": host, "port": port})
            me = psutil.Process()
            note = {"process": me.pid, "created": me.create_time(), "auth_token": auth_token}
            write_secret(self._note, json.dumps({**note, "address": get_runtime_context().gcs_address}))
            yield
        finally:
            with undisturbed():
                disconnect()
                for name in (self._note.name, TOKENS):
                    (self.folder / name).unlink(missing_ok=True)
                shutil.rmtree(temporary, ignore_errors=True)

    def new_token(self) -> Path:
        """Makes a file with a new random token, which only this user can read."""
        file = self.folder / TOKENS
        write_secret(file, secrets.token_urlsafe(32) + "\n")
        return file


def connect(**options) -> None:
    """Calls ray.init quietly: what replicas log goes to Ray's folder. Its processes find this checkout wherever they start.

    Raises UserError if that fails.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    import ray
    from ray import serve  # noqa: F401 (sets up the logger)

    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as error:  # Ray raises errors of many kinds here, even plain Exception
        raise UserError(f"Ray cannot be started or reached: {str(error).strip().splitlines()[0]}") from error
    logging.getLogger("ray.serve").setLevel(logging.ERROR)


def disconnect() -> None:
    """Lets the applications answer their requests, the front first, and then ends this process's Ray."""
    import ray
    from ray import serve

    if not ray.is_initialized():
        return
    with contextlib.suppress(Exception):  # end it even if it is broken by now
        names = sorted(serve.status().applications, key=lambda name: name != "front")
        for name in names:
            serve.delete(name)
    ray.shutdown()


def check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"port {port} cannot be used: {reason}. Choose another one, with --port or --metrics-port"
            ) from error


def write_secret(file: Path, text: str) -> None:
    """Writes a file that only this user can read, from its first byte on."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)
