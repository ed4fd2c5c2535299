"""Bounds the cost of a batch: the time until which its work may begin, and the size of an answer."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from vit_core.errors import InputError, ServerError
from vit_core.image import Deadline
from vit_core.settings import Limits

# After this share of the response timeout the handler begins no more work on a batch, since the server ends a worker that takes
# longer, and the whole batch is lost. The rest is for work that has begun: an image to decode, a call of the model.
SHARE = 0.75
LEAST_SHARE = 0.5  # an image is to blame only if the process ran on a processor for this share of the time
BUSY = ServerError(503, "Busy", "the server had no time left for this request: send it again")


@dataclass(frozen=True)
class Bounds:
    """The limits of the server around the core. Without a server, only the archive's own limits apply."""

    seconds: float = float("inf")  # after these seconds no more work on a batch begins
    answer_bytes: int = sys.maxsize  # the largest body of an answer
    body_bytes: int = Limits.max_bytes  # the largest body of a request, decompressed

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
            raise InputError(413, "DecodeTimeout", "the batch's time is over")  # the caller replaces it by `BUSY`
        try:
            super().check()
        except InputError:
            self.late = time.process_time() - self._ran_before < LEAST_SHARE * self.seconds
            raise
