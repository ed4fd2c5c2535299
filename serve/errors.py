"""The one kind of failure that a user of `serve` can cause or meet, and what a command makes of it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

import requests


class ServeError(Exception):
    """What could not be started, reached or registered. The message is one line: what happened, and what to do."""


def exit_status(program: str, run: Callable[[], None]) -> int:
    """Runs a command: 0, or 1 with one line on stderr where it failed. SIGTERM ends it as an exception, which cleans up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run()
    except ServeError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except requests.RequestException as error:
        print(f"{program}: TorchServe does not answer: {error}", file=sys.stderr)
        return 1
    return 0
