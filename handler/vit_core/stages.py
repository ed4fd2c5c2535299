"""What the work on one batch took, by stage. Whoever asks for the answers decides what becomes of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Stages:
    """Histogram values of one batch, as (name, value, unit), in `observed`.

    They are in seconds and in images, since TorchServe's buckets run from 0.005 to 10. The sum of `BatchSize` is the number of
    images, its count the number of batches that the model was given.
    """

    def __init__(self):
        self.observed: list[tuple[str, float, str]] = []

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Observes the seconds that its block takes as `name`."""
        start = time.perf_counter()
        yield
        self._observe(name, round(time.perf_counter() - start, 6), "seconds")

    def batch(self, size: int) -> None:
        """The model is given `size` images at once."""
        self._observe("BatchSize", size, "images")

    def _observe(self, name: str, value: float, unit: str) -> None:
        self.observed.append((name, value, unit))
