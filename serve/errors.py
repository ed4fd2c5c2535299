"""The failures that a user of `serve` can cause or meet, and how a command reports them."""

from __future__ import annotations

from collections.abc import Callable

import requests

import command_line


class ServeError(command_line.UserError):
    """Something could not be started, reached or registered. The message is one line: what happened, and what to do."""


def exit_status(program: str, run: Callable[[], int | None]) -> int:
    """Returns the exit status of a command that talks to TorchServe. It prints one line on stderr if TorchServe does not
    answer.
    """

    def run_and_ask() -> int | None:
        try:
            return run()
        except requests.RequestException as error:
            raise ServeError(f"TorchServe does not answer: {error}") from error

    return command_line.exit_status(program, run_and_ask)
