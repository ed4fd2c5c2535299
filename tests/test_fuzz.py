"""Broken images, made from real ones of every format: each is answered or refused, quickly, and nothing else happens."""

import random
import resource

import pytest
from PIL import Image

from tests.conftest import DIGITS, ROOT, export_to
from tests.in_process import handle, load
from tests.test_images import PLAIN, encoded

TYPES = {
    "BrokenImage",
    "UnsupportedImage",
    "ImageTooLarge",
    "DecodeTimeout",
    "EmptyBody",
    "BadJSON",
    "BadBase64",
    "FileTooLarge",
}
CHUNK = 8


def seeds() -> list[bytes]:
    photograph = Image.open(ROOT / "export" / "photographs" / "coffee.jpg").resize((96, 64))
    formats = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM"]
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        *PLAIN.values(),
        *(encoded(photograph, format) for format in formats),
        encoded(photograph.convert("RGBA"), "PNG"),
        encoded(photograph, "TIFF", compression="jpeg"),
        encoded(photograph, "TIFF", compression="tiff_deflate"),
        encoded(photograph, "JPEG", exif=exif, progressive=True),
        *(file.read_bytes() for file in sorted((DIGITS / "samples").glob("*.*g"))[:4]),
    ]


def mutated(data: bytes, choose: random.Random) -> bytes:
    """`data` with a few of the things that happen to files: bits flipped, parts cut out, doubled, or put in from elsewhere."""
    broken = bytearray(data)
    for _ in range(choose.randint(1, 6)):
        start = choose.randrange(len(broken) + 1)
        # Most headers are short: half of the changes go to the first bytes.
        start = min(start, choose.randrange(64)) if choose.random() < 0.5 else start
        end = min(len(broken), start + int(2 ** choose.uniform(0, 10)))
        match choose.randrange(6):
            case 0:
                for _ in range(choose.randint(1, 8)):
                    if broken:
                        broken[choose.randrange(start, len(broken)) if start < len(broken) else -1] ^= 1 << choose.randrange(8)
            case 1:
                del broken[start:end]
            case 2:
                broken[start:start] = broken[start:end] * choose.randint(1, 20)
            case 3:
                broken[start:end] = choose.randbytes(end - start)
            case 4:
                broken[start : start + 4] = choose.choice(
                    [b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\x00\x00\xff\xff"]
                )
            case 5:
                del broken[choose.randrange(len(broken) + 1) :]
    return bytes(broken)


@pytest.mark.parametrize("count", [1200, pytest.param(20_000, marks=pytest.mark.large)])
def test_nothing_escapes_but_the_handlers_own_errors(count, tiny_model, tmp_path):
    options = ("--max-pixels", "4000000", "--max-decode-seconds", "2", "--precision", "fp32")
    handler, context = load(export_to(tmp_path, f"local-dir:{tiny_model}", *options), tmp_path / "unpacked")
    choose = random.Random(0)
    originals = seeds()
    assert all("code" not in answer for answer in handle(handler, context, [{"body": data} for data in originals]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = answered = 0
    for _ in range(0, count, CHUNK):
        rows = [{"body": mutated(choose.choice(originals), choose)} for _ in range(CHUNK)]
        for row, answer in zip(rows, handle(handler, context, rows), strict=True):
            if "code" in answer:
                assert answer["type"] in TYPES, (answer, row)
                assert 400 <= answer["code"] < 500
                refused += 1
            else:
                assert answer.keys() == {"cat", "dog", "owl"}
                answered += 1
    assert refused > count / 10 and answered > count / 10
    # 4 megapixels as RGBA are 16 MB, and there are a few copies.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
