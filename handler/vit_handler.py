"""TorchServe's entry point: a batch of requests in, one answer for each out.

    bytes → images → resize and crop → uint8 batch → device → normalise → traced model → softmax → top-k → labels
                                                                                     → embedding
                                     → one by one, what was asked of /explanations → relevance of patches → heat map

All that is particular to a model comes from its archive: the trace, `index_to_name.json`, and the `handler` section of
`model-config.yaml`.
"""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch
from ts.torch_handler.base_handler import BaseHandler

from vit_answers import Answer, Answers
from vit_errors import InputError, RequestError, ServerError
from vit_explain import Explainer, Explanation
from vit_images import Deadline, Limits, decode
from vit_metrics import Metrics
from vit_model import Model
from vit_pixels import Preprocessing, least_edge, resize_and_crop
from vit_requests import Form, Request, read_request
from vit_threads import threads_per_worker, useful_workers
from vit_torchserve import mend_worker

logger = logging.getLogger(__name__)
mend_worker()


class ViTHandler(BaseHandler):
    """Answers with a traced timm model: classes, embeddings, explanations."""

    def initialize(self, context) -> None:
        """Loads the trace onto the GPU that TorchServe assigned to this worker, or onto the CPU, and runs it in there.

        `super()` picks the device and reads the trace and the labels from the model directory.
        """
        super().initialize(context)
        config = dict(context.model_yaml_config["handler"])
        labels = [self.mapping[str(index)] for index in range(len(self.mapping))]
        self.answers = Answers(labels, *(config.pop(name) for name in ("tasks", "top_k", "normalize")))
        explain = config.pop("explain")
        self.limits = Limits(**config.pop("limits"))
        precisions = config.pop("precision")
        self.fast_pixels = config.pop("fast_pixels")
        self.preprocessing = Preprocessing(**{key: _tupled(value) for key, value in config.items()})
        self.batch_size = context.system_properties["batch_size"]
        threads = threads_per_worker(context.model_yaml_config["minWorkers"])
        torch.set_num_threads(threads)
        self.decoders = ThreadPoolExecutor(threads)
        pixels = self.preprocessing
        folder = Path(context.system_properties["model_dir"])
        self.explainer = Explainer(folder / "model.pt", self.device, pixels, explain)
        self.model = Model(
            self.model,
            self.device,
            precisions,
            pixels.input_size,
            pixels.mean,
            pixels.std,
            self.batch_size,
            len(labels),
            folder,
        )
        self.record = json.loads((folder / "record.json").read_text())

    def handle(self, data: list[dict], context) -> list[dict | list | bytes]:
        """One answer for each request of a batch: what the model says, or the request's own error with its status."""
        if len(data) == 1 and context.get_request_header(0, "describe") == "True" and not any(data[0].values()):
            return [self.describe()]
        metrics = Metrics(context)
        with metrics.timed("PreprocessSeconds"):
            headers = [context.get_all_request_header(index) for index in range(len(data))]
            requests, pixels = zip(*self._prepare_all(data, headers), strict=True)
        outcomes = self._run(requests, pixels, metrics)
        with metrics.timed("PostprocessSeconds"):
            answers = [self.answers.answer(*each) for each in zip(requests, outcomes, strict=True)]
        sent = [self._sent(index, answer, metrics, context) for index, answer in enumerate(answers)]
        metrics.send()
        return sent

    def describe(self) -> dict:
        """What `GET /models/NAME?customized=true` adds: how this worker runs the model, and the archive's own record."""
        return {
            "input_size": list(self.preprocessing.input_size),
            "preprocessing": asdict(self.preprocessing),
            "fast_pixels": self.fast_pixels,
            "classes": self.answers.labels,
            "top_k": min(self.answers.top_k, len(self.answers.labels)),
            "tasks": self.answers.tasks,
            "normalize": self.answers.normalize,
            "explain": self.explainer.settings,
            "limits": asdict(self.limits),
            "batch_size": self.batch_size,
            "device": str(self.device),
            **asdict(self.model.way),
            "threads": torch.get_num_threads(),
            "useful_workers": useful_workers(self.device, torch.get_num_threads()),
            "record": self.record,
        }

    def _prepare_all(self, data: list[dict], headers: list[dict]) -> list[tuple]:
        """What `_prepare` makes of each request, in as many threads as there are cores.

        Each takes the next one that waits: a task for each would take Python's lock for a third longer in all.
        """
        prepared, waiting = [()] * len(data), iter(range(len(data)))

        def take() -> None:
            for index in waiting:
                prepared[index] = self._prepare(data[index], headers[index])

        others = [self.decoders.submit(take) for _ in range(min(len(data), torch.get_num_threads()) - 1)]
        take()
        for other in others:
            other.result()
        return prepared

    def _prepare(self, row: dict, headers: dict[str, str]) -> tuple[Request | RequestError, list[torch.Tensor]]:
        """Reads one request and makes its images pixels: uint8 [C, H, W] each.

        An error is returned, not raised: it belongs to this request alone.
        """
        try:
            request = read_request(row, headers, self.limits.max_images)
            if request.explains:
                self.explainer.method(request)
            self.answers.check(request)
            deadline = Deadline(self.limits.max_decode_seconds)
            return request, [self._pixels(request, index, deadline) for index in range(len(request.images))]
        except RequestError as error:
            return error, []
        except Exception:  # a mistake of ours or Pillow's: it must not fail the neighbours too
            logger.exception("a request could not be prepared")
            return ServerError(500, "PreprocessingFailed", "the image could not be prepared: the server's log says how"), []

    def _pixels(self, request: Request, index: int, deadline: Deadline) -> torch.Tensor:
        channels, least = self.preprocessing.input_size[0], least_edge(self.preprocessing) if self.fast_pixels else None
        try:
            image = decode(request.images[index], channels, self.limits, deadline, least)
        except InputError as error:
            if request.form == Form.ONE:
                raise
            which = f"image {index + 1} of {len(request.images)}"
            raise InputError(error.code, error.type, f"{which}: {error.message}") from error
        return resize_and_crop(image, self.preprocessing, self.fast_pixels)

    def _run(self, requests: tuple, pixels: tuple[list[torch.Tensor], ...], metrics: Metrics) -> list[list]:
        """For each request, the outcome of each of its images. The images of all requests share batches; explanations are made
        one by one."""
        images, outcomes = [], [[] for _ in requests]
        for index, (request, own) in enumerate(zip(requests, pixels, strict=True)):
            if own and request.explains:
                outcomes[index] = [self._explain(request, image, metrics) for image in own]
            else:
                images += [(index, image) for image in own]
        for start in range(0, len(images), self.batch_size):
            owners, batch = zip(*images[start : start + self.batch_size], strict=True)
            metrics.batch(len(batch))
            with metrics.timed("InferenceSeconds"):
                found = self.model.outcomes(torch.stack(batch))
            for owner, outcome in zip(owners, found, strict=True):
                outcomes[owner].append(outcome)
        return outcomes

    def _explain(self, request: Request, pixels: torch.Tensor, metrics: Metrics) -> Explanation | ServerError:
        with metrics.timed("ExplanationSeconds"):
            return self.explainer.outcome(pixels, self.answers.target(request), self.explainer.method(request))

    def _sent(self, index: int, answer: Answer | RequestError, metrics: Metrics, context) -> dict | list | bytes:
        """The body of the answer to the request `index`, whose status and headers go into the context."""
        if isinstance(answer, RequestError):
            metrics.refused(index, answer)
            context.set_response_status(answer.code, answer.phrase, index)
            answer = Answer(answer.as_dict())
        context.set_response_content_type(index, answer.content_type)
        for name, value in answer.headers.items():
            context.set_response_header(index, name, value)
        return answer.body


def _tupled(value):
    return tuple(value) if isinstance(value, list) else value
