"""HAProxy with examples/production/haproxy.cfg, and those whom it keeps away."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import requests

from serve.client import Client
from tests.conftest import ROOT
from tests.e2e.conftest import SAMPLES, eventually
from tests.e2e.test_security import self_signed

HAPROXY = shutil.which("haproxy")
CONFIG = ROOT / "examples" / "production" / "haproxy.cfg"
KEY, OTHER_KEY = "Bearer a-key-of-a-client", "Bearer a-key-of-another-client"
BODY = SAMPLES[0][0].read_bytes()
LARGE = 19_900_000  # bytes of a body, below max_request_size


@dataclass(frozen=True)
class Proxy:
    port: int
    certificate: Path

    def send(self, method: str, path: str, key: str | None = KEY, **options) -> requests.Response:
        with requests.Session() as session:
            session.trust_env, session.verify = False, self.certificate
            headers = {**options.pop("headers", {}), **({"Authorization": key} if key else {})}
            return session.request(method, f"https://127.0.0.1:{self.port}{path}", headers=headers, timeout=60, **options)

    def predict(self, body: bytes = BODY, key: str | None = KEY, **options) -> requests.Response:
        return self.send("POST", "/predictions/digits", key, data=body, **options)

    def connect(self) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.certificate))
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.port)), server_hostname="127.0.0.1")


@contextlib.contextmanager
def proxy_before(client: Client, folder: Path) -> Iterator[Proxy]:
    """A proxy on a free port, with a certificate and keys of its own in `folder`."""
    self_signed(folder)
    (folder / "server.pem").write_text((folder / "certificate.pem").read_text() + (folder / "key.pem").read_text())
    (folder / "keys").write_text(f"# of two clients\n{KEY}\n{OTHER_KEY}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "TORCHSERVE_TOKEN": client.token("inference"),
        "TORCHSERVE_ADDRESS": urlsplit(client.inference).netloc,
        "PROXY_ADDRESS": f"127.0.0.1:{port}",
        "PROXY_CERTIFICATE": str(folder / "server.pem"),
        "PROXY_KEYS": str(folder / "keys"),
    }
    process = subprocess.Popen([HAPROXY, "-db", "-f", str(CONFIG)], env=environment, stderr=subprocess.DEVNULL)
    proxy = Proxy(port, folder / "certificate.pem")

    def is_alive() -> bool:
        try:
            return proxy.send("GET", "/alive", None).ok
        except requests.ConnectionError:
            return False

    try:
        assert eventually(is_alive)
        yield proxy
    finally:
        process.terminate()
        process.wait(timeout=30)


def java(client: Client) -> psutil.Process:
    """TorchServe's front end."""
    worker = psutil.Process(client.model("digits")["workers"][0]["pid"])
    return next(parent for parent in worker.parents() if parent.name() == "java")


def flood(connect: Callable[[], socket.socket], authorization: str, count: int, length: int = LARGE - 1) -> list[socket.socket]:
    """Connections that each send so many bytes of a large body, as far as they are let, and then no more."""
    head = f"POST /predictions/digits HTTP/1.1\r\nHost: x\r\n{authorization}Content-Length: {LARGE}\r\n\r\n".encode()

    def send(_) -> socket.socket:
        connection = connect()
        connection.settimeout(20)
        with contextlib.suppress(OSError):  # it was closed, or nobody reads on
            connection.sendall(head + bytes(length))
        return connection

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(send, range(count)))
