"""Shows the progress of a run on stderr: nothing in the first seconds, then a line that changes on a terminal, or a line now
and then elsewhere.
"""

from __future__ import annotations

import sys
import time

QUIET = 3  # seconds before anything is shown
ON_TERMINAL, ELSEWHERE = 0.5, 30  # seconds from one line to the next


class Progress:
    """Counts `total` pictures, of which `done` were answered before this run."""

    def __init__(self, total: int, done: int):
        self._total, self.done, self.errors = total, done, 0
        self._since: tuple[float, int] | None = (
            None  # when the first part came, which waited for workers, and what was done then
        )
        self._terminal = sys.stderr.isatty()
        self._start = self._last = time.monotonic()
        self._shown = False

    def add(self, rows: int, errors: int) -> None:
        self.done, self.errors = self.done + rows, self.errors + errors
        now = time.monotonic()
        self._since = self._since or (now, self.done)
        wait = ON_TERMINAL if self._terminal else ELSEWHERE if self._shown else QUIET
        if self.done < self._total and now - self._start >= QUIET and now - self._last >= wait:
            self._last, self._shown = now, True
            end = "" if self._terminal else "\n"
            print(f"{chr(13) + chr(27) + '[K' if self._terminal else ''}{self.line(now)}", end=end, file=sys.stderr, flush=True)

    def line(self, now: float) -> str:
        start, before = self._since
        line = f"{self.done:,} of {self._total:,} pictures"
        if self.errors:
            line += f", {self.errors:,} with an error"
        if self.done > before:
            rate = (self.done - before) / (now - start)
            line += f", {rate:,.0f} pictures/s, {duration((self._total - self.done) / rate)} left"
        return line

    def clear(self) -> None:
        if self._shown and self._terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Formats seconds for a person: `2 h 5 min`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
