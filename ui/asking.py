"""The page's requests to the server. Every failure is a ServeError whose message is a sentence for the page."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import requests
from PIL import Image

from search.embedding import Embedder, sentence
from search.index import PictureIndex
from serve.client import Client
from serve.errors import ServeError
from vit_core.formats import FORMATS

NEAREST = 7


class NotOffered(ServeError):
    """The archive does not offer this, which is no failure."""


@dataclass(frozen=True)
class About:
    """What the page says about a model before it is asked."""

    head: str | None  # what its scores are (softmax, sigmoid, none); None where it does not classify
    who: str  # its name, version, precision and device
    files: str  # that it takes


class Asking:
    """Talks to the server in `run_dir`, which may be started and stopped while the page is open. `index` holds the pictures
    that are searched.
    """

    def __init__(self, run_dir: Path, index: PictureIndex | None):
        self.run_dir, self.index = run_dir, index

    def models(self) -> list[str]:
        with self._client() as client:
            models = client.models()
        if not models:
            raise ServeError("The server has no model: make stop, then make serve, registers one.")
        return models

    def about(self, name: str) -> About:
        with self._client() as client:
            version = client.describe(name)
        described = version["customizedMetadata"]
        megabytes = described["limits"]["max_bytes"] / 1e6
        return About(
            described["head"]["activation"] if "classify" in described["tasks"] else None,
            f"{name} {version['modelVersion']}, in {described['precision']} on {described['device']}",
            f"Drop a file onto the frame, or click it: {', '.join(FORMATS)}, up to {megabytes:.3g} MB.",
        )

    def labels(self, name: str, image: bytes) -> dict[str, float]:
        """Returns label → score for an image file, the highest first."""
        with self._client() as client:
            return _post(client, f"predictions/{name}", image, {"X-Task": "classify"}).json()

    def heat_map(self, name: str, image: bytes, label: str | None) -> Image.Image:
        """Returns where in the picture the score of `label` comes from, by default the one with the highest score."""
        target = {} if label is None else {"X-Target": quote(label)}  # headers cannot hold all alphabets
        with self._client() as client:
            response = _post(client, f"explanations/{name}", image, {"Accept": "image/png", **target})
        return Image.open(io.BytesIO(response.content))

    def nearest(self, name: str, image: bytes) -> list[tuple[Path, float]]:
        """Returns the index's files that are nearest to an image file, the nearest first, with their similarities."""
        with self._client() as client:
            return self.index.find(Embedder(client, name), image, NEAREST)

    @contextlib.contextmanager
    def _client(self) -> Iterator[Client]:
        if not (self.run_dir / "key_file.json").exists():
            raise ServeError("No server is running: make serve starts one.")
        try:
            yield Client(self.run_dir)
        except requests.ConnectionError as error:
            raise ServeError("The server does not answer: make serve starts it.") from error
        except requests.RequestException as error:
            raise ServeError(f"The server does not answer: {error}") from error


def _post(client: Client, path: str, image: bytes, headers: dict[str, str]) -> requests.Response:
    response = client.request("POST", f"{client.inference}/{path}", "inference", data=image, headers=headers)
    if not response.ok:
        raise (NotOffered if response.status_code == requests.codes.not_implemented else ServeError)(sentence(response))
    return response
