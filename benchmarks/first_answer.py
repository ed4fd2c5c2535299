"""How long an archive takes from its registration to its first answer, on a TorchServe that runs already.

    python -m benchmarks.first_answer [MODEL]      # minutes; vit_base_patch16_224 with seeded random weights else

Each precision is an archive of its own. In a turn each is registered as `make serve` does it, asked once, and unregistered; the
files were read before, so disks are not measured. Writes first_answer-MODEL.json into benchmarks/results/here, and prints it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import subject
from benchmarks.load import photographs
from benchmarks.machine import machine
from benchmarks.serving import BATCH, RESULTS, ROOT
from serve.archive import identity
from serve.client import Client
from serve.register import register
from serve.server import Server
from serve.settings import free_ports

NAMES = ("fp32", "bf16", "int8")
TURNS = 5


def seconds(server: Server, client: Client, archive: str, name: str, body: bytes) -> tuple[float, float]:
    """Until the model is registered with all its workers, and until the first answer after that."""
    begun = time.perf_counter()
    register(server, client, archive, name)
    registered = time.perf_counter()
    client.predict(name, body).raise_for_status()
    answered = time.perf_counter()
    client.unregister(name)
    return registered - begun, answered - begun


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_answer", description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="vit_base_patch16_224", help="a timm name (default: %(default)s)")
    options = parser.parse_args()
    os.chdir(ROOT)
    body = photographs()[0]
    with tempfile.TemporaryDirectory() as place:
        store = Path(place) / "store"
        store.mkdir()
        names = {}
        for precision in NAMES:
            folder = Path(place) / precision
            folder.mkdir()
            exported = subject.from_timm(options.model, BATCH, 1, precision, folder)
            archive = (folder / exported.archive).rename(store / f"{precision}.mar")
            names[precision] = identity(archive)[0]
        server = Server(Path(place) / "run")
        client = server.start(ROOT / "config.properties", store, free_ports())
        try:
            found: dict[str, list[tuple[float, float]]] = {precision: [] for precision in NAMES}
            for _ in range(TURNS):
                for precision, turns in found.items():
                    turns.append(seconds(server, client, f"{precision}.mar", names[precision], body))
        finally:
            server.stop()
    record = {
        "model": f"{options.model}, random weights, seed 0",
        "command": f"python -m benchmarks.first_answer {options.model}",
        "machine": machine("cpu"),
        "seconds": {
            precision: {
                "registered": round(statistics.median(each for each, _ in turns), 2),
                "first answer": round(statistics.median(each for _, each in turns), 2),
                "longest": round(max(each for _, each in turns), 2),
            }
            for precision, turns in found.items()
        },
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"first_answer-{options.model}.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
