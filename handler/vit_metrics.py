"""What the handler tells TorchServe's metrics address of its work, and the log of what it refused.

Histograms in seconds and in images, since TorchServe's buckets run from 0.005 to 10. The sum of `BatchSize` is the number of
images, its count the number of batches that the model was given.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator

from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes

from vit_errors import RequestError

logger = logging.getLogger(__name__)


class Metrics:
    """The metrics of one batch, for TorchServe's `context`."""

    def __init__(self, context):
        self._context = context
        self._observed = []

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Observes the seconds that its block takes as `name`."""
        start = time.perf_counter()
        yield
        self._observe(name, round(time.perf_counter() - start, 6), "seconds")

    def batch(self, size: int) -> None:
        """The model is given `size` images at once."""
        self._observe("BatchSize", size, "images")
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(json.dumps({"event": "batch", "images": size, "requests": self._context.request_ids}))

    def refused(self, index: int, error: RequestError) -> None:
        """The request `index` of the batch gets `error`. The log has no word of what was sent."""
        self._context.metrics.add_counter("RefusedRequests", 1, dimensions=[Dimension("Reason", error.type)])
        request_id = self._context.get_request_id(index)
        logger.info(json.dumps({"event": "refused", "request": request_id, "code": error.code, "type": error.type}))

    def send(self) -> None:
        """To be called when the work is done: the front end reads each at once, on cores that the model would want."""
        for name, value, unit in self._observed:
            self._context.metrics.add_metric(name, value, unit, metric_type=MetricTypes.HISTOGRAM)

    def _observe(self, name: str, value: float, unit: str) -> None:
        self._observed.append((name, value, unit))
