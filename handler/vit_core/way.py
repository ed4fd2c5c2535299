"""How a worker runs a model: the precision, whether oneDNN fuses operators, and the number of threads. All by rule.

Nothing is timed at start. A trial would depend on what else the machine was doing then, and two workers of one archive would
give answers that differ by a hundredth. `benchmarks/ways.py` measures the ways that the rules are made from.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

import torch

from vit_core.fusion import prepare_for_fusion, why_not_fused
from vit_core.int8 import products
from vit_core.packed import pack, pack_int8, unpack_int8
from vit_core.pooling import pool_channels_last
from vit_core.precision import FALLBACK, PRECISIONS, Precision, choose
from vit_core.settings import Settings

logger = logging.getLogger(__name__)

# A model with fewer floating-point operations for an image runs on one thread. OpenMP's threads wait for each other at the end
# of each operator. A thread that is late, because the front end has its core or because it slept, costs more than it saves.
# This many operations take one core about 5 ms.
BRIEF = 500_000_000
PACKED = (torch.float32, torch.bfloat16)  # types of which oneDNN has products on every CPU that multiplies them fast
# Calls until TorchScript has profiled and compiled a model for one shape.
COMPILED = 3


@dataclass(frozen=True)
class Way:
    """One way to run a model, and the rules that led to it."""

    precision: str
    fused: bool  # by oneDNN, on CPUs
    threads: int
    rule: str


def take_way(
    trace: torch.jit.ScriptModule, settings: Settings, device: torch.device, threads: int
) -> tuple[torch.jit.ScriptModule, Way]:
    """Returns `trace` ready to run on `device` with up to `threads` threads, and the way in which it runs.

    Sets torch's number of threads and its fusion for this process.
    """
    precision, rule = choose(settings.precisions, device)
    if device.type != "cpu":
        torch.set_num_threads(threads)
        return _frozen(trace, precision), Way(precision.name, False, threads, rule)
    brief = is_brief(settings)
    if brief:
        threads, rule = 1, f"{rule}; one thread for {settings.flops / 1e9:.2g} billion operations an image"
    torch.set_num_threads(threads)
    model, why_not = _fused(trace, precision, settings.preprocessing.input_size, brief)
    if why_not:
        model = prepared(trace, precision, fused=False)
        logger.info(json.dumps({"event": "not fused", "why": why_not}))
    if precision.stored and not products.multiplies_int8():
        rule += "; multiplied in fp32, as this CPU has no VNNI"
    elif precision.stored:
        layers = len(model.graph.findAllNodes(products.PRODUCT))
        rule += f"; {layers} layers multiplied in int8, attention and the others in {between().name}"
    rule += f"; not fused, as {why_not}" if why_not else "; fused by oneDNN"
    return model, Way(precision.name, not why_not, threads, rule)


def is_brief(settings: Settings) -> bool:
    """Whether a model takes so little work for an image that fixed costs count."""
    return settings.flops < BRIEF


def prepared(trace: torch.jit.ScriptModule, precision: Precision, fused: bool, brief: bool = False) -> torch.jit.ScriptModule:
    """Returns `trace` frozen and rewritten to run in `precision` on this CPU. Sets oneDNN's fusion for the process.

    In an int8 model oneDNN fuses the attention between the products, which runs at twice the speed of torch's. In fp32 it
    computes attention head by head, which costs a brief model more than it saves.
    """
    torch.jit.enable_onednn_fusion(fused)
    model = _for_cpu(trace, precision)
    if fused:
        prepare_for_fusion(model, keeps_attention=brief and precision is PRECISIONS[FALLBACK])
    elif precision.dtype in PACKED and precision.on_cpu():
        pack(model, precision.dtype)
    if not (fused and torch.cpu._is_avx512_supported()):  # there oneDNN pools as fast channel by channel
        pool_channels_last(model)
    return model


def _fused(
    trace: torch.jit.ScriptModule, precision: Precision, input_size: tuple[int, int, int], brief: bool
) -> tuple[torch.jit.ScriptModule | None, str | None]:
    """Returns the model compiled with oneDNN's fusion; and the reason if it should not run fused."""
    try:
        model = prepared(trace, precision, fused=True, brief=brief)
        pixels = torch.zeros(1, *input_size, dtype=precision.dtype)
        with torch.inference_mode():
            for _ in range(COMPILED):
                model(pixels)
    except RuntimeError as error:
        return None, f"oneDNN does not take this model ({str(error).strip().splitlines()[-1][:200]})"
    return model, why_not_fused(torch.jit.last_executed_optimized_graph())


def between() -> Precision:
    """Returns the precision between the int8 products of a model, on this CPU."""
    return next(PRECISIONS[name] for name in ("bf16", FALLBACK) if PRECISIONS[name].on_cpu())


def _for_cpu(trace: torch.jit.ScriptModule, precision: Precision) -> torch.jit.ScriptModule:
    """Returns the trace frozen in `precision`, with int8 layers in the form that this CPU multiplies."""
    model = _frozen(trace, precision)
    if precision.stored and products.multiplies_int8():
        pack_int8(model, between().dtype)
    elif precision.stored:
        unpack_int8(model)
    return model


def _frozen(trace: torch.jit.ScriptModule, precision: Precision) -> torch.jit.ScriptModule:
    """Returns the trace in `precision`, with constants folded; in int8, with the numbers of its layers as they are stored."""
    if precision is PRECISIONS[FALLBACK]:  # not TF32, whose products have only the three decimal digits of bf16
        torch.set_float32_matmul_precision("highest")
    return torch.jit.freeze(precision.cast(trace).eval(), optimize_numerics=not precision.stored)
