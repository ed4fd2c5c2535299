"""The int8 step of an export: calibrate, quantize, judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from export.calibration import Calibration, calibration
from export.errors import ExportError
from export.int8 import find_scales, quantize_until_near
from export.options import Options
from export.precision import Agreement, compare, recorded, run
from export.ranges import see
from vit_core.int8.layers import Int8Layer
from vit_core.settings import Head, Preprocessing


@dataclass(frozen=True)
class Quantized:
    """A model with layers in int8, and the pictures by which it is judged."""

    module: nn.Module
    others: list[torch.Tensor]  # float32 [N, C, H, W] each
    expected: torch.Tensor  # [pictures, outputs] in fp32
    layers: int  # in int8
    left: list[str]  # names of layers that stay in fp32
    pictures: Calibration
    on_calibration: Agreement

    @property
    def warnings(self) -> list[str]:
        unreadable = self.pictures.unreadable
        return [f"{len(unreadable)} files of --calibrate cannot be read, the first is {unreadable[0]}"] if unreadable else []

    @property
    def record(self) -> dict:
        return {
            "layers": self.layers,
            "left_in_fp32": self.left,
            "calibrated_with": self.pictures.source,
            "images": self.pictures.images,
            "sha256": self.pictures.sha256,
            "agreement_on_these": recorded(self.on_calibration),
        }


def quantized(
    module: nn.Module,
    options: Options,
    preprocessing: Preprocessing,
    classes: int,
    head: Head,
    step: Callable[[str], None],
) -> Quantized:
    """Returns `module` in int8, calibrated as `options.calibrate` says. Raises ExportError if it is too far from fp32."""
    step("reading the pictures to calibrate with")
    pictures = calibration(options.calibrate, preprocessing, options.limits)
    step(f"running the model on {pictures.images} pictures")
    groups = see(module, pictures.seen)
    if not groups:
        raise ExportError(
            "--precision int8: this model has no linear layers that work on tokens and no convolutions of one group, and "
            "nothing else becomes int8"
        )
    scales = []
    for number, group in enumerate(groups, 1):
        step(f"finding scales: {number} of {len(groups)}")
        scales.append(find_scales(group))
    expected, on_these = (run(module, torch.float32, part) for part in (pictures.others, pictures.seen))

    def agreement(candidate: nn.Module) -> float:
        step("comparing int8 with fp32")
        return compare(run(candidate, torch.float32, pictures.others), expected, classes, head).agreement

    found, left = quantize_until_near(module, scales, agreement)
    layers = sum(isinstance(layer, Int8Layer) for layer in found.modules())
    on_calibration = compare(run(found, torch.float32, pictures.seen), on_these, classes, head)
    return Quantized(found, list(pictures.others), expected, layers, left, pictures, on_calibration)
