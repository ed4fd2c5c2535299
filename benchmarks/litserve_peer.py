"""The peer LitServe: timm's eager model or the archive's trace, with timm's own transform, as its documentation would have one
write it.

python -m benchmarks.litserve_peer FORM FOLDER PRECISION DEVICE PORT [TIMM_NAME]

FORM is `eager` or `trace`, FOLDER the store of a `Subject`, which says the number of workers and of images at once.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import litserve
import torch
from PIL import Image
from timm.data import create_transform

from benchmarks.bare_peers import Given
from vit_core.machine import threads_per_worker
from vit_core.precision import PRECISIONS


class Classify(litserve.LitAPI):
    """JSON with an image in base64, LitServe's usual form → the five most probable class indices with their probabilities."""

    def __init__(self, form: str, given: Given, threads: int):
        super().__init__(max_batch_size=given.batch_size, batch_timeout=0.001)
        self.form, self.given, self.threads = form, given, threads
        self.precision = PRECISIONS[given.precision]

    def setup(self, device: str) -> None:
        torch.set_num_threads(self.threads)
        wanted = self.given.archive.settings.preprocessing
        self.transform = create_transform(
            wanted.input_size,
            interpolation=wanted.interpolation,
            crop_pct=wanted.crop_pct,
            crop_mode=wanted.crop_mode,
            mean=wanted.mean,
            std=wanted.std,
        )
        if self.form == "eager":
            self.module = self.given.eager().to(device, self.precision.dtype)
        else:
            self.module = torch.jit.freeze(self.precision.cast(self.given.trace()).eval())
        self.place = device

    def decode_request(self, request: dict) -> torch.Tensor:
        return self.transform(Image.open(io.BytesIO(base64.b64decode(request["image"]))).convert("RGB"))

    def batch(self, inputs: list) -> torch.Tensor:
        return torch.stack(inputs).to(self.place, self.precision.dtype)

    @torch.inference_mode()
    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        return self.module(batch).float().softmax(1)

    def unbatch(self, output: torch.Tensor) -> list:
        return list(output)

    def encode_response(self, output: torch.Tensor) -> dict:
        values, classes = output.topk(min(5, len(output)))
        return dict(zip(map(str, classes.tolist()), values.tolist(), strict=True))


if __name__ == "__main__":
    form, folder, precision, device, port, *timm_name = sys.argv[1:]
    given = Given(Path(folder), precision, device, timm_name[0] if timm_name else None)
    workers = given.archive.serving.min_workers
    api = Classify(form, given, threads_per_worker(workers))
    server = litserve.LitServer(api, accelerator=device, devices=1, workers_per_device=workers, timeout=300)
    server.run(port=int(port), host="127.0.0.1", generate_client_file=False, log_level="warning")
