"""The peer LitServe: timm's eager model with timm's own transform, as its documentation would have one write it.

python -m benchmarks.litserve_peer MODEL WEIGHTS CLASSES PRECISION DEVICE PORT BATCH WORKERS
"""

from __future__ import annotations

import base64
import io
import sys

import litserve
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from vit_core.machine import threads_per_worker
from vit_core.precision import PRECISIONS


class Classify(litserve.LitAPI):
    """JSON with an image in base64, LitServe's usual form → the five most probable class indices with their probabilities."""

    def __init__(self, model: str, weights: str, classes: int, precision: str, batch: int, threads: int):
        super().__init__(max_batch_size=batch, batch_timeout=0.001)
        self.threads = threads
        self.arguments, self.weights, self.dtype = (model, classes), weights, PRECISIONS[precision].dtype

    def setup(self, device: str) -> None:
        torch.set_num_threads(self.threads)
        model, classes = self.arguments
        module = timm.create_model(model, num_classes=classes)
        module.load_state_dict(torch.load(self.weights, weights_only=True))
        self.transform = create_transform(**resolve_model_data_config(module))
        self.module = module.eval().to(device, self.dtype)
        self.place = device

    def decode_request(self, request: dict) -> torch.Tensor:
        return self.transform(Image.open(io.BytesIO(base64.b64decode(request["image"]))).convert("RGB"))

    def batch(self, inputs: list) -> torch.Tensor:
        return torch.stack(inputs).to(self.place, self.dtype)

    @torch.inference_mode()
    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        return self.module(batch).float().softmax(1)

    def unbatch(self, output: torch.Tensor) -> list:
        return list(output)

    def encode_response(self, output: torch.Tensor) -> dict:
        values, classes = output.topk(5)
        return dict(zip(map(str, classes.tolist()), values.tolist(), strict=True))


if __name__ == "__main__":
    model, weights, classes, precision, device, port, batch, workers = sys.argv[1:]
    api = Classify(model, weights, int(classes), precision, int(batch), threads_per_worker(int(workers)))
    server = litserve.LitServer(api, accelerator=device, devices=1, workers_per_device=int(workers), timeout=300)
    server.run(port=int(port), host="127.0.0.1", generate_client_file=False, log_level="warning")
