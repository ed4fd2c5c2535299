"""Traces the model as a TorchScript program, and checks that the program computes the same."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import nn

from export.errors import ExportError

TRACED_BATCH = 2  # not 1: a trace of one image bakes in more constants
CHECKED_BATCHES = (1, 3, 8)  # none of them is the traced one
TOLERANCE = 1e-4  # relative to the largest logit: the trace runs the same kernels, and only their blocking may differ


@dataclass(frozen=True)
class Check:
    """The distance of the trace from the eager model, over `batch_sizes` of seeded noise."""

    batch_sizes: tuple[int, ...]
    largest_difference: float  # of a logit
    top1_agreement: float  # share of the images with the same most probable class


def trace(module: nn.Module, input_size: tuple[int, int, int], explains: bool = False) -> torch.jit.ScriptModule:
    """Traces `module` in fp32 on the CPU, with its method `explain` beside `forward` if it `explains`, on the same weights.

    `input_size` is channels, height, width. `explain` is traced for one image, since explanations are made one at a time.
    """
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        # The tracer warns of things that might differ for another input. `check_trace` tests whether they do.
        warnings.simplefilter("ignore")
        try:
            inputs = {"forward": _noise(TRACED_BATCH, input_size)}
            if explains:
                inputs["explain"] = _noise(1, input_size)
            return torch.jit.trace_module(module, inputs, check_trace=False)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ExportError(f"torch.jit.trace cannot trace this model: {reason[:300]}") from error


@torch.inference_mode()
def check_trace(module: nn.Module, traced: torch.jit.ScriptModule, input_size: tuple[int, int, int]) -> Check:
    """Compares trace and module on batches of other sizes than the traced one. Raises ExportError if they differ."""
    largest, agreed = 0.0, 0
    for batch_size in CHECKED_BATCHES:
        noise = _noise(batch_size, input_size)
        expected = module(noise)
        try:
            actual = traced(noise)
        except Exception as error:
            raise ExportError(
                f"the trace fails for a batch of {batch_size}: the model has the traced batch of {TRACED_BATCH} baked in"
            ) from error
        if actual.shape != expected.shape:
            raise ExportError(
                f"the trace gives {list(actual.shape)} where the model gives {list(expected.shape)}: "
                f"the model has the traced batch of {TRACED_BATCH} baked in"
            )
        difference = (actual - expected).abs().max().item()
        if not difference <= TOLERANCE * max(1.0, expected.abs().max().item()):
            raise ExportError(
                f"the trace differs from the model by {difference:.2g} in a logit for a batch of {batch_size}: "
                "something in the model is random, or depends on the input in Python"
            )
        largest = max(largest, difference)
        agreed += int((actual.argmax(1) == expected.argmax(1)).sum())
    return Check(CHECKED_BATCHES, largest, agreed / sum(CHECKED_BATCHES))


def baked_devices(traced: torch.jit.ScriptModule) -> list[str]:
    """Returns the operators that contain the device of the tracing machine, such as `aten::arange`.

    Such a trace creates those tensors on the CPU wherever it runs, and fails on a GPU.
    """
    nodes = traced.inlined_graph.nodes()
    return sorted({node.kind() for node in nodes if any(value.type().kind() == "DeviceObjType" for value in node.inputs())})


def _noise(batch_size: int, input_size: tuple[int, int, int]) -> torch.Tensor:
    return torch.randn(batch_size, *input_size, generator=torch.Generator().manual_seed(batch_size))
