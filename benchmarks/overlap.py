"""How many workers keep a GPU busy: measured without one, on a device that only takes its time (`pretended_gpu`).

    .venv/bin/python -m benchmarks.overlap

All else is real: TorchServe, the handler, 500 x 375 JPEGs, the clients. Numbers of workers alternate over the rounds, and rates
are medians of these. Writes benchmarks/results/overlap.json and prints a table.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks import subject
from benchmarks.load import photographs, post
from benchmarks.machine import machine
from export.options import AUTO
from serve.server import Server
from serve.settings import free_ports
from vit_core.archive import TRACE

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results" / "overlap.json"
MODEL, NAME, BATCH = "vit_tiny_patch16_224", "pretended-gpu", 64
DEVICE_SECONDS = {"call": 0.002, "image": 0.004}
WORKERS, CLIENTS, ROUNDS, SECONDS = (1, 2, 3, 4), (1, 16, 64, 256), 2, 4


def packed(store: Path) -> str:
    """The archive of a model that is not run."""
    model = subject.from_timm(MODEL, BATCH, 1, AUTO, store)
    beside = store / "beside"  # the archiver takes what a folder holds
    shutil.copytree(model.unpacked, beside, ignore=shutil.ignore_patterns(TRACE, "MAR-INF"))
    config = subject.serving_config(model) | {"device_seconds": DEVICE_SECONDS}
    subject.pack(model, NAME, "pretended_gpu.py", config, "--serialized-file", TRACE, "--extra-files", str(beside))
    return f"{NAME}.mar"


def measure(store: Path) -> dict[int, dict[int, list[float]]]:
    """Images a second in each round, by workers and clients."""
    archive, rates = packed(store), {}
    config = store / "config.properties"
    config.write_text(f"{(ROOT / config.name).read_text()}\njob_queue_size={2 * max(CLIENTS)}\n")
    server = Server(store / "run")
    client = server.start(config, store, free_ports())
    try:
        client.register(archive)
        url, token = f"{client.inference}/predictions/{NAME}", {"Authorization": f"Bearer {client.token('inference')}"}
        for number in range(ROUNDS):
            for workers in WORKERS:
                client.scale(NAME, workers)
                for clients in CLIENTS:
                    load = post(url, token, photographs(), clients, SECONDS)
                    if load.errors:
                        sys.exit(f"overlap: {load.errors} requests were not answered")
                    rates.setdefault(workers, {}).setdefault(clients, []).append(round(load.per_second, 1))
                    print(f"round {number + 1}, {workers} workers, {clients} clients: {load.per_second:.0f}/s", file=sys.stderr)
    finally:
        server.stop()
    return rates


def main() -> None:
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(Path(folder))
    limit = BATCH / (DEVICE_SECONDS["call"] + BATCH * DEVICE_SECONDS["image"])
    record = {
        "machine": machine("cpu"),
        "batch_size": BATCH,
        "device_images_per_second": round(limit, 1),
        "images_per_second_of_rounds": rates,
    }
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    print(f"\n| workers | {' | '.join(f'{count} clients' for count in CLIENTS)} |\n| --- |{' --- |' * len(CLIENTS)}")
    for workers, by_clients in rates.items():
        print(f"| {workers} | {' | '.join(f'{statistics.median(found):.0f}' for found in by_clients.values())} |")


if __name__ == "__main__":
    main()
