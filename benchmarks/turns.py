"""One program at a time: those that are not being measured are paused.

An idle server polls, and idle threads of a model spin: on two cores, two servers that nobody asked anything slowed a model down
by almost a third.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator

import psutil


class Turn:
    """A process with all that it has started, which runs within a `with` block and is paused at its end."""

    def __init__(self, process: psutil.Process):
        self._process = process

    def __enter__(self) -> None:
        self.resume()

    def __exit__(self, *_) -> None:
        self.pause()

    def pause(self) -> None:
        """Until none of them runs: one may have started another meanwhile, and stops a moment after it was told to."""
        while running := [each for each in self._tree() if _runs(each)]:
            for each in running:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.suspend()
            time.sleep(0.01)

    def resume(self) -> None:
        for each in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                each.resume()

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def exit_on_signals() -> None:
    """Makes this program exit as at its end if it is told to end: nothing that it has started or paused stays behind."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda number, _: sys.exit(128 + number))


@contextlib.contextmanager
def paused(pid: int) -> Iterator[Turn]:
    """The process `pid` and its descendants, paused except in their turns; at the end they run, since a paused one does not end
    when it is asked to."""
    turn = Turn(psutil.Process(pid))
    try:
        turn.pause()
        yield turn
    finally:
        turn.resume()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
