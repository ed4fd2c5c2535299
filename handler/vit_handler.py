"""TorchServe's entry point: passes its context to `vit_core`, and statuses, headers and metrics back."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch
from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes

from vit_core.answer import Answer
from vit_core.cost import Bounds
from vit_core.errors import RequestError
from vit_core.predictor import Predictor
from vit_core.request import Sent
from vit_core.settings import Serving
from vit_core.stages import Stages
from vit_in_flight import InFlight
from vit_torchserve import asks_to_describe, mend_worker, said_before_it_ends, server_settings, worker_number

logger = logging.getLogger(__name__)
mend_worker()


class ViTHandler:
    """The handler that TorchServe creates in each worker. It is the only class of this module, by which TorchServe finds it."""

    @said_before_it_ends()
    def initialize(self, context) -> None:
        """Loads the archive onto the GPU that TorchServe assigned to this worker, or onto the CPU, and warms it up."""
        properties = context.system_properties
        gpu = properties["gpu_id"] if torch.cuda.is_available() else None
        serving, server = Serving.from_dict(context.model_yaml_config), server_settings()
        self.predictor = Predictor.load(
            Path(properties["model_dir"]),
            torch.device("cpu" if gpu is None else f"cuda:{gpu}"),
            properties["batch_size"],
            serving.min_workers,
        )
        self.bounds = Bounds.of_server(serving.response_timeout, server.max_response_size, server.max_request_size)
        context.metrics.model_version = context.manifest["model"]["modelVersion"]
        self.in_flight = InFlight(lambda count: _tell_in_flight(count, context))

    def handle(self, data: list[dict], context) -> list[dict | list | bytes]:
        """Returns for each request of a batch the model's answer, or the request's own error with its status."""
        if len(data) == 1 and asks_to_describe(data[0], context.get_all_request_header(0)):
            return [self.predictor.describe(self.bounds.answer_bytes)]
        with self.in_flight.counting(len(data)):
            stages = Stages()
            sent = [_sent(row, context, index) for index, row in enumerate(data)]
            answers = self.predictor.answer(sent, stages, self.bounds)
            bodies = [_reply(index, answer, context) for index, answer in enumerate(answers)]
            _tell(stages, context)
            return bodies


def _sent(row: dict, context, index: int) -> Sent:
    headers = context.get_all_request_header(index)
    return Sent(row, headers, explains=headers.get("explain") == "True")


def _reply(index: int, answer: Answer | RequestError, context) -> dict | list | bytes:
    """Returns the body of the answer to the request `index`, and puts its status and headers into the context."""
    if isinstance(answer, RequestError):
        _refuse(index, answer, context)
        answer = Answer(answer.as_dict())
    context.set_response_content_type(index, answer.content_type)
    for name, value in answer.headers.items():
        context.set_response_header(index, name, value)
    return answer.body


def _refuse(index: int, error: RequestError, context) -> None:
    """Sets the status of a request that ends in an error, and logs one line, which has no word of what was sent."""
    context.set_response_status(error.code, error.phrase, index)
    context.metrics.add_counter("RefusedRequests", 1, dimensions=[Dimension("Reason", error.type)])
    line = {"event": "refused", "request": context.get_request_id(index), "code": error.code, "type": error.type}
    logger.info(json.dumps(line))


def _tell(stages: Stages, context) -> None:
    """Emits the metrics of a batch when its work is done, since the front end reads each at once, on cores that the model
    needs.
    """
    for name, value, unit in stages.observed:
        context.metrics.add_metric(name, value, unit, metric_type=MetricTypes.HISTOGRAM)
        if name == "BatchSize" and logger.isEnabledFor(logging.DEBUG):
            logger.debug(json.dumps({"event": "batch", "images": value, "requests": context.request_ids}))


def _tell_in_flight(count: int, context) -> None:
    worker = Dimension("WorkerName", worker_number())
    context.metrics.add_metric("RequestsInFlight", count, "count", dimensions=[worker], metric_type=MetricTypes.GAUGE)
