"""This project beside what people would use in its place: same weights, pictures, clients and machine, in one run.

    make bench                                   # vit_base_patch16_224 with seeded random weights: their values cost no time
    make bench MODEL=vit_small_patch16_224

Served: this project; TorchServe's `image_classifier` on the same trace; LitServe with timm's eager model, in bf16 where that is
faster. In process, batches of the same size, no server: the archive's model as the handler runs it; OpenVINO. Rounds alternate
between them, so that a drift of the machine meets all alike; the figures are medians of the rounds. Writes
benchmarks/results/serving-MODEL.json and .png, and prints a table.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.load import Load, post
from export.__main__ import main as export
from serve.server import Server
from serve.settings import free_ports

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results"
BATCH = 8
ROUNDS = 3
SECONDS = 8
CLIENTS = (1, 8, 32)
OURS, STOCK, LITSERVE = "this project", "TorchServe image_classifier", "LitServe"
BARE, OPENVINO = "its model alone", "OpenVINO bf16"


@dataclass(frozen=True)
class Served:
    """A server that takes `bodies` at `url`."""

    url: str
    headers: dict[str, str]
    bodies: list[bytes]


def photographs() -> list[bytes]:
    """Sixteen parts of scikit-learn's two photographs, 500 x 375, as JPEG files."""
    files = []
    for image in map(Image.fromarray, load_sample_images().images):
        for x, y in ((x, y) for x in (0, 40, 90, 140) for y in (0, 50)):
            buffer = io.BytesIO()
            image.crop((x, y, x + 500, y + 375)).save(buffer, "JPEG", quality=90)
            files.append(buffer.getvalue())
    return files


def build(model: str, store: Path) -> timm.models.VisionTransformer:
    """ours.mar, and stock.mar with the same trace; returns the eager model."""
    torch.manual_seed(0)
    module = timm.create_model(model).eval()
    torch.save(module.state_dict(), store / "weights.pth")
    arguments = [model, "--checkpoint", str(store / "weights.pth"), "--batch-size", str(BATCH), "--model-store", str(store)]
    if export([*arguments, "--model-name", "ours"]):
        sys.exit("the export failed")
    with zipfile.ZipFile(store / "ours.mar") as archive:
        archive.extractall(store / "unpacked")
    settings = f"minWorkers: 1\nmaxWorkers: 1\nbatchSize: {BATCH}\nmaxBatchDelay: 10\nresponseTimeout: 300\n"
    (store / "unpacked" / "stock.yaml").write_text(settings)
    command = [sys.executable, "-m", "model_archiver.model_packaging", "--model-name", "stock", "--version", "1.0"]
    command += ["--handler", "image_classifier", "--serialized-file", "model.pt", "--config-file", "stock.yaml"]
    command += ["--extra-files", "index_to_name.json", "--export-path", str(store)]
    subprocess.run(command, cwd=store / "unpacked", check=True)
    return module


@contextlib.contextmanager
def torchserve(store: Path, bodies: list[bytes]) -> Iterator[tuple[dict[str, Served], dict]]:
    """Both archives in one server; and what the worker of ours says of itself."""
    server = Server(store / "run")
    client = server.start(ROOT / "config.properties", store, free_ports())
    try:
        for name in ("ours", "stock"):
            client.register(f"{name}.mar")
        headers = {"Authorization": f"Bearer {client.token('inference')}", "Content-Type": "image/jpeg"}
        urls = {name: f"{client.inference}/predictions/{archive}" for name, archive in ((OURS, "ours"), (STOCK, "stock"))}
        yield {name: Served(url, headers, bodies) for name, url in urls.items()}, client.describe("ours")["customizedMetadata"]
    finally:
        server.stop()


@contextlib.contextmanager
def litserve(model: str, store: Path, classes: int, precision: str, bodies: list[bytes]) -> Iterator[Served]:
    port = free_ports()["port"]
    command = [sys.executable, "-m", "benchmarks.litserve_peer", model, str(store / "weights.pth"), str(classes), precision]
    with (store / "litserve.log").open("w") as log:
        process = subprocess.Popen([*command, str(port), str(BATCH)], cwd=ROOT, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"LitServe did not start: {(store / 'litserve.log').read_text()[-500:]}")
            time.sleep(0.5)
        payloads = [json.dumps({"image": base64.b64encode(body).decode()}).encode() for body in bodies]
        yield Served(f"http://127.0.0.1:{port}/predict", {"Content-Type": "application/json"}, payloads)
    finally:
        process.terminate()
        process.wait(timeout=60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


def in_process(store: Path, module: torch.nn.Module) -> dict[str, Callable[[int], None]]:
    """name → runs a batch of so many images."""
    sys.path.insert(0, str(ROOT / "handler"))
    import openvino
    import yaml

    from vit_model import Model

    config = yaml.safe_load((store / "unpacked" / "model-config.yaml").read_text())["handler"]
    trace = torch.jit.load(store / "unpacked" / "model.pt")
    mean, std, size = config["mean"], config["std"], tuple(config["input_size"])
    model = Model(trace, torch.device("cpu"), config["precision"], size, mean, std, BATCH)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (BATCH, *size), np.uint8))

    converted = openvino.convert_model(module, example_input=torch.randn(BATCH, *size), input=[-1, *size])
    hint = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": "1"}
    compiled = openvino.Core().compile_model(converted, "CPU", hint)
    noise = np.random.default_rng(0).standard_normal((BATCH, *size), np.float32)
    return {BARE: lambda count: model.probabilities(pixels[:count]), OPENVINO: lambda count: compiled(noise[:count])}


def per_second(run: Callable[[int], None], count: int, seconds: float) -> float:
    """Images a second in batches of `count`."""
    run(count)
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        run(count)
        done += count
    return done / (time.perf_counter() - start)


def measure(served: dict[str, Served], local: dict[str, Callable], rounds: int, seconds: float) -> dict:
    loads: dict[str, dict[int, list[Load]]] = {name: {clients: [] for clients in CLIENTS} for name in served}
    rates: dict[str, dict[int, list[float]]] = {name: {1: [], BATCH: []} for name in local}
    for number in range(rounds):
        for name, run in local.items():
            for count in (1, BATCH):
                rates[name][count].append(per_second(run, count, seconds / 2))
        for clients in CLIENTS:
            for name, each in served.items():
                load = post(each.url, each.headers, each.bodies, clients, seconds)
                if load.errors:
                    sys.exit(f"{name} did not answer {load.errors} requests")
                loads[name][clients].append(load)
                print(
                    f"round {number + 1}: {name}, {clients} clients: {load.per_second:.1f} images/s",
                    file=sys.stderr,
                    flush=True,
                )
    middle = statistics.median
    return {
        "served": {
            name: {
                clients: {
                    "images_per_second": round(middle(load.per_second for load in found), 2),
                    "p50_ms": round(1e3 * middle(load.percentile(0.5) for load in found), 1),
                    "p99_ms": round(1e3 * middle(load.percentile(0.99) for load in found), 1),
                }
                for clients, found in by_clients.items()
            }
            for name, by_clients in loads.items()
        },
        "in_process": {
            name: {f"batch {count}": round(middle(found), 2) for count, found in by_count.items()}
            for name, by_count in rates.items()
        },
    }


def table(results: dict) -> str:
    """The results as Markdown."""
    lines = [
        f"| served, images/s (p99 ms) | {' | '.join(f'{clients} clients' for clients in CLIENTS)} |",
        "| --- |" + " --- |" * len(CLIENTS),
    ]
    for name, found in results["served"].items():
        cells = [f"{found[clients]['images_per_second']} ({found[clients]['p99_ms']:.0f})" for clients in CLIENTS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"| in process, images/s | batch 1 | batch {BATCH} |", "| --- | --- | --- |"]
    lines += [f"| {name} | {found['batch 1']} | {found[f'batch {BATCH}']} |" for name, found in results["in_process"].items()]
    return "\n".join(lines)


def plot(results: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6))
    for name, found in results["served"].items():
        left.plot(CLIENTS, [found[clients]["images_per_second"] for clients in CLIENTS], marker="o", label=name)
        right.plot(CLIENTS, [found[clients]["p99_ms"] / 1e3 for clients in CLIENTS], marker="o", label=name)
    left.axhline(results["in_process"][BARE][f"batch {BATCH}"], linestyle=":", color="grey", label=f"{BARE}, batch {BATCH}")
    left.set(xlabel="clients", ylabel="images per second", ylim=(0, None))
    right.set(xlabel="clients", ylabel="99 % are answered within, s", yscale="log")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(CLIENTS, CLIENTS)
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="vit_base_patch16_224", help="a timm name (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each server and number of clients, in each round")
    options = parser.parse_args()
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        store, bodies = Path(folder), photographs()
        module = build(options.model, store)
        served, described = stack.enter_context(torchserve(store, bodies))
        precision = "bf16" if described["precision"] == "bf16" else "fp32"
        served[LITSERVE] = stack.enter_context(litserve(options.model, store, module.num_classes, precision, bodies))
        measured = measure(served, in_process(store, module), options.rounds, options.seconds)
    packages = ("torch", "timm", "torchserve", "litserve", "openvino", "pillow")
    record = {
        "model": f"{options.model}, random weights, seed 0",
        "command": f"python -m benchmarks.serving {options.model} --rounds {options.rounds} --seconds {options.seconds:g}",
        "machine": {"processor": processor(), "cores": len(os.sched_getaffinity(0))},
        "versions": {name: version(name) for name in packages},
        "ours_runs_in": {key: described[key] for key in ("precision", "fused", "threads")},
        "litserve_runs_in": precision,
        **measured,
    }
    path = RESULTS / f"serving-{options.model}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    plot(measured, path.with_suffix(".png"))
    print(table(measured))


if __name__ == "__main__":
    main()
