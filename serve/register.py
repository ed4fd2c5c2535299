"""Registers an archive of the model store, with as many workers as the machine can use."""

from __future__ import annotations

import sys

from serve.client import Client
from serve.errors import ServeError
from serve.server import Server


def register(server: Server, client: Client, archive: str, model_name: str) -> None:
    """Registers an archive and waits for its workers. Raises ServeError, which says why a worker died."""
    try:
        client.register(archive)
    except ServeError as error:
        if "Failed to start workers" not in str(error):
            raise ServeError(f"{archive} was not registered: {error}") from error
        raise ServeError(f"a worker of {model_name} died while it loaded: {server.reason()} (log: {server.log})") from error
    add_workers(server, client, model_name)


def add_workers(server: Server, client: Client, model_name: str) -> None:
    """Adds as many workers as the first one reports as useful and the archive allows; none if they do not start."""
    model = client.describe(model_name)
    told = model.get("customizedMetadata")  # by the handler; that of another project may tell nothing
    useful = told.get("useful_workers", 1) if isinstance(told, dict) else 1
    first, workers = len(model["workers"]), min(useful, model["maxWorkers"])
    if workers > first:
        try:
            client.scale(model_name, workers)
        except ServeError:  # a GPU, say, that has the memory for one of them
            client.scale(model_name, first)
            print(f"of {workers} workers that this machine can use, not all have started: {server.reason()}", file=sys.stderr)


def served(client: Client, model_name: str) -> str:
    """Says in one line where a model is served and by what."""
    model = client.model(model_name)
    workers = model["workers"]
    device = "GPU" if workers[0]["gpu"] else "CPU"
    return (
        f"{model_name} {model['modelVersion']} is served at {client.inference}/predictions/{model_name}: "
        f"{len(workers)} worker{'s' * (len(workers) > 1)} on the {device}, batches of up to {model['batchSize']}"
    )
