"""Bounds the cost of a batch: the time until which its work may begin, and the size of an answer."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from vit_core.errors import InputError, ServerError
from vit_core.image import Deadline
from vit_core.settings import Limits

# The share of a server's response timeout after which no work on a batch is begun: the server ends a worker that takes longer,
# with its whole batch. The rest is for what has begun: one image to decode, one call of the model, one explanation.
SHARE = 0.75
BUSY = ServerError(503, "Busy", "the requests that came with this one took all the time that there was: send it again")


@dataclass(frozen=True)
class Bounds:
    """The limits of the server around the core. Without a server, only the archive's own limits apply."""

    seconds: float = float("inf")  # after which no more work on a batch is begun
    answer_bytes: int = sys.maxsize  # of the body of one answer
    body_bytes: int = Limits.max_bytes  # of the body of one request, decompressed

    @classmethod
    def of_server(cls, response_timeout: float, max_response_size: int, max_request_size: int) -> Bounds:
        """Returns the bounds for a server with this response timeout in seconds and these sizes in bytes."""
        return cls(SHARE * response_timeout, max_response_size, max_request_size)


class BatchDeadline(Deadline):
    """The deadline for decoding one request. It also passes when its batch reaches `end`, a time of time.monotonic."""

    def __init__(self, seconds: float, end: float):
        super().__init__(seconds)
        self._batch_end = end
        self.late = False  # whether it was the batch's time that was over

    def check(self) -> None:
        if time.monotonic() > self._batch_end:
            self.late = True
            raise InputError(413, "DecodeTimeout", "the batch's time is over")  # the caller says `BUSY` in its place
        super().check()
