"""One archive on one replica: Ray Serve gathers single requests into batches, and the core answers them."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from ray import serve

from deploy.ray.reply import Question, Reply
from deploy.ray.routes import no_version
from deploy.ray.told import Told
from serve.archive import identity
from vit_core.answer import Answer
from vit_core.archive import unpack
from vit_core.cost import Bounds
from vit_core.errors import RequestError, ServerError
from vit_core.machine import cores
from vit_core.predictor import Predictor
from vit_core.request import Sent
from vit_core.stages import Stages

logger = logging.getLogger("ray.serve")
NAME = "VisionTransformer"  # of the deployment, by which the front recognizes applications of this project


class Failed(Exception):
    """This replica cannot continue, and Ray Serve replaces it."""


class Model:
    """The model of an archive on `cpus` cores, and on a GPU if Ray has assigned one to this replica.

    The model is called in its own thread, so the replica keeps receiving requests for the next batch.
    """

    async def __init__(self, archive: str, cpus: int, max_request_size: int, max_response_size: int):
        self._thread = ThreadPoolExecutor(1)
        self._begun: float | None = None  # when the batch at hand was given to the model
        self._failure: str | None = None
        _, self._version = identity(Path(archive))
        context = serve.get_replica_context()
        self._name = context.app_name  # the name in its URL, which may differ from the one in the archive
        self._told = Told(self._name, self._version, context.replica_id.unique_id)
        workers = max(1, cores() // cpus)
        device = None if torch.cuda.is_available() else torch.device("cpu")
        self._unpacked = unpack(Path(archive))
        load = asyncio.get_running_loop().run_in_executor
        self._predictor = await load(self._thread, lambda: Predictor.load(Path(self._unpacked.name), device, workers=workers))
        serving = self._predictor.archive.serving
        self._timeout = serving.response_timeout
        self._bounds = Bounds.of_server(self._timeout, max_response_size, max_request_size)
        self._answer.set_max_batch_size(self._predictor.batch_size)
        self._answer.set_batch_wait_timeout_s(serving.max_batch_delay / 1000)

    async def __call__(self, question: Question) -> Reply:
        if question.version not in (None, self._version):
            return self._reply(no_version(self._name, question.version))
        self._told.in_flight(1)
        try:
            return self._reply(await self._answer(question.sent))
        finally:
            self._told.in_flight(-1)

    @serve.batch
    async def _answer(self, batch: list[Sent]) -> list:
        """The answers to a batch, or the errors that they end with."""
        stages = Stages()
        self._begun = time.monotonic()
        try:
            run = asyncio.get_running_loop().run_in_executor
            answers = await run(self._thread, self._answers, batch, stages)
        except Failed as failure:
            self._failure = str(failure)
            logger.error("this replica ends: %s", failure)
            return [ServerError(503, "PredictionFailed", "the worker failed, and another takes its place")] * len(batch)
        finally:
            self._begun = None
        self._told.batch(stages)
        return answers

    def _answers(self, batch: list[Sent], stages: Stages) -> list:
        try:
            return self._predictor.answer(batch, stages, self._bounds)
        except SystemExit as end:  # the GPU failed; raised here it would end only this thread
            raise Failed(str(end)) from None

    def _reply(self, answer) -> Reply:
        if isinstance(answer, RequestError):
            self._told.refused(answer.type)
            logger.info(json.dumps({"event": "refused", "code": answer.code, "type": answer.type}))
        return Reply.of(answer)

    async def describe(self, version: str | None) -> Reply:
        """The version, and what the archive and this replica say of the model, in the form that TorchServe has for it."""
        if version not in (None, self._version):
            return Reply.of(no_version(self._name, version))
        described = self._predictor.describe(self._bounds.answer_bytes)
        return Reply.of(Answer([{"modelName": self._name, "modelVersion": self._version, "customizedMetadata": described}]))

    def __del__(self):
        """Removes the unpacked archive. Ray Serve calls this when the replica has drained, and then ends its process."""
        self._unpacked.cleanup()

    def check_health(self) -> None:
        """Raises Failed if the model has failed, or hangs: a batch may take as long as the archive's response timeout."""
        if self._failure:
            raise Failed(self._failure)
        begun = self._begun
        if begun is not None and time.monotonic() - begun > self._timeout:
            raise Failed(f"a batch has taken more than {self._timeout} s")
