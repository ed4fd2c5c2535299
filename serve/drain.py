"""A version of a model is unregistered once it owes nobody an answer: TorchServe itself would drop what it has."""

from __future__ import annotations

import time

from serve.client import POLL_SECONDS, Client
from serve.errors import ServeError

SETTLED_SECONDS = 1.5  # without a request: the handler's gauge is up to half a second old, and travels through a log


def drain(client: Client, name: str, version: str, patience: float) -> None:
    """Waits until no request waits for this version and no worker of it has one, then unregisters it.

    Raises ServeError where requests still come after `patience` seconds; then the version stays registered.
    """
    path = f"{name}/{version}"
    end = time.monotonic() + patience
    busy = time.monotonic()  # when it last had a request
    while (now := time.monotonic()) < busy + _seconds_until_sure(client, name, version):
        if client.waiting(path) or sum(_in_flight(client, name, version)):
            busy = now
            if now > end:
                raise ServeError(
                    f"{path} still had requests after {patience:g} s, and stays registered: make remove NAME={path}"
                )
        time.sleep(POLL_SECONDS)
    client.unregister(path)


def _seconds_until_sure(client: Client, name: str, version: str) -> float:
    """How long a version must be without a request: what has left the queue may still wait for a batch to fill."""
    model = client.model(f"{name}/{version}")
    loaded = any(worker["status"] == "READY" for worker in model["workers"])
    if loaded and not _in_flight(client, name, version):
        return model["responseTimeout"]  # of a handler that does not tell: TorchServe lets no batch take longer
    return SETTLED_SECONDS + model["maxBatchDelay"] / 1e3


def _in_flight(client: Client, name: str, version: str) -> list[float]:
    return client.metric("RequestsInFlight", ModelName=name, ModelVersion=version)
