"""The one kind of failure that a user of `serve` can cause or meet, and what a command makes of it."""

from __future__ import annotations

from collections.abc import Callable

import requests

import command_line


class ServeError(command_line.UserError):
    """What could not be started, reached or registered. The message is one line: what happened, and what to do."""


def exit_status(program: str, run: Callable[[], int | None]) -> int:
    """The exit status of a command that asks TorchServe: one line on stderr where that does not answer, too."""

    def run_and_ask() -> int | None:
        try:
            return run()
        except requests.RequestException as error:
            raise ServeError(f"TorchServe does not answer: {error}") from error

    return command_line.exit_status(program, run_and_ask)
