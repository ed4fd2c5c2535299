"""How a device runs the model fastest: the number format, and whether oneDNN fuses operators. Tried out when a worker loads."""

from __future__ import annotations

import copy
import json
import logging
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from vit_fusion import prepare_for_fusion
from vit_siblings import agree, noted

logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}
# Seconds in which a call for one image counts as short. Whether bf16 pays is open for a small model alone, and trying out full
# batches of a large one would make its worker late.
SHORT = 0.02
# Seconds below which a call for one image is left to one thread. Threads of OpenMP meet at the end of each operator; one that
# is late, because the front end has its core or because it slept, costs more than it brings.
BRIEF = 0.005
# How often the ways of such a model are tried again, in turns: its calls are over sooner than a moment in which something else
# on this machine, or on its host, slows all down.
TURNS = 3
# How much slower than the fastest a way may be and still be taken, if it is nearer to fp32 or simpler.
NEAR = 1.05


@dataclass(frozen=True)
class Way:
    """One way to run the model."""

    precision: str  # fp32, bf16, fp16, or int8: then the trace itself is int8 inside
    fused: bool  # by oneDNN, on CPUs


def native_precisions(precisions: list[str], device: torch.device) -> list[str]:
    """Those of `precisions` that `device` multiplies natively, or the last one if there are none.

    `precisions` is the archive's: those that were found near enough to fp32, or the one that its maker asked for.
    """
    return [precision for precision in precisions if _is_native(precision, device)] or precisions[-1:]


def fastest(
    trace: torch.jit.ScriptModule,
    precisions: list[str],
    device: torch.device,
    input_size: tuple[int, int, int],
    batch_size: int,
    folder: Path | None = None,
) -> tuple[torch.jit.ScriptModule, Way]:
    """`trace` (fp32) cast, frozen and run in, in the way that is fastest on `device`, and which way that is.

    On a GPU that is the first precision. On a CPU each is tried, with and without fusion, by running it: fusion makes some
    models faster, some twice as slow, and fails on others; bf16 slows down a model of few channels. What fails is left out.
    Of ways that are as fast, fp32 is taken before bf16, and what is not fused before what is. A model that one thread runs
    in a few milliseconds is left to one: torch's number of threads is 1 afterwards.

    What the first worker finds is noted in `folder`, that of the unpacked archive: the others do as it does, so that all answer
    alike, and are ready sooner.
    """
    native = native_precisions(precisions, device)
    if device.type != "cpu":
        return cast(trace, native[0]), Way(native[0], fused=False)
    models, agreed = {}, noted(folder) if folder else None
    if agreed is None:
        models, seconds = _tried(trace, native, input_size, batch_size)
        own = {**asdict(_best(seconds)), "threads": torch.get_num_threads()}
        agreed = agree(folder, own) if folder else own
    torch.set_num_threads(agreed.pop("threads"))
    way = Way(**agreed)
    if way not in models:
        models[way] = _prepared(trace, way)
        _seconds(models[way], way, (1, *input_size))  # TorchScript compiles in its first calls
    torch.jit.enable_onednn_fusion(way.fused)  # applies to shapes that are yet to come, too
    return models[way], way


def _best(seconds: dict[Way, float]) -> Way:
    limit = NEAR * min(seconds.values())
    order = ["fp32", "int8", "bf16", "fp16"]
    return min((way for way in seconds if seconds[way] <= limit), key=lambda way: (order.index(way.precision), way.fused))


def _tried(
    trace: torch.jit.ScriptModule, precisions: list[str], input_size: tuple[int, int, int], batch_size: int
) -> tuple[dict[Way, torch.jit.ScriptModule], dict[Way, float]]:
    """For each way that works its model, and the seconds of a call: for one image, or a full batch where the model is small."""
    models, seconds, shape, small, brief = {}, {}, (1, *input_size), False, False
    for number, way in enumerate(_ways(precisions)):
        try:
            model = _prepared(trace, way)
            took = _seconds(model, way, shape)
            if number == 0 and (small := took < SHORT):
                if brief := took < BRIEF:
                    _leave_to_one_thread(model, way, shape)
                shape = (batch_size, *input_size)
                took = _seconds(model, way, shape)
            seconds[way], models[way] = took, model
        except RuntimeError as error:
            logger.info(json.dumps({"event": "left out", "precision": way.precision, "fused": way.fused, "why": _line(error)}))
        if seconds and not small and way.fused:
            break  # the precisions that are left are not going to be as fast
    for way in [*seconds] * (TURNS if brief else 0):
        seconds[way] = min(seconds[way], _seconds(models[way], way, shape))
    milliseconds = {f"{way.precision}{' fused' if way.fused else ''}": round(1e3 * seconds[way], 1) for way in seconds}
    threads = torch.get_num_threads()
    logger.info(json.dumps({"event": "tried", "images": shape[0], "threads": threads, "milliseconds": milliseconds}))
    return models, seconds


def cast(trace: torch.jit.ScriptModule, precision: str) -> torch.jit.ScriptModule:
    """A copy of `trace` (fp32, or int8 inside) with its weights in `precision`, frozen: what is constant is computed once."""
    if precision == "fp32":  # TorchServe allows TF32 on GPUs, which has bf16's product of three decimal digits
        torch.set_float32_matmul_precision("highest")
    if DTYPES[precision] != torch.float32:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of gradients, which nothing here has
            trace = copy.deepcopy(trace).to(DTYPES[precision])
    return torch.jit.freeze(trace.eval())


def _prepared(trace: torch.jit.ScriptModule, way: Way) -> torch.jit.ScriptModule:
    torch.jit.enable_onednn_fusion(way.fused)
    model = cast(trace, way.precision)
    if way.fused:
        prepare_for_fusion(model)
    return model


def _ways(precisions: list[str]) -> Iterator[Way]:
    for precision in precisions:
        yield Way(precision, fused=False)
        yield Way(precision, fused=True)


def _leave_to_one_thread(model: torch.jit.ScriptModule, way: Way, shape: tuple[int, ...]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    if _seconds(model, way, shape) >= BRIEF:
        torch.set_num_threads(threads)


@torch.inference_mode()
def _seconds(model: torch.jit.ScriptModule, way: Way, shape: tuple[int, ...]) -> float:
    """The least time of two to eight calls (up to 0.3 s of them), after those in which TorchScript profiles and compiles."""
    pixels = torch.zeros(shape, dtype=DTYPES[way.precision])
    times = []
    while len(times) < 4 or (len(times) < 10 and sum(times[2:]) < 0.3):
        start = time.perf_counter()
        model(pixels)
        times.append(time.perf_counter() - start)
    return min(times[2:])


def _is_native(precision: str, device: torch.device) -> bool:
    if device.type == "cuda":
        least = {"fp32": (0, 0), "fp16": (7, 0), "bf16": (8, 0)}  # compute capability
        return precision in least and torch.cuda.get_device_capability(device) >= least[precision]
    if precision == "bf16":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return precision in ("fp32", "int8")


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:200]
