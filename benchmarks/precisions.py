"""The model alone in fp32, bf16 and int8, each beside its peers in the same precision, in turns in one run.

    python -m benchmarks.precisions [MODEL]      # minutes; vit_base_patch16_224 with seeded random weights else
    python -m benchmarks.precisions MODEL --alone    # without its peers

Each precision is an archive that is exported in it and run as a worker runs it, in a process of its own. OpenVINO runs its
trace, or for int8 the eager model after NNCF's quantization; ONNX Runtime runs fp32 alone. All are paused but the one that is
measured.
Writes precisions-MODEL.json into benchmarks/results/here, and prints a table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks import peers, subject
from benchmarks.machine import cpu_multiplies, machine, others_seconds
from benchmarks.names import ALONE, ONNX, OPENVINO
from benchmarks.report import three_digits
from benchmarks.serving import BATCH, RESULTS, ROOT
from benchmarks.turns import exit_on_signals
from vit_core.precision import PRECISIONS

NAMES = ("fp32", "bf16", "int8")
ROUNDS, SECONDS = 24, 0.5  # short turns, as a machine that others use is fast at one time and slow at another


def started(model: str, alone: bool, folder: Path, stack: contextlib.ExitStack) -> dict[tuple[str, str], peers.Bare]:
    """(precision, name) → its process, for all that runs here; with `alone`, only the model's."""
    found = {}
    for precision in NAMES:
        if not cpu_multiplies(PRECISIONS[precision]):
            continue
        store = folder / precision
        store.mkdir()
        exported = subject.from_timm(model, BATCH, 1, precision, store)
        beside = () if alone else (OPENVINO, ONNX) if precision == "fp32" else (OPENVINO,)
        for name in (ALONE, *beside):
            print(f"starting {name} in {precision}", file=sys.stderr, flush=True)
            try:
                found[precision, name] = stack.enter_context(peers.bare(name, exported, precision, "cpu"))
            except peers.LeftOut as reason:
                print(f"left out: {reason}", file=sys.stderr, flush=True)
    return found


def measured(contenders: dict[tuple[str, str], peers.Bare], rounds: int) -> dict:
    """Images a second of each by batch size: the median of the rounds, in which they take turns."""
    rates: dict[tuple, dict[int, list[float]]] = {}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for key, peer in contenders.items():
            with peer.turn:
                for count in (1, BATCH):
                    rates.setdefault(key, {}).setdefault(count, []).append(peer.per_second(count, SECONDS))
    return {
        f"{name}, {precision}": {
            "runs_in": contenders[precision, name].runs_in,
            **{f"batch {count}": round(statistics.median(each), 2) for count, each in found.items()},
        }
        for (precision, name), found in rates.items()
    }


def table(found: dict) -> str:
    lines = [f"| images/s | batch 1 | batch {BATCH} |", "| --- | --- | --- |"]
    for name, each in found.items():
        lines.append(f"| {name} | {three_digits(each['batch 1'])} | {three_digits(each[f'batch {BATCH}'])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precisions", description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="vit_base_patch16_224", help="a timm name (default: %(default)s)")
    parser.add_argument("--alone", action="store_true", help="leave out its peers")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="default: benchmarks/results/here")
    options = parser.parse_args()
    exit_on_signals()
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        contenders = started(options.model, options.alone, Path(folder), stack)
        begun, others = time.perf_counter(), others_seconds()
        found = measured(contenders, options.rounds)
        busy = round((others_seconds() - others) / (time.perf_counter() - begun), 3)
    record = {
        "model": f"{options.model}, random weights, seed 0",
        "command": f"python -m benchmarks.precisions {options.model}{' --alone' * options.alone} --rounds {options.rounds}",
        "machine": {**machine("cpu"), "cores_used_by_others": busy},
        "versions": {name: version(name) for name in ("torch", "timm", "openvino", "nncf", "onnxruntime")},
        "images_per_second": found,
    }
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / f"precisions-{options.model}.json").write_text(json.dumps(record, indent=2) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
