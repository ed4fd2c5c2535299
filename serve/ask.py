"""Sends a picture to a server, and returns its answer or error as `predict` returns them in process."""

from __future__ import annotations

from pathlib import Path

from serve.client import Client, message
from serve.errors import ServeError
from vit_core.errors import InputError, RequestError


def ask(client: Client, name: str, file: Path) -> tuple[dict | list | None, RequestError | None]:
    """Returns the answer of the model `name` to an image file, and None in place of an error; or the other way round.

    Raises ServeError if the server has no such model.
    """
    try:
        image = file.read_bytes()
    except OSError as error:
        return None, InputError(400, "UnreadableFile", error.strerror)
    response = client.predict(name, image)
    if response.ok:
        return response.json(), None
    if response.status_code == 404:
        raise ServeError(message(response))
    try:
        type = response.json()["type"]
    except (ValueError, KeyError, TypeError):  # TorchServe sends some refusals without a body
        type = response.reason
    return None, RequestError(response.status_code, type, f"{response.status_code}: {message(response)}")
