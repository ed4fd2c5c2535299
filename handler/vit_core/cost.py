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
LEAST_SHARE = 0.5  # of the time for decoding: what the process must have run, of its processor's time, to blame an image
BUSY = ServerError(503, "Busy", "the server had no time left for this request: send it again")


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
    """The deadline for decoding one request. It also passes when its batch reaches `end`, a time of time.monotonic.

    `late` says that the images are not to blame: the batch's time is over, or this process hardly ran meanwhile, because the
    machine was busy or had suspended it.
    """

    def __init__(self, seconds: float, end: float):
        super().__init__(seconds)
        self._batch_end, self._ran_before = end, time.process_time()
        self.late = False

    def check(self) -> None:
        if time.monotonic() > self._batch_end:
            self.late = True
            raise InputError(413, "DecodeTimeout", "the batch's time is over")  # the caller says `BUSY` in its place
        try:
            super().check()
        except InputError:
            self.late = time.process_time() - self._ran_before < LEAST_SHARE * self.seconds
            raise
