"""A real TorchServe process with the example's archive, on ports of its own."""

from pathlib import Path

import pytest

from serve.client import Client
from serve.server import Server
from serve.settings import free_ports
from tests.conftest import ROOT


@pytest.fixture(scope="session")
def client(digits_store: Path, tmp_path_factory) -> Client:
    server = Server(tmp_path_factory.mktemp("server") / "run")
    client = server.start(ROOT / "config.properties", digits_store, free_ports())
    try:
        client.register("digits.mar")
        yield client
    finally:
        server.stop()
