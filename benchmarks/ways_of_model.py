"""One model in each way that a CPU can run it, in a process of its own: see `ways`.

    python -m benchmarks.ways_of_model MODEL

The last line of stdout is JSON: the operations for an image, the way that the rule takes, and for each way the milliseconds of
a call by batch size, or why it fails.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
import warnings
from dataclasses import asdict

import timm
import torch

from benchmarks.machine import cpu_multiplies
from export.flops import count_flops
from export.fold import fold
from export.preprocessing import Overrides, resolve_preprocessing
from export.trace import trace
from vit_core.machine import threads_per_worker
from vit_core.memory import keep_freed_memory
from vit_core.precision import AUTO, FALLBACK, PRECISIONS
from vit_core.settings import Explanations, Settings
from vit_core.way import BRIEF, COMPILED, prepared, take_way

CPU = torch.device("cpu")
BATCHES = (1, 8)
ONE_THREAD = 1_000_000_000  # operations for an image: a model of fewer is run on one thread too
CALLS, LEAST_CALLS, SECONDS = 10, 2, 1.0  # that count: as many as fit into the seconds, within these bounds


def measure(name: str) -> dict:
    torch.set_flush_denormal(True)  # before torch starts its threads, as in `Model`
    torch.manual_seed(0)
    module = timm.create_model(name).eval()
    preprocessing = resolve_preprocessing(module.pretrained_cfg, Overrides())
    size = preprocessing.input_size
    flops, all_threads = count_flops(module, size), threads_per_worker(1)
    traced = trace(fold(module, size), size)
    keep_freed_memory()
    candidates = [each for each in map(PRECISIONS.get, (FALLBACK, *AUTO)) if cpu_multiplies(each)]
    numbers = dict.fromkeys((all_threads, 1)) if flops < ONE_THREAD else (all_threads,)
    ways, failed = [], set()
    for threads, precision, fused in itertools.product(numbers, candidates, (False, True)):
        torch.set_num_threads(threads)
        try:
            model = prepared(traced, precision, fused, flops < BRIEF)
            found = {"ms": {n: _milliseconds(model, torch.zeros(n, *size, dtype=precision.dtype)) for n in BATCHES}}
        except RuntimeError as error:
            found = {"fails": str(error).strip().splitlines()[-1][:200]}
            failed |= set() if fused else {precision.name}
        ways.append({"precision": precision.name, "fused": fused, "threads": threads, **found})
    allowed = tuple(name for name in (*AUTO, FALLBACK) if name not in failed)  # the export step leaves out what fails
    settings = Settings(preprocessing, allowed, flops, Explanations(unavailable="nothing is explained here"))
    _, way = take_way(traced, settings, CPU, all_threads)
    return {"gflop_per_image": round(flops / 1e9, 3), "rule": asdict(way), "ways": ways}


@torch.inference_mode()
def _milliseconds(model: torch.jit.ScriptModule, pixels: torch.Tensor) -> float:
    """Of the fastest call: what else the machine does only makes a call slower."""
    for _ in range(COMPILED):
        model(pixels)
    times: list[float] = []
    while len(times) < LEAST_CALLS or (len(times) < CALLS and sum(times) < SECONDS):
        start = time.perf_counter()
        model(pixels)
        times.append(time.perf_counter() - start)
    return round(1e3 * min(times), 2)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of a trace that is cast
    print(json.dumps(measure(sys.argv[1])))
