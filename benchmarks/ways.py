"""Whether the rules of `vit_core.way` take the fastest way to run a model on this CPU, or one near to it.

    .venv/bin/python -m benchmarks.ways                  # minutes; MODEL… measures others than these

Each model has random weights, since their values cost no time, and a process of its own with what `make serve` sets in its
environment. It is run in fp32 and in what else the CPU multiplies, fused by oneDNN and not, with all threads, and with
one where it is small. The rule leaves the smallest models to one thread, although more may be faster here, where no front end
wants one of the cores. Writes ways.json into benchmarks/results/here, and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks.machine import machine, others_seconds
from benchmarks.report import three_digits
from benchmarks.serving import RESULTS, ROOT
from benchmarks.ways_of_model import BATCHES
from export.sources.name import ModelName
from serve.server import ENVIRONMENT

MODELS = (
    "local-dir:examples/digits",
    "vit_tiny_patch16_224",
    "vit_base_patch16_224",
    "deit3_small_patch16_224",
    "eva02_small_patch14_224",
    "vit_small_patch16_dinov3",
    "beitv2_base_patch16_224",
    "swin_tiny_patch4_window7_224",
    "convnext_tiny",
    "resnet50",
    "mobilenetv3_large_100",
    "vit_tiny_r_s16_p8_224",
    "mvitv2_tiny",
)
JUDGED = str(max(BATCHES))  # the batch size at which ways are compared
RULE = ("precision", "fused", "threads")  # what the rule decides


def measured(model: str) -> dict:
    """The figures of one model, and how busy other programs kept the machine meanwhile."""
    command = [sys.executable, "-m", "benchmarks.ways_of_model", model]
    begun, others = time.perf_counter(), others_seconds()
    ended = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT | os.environ, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        sys.exit(f"ways: {model} could not be measured")
    busy = (others_seconds() - others) / (time.perf_counter() - begun)
    return {**judged(json.loads(ended.stdout.splitlines()[-1])), "cores_used_by_others": round(busy, 3)}


def judged(found: dict) -> dict:
    """What `ways_of_model` has found, and how the rule's way compares with the fastest."""
    ways = [each for each in found["ways"] if "ms" in each]
    taken = next(each for each in ways if all(each[key] == found["rule"][key] for key in RULE))
    fastest = min(ways, key=_milliseconds)
    return {
        "gflop_per_image": found["gflop_per_image"],
        "rule": {"way": name_of(taken), "why": found["rule"]["rule"], "ms": _milliseconds(taken)},
        "fastest": {"way": name_of(fastest), "ms": _milliseconds(fastest)},
        "ratio": round(_milliseconds(taken) / _milliseconds(fastest), 2),
        "ways": found["ways"],
    }


def name_of(way: dict) -> str:
    return f"{_arithmetic(way)}, {_threads(way)}"


def table(models: dict[str, dict]) -> str:
    """Milliseconds of each way, the rule's in bold, and how many times those of the fastest way the rule's are."""
    columns = dict.fromkeys(_arithmetic(way) for found in models.values() for way in found["ways"])
    lines = [f"| ms at batch {JUDGED} | {' | '.join(columns)} | rule, times the fastest |", f"|{' --- |' * (len(columns) + 2)}"]
    for model, found in models.items():
        rows: dict[str, dict[str, str]] = {}
        for way in found["ways"]:
            text = three_digits(_milliseconds(way)) if "ms" in way else "fails"
            bold = "**" * (name_of(way) == found["rule"]["way"])
            rows.setdefault(_threads(way), {})[_arithmetic(way)] = f"{bold}{text}{bold}"
        for threads, cells in rows.items():
            ratio = f"{found['ratio']:.2f}" if any("**" in cell for cell in cells.values()) else ""
            lines.append(f"| {model}, {threads} | {' | '.join(cells.get(column, '') for column in columns)} | {ratio} |")
    return "\n".join(lines)


def _milliseconds(way: dict) -> float:
    return way["ms"][JUDGED]


def _arithmetic(way: dict) -> str:
    return f"{way['precision']}{', fused' * way['fused']}"


def _threads(way: dict) -> str:
    return f"{way['threads']} thread{'s' * (way['threads'] > 1)}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ways", description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL", help="timm names (default: those of the results)")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="default: benchmarks/results/here")
    options = parser.parse_args()
    models = {}
    for model in options.models:
        found = models[ModelName.parse(model).short] = measured(model)
        print(f"{model}: {found['rule']}, fastest {found['fastest']}", file=sys.stderr, flush=True)
    record = {
        "command": " ".join(["python -m benchmarks.ways", *(options.models if options.models != MODELS else ())]),
        "weights": "random, seed 0",
        "machine": machine("cpu"),
        "versions": {name: version(name) for name in ("torch", "timm")},
        f"rule and fastest, ms at batch {JUDGED}": models,
    }
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "ways.json").write_text(json.dumps(record, indent=2) + "\n")
    print(table(models))


if __name__ == "__main__":
    main()
