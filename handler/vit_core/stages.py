"""Measures the stages of the work on one batch. The caller decides what becomes of the figures."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Stages:
    """The measurements for one batch, in `observed` as (name, value, unit).

    They are in seconds and in images, since TorchServe's buckets run from 0.005 to 10. The sum of `BatchSize` is the number of
    images, its count the number of batches that the model got.
    """

    def __init__(self):
        self.observed: list[tuple[str, float, str]] = []

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measures the seconds that its block takes, under `name`."""
        start = time.perf_counter()
        yield
        self._observe(name, round(time.perf_counter() - start, 6), "seconds")

    def batch(self, size: int) -> None:
        """Records a batch of `size` images."""
        self._observe("BatchSize", size, "images")

    def _observe(self, name: str, value: float, unit: str) -> None:
        self.observed.append((name, value, unit))
