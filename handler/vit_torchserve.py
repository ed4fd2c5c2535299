"""Habits of TorchServe's worker that lose what was sent, or time, undone. Its last release, 0.12.0, keeps them for good."""

from __future__ import annotations

import logging
import os

from ts.service import Service
from ts.torch_handler.request_envelope.base import BaseEnvelope


def mend_worker() -> None:
    """To be called once, before the first request.

    The worker parses JSON and text by itself, and logs a traceback for what is neither; here requests are read as bytes.
    Of form fields with the same name it keeps the last one; here each gets a name of its own.
    The `kserve` envelope answers the first request of a batch and fails the others; the handler reads that form itself.
    For each batch it logs that it has come, which the front end reads and writes to a file; here it does not.
    """
    os.environ["TS_DECODE_INPUT_REQUEST"] = "false"
    # A filter of a logger is for what is logged to it, not to those below it: metrics and the handler's lines pass.
    logging.getLogger().addFilter(lambda record: record.levelno > logging.INFO)
    retrieve = Service.retrieve_data_for_inference

    def retrieve_all(batch):
        for request in batch:
            _number_fields(request["parameters"])
        return retrieve(batch)

    Service.retrieve_data_for_inference = staticmethod(retrieve_all)
    BaseEnvelope.handle = lambda envelope, data, context: envelope._handle_fn(data, context)


def _number_fields(parameters: list[dict]) -> None:
    seen = set()
    for position, parameter in enumerate(parameters):
        if parameter["name"] in seen:
            parameter["name"] = f"{parameter['name']} {position}"
        seen.add(parameter["name"])
