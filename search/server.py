"""Finds the server that `make serve` has started."""

from __future__ import annotations

from pathlib import Path

from serve.client import Client
from serve.server import Server

RUN_DIR = Path(__file__).resolve().parent.parent / ".torchserve"


def running_client() -> Client:
    """Returns a client for it. Raises ServeError if there is no such server."""
    return Server(RUN_DIR).client()
