"""What the command lines of this project have in common: how they end, and how they show what they print."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

BAR = 30  # characters of the bar for a probability of 1
MOST = 2**31 - 1  # Java's numbers end there


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line. The usage of a command with many options would push it off the screen."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help lists the options\n")


class UserError(Exception):
    """A failure that a user can cause or meet. The message is one line: what happened, and what to do."""


def exit_status(program: str, run: Callable[[], int | None]) -> int:
    """Runs a command and gives its exit status: what `run` returns, 0 for None.

    It is 1, with one line on stderr, for a UserError, and where the system refuses something: a name that is too long, a full
    disk. Ctrl+C is a line too; a reader that leaves (`| head`) is none. SIGTERM ends the command as an exception, so that it
    cleans up.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if sys.platform != "linux":
            raise UserError("this needs Linux: use a Linux machine, a container, or WSL on Windows")
        status = run() or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # of `| head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout again when it ends
        return 128 + signal.SIGPIPE
    except (UserError, OSError) as error:
        print(f"{program}: {' '.join(str(error).splitlines())}", file=sys.stderr)  # names of files may contain line breaks
        return 1
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl+C and SIGTERM come after the end of the block: for what must be done whole."""
    if threading.current_thread() is not threading.main_thread():  # Python interrupts the main thread alone
        yield
        return
    came: list[int] = []
    handlers = {each: signal.signal(each, lambda number, _: came.append(number)) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def show_step(step: str) -> None:
    """Says on a terminal what is being done, each step in place of the one before; an empty one clears the line."""
    if sys.stderr.isatty():
        print(f"\r\033[K{step}{' …' if step else ''}", end="", file=sys.stderr, flush=True)


def bar(probability: float) -> str:
    return "█" * round(BAR * probability)


def relative(path: Path) -> Path:
    """The path as a person in the current folder would write it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def positive(text: str) -> int:
    """An option's number, for argparse."""
    if not re.fullmatch(r"[0-9]{1,10}", text) or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {MOST}, not {text[:20]!r}")
    return int(text)
