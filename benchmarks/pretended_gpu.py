"""The handler in front of a device that is none: it takes its time, as a GPU would, and leaves the cores to others."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path

import torch

from vit_core.machine import threads_per_worker
from vit_core.model import Outputs
from vit_handler import ViTHandler


class PretendedGpu(ViTHandler):
    """Reads, decodes, resizes and answers as always. All workers share one device: one waits while another has it."""

    def initialize(self, context) -> None:
        super().initialize(context)
        self.seconds = context.model_yaml_config["device_seconds"]
        self.lock = Path(context.system_properties["model_dir"], "device.lock")
        self.predictor.model.outputs = self._outputs
        torch.set_num_threads(threads_per_worker(1))  # they may be fewer for a small model on a CPU

    def _outputs(self, pixels: torch.Tensor) -> Outputs:
        with self.lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            time.sleep(self.seconds["call"] + self.seconds["image"] * len(pixels))
        logits = torch.ones(len(pixels), len(self.predictor.archive.labels))
        return Outputs(logits, logits.softmax(1), torch.empty(len(pixels), 0))
