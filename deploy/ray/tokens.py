"""Authorizes requests that carry one of the tokens in a file."""

from __future__ import annotations

import hmac
from pathlib import Path

from vit_core.errors import InputError

REFUSED = InputError(
    400,  # TorchServe's status and words for it
    "InvalidKeyException",
    "Token Authorization failed. Token either incorrect, expired, or not provided correctly",
)


class Tokens:
    """The tokens in `file`, one on each line. The file is read again when it changes, so a new token needs no restart.

    Raises OSError if there is no such file, ValueError if it has no token.
    """

    def __init__(self, file: Path):
        self._file = file
        self._read()

    def check(self, authorization: str) -> None:
        """Raises InputError 400 if the header Authorization has none of the tokens."""
        scheme, _, token = authorization.partition(" ")
        try:
            self._read()
        except (OSError, ValueError) as error:  # without a readable file of tokens, nobody is admitted
            raise InputError(REFUSED.code, REFUSED.type, REFUSED.message) from error
        sent = token.strip().encode()
        good = [hmac.compare_digest(sent, known) for known in self._tokens]  # all of them, so that the time reveals nothing
        if scheme != "Bearer" or not any(good):
            raise InputError(REFUSED.code, REFUSED.type, REFUSED.message)

    def _read(self) -> None:
        state = self._file.stat()
        changed = (state.st_mtime_ns, state.st_size, state.st_ino)
        if changed != getattr(self, "_changed", None):
            tokens = [line.strip() for line in self._file.read_bytes().splitlines() if line.strip()]
            if not tokens:
                raise ValueError(f"{self._file} has no token")
            self._tokens, self._changed = tokens, changed
