"""Time and memory that a worker needs for the worst images that the default limits let in.

    .venv/bin/python -m benchmarks.worst_inputs

Each image is at the limit of 50 megapixels; it is made in one process, and decoded and resized in a fresh one, as the handler
does it. Writes benchmarks/results/worst_inputs.json: seconds, and megabytes above what the process held before.
"""

from __future__ import annotations

import io
import json
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results" / "worst_inputs.json"
SIZE = (10_000, 5_000)

DECODE = r"""
import re, sys, time
sys.path.insert(0, "handler")
from vit_errors import InputError
from vit_images import Deadline, Limits, decode
from vit_pixels import Preprocessing, resize_and_crop
vit = Preprocessing((3, 224, 224), "bicubic", 0.9, "center", (0.5,) * 3, (0.5,) * 3)
data = open(sys.argv[1], "rb").read()
peak = lambda: int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1e3
open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
before, start = peak(), time.perf_counter()
try:
    resize_and_crop(decode(data, 3, Limits(20_000_000, 50_000_000, 32, 5), Deadline(5)), vit)
    outcome = "answered"
except InputError as error:
    outcome = error.type
print(outcome, round(time.perf_counter() - start, 2), round(peak() - before))
"""


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def worst_inputs() -> dict[str, bytes]:
    height, width = SIZE[::-1]
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)).resize(SIZE)
    rgba = rgb.convert("RGBA")
    rgba.putalpha(128)
    scans = encoded(rgb.convert("L"), "JPEG", progressive=True, quality=20)
    last = scans.rindex(b"\xff\xda")
    one = encoded(Image.new("L", SIZE), "JPEG", progressive=True)
    scan = one[one.rindex(b"\xff\xda") : -2]
    return {
        "JPEG": encoded(rgb, "JPEG", quality=50),
        "JPEG, progressive": encoded(rgb, "JPEG", quality=50, progressive=True),
        "JPEG of 200 scans more": scans[:last] + scan * 200 + scans[last:],
        "JPEG, CMYK, rotated": encoded(rgb.convert("CMYK"), "JPEG", quality=50, exif=rotated()),
        "PNG with alpha": encoded(Image.new("RGBA", SIZE, (1, 2, 3, 128)), "PNG"),
        "PNG, palette with transparency": encoded(Image.new("P", SIZE), "PNG", transparency=0),
        "PNG of 16 bits": encoded(Image.fromarray(np.zeros((height, width), np.uint16)), "PNG"),
        "TIFF of floats": encoded(Image.new("F", SIZE, 0.5), "TIFF", compression="tiff_lzw"),
        "WebP with alpha": encoded(rgba, "WEBP", quality=20, method=0),
        "AVIF": encoded(rgb, "AVIF", quality=30, speed=10),
        "JPEG 2000": encoded(rgb, "JPEG2000", quality_mode="rates", quality_layers=[100]),
        "PNG of one column": encoded(Image.new("L", (1, 50_000_000)), "PNG"),
    }


def main() -> None:
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, data in worst_inputs().items():
            file = Path(folder) / "image"
            file.write_bytes(data)
            command = [sys.executable, "-c", DECODE, str(file)]
            result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            outcome, seconds, megabytes = result.stdout.split()
            measured[name] = {
                "file_megabytes": round(len(data) / 1e6, 2),
                "outcome": outcome,
                "seconds": float(seconds),
                "peak_megabytes": int(megabytes),
            }
            print(f"{name:32} {measured[name]}", flush=True)
    machine = {"processor": platform.processor() or platform.machine(), "pillow": version("pillow")}
    RESULTS.write_text(json.dumps({"machine": machine, "inputs": measured}, indent=2) + "\n")


if __name__ == "__main__":
    main()
