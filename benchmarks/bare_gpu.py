"""How near the GPU's limit the model runs without a server: images per second over batch sizes, in three ways.

    make bench-gpu
    .venv/bin/python -m benchmarks.bare_gpu --device cpu --model vit_tiny_patch16_224 --batches 1,2   # to try this out

In bf16: timm's eager model, and torch.compile of it with "max-autotune", from normalised images on the device to logits there;
the trace as the handler runs it, from uint8 images in the host's memory to probabilities there. The limit is what the device
reaches in bf16 products of 8192 x 8192 matrices, over the operations that the model needs for an image. Writes
benchmarks/results/bare-MODEL-GPU.json anew after each batch size, and prints a table.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import timm
import torch
from torch._inductor import config as inductor

from benchmarks.machine import machine, suffix
from export.flops import count_flops
from export.fold import fold
from export.preprocessing import Overrides, resolve_preprocessing
from export.trace import trace
from vit_core.machine import threads_per_worker
from vit_core.model import Model
from vit_core.settings import Explanations, Preprocessing, Settings

# Not those that the documents show: `--results benchmarks/results` replaces them.
RESULTS = Path(__file__).parent / "results" / "here"
BATCHES = tuple(1 << power for power in range(9))
EDGE = 8192
SECONDS = 1.0  # that each measurement takes at least

Run = Callable[[], object]
# Of a batch size.
Prepare = Callable[[int], Run]


@dataclass(frozen=True)
class Given:
    """What is run, and where."""

    module: torch.nn.Module
    preprocessing: Preprocessing
    flops: int  # for one image
    device: str
    largest_batch: int


def eager(given: Given) -> Prepare:
    module = given.module.to(given.device, torch.bfloat16)
    return lambda count: _of_noise(module, given, count)


def as_served(given: Given) -> Prepare:
    file = io.BytesIO()
    size = given.preprocessing.input_size
    torch.jit.save(trace(fold(given.module, size), size), file)
    file.seek(0)
    loaded = torch.jit.load(file, map_location=given.device)
    settings = Settings(given.preprocessing, ("bf16",), given.flops, Explanations(unavailable="nothing is explained here"))
    place = (torch.device(given.device), given.largest_batch, threads_per_worker(1))
    model = Model(loaded, settings, given.module.num_classes, *place)

    def prepare(count: int) -> Run:
        pixels = torch.randint(0, 256, (count, *given.preprocessing.input_size), dtype=torch.uint8)
        return lambda: model.outputs(pixels)

    return prepare


def compiled(given: Given) -> Prepare:
    module = given.module.to(given.device, torch.bfloat16)

    def prepare(count: int) -> Run:
        torch._dynamo.reset()  # of the code for the batch size before
        return _of_noise(torch.compile(module, dynamic=False, mode="max-autotune"), given, count)

    return prepare


WAYS = {"eager": eager, "the trace, as served": as_served, "torch.compile, max-autotune": compiled}


def _of_noise(module: Callable, given: Given, count: int) -> Run:
    images = torch.randn(count, *given.preprocessing.input_size, dtype=torch.bfloat16, device=given.device)
    return lambda: module(images)


def seconds(run: Run, device: str) -> float:
    """Of one call, after two that do not count: the mean of as many as take SECONDS."""
    run(), run()
    once = _elapsed(run, 1, device)
    calls = max(3, math.ceil(SECONDS / once))
    return _elapsed(run, calls, device) / calls


def _elapsed(run: Run, calls: int, device: str) -> float:
    _synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        run()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def matmul_flops(device: str) -> float:
    """Floating point operations a second in products of two EDGE x EDGE matrices of bf16."""
    left, right = (torch.randn(EDGE, EDGE, dtype=torch.bfloat16, device=device) for _ in range(2))
    return 2 * EDGE**3 / seconds(lambda: left @ right, device)


def created(model: str, device: str, largest_batch: int) -> Given:
    """A timm model with seeded random weights, on the CPU."""
    torch.manual_seed(0)
    module = timm.create_model(model).eval()
    preprocessing = resolve_preprocessing(module.pretrained_cfg, Overrides())
    return Given(module, preprocessing, count_flops(module, preprocessing.input_size), device, largest_batch)


def reserved_megabytes(run: Run) -> int:
    """Of the GPU's memory, by torch for one call: the weights, what the call needs on top, and what CUDA graphs keep."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return round(torch.cuda.max_memory_reserved() / 1e6)


def table(record: dict) -> str:
    """Images per second, with the share of the matrix product's rate, and the memory where it is a GPU's."""
    ways = record["ways"]
    lines = [f"| batch | {' | '.join(ways)} |", "| --- |" + " --- |" * len(ways)]
    for count in next(iter(ways.values())):
        cells = []
        for found in (way[count] for way in ways.values()):
            memory = f", {found['reserved_mb']} MB" if "reserved_mb" in found else ""
            cells.append(f"{found['images_per_second']:.4g}/s ({found['share_of_matmul']:.0%}{memory})")
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bare_gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_base_patch16_224", help="a timm name (default: %(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: %(default)s")
    parser.add_argument(
        "--batches",
        type=lambda text: [int(part) for part in text.split(",")],
        default=",".join(map(str, BATCHES)),
        help="sizes, with commas between them (default: %(default)s)",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="default: benchmarks/results/here")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("bench-gpu: there is no GPU here that torch can use")
    inductor.autotune_num_choices_displayed, inductor.max_autotune_report_choices_stats = 0, False  # pages of them
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"bare-{options.model}{suffix(options.device)}.json"
    limit = matmul_flops(options.device)
    given = created(options.model, options.device, max(options.batches))
    record = {
        "model": f"{options.model}, random weights, seed 0",
        "machine": machine(options.device),
        "versions": {name: version(name) for name in ("torch", "timm")},
        "gflop_per_image": round(given.flops / 1e9, 1),
        "matmul_tflops": round(limit / 1e12, 2),
        "ways": {},
    }
    for name, way in WAYS.items():
        given = created(options.model, options.device, max(options.batches))  # anew: some ways change the module
        prepare = way(given)
        found = record["ways"][name] = {}
        for count in options.batches:
            run = prepare(count)
            rate = count / seconds(run, options.device)
            found[count] = {"images_per_second": round(rate, 1), "share_of_matmul": round(rate * given.flops / limit, 3)}
            if options.device == "cuda":
                found[count]["reserved_mb"] = reserved_megabytes(run)
            path.write_text(json.dumps(record, indent=2) + "\n")
            print(f"{name}, batch {count}: {found[count]}", file=sys.stderr, flush=True)
        del given, prepare, run
        gc.collect()
    print(table(record))


if __name__ == "__main__":
    main()
