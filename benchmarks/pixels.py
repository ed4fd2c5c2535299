"""From the bytes of a JPEG to the model's pixels, in one thread: timm's transform, this project, and this with `--fast-pixels`.

python -m benchmarks.pixels       # seconds; writes benchmarks/results/pixels.json
"""

from __future__ import annotations

import io
import json
import statistics
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import create_transform

from benchmarks.machine import machine
from benchmarks.vit import VIT
from vit_core.image import Deadline, decode
from vit_core.pixels import least_edge, resize_and_crop
from vit_core.settings import Limits

LIMITS = Limits(max_bytes=10**9, max_pixels=10**9, max_images=1, max_decode_seconds=600)
SIZES = {"500 x 375": ((500, 375), 60), "4496 x 3000": ((4496, 3000), 4)}  # and rounds


def jpegs(size: tuple[int, int]) -> list[bytes]:
    """scikit-learn's two photographs in this size."""
    files = []
    for pixels in load_sample_images().images:
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def main() -> None:
    torch.set_num_threads(1)
    transform, as_bytes = create_transform(**asdict(VIT)), create_transform(**asdict(VIT), normalize=False)
    least = least_edge(VIT)
    ways = {
        "timm": lambda data: transform(Image.open(io.BytesIO(data)).convert("RGB")),
        "here": lambda data: resize_and_crop(decode(data, 3, LIMITS, Deadline(600)), VIT),
        "here, --fast-pixels": lambda data: resize_and_crop(decode(data, 3, LIMITS, Deadline(600), least), VIT, fast=True),
    }
    results = {}
    for name, (size, rounds) in SIZES.items():
        files, times = jpegs(size), {way: [] for way in ways}
        for _ in range(rounds):  # in turns, so that a drift of the machine meets all alike
            for data in files:
                for way, run in ways.items():
                    start = time.perf_counter()
                    run(data)
                    times[way].append(time.perf_counter() - start)
        results[name] = {way: {"milliseconds": round(1e3 * statistics.median(found), 2)} for way, found in times.items()}
        for way, run in list(ways.items())[1:]:
            expected = [as_bytes(Image.open(io.BytesIO(data)).convert("RGB")).int() for data in files]
            differences = torch.stack([(run(data).int() - pixels).abs() for data, pixels in zip(files, expected, strict=True)])
            faster = results[name]["timm"]["milliseconds"] / results[name][way]["milliseconds"]
            results[name][way] |= {
                "times_as_fast_as_timm": round(faster, 2),
                "largest_difference_of_255": differences.max().item(),
                "mean_difference_of_255": round(differences.float().mean().item(), 4),
            }
    packages = ("torch", "timm", "pillow")
    record = {
        "command": "python -m benchmarks.pixels",
        "machine": machine("cpu"),
        "versions": {package: version(package) for package in packages},
        "jpeg, one thread": results,
    }
    (Path(__file__).parent / "results" / "pixels.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
