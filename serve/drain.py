"""Drains versions before they end: TorchServe itself would drop their requests."""

from __future__ import annotations

import time

from serve.client import POLL_SECONDS, Client, waiting
from serve.errors import ServeError

SETTLED_SECONDS = 1.5  # without a request: the handler's gauge is up to half a second old, and travels through a log


def drain(client: Client, name: str, version: str, patience: float) -> None:
    """Waits until no request waits for this version and no worker has one, then unregisters it.

    Raises ServeError if requests still come after `patience` seconds; the version then stays registered.
    """
    if left := unsettled(client, [(name, version)], patience):
        raise ServeError(f"{left[0]} may have requests after {patience:g} s, and stays registered: make remove NAME={left[0]}")
    client.unregister(f"{name}/{version}")


def unsettled(client: Client, versions: list[tuple[str, str]], patience: float) -> list[str]:
    """Waits until none of these versions, each a name and a version, has had an open request for long enough to be sure.

    Returns the versions, as NAME/VERSION, about which it could not be sure after `patience` seconds.
    """
    end = time.monotonic() + patience
    sure_at = {each: time.monotonic() + _seconds_until_sure(client, *each) for each in versions}
    while (left := [each for each in versions if time.monotonic() < sure_at[each]]) and time.monotonic() < end:
        for each in versions:
            if _owes(client, *each):
                sure_at[each] = time.monotonic() + _seconds_until_sure(client, *each)
        time.sleep(POLL_SECONDS)
    return ["/".join(each) for each in left]


def _seconds_until_sure(client: Client, name: str, version: str) -> float:
    """Returns how long a version must be without a request: one that has left the queue may still wait for a batch to fill."""
    model = client.model(f"{name}/{version}")
    if _is_loaded(model) and not _in_flight(client, name, version):
        return model["responseTimeout"]  # for a handler without the gauge: TorchServe lets no batch take longer
    return SETTLED_SECONDS + model["maxBatchDelay"] / 1e3


def _owes(client: Client, name: str, version: str) -> bool:
    model = client.model(f"{name}/{version}")
    # A worker that has died takes its requests along, and its gauge stays until the next one has loaded.
    return waiting(model) > 0 or (_is_loaded(model) and sum(_in_flight(client, name, version)) > 0)


def _is_loaded(model: dict) -> bool:
    return any(worker["status"] == "READY" for worker in model["workers"])


def _in_flight(client: Client, name: str, version: str) -> list[float]:
    return client.metric("RequestsInFlight", ModelName=name, ModelVersion=version)
