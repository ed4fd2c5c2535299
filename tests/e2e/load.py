"""Clients that keep asking, and what became of each request."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import requests

from tests.e2e.conftest import eventually

PATIENCE = 400  # seconds, on a busy machine


@dataclass(frozen=True)
class Sent:
    """One request: when it was sent and how long it took, in seconds, and its status, or the name of the error in its place."""

    at: float
    took: float
    outcome: int | str


class Load:
    """Clients that each ask one of `bodies` after the other over a kept connection, and check every answer.

    `pause` (seconds) after each answer leaves time to what starts on the same cores. `begin` is run in each client's thread.
    """

    def __init__(self, url: str, bodies: list[bytes], check: Callable, clients=4, pause=0.02, begin: Callable | None = None):
        self.sent: list[Sent] = []
        self._url, self._bodies, self._check, self._pause = url, bodies, check, pause
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(clients, initializer=begin)
        self._asking = [self._pool.submit(self._ask, first) for first in range(clients)]

    def _ask(self, turn: int) -> None:
        session = requests.Session()
        session.trust_env = False
        while not self._stop.is_set():
            turn += 1
            which, at = turn % len(self._bodies), time.monotonic()
            try:
                response = session.post(self._url, data=self._bodies[which], timeout=PATIENCE)
                outcome = response.status_code
            except requests.RequestException as error:
                outcome = type(error).__name__
            self.sent.append(Sent(at, time.monotonic() - at, outcome))
            if outcome == 200:
                self._check(which, response.json())
            time.sleep(self._pause)

    @property
    def lost(self) -> list[int | str]:
        return [each.outcome for each in self.sent if each.outcome != 200]

    def goes_on(self, count: int = 50) -> bool:
        """Whether so many more requests are answered. Raises what has ended a client."""
        answered = len(self.sent) - len(self.lost)

        def enough() -> bool:
            for each in self._asking:
                if each.done():
                    each.result()
            return len(self.sent) - len(self.lost) > answered + count

        return eventually(enough, PATIENCE)

    def figures(self, since: float) -> str:
        """Of the requests that were under way then or sent since, by the clock of time.monotonic."""
        sent = [each for each in self.sent if each.at + each.took >= since]
        lost = [each for each in sent if each.outcome != 200]
        cuts = statistics.quantiles([1000 * each.took for each in sent], n=100)
        return f"{len(sent)} sent, {len(lost)} lost, p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms"

    def stop(self) -> None:
        self._stop.set()
        for each in self._asking:
            each.result(timeout=PATIENCE)
        self._pool.shutdown()
