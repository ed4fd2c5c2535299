"""Embeds pictures with a served archive."""

from __future__ import annotations

import base64

import numpy as np
import requests

from serve.client import Client
from serve.errors import ServeError


class Refused(ServeError):
    """The server rejected a request because of what was sent. The message is the server's sentence."""


class Embedder:
    """Asks the archive `name` for embeddings. Raises ServeError if it has none."""

    def __init__(self, client: Client, name: str):
        self.client, self.name = client, name
        described = client.describe(name)["customizedMetadata"]
        if "embed" not in described["tasks"]:
            raise ServeError(f"{name} gives no embeddings: make archive ARGS='--task classify,embed' builds one that does")
        self.max_images = described["limits"]["max_images"]
        # What embeddings depend on: those of two models cannot be compared.
        self.model = {
            "weights_sha256": described["record"]["weights_sha256"],
            "preprocessing": described["preprocessing"],
        }

    def embed(self, images: list[bytes]) -> np.ndarray:
        """Returns the embeddings [images, features] of image files with one request.

        Raises Refused if the server rejects one of them, and ServeError if the fault is not in the images.
        """
        headers = {"X-Task": "embed", "Accept": "application/octet-stream"}
        if len(images) == 1:
            body = {"data": images[0]}
        else:
            body = {"json": {"instances": [base64.b64encode(image).decode() for image in images]}}
        url = f"{self.client.inference}/predictions/{self.name}"
        response = self.client.request("POST", url, "inference", headers=headers, **body)
        if not response.ok:
            token = "InvalidKeyException" in response.text  # a 400 too
            raise (Refused if response.status_code in (400, 413, 415) and not token else ServeError)(sentence(response))
        shape = [int(size) for size in response.headers["X-Shape"].split(",")]
        vectors = np.frombuffer(response.content, "<f4").reshape(-1, shape[-1])
        if len(vectors) != len(images):  # a JSON file may hold several pictures
            raise Refused("the file holds several pictures")
        return vectors


def sentence(response: requests.Response) -> str:
    """Returns the sentence in a server's error."""
    try:
        return response.json()["message"]
    except (ValueError, KeyError):
        if response.status_code == 413:  # from TorchServe's front end, with no body
            return "the file is larger than the server takes (max_request_size in config.properties)"
        return f"the server answered {response.status_code} {response.reason}"
