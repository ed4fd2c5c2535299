"""Time and memory that a worker needs for the worst images that the default limits let in.

    .venv/bin/python -m benchmarks.worst_inputs
    .venv/bin/python -m benchmarks.worst_inputs FILE    # prints what one image needs, and writes nothing

The images are at the limit of 50 megapixels or of 20 MB; those called bombs say one size and are of another, or ask for more
than their pixels need. Each is made in one process, and decoded and resized in a fresh one, as the handler does it. Writes
benchmarks/results/worst_inputs.json: seconds, and megabytes above what the process held before.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from benchmarks.vit import VIT
from tests.bombs import BOMBS, bad_fax, jpeg_of_scans, rle
from tests.made import chunk, directory, encoded, png, tiff
from vit_core.errors import InputError
from vit_core.image import Deadline, decode
from vit_core.pixels import resize_and_crop
from vit_core.settings import Limits

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results" / "worst_inputs.json"
SIZE = (10_000, 5_000)
MOST = 20_000_000  # bytes of a file


def measure_here(file: Path) -> dict:
    """What one image needs of this process, which has decoded none yet."""
    data, limits = file.read_bytes(), Limits()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, start = _peak_megabytes(), time.perf_counter()
    try:
        resize_and_crop(decode(data, VIT.input_size[0], limits, Deadline(limits.max_decode_seconds)), VIT)
        outcome = "answered"
    except InputError as error:
        outcome = error.type
    seconds = round(time.perf_counter() - start, 2)
    return {"outcome": outcome, "seconds": seconds, "peak_megabytes": round(_peak_megabytes() - before)}


def _peak_megabytes() -> float:
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1e3


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


def worst_inputs() -> dict[str, bytes]:
    height, width = SIZE[::-1]
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)).resize(SIZE)
    rgba = rgb.convert("RGBA")
    rgba.putalpha(128)
    fine = noise(height // 4, width // 4).resize(SIZE, Image.Resampling.BILINEAR)
    fine.putalpha(noise(height // 4, width // 4).convert("L").resize(SIZE, Image.Resampling.BILINEAR))
    scans = encoded(rgb.convert("L"), "JPEG", progressive=True, quality=20)
    last = scans.rindex(b"\xff\xda")
    one = encoded(Image.new("L", SIZE), "JPEG", progressive=True)
    scan = one[one.rindex(b"\xff\xda") : -2]
    codestream = encoded(Image.new("L", (256, 256)), "JPEG2000", no_jp2=True)
    return {
        "JPEG": encoded(rgb, "JPEG", quality=50),
        "JPEG, progressive": encoded(rgb, "JPEG", quality=50, progressive=True),
        "JPEG of 200 scans more": scans[:last] + scan * 200 + scans[last:],
        "JPEG of 200,000 empty scans": jpeg_of_scans(SIZE, 200_000),
        "JPEG, CMYK, rotated": encoded(rgb.convert("CMYK"), "JPEG", quality=50, exif=rotated()),
        "PNG with alpha": encoded(Image.new("RGBA", SIZE, (1, 2, 3, 128)), "PNG"),
        "PNG, palette with transparency": encoded(Image.new("P", SIZE), "PNG", transparency=0),
        "PNG of 16 bits": encoded(Image.fromarray(np.zeros((height, width), np.uint16)), "PNG"),
        "TIFF of floats": encoded(Image.new("F", SIZE, 0.5), "TIFF", compression="tiff_lzw"),
        "WebP with alpha": encoded(rgba, "WEBP", quality=20, method=0),
        "AVIF": encoded(rgb, "AVIF", quality=30, speed=10),
        "AVIF with alpha": encoded(fine, "AVIF", quality=30, speed=10, subsampling="4:4:4"),
        "JPEG 2000 of 20 MB, RGBA": encoded(fine, "JPEG2000", quality_mode="rates", quality_layers=[10.6], irreversible=True),
        "TIFF of a JPEG of 90 scans": tiff_of_jpeg(jpeg_of_scans(SIZE, 80, arithmetic=True)),
        "JPEG 2000": encoded(rgb, "JPEG2000", quality_mode="rates", quality_layers=[100]),
        "PNG of a narrow column": encoded(Image.new("RGBA", (47, 1 << 20), (1, 2, 3, 128)), "PNG"),
        "PNG of 16 bits, RGB, a key": png(np.zeros((height, width, 3), np.uint16), 16, chunk(b"tRNS", bytes(6))),
        "PNG of 12 of 16 bits, RGBA": png(np.zeros((height, width, 4), np.uint16), 16, chunk(b"sBIT", bytes([12] * 4))),
        "GIF": encoded(Image.new("P", SIZE), "GIF", transparency=0),
        "TIFF of 3 planes of 16 bits": tiff(np.zeros((height, width, 3), np.uint16), photometric=2, planar=True, deflate=True),
        "TIFF of 4 samples, used bits": tiff(np.zeros((height, width, 4), np.uint16), photometric=2, deflate=True, t281=[4095]),
        "TIFF of 12 bits": tiff(np.zeros((height, width, 1), np.uint16), bits=12, deflate=True),
        "TIFF of a bad fax": bad_fax(1 << 20),
        "BMP, RLE of long rows": rle(1 << 20, 47, b"\1\1\0\0" * 47),
        "BMP, RLE of single pixels": rle(*SIZE, b"\1\1" * (MOST // 2 - 1000)),
        "PPM as text": b"P3\n2500 1300\n255\n" + b"1 " * (MOST // 2 - 100),
        "PGM of 12 bits": b"P5\n3100 3100\n4095\n" + bytes(3100 * 3100 * 2),
        "JPEG 2000 of 20 MB": encoded(noise(2000, 3000), "JPEG2000"),
        "WebP of 20 MB": encoded(noise(2200, 3000), "WEBP", lossless=True, method=0, quality=0),
        "PNG of empty chunks": png(np.zeros((4, 4, 1)), 8, chunk(b"tEXt", b"") * (MOST // 12 - 100)),
        "JPEG of empty markers": b"\xff\xd8\xff\xd0" + b"\xff\xd0" * (MOST // 2 - 100),
        "JPEG 2000 of empty markers": codestream[:-2] + b"\xff\x64\0\2" * 4_900_000,
        **{f"bomb: {name}": make() for name, (make, _) in BOMBS.items()},
    }


def tiff_of_jpeg(file: bytes) -> bytes:
    """A TIFF of one strip, which is a JPEG."""
    width, height = SIZE
    entries = {256: [width], 257: [height], 258: [8], 259: [7], 262: [1], 273: [8], 278: [height], 279: [len(file)]}
    return directory(entries, file)


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure_here(Path(sys.argv[1]))))
        return
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, data in worst_inputs().items():
            file = Path(folder) / "image"
            file.write_bytes(data)
            command = [sys.executable, "-m", "benchmarks.worst_inputs", str(file)]
            result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            measured[name] = {"file_megabytes": round(len(data) / 1e6, 2), **json.loads(result.stdout)}
            print(f"{name:32} {measured[name]}", flush=True)
    machine = {"processor": platform.processor() or platform.machine(), "pillow": version("pillow")}
    RESULTS.write_text(json.dumps({"machine": machine, "inputs": measured}, indent=2) + "\n")


if __name__ == "__main__":
    main()
