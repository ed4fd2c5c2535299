"""The front of the core: an archive on a device, that answers batches of requests.

    bytes → image → resize and crop → uint8 batch → device → normalise → traced model → scores → top-k → labels
                                                                                      → embedding
                                    → one by one, for explanations → relevance of patches → heat map

All that is particular to a model comes from its archive.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from vit_core.answer import Answer, Answers
from vit_core.archive import TRACE, Archive, unpack
from vit_core.cost import BUSY, BatchDeadline, Bounds
from vit_core.errors import InputError, RequestError, ServerError
from vit_core.explain import Explainer, Explanation
from vit_core.image import decode
from vit_core.machine import resident, threads_per_worker, useful_workers
from vit_core.model import Model, Outputs
from vit_core.pixels import least_edge, resize_and_crop
from vit_core.request import Form, Request, Sent, read_request
from vit_core.size import encoded, within
from vit_core.stages import Stages

logger = logging.getLogger(__name__)


class Predictor:
    """Answers batches of requests with the model of one archive: classes, embeddings, explanations."""

    def __init__(self, archive: Archive, device: torch.device, batch_size: int, threads: int):
        self.archive, self.device, self.batch_size = archive, device, batch_size
        self._settings = archive.settings
        self._answers = Answers(archive.labels, archive.settings)
        self._explainer = Explainer(archive.folder / TRACE, device, archive.settings)
        self._decoders = ThreadPoolExecutor(threads)
        trace = torch.jit.load(archive.folder / TRACE, map_location=device)
        self.model = Model(trace, archive.settings, len(archive.labels), device, batch_size, threads)

    @classmethod
    def load(
        cls,
        path: Path,
        device: torch.device | None = None,
        batch_size: int | None = None,
        workers: int = 1,
        precision: str | None = None,
    ) -> Predictor:
        """Loads the archive at `path`: a `.mar` file, or the folder that it was unpacked into.

        Without a `device` it takes a GPU if there is one and the archive can use it, else the CPU. The model gets at most
        `batch_size` images at once, by default the archive's batch size. This process takes its share of the cores, of which
        `workers` such processes get one each. The model runs in `precision`, or else in the archive's precision for the device.

        Raises ArchiveError if the file is no archive, has another contract, or cannot be run as asked.
        """
        unpacked = None if path.is_dir() else unpack(path)
        archive = Archive.read(Path(unpacked.name) if unpacked else path)
        if precision is not None:
            archive = replace(archive, settings=archive.settings.run_in(precision))
        if device is None:
            gpu = torch.cuda.is_available() and archive.serving.device_type != "cpu"
            device = torch.device("cuda:0" if gpu else "cpu")
        predictor = cls(archive, device, batch_size or archive.serving.batch_size, threads_per_worker(workers))
        predictor._unpacked = unpacked  # the folder lives as long as the predictor
        return predictor

    def answer(
        self, batch: Sequence[Sent | Request], stages: Stages | None = None, bounds: Bounds | None = None
    ) -> list[Answer | RequestError]:
        """Returns for each request of a batch its answer, or the error that it ends with. `stages` receives the durations."""
        stages, bounds = stages or Stages(), bounds or Bounds()
        found = self._outcomes(batch, stages, bounds)
        with stages.timed("PostprocessSeconds"):
            return [self._answer(*each, bounds) for each in found]

    def outputs(self, images: Sequence[bytes]) -> list[Outputs | RequestError]:
        """Returns the model's outputs for each image file, or the error in their place. `answer_from` makes answers of them."""
        found = self._outcomes([Request([image]) for image in images], Stages(), Bounds())
        return [request if isinstance(request, RequestError) else outcomes[0] for request, outcomes in found]

    def answer_from(self, outputs: Outputs, request: Request) -> Answer | RequestError:
        """Returns the answer to a request for one image from the model's outputs, so that one run of the model can answer
        several tasks.
        """
        return self._answer(request, [outputs], Bounds())

    def _outcomes(self, batch: Sequence[Sent | Request], stages: Stages, bounds: Bounds) -> list[tuple]:
        """Returns for each request of a batch the request, or its error, and the outcome of each of its images."""
        end = time.monotonic() + bounds.seconds
        with stages.timed("PreprocessSeconds"):
            requests, pixels = zip(*self._prepare_all(batch, bounds, end), strict=True)
        return list(zip(requests, self._run(requests, pixels, stages, end), strict=True))

    def _answer(self, request: Request | RequestError, outcomes: list, bounds: Bounds) -> Answer | RequestError:
        try:
            answer = self._answers.answer(request, outcomes)
            return answer if isinstance(answer, RequestError) else within(answer, bounds.answer_bytes)
        except Exception:  # a bug here must not fail the other requests of the batch
            logger.exception("an answer could not be made")
            return ServerError(500, "PredictionFailed", "the answer could not be made: the server's log says how")

    def describe(self, most: int = sys.maxsize) -> dict:
        """Returns the archive's settings and record, and how this process runs the model.

        The labels, `classes`, are None if the description would be larger than `most` bytes.
        """
        way = self.model.way
        described = {
            **self._settings.to_dict(),
            "classes": list(self.archive.labels),
            "batch_size": self.batch_size,
            "device": str(self.device),
            "precision": way.precision,
            "fused": way.fused,
            "threads": way.threads,
            "rule": way.rule,
            "useful_workers": useful_workers(self.device, way.threads, resident()),
            "record": self.archive.record,
        }
        return described if len(encoded(described)) <= most else {**described, "classes": None}

    def _prepare_all(self, batch: Sequence[Sent | Request], bounds: Bounds, end: float) -> list[tuple]:
        """Calls `_prepare` for each request, in as many threads as the model has.

        Each thread takes the next request that waits. One task for each request would hold Python's lock for a third longer in
        all.
        """
        prepared, waiting = [()] * len(batch), iter(range(len(batch)))

        def take() -> None:
            for index in waiting:
                prepared[index] = self._prepare(batch[index], bounds, end)

        others = [self._decoders.submit(take) for _ in range(min(len(batch), torch.get_num_threads()) - 1)]
        take()
        for other in others:
            other.result()
        return prepared

    def _prepare(self, sent: Sent | Request, bounds: Bounds, end: float) -> tuple[Request | RequestError, list[torch.Tensor]]:
        """Reads one request and decodes its images to pixels, uint8 [C, H, W] each.

        It returns an error instead of raising it, because the error belongs to this request alone.
        """
        limits = self._settings.limits
        try:
            request = sent if isinstance(sent, Request) else self._read(sent, bounds)
            if request.explains:
                self._explainer.method(request)
            self._answers.check(request)
            deadline = BatchDeadline(limits.max_decode_seconds, end)
            return request, [self._pixels(request, index, deadline) for index in range(len(request.images))]
        except RequestError as error:
            return _without_frames(error), []
        except Exception:  # a bug here or in Pillow must not fail the other requests of the batch
            logger.exception("a request could not be prepared")
            return ServerError(500, "PreprocessingFailed", "the image could not be prepared: the server's log says how"), []

    def _read(self, sent: Sent, bounds: Bounds) -> Request:
        limits = self._settings.limits
        images = min(limits.max_images, limits.max_explanations) if sent.explains else limits.max_images
        return read_request(sent, images, bounds.body_bytes)

    def _pixels(self, request: Request, index: int, deadline: BatchDeadline) -> torch.Tensor:
        preprocessing, fast = self._settings.preprocessing, self._settings.fast_pixels
        least = least_edge(preprocessing) if fast else None
        try:
            deadline.check()
            image = decode(request.images[index], preprocessing.input_size[0], self._settings.limits, deadline, least)
        except InputError as error:
            if deadline.late:
                raise ServerError(BUSY.code, BUSY.type, BUSY.message) from error
            if request.form == Form.ONE:
                raise
            which = f"image {index + 1} of {len(request.images)}"
            raise InputError(error.code, error.type, f"{which}: {error.message}") from error
        return resize_and_crop(image, preprocessing, fast)

    def _run(self, requests: tuple, pixels: tuple[list[torch.Tensor], ...], stages: Stages, end: float) -> list[list]:
        """Returns for each request the outcome of each of its images. The images of all requests share batches.

        Explanations follow, one by one. Nothing is begun after `end`.
        """
        images, outcomes = [], [[] for _ in requests]
        explained = [index for index, request in enumerate(requests) if pixels[index] and request.explains]
        for index, own in enumerate(pixels):
            if index not in explained:
                images += [(index, image) for image in own]
        for start in range(0, len(images), self.batch_size):
            owners, batch = zip(*images[start : start + self.batch_size], strict=True)
            for owner, outcome in zip(owners, self._predict(batch, stages, end), strict=True):
                outcomes[owner].append(outcome)
        end = min(end, time.monotonic() + self._settings.limits.max_explain_seconds)
        for index in explained:
            outcomes[index] = [self._explain(requests[index], image, stages, end) for image in pixels[index]]
        return outcomes

    def _predict(self, batch: Sequence[torch.Tensor], stages: Stages, end: float) -> list:
        if time.monotonic() > end:
            return [BUSY] * len(batch)
        stages.batch(len(batch))
        with stages.timed("InferenceSeconds"):
            return self.model.outcomes(torch.stack(batch))

    def _explain(self, request: Request, pixels: torch.Tensor, stages: Stages, end: float) -> Explanation | ServerError:
        if time.monotonic() > end:
            return BUSY
        with stages.timed("ExplanationSeconds"):
            return self._explainer.outcome(pixels, self._answers.target(request), self._explainer.method(request))


def _without_frames(error: RequestError) -> RequestError:
    """Removes an error's traceback and causes: their frames would hold the request's data until Python collects cycles."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
