"""Works around habits of TorchServe's worker that lose requests, time, or the worker itself, and finds what TorchServe does not
pass on.

TorchServe's last release is 0.12.0, so they will not change.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import psutil
import ts.service
from ts.metrics.dimension import Dimension
from ts.metrics.metric_cache_abstract import MetricCacheAbstract
from ts.service import Service
from ts.torch_handler.request_envelope.base import BaseEnvelope

from vit_core.request import distinct
from vit_core.size import encoded

FRONT_END = "org.pytorch.serve.ModelServer"  # the class that Java runs
READ_SECONDS = 1  # for the front end to read a line of a worker
SEQUENCE = "ts_request_sequence_id"  # the header by which the front end marks StreamPredictions2
STREAM_NEXT = "ts_stream_next"  # a header of an answer: whether more parts follow


@dataclass(frozen=True)
class ServerSettings:
    """The front end's settings that the worker must keep to, with TorchServe's defaults, in bytes."""

    max_request_size: int = 6_553_500
    max_response_size: int = 6_553_500


def server_settings() -> ServerSettings:
    """Returns the settings of this worker's front end; TorchServe's defaults if they cannot be found.

    TorchServe does not pass them on. They are in the file that Java was started with.
    """
    found = {}
    for parent in psutil.Process().parents():
        command = parent.cmdline()
        if FRONT_END in command:
            file = os.environ.get("TS_CONFIG_FILE") or _after(command, ("-f", "--ts-config-file")) or "config.properties"
            text = _read(Path(parent.cwd()) / file)
            for each in fields(ServerSettings):
                if lines := re.findall(rf"^\s*{each.name}\s*[=:\s]\s*(\d+)\s*$", text, re.MULTILINE):
                    found[each.name] = int(lines[-1])  # the last line that sets a key counts
            break
    return ServerSettings(**found)


def worker_number() -> str:
    """Returns TorchServe's number for this worker, such as "9000". Its successor has the same one."""
    return (_after(sys.argv, ("--sock-name", "--port")) or "").rpartition(".")[2]


def _after(command: list[str], options: tuple[str, ...]) -> str | None:
    return next((value for option, value in itertools.pairwise(command) if option in options), None)


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def asks_to_describe(row: Mapping[str, bytes], headers: Mapping[str, object]) -> bool:
    """Whether this is `GET /models/NAME?customized=true` at the management address, and not a client that sends its header.

    The front end makes that request without any field. A prediction has the field `body`, even if it is empty; only one that
    claims to be a form can lack fields.
    """
    kinds = [str(value).lower() for name, value in headers.items() if name.lower() == "content-type"]
    form = any(kind.startswith(("multipart/", "application/x-www-form-urlencoded")) for kind in kinds)
    return not row and not form and headers.get("describe") == "True" and "explain" not in headers


def mend_worker() -> None:
    """Changes the worker of this process. Call it once, before the first request.

    The worker parses JSON and text itself, and logs a traceback for what is neither; with this change requests stay bytes.

    It keeps the last of form fields with the same name; now each gets a name of its own.

    Its `kserve` envelope answers the first request of a batch and fails the others; the handler reads that form itself.

    It logs a line for each batch, which the front end reads and writes to a file; now it does not.

    It writes JSON with an indent, in Python; now the JSON is a third shorter, and written in C.

    Its metrics lack the version of the model, of which several may be served; now they have it.
    """
    os.environ["TS_DECODE_INPUT_REQUEST"] = "false"
    # A logger's filter does not apply to the loggers below it: metrics and the handler's lines pass.
    logging.getLogger().addFilter(lambda record: record.levelno > logging.INFO)
    retrieve = Service.retrieve_data_for_inference

    def retrieve_all(batch):
        for request in batch:
            parameters = request["parameters"]
            for parameter, name in zip(parameters, distinct(each["name"] for each in parameters), strict=True):
                parameter["name"] = name
        return retrieve(batch)

    Service.retrieve_data_for_inference = staticmethod(retrieve_all)
    BaseEnvelope.handle = lambda envelope, data, context: envelope._handle_fn(data, context)
    ts.service.create_predict_response = _sending(ts.service.create_predict_response)
    default_dimensions = MetricCacheAbstract._add_default_dims

    def with_version(metrics, request, dimensions):
        found = default_dimensions(metrics, request, list(dimensions))
        return [*found, Dimension("ModelVersion", metrics.model_version)]

    MetricCacheAbstract._add_default_dims = with_version


@contextlib.contextmanager
def said_before_it_ends() -> Iterator[None]:
    """Says why a worker does not start, a moment before it ends.

    The front end stops reading a worker's output when the worker ends. On a busy machine the traceback, which the worker prints
    last, was lost.
    """
    try:
        yield
    except Exception as error:
        logging.error(traceback.format_exception_only(error)[-1].strip())
        time.sleep(READ_SECONDS)
        raise


def _sending(create):
    """Wraps TorchServe's `create_predict_response`, so that no call of gRPC ends the worker.

    The front end fails if the answer to StreamPredictions does not say that it is the last one. It also fails if a client of
    StreamPredictions2 has ended its side of the call before the answer comes, so a call of that method, which is for sequences,
    gets no answer.
    """

    def send(answers, request_ids, message, code, context=None, **rest):
        if context is None or answers is None:
            return create(answers, request_ids, message, code, context, **rest)
        answers = [encoded(each) for each in answers]
        answered = {}
        for index, request_id in request_ids.items():
            headers = {name: value for name, value in context.get_all_request_header(index).items() if isinstance(value, str)}
            if SEQUENCE in headers and all(name.startswith("ts_request_sequence") for name in headers):  # HTTP has others
                continue
            if not headers:  # gRPC has none
                context.set_response_header(index, STREAM_NEXT, "false")
            answered[index] = request_id
        return create(answers, answered, message, code, context, **rest)

    return send
