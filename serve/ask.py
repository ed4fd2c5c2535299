"""A picture is asked of a server, and its answer or its error comes back, as `predict` has them in process."""

from __future__ import annotations

from pathlib import Path

from serve.client import Client, message
from serve.errors import ServeError
from vit_core.errors import InputError, RequestError


def ask(client: Client, name: str, file: Path) -> tuple[dict | list | None, RequestError | None]:
    """What the model `name` answers to an image file; None and the error that it gets, for that.

    Raises ServeError where the server has no such model.
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
