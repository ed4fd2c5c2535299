"""TorchServe's entry point: a batch of requests in, one answer for each out.

    bytes → decode → resize and crop → uint8 batch → device → normalise → traced model → softmax → top-k → labels

All that is particular to a model comes from its archive: the trace, `index_to_name.json`, and the `handler` section of
`model-config.yaml`.
"""

from __future__ import annotations

import torch
from ts.metrics.metric_type_enum import MetricTypes
from ts.torch_handler.base_handler import BaseHandler
from vit_precision import DTYPES, cast, pick_precision

from vit_pixels import Preprocessing, decode, normalize, resize_and_crop
from vit_requests import InputError, image_bytes


class ViTHandler(BaseHandler):
    """Classifies images with a traced timm model."""

    def initialize(self, context) -> None:
        """Loads the trace onto the GPU that TorchServe assigned to this worker, or onto the CPU, in the best precision there.

        `super()` picks the device and reads the trace and the labels from the model directory.
        """
        super().initialize(context)
        config = dict(context.model_yaml_config["handler"])
        self.top_k = min(config.pop("top_k"), len(self.mapping))
        self.precision = pick_precision(config.pop("precision"), self.device)
        self.model = cast(self.model, self.precision)
        self.dtype = DTYPES[self.precision]
        self.preprocessing = Preprocessing(**{key: _tupled(value) for key, value in config.items()})
        self.mean, self.std = (
            torch.tensor(values, device=self.device).view(-1, 1, 1)
            for values in (self.preprocessing.mean, self.preprocessing.std)
        )

    def handle(self, data: list[dict], context) -> list[dict]:
        """One answer for each request of a batch: label → probability, or the request's own error with its 4xx status."""
        answers = [self._preprocess_one(row) for row in data]
        good = [index for index, answer in enumerate(answers) if not isinstance(answer, InputError)]
        if good:
            pixels = torch.stack([answers[index] for index in good])
            for index, answer in zip(good, self.postprocess(self.inference(pixels)), strict=True):
                answers[index] = answer
            # A histogram: its sum is the number of images, its count the number of calls of the model.
            context.metrics.add_metric("BatchSize", len(good), "images", metric_type=MetricTypes.HISTOGRAM)
        for index, answer in enumerate(answers):
            context.set_response_content_type(index, "application/json")
            if isinstance(answer, InputError):
                context.set_response_status(answer.code, answer.phrase, index)
                answers[index] = answer.as_dict()
        return answers

    def _preprocess_one(self, row: dict) -> torch.Tensor | InputError:
        """uint8 [C, H, W] for one request. An error is returned, not raised: it belongs to this request alone."""
        try:
            image = decode(image_bytes(row), channels=self.preprocessing.input_size[0])
            return resize_and_crop(image, self.preprocessing)
        except InputError as error:
            return error

    @torch.inference_mode()
    def inference(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 [N, C, H, W] → class probabilities [N, classes] float32, in one call of the model."""
        normalized = normalize(pixels.to(self.device), self.mean, self.std)
        return self.model(normalized.to(self.dtype)).float().softmax(dim=-1)

    def postprocess(self, probs: torch.Tensor) -> list[dict[str, float]]:
        """[N, classes] → the `top_k` labels of each image with their probabilities, most probable first."""
        values, classes = probs.topk(self.top_k)
        return [
            {self.mapping[str(index)]: value for index, value in zip(*row, strict=True)}
            for row in zip(classes.tolist(), values.tolist(), strict=True)
        ]


def _tupled(value):
    return tuple(value) if isinstance(value, list) else value
