"""Hosts in network namespaces of their own, on one switch with HAProxy, which runs with deploy/fleet/haproxy.cfg."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from serve.client import Client
from tests.conftest import ROOT
from tests.e2e.conftest import eventually
from tests.e2e.test_commands import in_folder

HAPROXY = shutil.which("haproxy")
CONFIG = ROOT / "deploy" / "fleet" / "haproxy.cfg"
SETTINGS = ROOT / "deploy" / "container" / "config.properties"  # the inference port is open, all else on loopback
NOTICE = 5  # seconds: longer than HAProxy takes to see that a host is unready
SWITCH, PROXY, CONTROL = "10.0.0.1", 8080, 8081
SECONDS = 120  # in which a host starts or ends, on a busy machine
CLONE_NEWNET = 0x40000000


class Namespace:
    """A network namespace, which lasts as long as the process that holds it."""

    def __init__(self, stack: contextlib.ExitStack):
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stderr=subprocess.DEVNULL)
        stack.callback(self._holder.wait)
        stack.callback(self._holder.kill)
        self._path = Path(f"/proc/{self._holder.pid}/ns/net")
        own = os.readlink("/proc/self/ns/net")
        if not eventually(lambda: self._holder.poll() is not None or os.readlink(self._path) != own):
            raise OSError("no network namespace within seconds")
        if self._holder.poll() is not None:
            raise OSError("network namespaces cannot be made here")
        self.run("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        return self._holder.pid

    def command(self, *arguments: object) -> list[str]:
        # `ip netns exec` would hide the cgroups, which say how much memory there is.
        return ["nsenter", f"--net={self._path}", *map(str, arguments)]

    def run(self, *arguments: object) -> None:
        subprocess.run(self.command(*arguments), check=True)

    def enter(self) -> None:
        """Puts the thread that calls it into this namespace: its sockets from now on are of this network."""
        with self._path.open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def call(self, function: Callable):
        with ThreadPoolExecutor(1, initializer=self.enter) as pool:
            return pool.submit(function).result()


class Switch(Namespace):
    """A bridge, with the address of the proxy, to which hosts are connected."""

    def __init__(self, stack: contextlib.ExitStack):
        super().__init__(stack)
        self.run("ip", "link", "add", "bridge0", "type", "bridge")
        self.run("ip", "address", "add", f"{SWITCH}/24", "dev", "bridge0")
        self.run("ip", "link", "set", "bridge0", "up")

    def connect(self, host: Namespace, port: str, address: str) -> None:
        self.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.pid)
        self.run("ip", "link", "set", port, "master", "bridge0", "up")
        host.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")

    @contextlib.contextmanager
    def cut(self, port: str) -> Iterator[None]:
        """The cable of a port is pulled: nobody is told."""
        self.run("ip", "link", "set", port, "down")
        try:
            yield
        finally:
            self.run("ip", "link", "set", port, "up")


class Host:
    """One machine of the fleet, on which `python -m serve run` serves an archive."""

    def __init__(self, stack: contextlib.ExitStack, switch: Switch, name: str, address: str, folder: Path):
        self.name, self._run_dir, self._process = name, folder / name, None
        self._namespace = Namespace(stack)
        switch.connect(self._namespace, f"to-{name}", address)
        stack.callback(self.end)

    def start(self, archive: Path) -> None:
        arguments = ("run", archive.stem, "--model-store", archive.parent, "--config", SETTINGS, "--no-tokens")
        command = in_folder(self._run_dir, *arguments, "--probes", "0.0.0.0:8083", "--notice", NOTICE)
        log = self._run_dir.with_suffix(".log").open("a")
        self._process = subprocess.Popen(self._namespace.command(*command), cwd=ROOT, stdout=log, stderr=log)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def end(self) -> int | None:
        """Tells it to end, as a process manager does, and waits. Its exit status."""
        if self.is_running():
            self._process.terminate()
            self._process.wait(SECONDS)
        return self._process and self._process.returncode

    def describe(self) -> dict:
        return self._namespace.call(lambda: Client(self._run_dir).describe("digits"))

    def predict(self, body: bytes) -> dict:
        return self._namespace.call(lambda: Client(self._run_dir).predict("digits", body).json())

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Its workers are alive and do nothing."""
        model = self._namespace.call(lambda: Client(self._run_dir).model("digits"))
        workers = [psutil.Process(worker["pid"]) for worker in model["workers"]]
        for each in workers:
            each.suspend()
        try:
            yield
        finally:
            for each in workers:
                each.resume()


@dataclass(frozen=True)
class Proxy:
    """HAProxy on the switch, with a copy of the fleet's configuration that can be changed."""

    process: subprocess.Popen
    config: Path
    socket: Path

    def hosts(self) -> dict[str, dict[str, str]]:
        """What HAProxy's statistics say of each host: `status`, `stot` (the requests it was given), …"""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(self.socket))
            asking.sendall(b"show stat\n")
            lines = asking.makefile().read().lstrip("# ").splitlines()
        rows = [row for row in csv.DictReader(lines) if row["pxname"] == "hosts"]
        return {row["svname"]: row for row in rows if row["svname"] != "BACKEND"}

    def has(self, *names: str) -> bool:
        """Whether these hosts, and no others, become those that it gives requests to."""
        return eventually(lambda: self._in_use() == set(names), SECONDS)

    def _in_use(self) -> set[str] | None:
        try:
            return {name for name, row in self.hosts().items() if row["status"].startswith("UP")}
        except OSError:  # it is being started anew
            return None

    def add(self, host: str, address: str) -> None:
        self.config.write_text(f"{self.config.read_text()}    server {host} {address}:8080\n")
        self.process.send_signal(signal.SIGUSR2)


def start_proxy(stack: contextlib.ExitStack, switch: Switch, text: str, port: int, folder: Path) -> Proxy:
    folder.mkdir()
    proxy_socket, config = folder / "socket", folder / "haproxy.cfg"
    config.write_text(text)
    environment = os.environ | {"PROXY_ADDRESS": f"{SWITCH}:{port}", "PROXY_SOCKET": str(proxy_socket)}
    command = switch.command(HAPROXY, "-W", "-db", "-f", config)
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    stack.callback(process.wait, SECONDS)
    stack.callback(process.terminate)
    return Proxy(process, config, proxy_socket)
