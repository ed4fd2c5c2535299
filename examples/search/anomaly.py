"""Which pictures are none of digits: those whose embeddings are far from all that the model was trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score
from sklearn.svm import OneClassSVM

from examples.digits.pictures import INK_SIZE, picture, warp
from examples.search.recall import WIDTHS, make_pictures
from search.archive import embeddings
from search.index import unit, vector_index

NEAREST = 5  # pictures whose mean distance counts
EACH = 120  # pictures of each kind that is no digit
LETTERS = "ABCDEFGHJKMNPRTVWXY"  # I, L, O, Q, S, U and Z can be read as digits


def measure(archive: Path, folder: Path, most: tuple[int | None, int | None] = (None, None)) -> dict[str, tuple[float, float]]:
    """Draws and embeds, and prints for each kind of picture how well it is told from digits that the model has never seen:
    the AUROC by the distance to the nearest training digits, and by a one-class model. 0.5 is chance, 1 is perfect.

    `folder` gets the pictures. `most` are there of the training and of the held-out digits.
    """
    for split, limit in zip(("train", "heldout"), most, strict=True):
        make_pictures(folder / split, split, limit)
    for kind, draw in KINDS.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(EACH):
            draw(np.random.default_rng([6, number])).save(folder / kind / f"{number:04}.png")
    files, vectors, _ = embeddings(archive, folder)
    kinds = np.array([file.relative_to(folder).parts[0] for file in files])
    vectors = unit(vectors)
    train, heldout = vectors[kinds == "train"], vectors[kinds == "heldout"]
    index = vector_index(train)
    one_class = OneClassSVM(gamma="scale", nu=0.05).fit(train)
    scores: tuple[Callable, Callable] = (
        lambda found: 1 - index.search(found, NEAREST)[0].mean(1),  # one less the cosine
        lambda found: -one_class.score_samples(found),
    )
    print(f"known      {len(train):,} pictures of training digits, {train.shape[1]} numbers each")
    print(f"asked      {len(heldout):,} pictures of digits that the model has never seen, {EACH} of each other kind\n")
    print(f"AUROC, told from digits       by the {NEAREST} nearest  by a one-class SVM")
    found = {}
    for kind in KINDS:
        other = vectors[kinds == kind]
        truth = [0] * len(heldout) + [1] * len(other)
        found[kind] = tuple(float(roc_auc_score(truth, np.concatenate([score(heldout), score(other)]))) for score in scores)
        print(f"{kind:<28}  {found[kind][0]:16.3f}  {found[kind][1]:18.3f}")
    return found


def _photograph(rng: np.random.Generator) -> Image.Image:
    """A square of one of scikit-learn's two photographs: a temple, a flower."""
    photograph = Image.fromarray(load_sample_images().images[rng.integers(2)])
    edge = int(rng.integers(60, 300))
    left, top = int(rng.integers(photograph.width - edge)), int(rng.integers(photograph.height - edge))
    return photograph.crop((left, top, left + edge, top + edge))


def _letter(rng: np.random.Generator) -> Image.Image:
    """A letter, as a digit is drawn: in any colours, bent, anywhere in the frame."""
    image = Image.new("L", (INK_SIZE, INK_SIZE))
    letter = LETTERS[rng.integers(len(LETTERS))]
    font = ImageFont.load_default(0.7 * INK_SIZE)
    ImageDraw.Draw(image).text((INK_SIZE / 2, INK_SIZE / 2), letter, fill=255, font=font, anchor="mm")
    return picture(warp(np.asarray(image, np.float32) / 255, rng), rng, WIDTHS)


def _nothing(rng: np.random.Generator) -> Image.Image:
    """Paper without ink, shaded and grainy."""
    grain = rng.normal(0, rng.uniform(1, 10), (100, 100, 3))
    shade = rng.uniform(-40, 40) * np.linspace(-1, 1, 100)[:, None, None]
    return Image.fromarray((rng.uniform(0, 255, 3) + shade + grain).clip(0, 255).astype(np.uint8))


def _noise(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (100, 100, 3), dtype=np.uint8))


KINDS = {"photographs": _photograph, "letters": _letter, "paper": _nothing, "noise": _noise}
