"""Counts the requests that a worker has received and not answered yet, which TorchServe's front end does not report."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

# Seconds between two updates. If each batch set the gauge, the front end would read two more lines of the log for each.
SECONDS = 0.5


class InFlight:
    """Calls `tell` with the number of requests of the current batch, within half a second of a change."""

    def __init__(self, tell: Callable[[int], None]):
        self._count = 0
        threading.Thread(target=self._watch, args=(tell,), daemon=True).start()

    @contextlib.contextmanager
    def counting(self, requests: int) -> Iterator[None]:
        self._count = requests
        try:
            yield
        finally:
            self._count = 0

    def _watch(self, tell: Callable[[int], None]) -> None:
        told = None
        while True:
            count = self._count
            if count != told:
                tell(count)
                told = count
            time.sleep(SECONDS)
