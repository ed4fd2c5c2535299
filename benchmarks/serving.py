"""This project beside what people would use in its place: same weights, pictures, clients and machine, in one run.

    make bench                                   # vit_base_patch16_224 with seeded random weights: their values cost no time
    make bench MODEL=vit_small_patch16_224
    make bench MODEL=model_store/xray.mar        # an archive of yours; what needs more than its trace is left out
    make bench-gpu                               # batches of 64, up to 256 clients, three workers each

Served: this project; TorchServe's `image_classifier` on the same trace; LitServe with timm's eager model in the same precision,
and with the trace; and, for what the front end costs, TorchServe with a handler that does nothing.
In process, no server: the archive's model as the handler runs it; OpenVINO from the trace, ONNX Runtime and torch.compile from
the eager model. Each is a process of its own, and all are paused but the one that is measured. Rounds alternate between them,
so that a drift of the machine meets all alike; rates are medians of the rounds, percentiles are of the answers of all rounds.
Writes serving-MODEL.json, .png and -stages.png (where a request's time goes) into benchmarks/results/here, and prints tables.
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
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks import peers, report, stages, subject
from benchmarks.load import Load, percentile, photographs, post
from benchmarks.machine import machine, others_seconds, suffix
from benchmarks.names import ALONE, COMPILED, ONNX, OPENVINO, OURS
from benchmarks.turns import exit_on_signals
from export.options import AUTO
from vit_core.precision import FALLBACK, PRECISIONS
from vit_core.way import Way

ROOT = Path(__file__).resolve().parent.parent
# Not those that the documents show: `--results benchmarks/results` replaces them.
RESULTS = Path(__file__).parent / "results" / "here"
BATCH = 8
ROUNDS = 2
SECONDS = 5
CLIENTS = (1, 8, 16, 32)
PACKAGES = ("torch", "timm", "torchserve", "litserve", "openvino", "nncf", "onnxruntime", "pillow")
WAY = ("device", *(each.name for each in fields(Way)))  # what is noted of how the served worker runs the model


@dataclass(frozen=True)
class Contenders:
    """What is measured, by name, and why the rest is not."""

    served: dict[str, peers.Served]
    bare: dict[str, peers.Bare]
    left_out: dict[str, str]
    device: str
    ours_runs_in: dict


class Measured:
    """The figures of all rounds."""

    def __init__(self):
        self.loads: dict[str, dict[int, list[Load]]] = {}
        self.rates: dict[str, dict[int, list[float]]] = {}
        self.counted: dict[int, Counter[str]] = {}
        self.others: list[float] = []  # cores that other programs kept busy, in each round

    def bare(self, name: str, peer: peers.Bare, count: int, seconds: float) -> None:
        rate = peer.per_second(count, seconds)
        self.rates.setdefault(name, {}).setdefault(count, []).append(rate)
        _say(f"{name}, batch {count}: {rate:.1f} images/s")

    def served(self, name: str, server: peers.Served, clients: int, seconds: float) -> None:
        before = server.counters() if server.counters else None
        load = post(server.url, server.headers, server.bodies, clients, seconds)
        if load.errors:
            sys.exit(f"bench: {name} did not answer {load.errors} requests of {clients} clients")
        if server.counters:
            self.counted.setdefault(clients, Counter()).update(stages.gained(before, server.counters()))
        self.loads.setdefault(name, {}).setdefault(clients, []).append(load)
        _say(f"{name}, {clients} clients: {load.per_second:.1f} images/s")

    def results(self, contenders: Contenders, model: subject.Subject) -> dict:
        """The figures, and what follows from them."""
        served = {name: {count: _summary(loads) for count, loads in each.items()} for name, each in self.loads.items()}
        bare = {
            name: {
                "runs_in": contenders.bare[name].runs_in,
                **{f"batch {count}": _median(rates) for count, rates in each.items()},
            }
            for name, each in self.rates.items()
        }
        workers = model.serving.min_workers
        seconds = {count: workers * sum(load.span for load in loads) for count, loads in self.loads[OURS].items()}
        counted = self.counted.items()
        return {
            "served": served,
            "in_process": bare,
            "stages_ms_per_image": {count: stages.milliseconds_per_image(each, seconds[count]) for count, each in counted},
            "mean_batch_size": {count: stages.mean_batch_size(each) for count, each in counted},
            "queue_ms_per_request": {count: stages.queue_milliseconds(each) for count, each in counted},
            "ratios": report.ratios(served, bare, model.serving.batch_size),
        }


def measure(contenders: Contenders, batch: int, options: argparse.Namespace) -> Measured:
    measured = Measured()
    for number in range(options.rounds):
        _say(f"round {number + 1} of {options.rounds}")
        begun, others = time.perf_counter(), others_seconds()
        for name, peer in contenders.bare.items():
            with peer.turn:
                for count in sorted({1, batch}):
                    measured.bare(name, peer, count, options.seconds / 2)
        for clients in options.clients:
            for name, server in contenders.served.items():
                with server.turn:
                    measured.served(name, server, clients, options.seconds)
        measured.others.append(round((others_seconds() - others) / (time.perf_counter() - begun), 3))
    return measured


def _summary(loads: list[Load]) -> dict:
    latencies = [latency for load in loads for latency in load.latencies]
    return {
        "images_per_second": _median([load.per_second for load in loads]),
        "images_per_second_of_rounds": [round(load.per_second, 2) for load in loads],
        "p50_ms": round(1e3 * percentile(latencies, 0.5), 1),
        "p99_ms": round(1e3 * percentile(latencies, 0.99), 1),
    }


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 2)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _numbers(text: str) -> list[int]:
    return sorted({int(part) for part in text.split(",")})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.splitlines()[0])
    parser.add_argument(
        "model", nargs="?", default="vit_base_patch16_224", help="a timm name or an archive.mar (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        help="for each server and number of clients, in each round (default: %(default)s)",
    )
    parser.add_argument("--batch-size", type=int, help=f"images at once (default: {BATCH}, or the archive's own)")
    parser.add_argument("--workers", type=int, help="processes of each server (default: 1, or the archive's own)")
    parser.add_argument("--precision", choices=(AUTO, *PRECISIONS), default=AUTO, help="for a timm name (default: auto)")
    clients = ",".join(map(str, CLIENTS))
    parser.add_argument(
        "--clients", type=_numbers, default=clients, help="how many at once, with commas (default: %(default)s)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="default: benchmarks/results/here")
    return parser.parse_args()


@contextlib.contextmanager
def everything(options: argparse.Namespace, model: subject.Subject) -> Iterator[Contenders]:
    """All that can be measured here with this model, started one after the other and paused."""
    with contextlib.ExitStack() as stack:
        bodies = photographs()
        _say("starting TorchServe")
        served, described = stack.enter_context(peers.torchserve(model, bodies, max(options.clients)))
        device = torch.device(described["device"]).type
        # The peers begin with the eager model, and have no trace that is in another precision already.
        precision = FALLBACK if PRECISIONS[described["precision"]].stored else described["precision"]
        missing, bare = peers.left_out(model, device), {}
        for name in peers.LITSERVES:
            if name not in missing:
                _say(f"starting {name}")
                served[name] = stack.enter_context(peers.litserve(name, model, bodies, precision, device))
        for name in (ALONE, OPENVINO, ONNX, COMPILED):
            if name not in missing:
                _say(f"starting {name}")
                try:
                    bare[name] = stack.enter_context(peers.bare(name, model, precision, device))
                except peers.LeftOut as reason:
                    missing[name] = str(reason)
        runs_in = {"workers": model.serving.min_workers, **{key: described[key] for key in WAY}}
        yield Contenders(served, bare, missing, device, runs_in)


def main() -> None:
    options = parse()
    os.chdir(ROOT)
    exit_on_signals()
    with tempfile.TemporaryDirectory() as folder:
        if options.model.endswith(".mar"):
            model = subject.from_archive(Path(options.model), options.batch_size, options.workers, Path(folder))
        else:
            model = subject.from_timm(
                options.model, options.batch_size or BATCH, options.workers or 1, options.precision, Path(folder)
            )
        with everything(options, model) as contenders:
            measured = measure(contenders, model.serving.batch_size, options)
        record = {
            "model": model.origin,
            "command": command(options),
            "machine": {**machine(contenders.device), "cores_used_by_others": measured.others},
            "versions": {name: version(name) for name in PACKAGES},
            "batch_size": model.serving.batch_size,
            "ours_runs_in": contenders.ours_runs_in,
            "stock_handler": subject.stock_handler(model),
            **measured.results(contenders, model),
            "left_out": contenders.left_out,
        }
    options.results.mkdir(parents=True, exist_ok=True)
    kind = "" if options.precision == AUTO else f"-{options.precision}"
    path = options.results / f"serving-{model.name}{kind}{suffix(contenders.device)}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    report.plot(record, path.with_suffix(".png"))
    report.plot_stages(record, path.with_name(f"{path.stem}-stages.png"))
    print(report.tables(record))
    _say(f"written to {path}")


def command(options: argparse.Namespace) -> str:
    """What was called, without the folders of this machine."""
    called = ["python -m benchmarks.serving", Path(options.model).name if options.model.endswith(".mar") else options.model]
    called += [f"--rounds {options.rounds}", f"--seconds {options.seconds:g}"]
    called += [f"--precision {options.precision}"] if options.precision != AUTO else []
    called += [f"--batch-size {options.batch_size}"] if options.batch_size else []
    called += [f"--workers {options.workers}"] if options.workers else []
    return " ".join([*called, f"--clients {','.join(map(str, options.clients))}"])


if __name__ == "__main__":
    main()
