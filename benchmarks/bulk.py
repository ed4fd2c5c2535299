"""`python -m predict --output` beside the bare model and a plain script, and its cost as pictures grow in number.

    .venv/bin/python -m benchmarks.bulk                       # minutes: 1,000, 10,000 and 100,000 pictures
    .venv/bin/python -m benchmarks.bulk --counts 10000 --beside

Pictures are made of handwritten digits (examples/digits): two hundred drawn ones, 24 to 200 pixels wide, turned a little,
half of them JPEG and half PNG. Writes benchmarks/results/bulk.json, where what was measured before stays unless it is again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch.utils.data import DataLoader, Dataset

from benchmarks.machine import machine
from examples.digits.pictures import draw_digit, handwritten, picture
from export.options import Options
from export.pipeline import export
from vit_core.predictor import Predictor

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results" / "bulk.json"
DIGITS = f"local-dir:{ROOT / 'examples' / 'digits'}"
DRAWN, IN_FOLDER, BATCH = 200, 1000, 8


def draw(folder: Path, count: int) -> Path:
    """A folder with so many pictures, a thousand in each folder below it."""
    ink, _ = handwritten("heldout")
    drawn = []
    for number in range(DRAWN):
        rng = np.random.default_rng(number)
        drawn.append(picture(draw_digit(ink[number], rng), rng, (24, 200)))
    for number in range(count):
        place = folder / f"{number // IN_FOLDER:03}"
        place.mkdir(parents=True, exist_ok=True)
        turned = drawn[number % DRAWN].rotate(number // DRAWN % 15 - 7)
        turned.save(place / f"{number:06}.{'jpg' if number % 2 else 'png'}")
    return folder


def run(archive: Path, pictures: Path, out: Path, *options: str) -> dict:
    """Seconds, processor seconds and the most memory of a run, of all its processes together."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "predict", str(archive), str(pictures), "--output", str(out), *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        most = max(most, _memory(process.pid))
        time.sleep(0.2)
    if process.returncode:
        sys.exit("bulk: a run has failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.monotonic() - start
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "peak_memory_mb": round(most / 1e6)}


def _memory(pid: int) -> int:
    """Bytes of a process and those below it; memory that several share is counted in parts (PSS)."""
    total = 0
    try:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:  # it has ended meanwhile
        return 0
    return total


def bare(archive: Path) -> float:
    """Pictures a second of the model alone, in one process: pixels that are ready, batches as the archive has them."""
    predictor = Predictor.load(archive)
    pixels = torch.zeros(BATCH, 3, 48, 48, dtype=torch.uint8)
    start, count = time.monotonic(), 0
    while time.monotonic() - start < 5:
        predictor.model.outputs(pixels)
        count += BATCH
    return count / (time.monotonic() - start)


class Pictures(Dataset):
    """A folder as the scripts of timm's users read it."""

    def __init__(self, folder: Path, transform):
        self._files, self._transform = sorted(folder.rglob("*.*g")), transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._transform(Image.open(self._files[index]).convert("RGB"))


def plain(pictures: Path) -> None:
    """The script that most people write: eager fp32, a DataLoader with a worker for each core, batches of 64."""
    model = timm.create_model(DIGITS, pretrained=True).eval()
    data = Pictures(pictures, create_transform(**resolve_model_data_config(model)))
    with torch.inference_mode():
        for batch in DataLoader(data, 64, num_workers=len(os.sched_getaffinity(0))):
            model(batch).softmax(1).topk(5)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bulk")
    parser.add_argument("--counts", default="1000,10000,100000", help="numbers of pictures")
    parser.add_argument("--beside", action="store_true", help="the same on Ray, in a plain script, and the model alone")
    parser.add_argument("--pictures", type=Path, help="the folder that they are drawn into, and found in when there are enough")
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)  # the plain script alone, as a process of its own
    options = parser.parse_args()
    if options.plain:
        plain(options.plain)
        return
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    record["machine"] = machine("cpu")
    with tempfile.TemporaryDirectory() as place:
        archive = export(Options(DIGITS, model_name="digits", model_store=Path(place))).archive
        for count in map(int, options.counts.split(",")):
            pictures = (options.pictures or Path(place)) / str(count)
            if not pictures.exists():
                draw(pictures, count)
            found = run(archive, pictures, Path(place) / f"{count}.parquet")
            print(count, found, flush=True)
            if options.beside:
                record[f"beside others, {count} pictures"] = beside(archive, pictures, found["seconds"])
            else:
                record.setdefault("in process", {})[str(count)] = found
            RESULTS.write_text(json.dumps(record, indent=2) + "\n")


def beside(archive: Path, pictures: Path, seconds: float) -> dict:
    """What the same pictures take on Ray, with a cluster started for them, and in the plain script; and the model alone."""
    on_ray = run(archive, pictures, archive.with_name("ray.parquet"), "--ray")
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "benchmarks.bulk", "--plain", str(pictures)], cwd=ROOT, check=True)
    found = {
        "in process, seconds": seconds,
        "on Ray, seconds": on_ray["seconds"],
        "on Ray, peak memory in MB": on_ray["peak_memory_mb"],
        "plain script, seconds": round(time.monotonic() - start, 2),
        "model alone, one process, pictures a second": round(bare(archive), 1),
    }
    print(found, flush=True)
    return found


if __name__ == "__main__":
    main()
