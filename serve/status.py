"""Formats what a server serves: every version of every model, its workers, how they run it, and what waits."""

from __future__ import annotations

from serve.client import Client, waiting

COLUMNS = ("model", "version", "", "workers", "runs in", "waiting", "in flight")


def status(client: Client) -> str:
    """Returns a row for each version. It marks the default one, which answers requests that name no version."""
    rows = [COLUMNS, *(_row(client, name, version) for name in client.models() for version in client.versions(name))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines) if len(rows) > 1 else "no model is registered"


def _row(client: Client, name: str, version: str) -> tuple[str, ...]:
    model = client.model(f"{name}/{version}")
    states = [worker["status"] for worker in model["workers"]]
    ready = states.count("READY")
    workers = f"{ready}" if ready == len(states) else f"{ready} of {len(states)} ready"
    in_flight = client.metric("RequestsInFlight", ModelName=name, ModelVersion=version)
    return (
        name,
        version,
        "default" if client.model(name)["modelVersion"] == version else "",
        workers,
        _way(client, f"{name}/{version}") if ready else "",
        str(waiting(model)),
        f"{sum(in_flight):.0f}" if in_flight else "unknown",
    )


def _way(client: Client, path: str) -> str:
    """Returns the precision and the device, which a worker reports after the requests that wait for it."""
    told = client.describe(path).get("customizedMetadata")
    return f"{told['precision']} on {told['device']}" if isinstance(told, dict) and "precision" in told else "unknown"
