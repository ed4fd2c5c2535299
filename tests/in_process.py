"""The handler in this process, with TorchServe's own context around it."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from ts.context import Context, RequestProcessor
from ts.metrics.metric_type_enum import MetricTypes

from vit_handler import ViTHandler


class Metrics:
    """Takes the place of TorchServe's metrics cache, which writes to the worker's log."""

    def __init__(self):
        self.added = []

    def add_metric(self, name, value, unit, metric_type, dimensions=()):
        if metric_type != MetricTypes.GAUGE:  # which a thread sets, at times of its own
            self.added.append((name, value))

    def add_counter(self, name, value, dimensions):
        self.added.append((name, dimensions[0].value))

    def of(self, name: str) -> list:
        return [value for added, value in self.added if added == name]


def jpeg(seed: int) -> bytearray:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return bytearray(buffer.getvalue())


def load(archive: Path, folder: Path, gpu_id: int | None = None) -> tuple[ViTHandler, Context]:
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    manifest = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())
    config = yaml.safe_load((folder / "model-config.yaml").read_text())
    context = Context("tiny", str(folder), manifest, 8, gpu_id, "0.12.0", metrics=Metrics(), model_yaml_config=config)
    handler = ViTHandler()
    handler.initialize(context)
    return handler, context


def handle(handler: ViTHandler, context: Context, rows: list[dict], headers: dict | None = None) -> list:
    """The answers to a batch of requests; all come with `headers`. Their statuses are in the context afterwards."""
    context.request_ids = {index: f"request-{index}" for index in range(len(rows))}
    context.request_processor = [RequestProcessor(dict(headers or {})) for _ in rows]
    return handler.handle(rows, context)


def statuses(context: Context) -> list[int]:
    return [context.get_response_status(index)[0] for index in range(len(context.request_processor))]
