"""Train the example model: a small vision transformer that reads pictures of one handwritten digit.

    python examples/digits/train.py            # most of an hour on two cores; rewrites this folder's model
    python examples/digits/train.py --measure  # measures the model that is there, a minute
    python examples/digits/train.py --heldout FOLDER  # writes the pictures that it is measured on

Everything is seeded. The 360 held-out digits are never trained on; the sample pictures are made from them.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import create_transform
from timm.models import save_for_hf
from tqdm import tqdm

from pictures import INK_SIZE, SHAKY, draw_digit, handwritten, picture, ragged, warp
from strokes import pen_strokes

FOLDER = Path(__file__).parent
LABELS = [str(digit) for digit in range(10)]
# timm's smallest hybrid: one convolution sees strokes in any colour, then six blocks of width 64 read a 6 x 6 grid. 0.3 M
# parameters. A ViT of this size with patches alone learned far more slowly: it read 76 % of the held-out
# pictures after 5,000 steps, this one 81 % after 1,100.
ARCHITECTURE = "vit_tiny_r_s16_p8_224"
MODEL_ARGS = {
    "img_size": 48,
    "patch_size": 2,
    "embed_dim": 64,
    "depth": 6,
    "num_heads": 4,
    "class_token": False,
    "global_pool": "avg",
}
# `border` keeps a digit whole that is not in the middle of a wide picture; `center` would cut it off.
PREPROCESSING = {
    "input_size": (3, 48, 48),
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "crop_mode": "border",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
}
BATCH_SIZE = 128
SHEET_CELL = 90  # pixels
STROKES_SHARE = 0.6  # of the training pictures; the other ones are the writers' digits
# Easy pictures first: begun on all of them at once, the loss stays at that of guessing for hundreds of steps. Ragged ones last,
# at a lower rate.
EASY_PICTURES, EASY_EPOCHS = 16_000, 2
ALL_PICTURES, ALL_EPOCHS = 128_000, 8
RAGGED_PICTURES, RAGGED_EPOCHS = 64_000, 4
RATE, RAGGED_RATE = 1.5e-3, 8e-4
RAGGED_SHARE = 0.6  # of the last pictures
LEAST_SHARE = 0.22  # of a frame's height or width that a digit takes


def make_transform(normalize: bool):
    return create_transform(**PREPROCESSING, normalize=normalize)


def training_picture(seed: int) -> tuple[np.ndarray, int]:
    """The picture number `seed` as the model sees it ([3, 48, 48] uint8), ragged ones from ALL_PICTURES on; and its digit."""
    rng = np.random.default_rng([1, seed])
    ink8, labels = handwritten("train")
    if rng.random() < STROKES_SHARE:
        digit = int(rng.integers(10))
        ink = warp(pen_strokes(digit, INK_SIZE, rng), rng, SHAKY)
    else:
        index = rng.integers(len(labels))
        digit, ink = int(labels[index]), draw_digit(ink8[index], rng, SHAKY)
    if seed >= ALL_PICTURES and rng.random() < RAGGED_SHARE:
        ink = ragged(ink, rng)
    if rng.random() < 0.1:  # the 8 x 8 scans as they are, which is what scikit-learn's users will send
        index = rng.integers(len(labels))
        digit, image = int(labels[index]), scan(ink8[index])
    else:
        # Larger ones than 200 pixels teach nothing new: the model sees 48.
        image = picture(ink, rng, (16, 200), LEAST_SHARE, easy=seed < EASY_PICTURES)
    return make_transform(normalize=False)(image).numpy(), digit


def scan(ink8: np.ndarray) -> Image.Image:
    """An 8 x 8 digit of the data set as a grey picture, light on dark."""
    return Image.fromarray((ink8 * 255).astype(np.uint8)).convert("RGB")


def heldout_pictures() -> list[tuple[Image.Image, int]]:
    """Three pictures of every held-out digit, 16 to 2,000 pixels wide."""
    made = []
    for index, (ink8, digit) in enumerate(zip(*handwritten("heldout"), strict=True)):
        for repeat in range(3):
            rng = np.random.default_rng([2, index, repeat])
            made.append((picture(draw_digit(ink8, rng), rng), int(digit)))
    return made


def to_pixels(batch: torch.Tensor) -> torch.Tensor:
    """uint8 [N, 3, H, W] as the model's normalised float input."""
    mean, std = (torch.tensor(PREPROCESSING[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return (batch.float() / 255 - mean) / std


def draw(seeds: range) -> tuple[torch.Tensor, torch.Tensor]:
    """The pictures of these numbers [N, 3, 48, 48] uint8, and their digits [N]."""
    with multiprocessing.Pool() as pool:
        made = list(tqdm(pool.imap(training_picture, seeds, chunksize=256), "drawing", len(seeds), mininterval=5))
    return torch.from_numpy(np.stack([image for image, _ in made])), torch.tensor([digit for _, digit in made])


def fit(model: torch.nn.Module, seeds: range, epochs: list[int], rate: float) -> None:
    """Trains on the pictures of these numbers. `epochs` says from how many of them each epoch draws."""
    images, targets = draw(seeds)
    steps = sum(-(-pictures // BATCH_SIZE) for pictures in epochs)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps, pct_start=0.05)
    with tqdm(total=steps, desc="training", mininterval=5) as progress:
        for pictures in epochs:
            for indices in torch.randperm(pictures).split(BATCH_SIZE):
                loss = F.cross_entropy(model(to_pixels(images[indices])), targets[indices], label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                progress.update()
                progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def train() -> torch.nn.Module:
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    model = timm.create_model(ARCHITECTURE, num_classes=len(LABELS), **MODEL_ARGS).train()
    fit(model, range(ALL_PICTURES), [EASY_PICTURES] * EASY_EPOCHS + [ALL_PICTURES] * ALL_EPOCHS, RATE)
    torch.manual_seed(1)
    fit(model, range(ALL_PICTURES, ALL_PICTURES + RAGGED_PICTURES), [RAGGED_PICTURES] * RAGGED_EPOCHS, RAGGED_RATE)
    return model.eval()


def save(model: torch.nn.Module) -> None:
    """Writes config.json and model.safetensors, as timm's `local-dir:` reads them."""
    config = {"label_names": LABELS, "model_args": MODEL_ARGS}
    save_for_hf(model, FOLDER, model_config=config, data_config=PREPROCESSING, safe_serialization=True)


def save_heldout(folder: Path, format: str = "png") -> None:
    """The held-out digits, a folder for each digit: in `scans` as they are, in `pictures` as pictures made of them.

    As `bmp` they are of the same pixels, written ten times as fast, and 1.3 GB.
    """
    scans = [(scan(ink8), int(digit)) for ink8, digit in zip(*handwritten("heldout"), strict=True)]
    for name, made in (("scans", scans), ("pictures", heldout_pictures())):
        for index, (image, digit) in enumerate(made):
            of_digit = folder / name / str(digit)
            of_digit.mkdir(parents=True, exist_ok=True)
            image.save(of_digit / f"{index:04}.{format}")


def measure() -> None:
    """Prints and records what share of the held-out digits the saved model reads, as `python -m evaluate` finds it in fp32."""
    measured = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_heldout(folder, "bmp")
        _project("export", f"local-dir:{FOLDER}", "--model-store", folder)
        for name in ("scans", "pictures"):
            report = folder / f"{name}.json"
            _project("evaluate", folder / "digits.mar", folder / name, "--precisions", "fp32", "--json", report)
            measured[f"heldout_{name}"] = round(json.loads(report.read_text())["runs"][0]["metrics"]["top1"], 4)
    (FOLDER / "accuracy.json").write_text(json.dumps(measured, indent=2) + "\n")


def _project(module: str, *arguments: object) -> None:
    """Runs a command of this project, from the folder that has it."""
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], cwd=FOLDER.parent.parent, check=True)


def save_samples() -> None:
    """Two sample pictures of each digit, samples/labels.csv, and all of them on one sheet, samples.png.

    They are the first two held-out digits of each kind, not chosen by what the model says of them.
    """
    folder = FOLDER / "samples"
    folder.mkdir(exist_ok=True)
    ink, labels = handwritten("heldout")
    rows, sheet = [], Image.new("RGB", (10 * SHEET_CELL, 2 * SHEET_CELL), "white")
    for digit in range(10):
        for repeat, index in enumerate(np.nonzero(labels == digit)[0][:2]):
            rng = np.random.default_rng([3, digit, repeat])
            image = picture(draw_digit(ink[index], rng), rng, widths=(24, 800))
            name = f"{digit}-{'ab'[repeat]}.{'png' if image.width < 200 else 'jpg'}"
            image.save(folder / name, quality=85)
            rows.append((name, digit))
            image.thumbnail((SHEET_CELL - 6, SHEET_CELL - 6))
            corner = [
                cell * SHEET_CELL + (SHEET_CELL - side) // 2 for cell, side in zip((digit, repeat), image.size, strict=True)
            ]
            sheet.paste(image, corner)
    sheet.save(FOLDER / "samples.png")
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("file", "label"), *rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure the saved model, do not train")
    parser.add_argument("--heldout", type=Path, metavar="FOLDER", help="write the held-out pictures, do nothing else")
    options = parser.parse_args()
    if options.heldout:
        save_heldout(options.heldout)
        sys.exit()
    if not options.measure:
        save(train())
        save_samples()
    measure()
