"""Runs TorchServe under a container or a process manager: in the foreground, and fit to be PID 1."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import requests

from command_line import undisturbed
from serve.archive import identity
from serve.client import Client
from serve.drain import unsettled
from serve.errors import ServeError
from serve.probes import SECONDS, Probes
from serve.register import add_workers, served
from serve.server import Server

TICK_SECONDS = 0.2
ADDRESS = "probes"  # file in the server's folder with the address of its probes


@dataclass(frozen=True)
class Ending:
    """The durations of a shutdown, from the first SIGTERM or SIGINT to the end, in seconds."""

    notice: int  # unready but still answering, until the load balancer has noticed
    grace: int  # until it ends at the latest, including the notice


def run(
    server: Server,
    config: Path,
    model_store: Path,
    archives: list[str],
    ports: dict[str, int],
    tokens: bool,
    probes_at: tuple[str, int],
    ending: Ending,
    say: Callable[[str], None],
) -> int:
    """Serves these archives until SIGTERM or SIGINT, answers the requests that it has, ends TorchServe, and returns the exit
    status.

    The status is 0, or 1 if requests may have been without an answer at the end of the grace period. A second signal ends it at
    once. Raises ServeError if an archive does not load, a port is taken, or TorchServe ends by itself.
    """
    names = [identity(model_store / archive)[0] for archive in archives]
    others = {"load_models": ",".join(archives)} | ({} if tokens else {"disable_token_authorization": "true"})
    probes = Probes(*probes_at, names)
    try:
        client = server.start(config, model_store, ports, others, foreground=True)
        (server.run_dir / ADDRESS).write_text(probes.address)
        probes.client = Client(server.run_dir, SECONDS)
        for name in names:
            _load(server, client, name)
            say(served(client, name))
        signals = _signals()
        probes.loaded = True
        say(f"ready; probes: {probes.address}")
        _watch(server, signals)
        probes.draining = True
        return _settle(client, ending, say)
    finally:
        with undisturbed():
            server.stop()
            probes.close()


def _load(server: Server, client: Client, name: str) -> None:
    try:
        client.wait_until_loaded(name)
    except ServeError as error:
        raise ServeError(f"{name} did not load: {server.reason()} (log: {server.run_dir / 'logs'})") from error
    add_workers(server, client, name)


def _signals() -> list[int]:
    """Catches the signals that ask for the end. From the second one on, they raise an exception."""
    came: list[int] = []

    def note(number: int, _) -> None:
        came.append(number)
        if len(came) > 1:
            sys.exit(1)

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, note)
    return came


def _watch(server: Server, signals: list[int]) -> None:
    """Waits for a signal. Raises ServeError if TorchServe ends first."""
    while not signals:
        if server.launcher.poll() is not None:
            raise ServeError(f"TorchServe has ended by itself: {server.reason()}")
        _reap(server.launcher)
        time.sleep(TICK_SECONDS)


def _reap(launcher: subprocess.Popen) -> None:
    """Reaps the processes whose parent has ended: PID 1 becomes their parent, and must take their exit status."""
    while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != launcher.pid:
        os.waitpid(ended.si_pid, 0)


def _settle(client: Client, ending: Ending, say: Callable[[str], None]) -> int:
    """Waits until every request has its answer, and returns the exit status."""
    say(f"draining: unready; no more requests should come after {ending.notice} s" if ending.notice else "draining: unready")
    time.sleep(ending.notice)
    versions = [(model["modelName"], model["modelVersion"]) for model in client.all_versions()]
    left = unsettled(client, versions, ending.grace - ending.notice)
    if left:
        print(f"serve: {', '.join(left)} may have requests after {ending.grace} s", file=sys.stderr)
    else:
        say("every request has its answer")
    return int(bool(left))


def ask_ready(run_dir: Path) -> str:
    """Returns why the server that `run` runs in this folder is not ready, by its probes, or an empty string."""
    try:
        address = (run_dir / ADDRESS).read_text()
        with requests.Session() as session:
            session.trust_env = False  # the user's proxy does not apply to loopback
            response = session.get(f"{address}/ready", timeout=2 * SECONDS)
    except FileNotFoundError:
        return "nothing that python -m serve run has started"
    except requests.RequestException as error:
        return f"no probes: {error}"
    return "" if response.ok else response.text.strip()
