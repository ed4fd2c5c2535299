"""How well the nearest pictures are of the same digit: pictures of held-out digits ask, those of training digits answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from examples.digits.pictures import draw_digit, handwritten, picture
from search.archive import build
from search.embedding import Embedder
from search.index import REQUEST_IMAGES, PictureIndex, unit, vector_index

WIDTHS = (24, 200)  # of the pictures, in pixels
SEEDS = {"train": 4, "heldout": 5}  # 1 to 3 are those of the pictures that the model was trained and measured with


def make_pictures(folder: Path, split: str, most: int | None) -> list[Path]:
    """Draws a picture of each digit of a split of examples/digits, or of the first `most`, to `folder`/DIGIT/NUMBER.png."""
    files = []
    for number, (ink, digit) in enumerate(list(zip(*handwritten(split), strict=True))[:most]):
        file = folder / str(digit) / f"{number:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([SEEDS[split], number])
        picture(draw_digit(ink, rng), rng, WIDTHS).save(file)
        files.append(file)
    return files


def shares(queries: list[Path], nearest: list[list[Path]]) -> tuple[float, float]:
    """Of each query's nearest pictures, the share that are of its digit, averaged over the queries; and the share of queries
    with at least one such picture among them."""
    right = [[found.parent.name == query.parent.name for found in row] for query, row in zip(queries, nearest, strict=True)]
    return float(np.mean([np.mean(row) for row in right])), float(np.mean([any(row) for row in right]))


def measure(
    embedder: Embedder, archive: Path, folder: Path, count: int = 5, most: tuple[int | None, int | None] = (None, None)
) -> tuple[float, float]:
    """Draws, indexes with the archive in bulk, and asks its server. Prints the two `shares` among the `count` nearest, with
    those by pixels for comparison.

    `folder` gets the pictures, in `train` and `heldout`, and the index, `digits.index`. `most` are there of each of the two.
    """
    indexed, queries = (make_pictures(folder / split, split, limit) for split, limit in zip(SEEDS, most, strict=True))
    file = folder / "digits.index"
    build(archive, folder / "train", lambda picture, reason: print(f"skipped {picture}: {reason}")).save(file)
    index = PictureIndex.load(file)
    print(f"index      {len(index.files):,} pictures of training digits, {index.vectors.d} numbers each")
    print(f"queries    {len(queries):,} pictures of digits that the model has never seen\n")

    images = [query.read_bytes() for query in queries]
    starts = range(0, len(images), REQUEST_IMAGES)
    vectors = np.concatenate([embedder.embed(images[start : start + REQUEST_IMAGES]) for start in starts])
    by_model = shares(queries, [[path for path, _ in index.nearest(vector, count)] for vector in vectors])
    by_pixels = shares(queries, _nearest_by_pixels(indexed, queries, count))
    print(f"recall@{count}                                     by embedding  by pixels")
    for what, model, pixels in zip(
        (f"of the {count} nearest, of the query's digit", f"queries with one of it among {count}"),
        by_model,
        by_pixels,
        strict=True,
    ):
        print(f"{what:<43}  {model:12.1%}  {pixels:9.1%}")
    return by_model


def _nearest_by_pixels(indexed: list[Path], queries: list[Path], count: int) -> list[list[Path]]:
    """What the same library finds by 48 x 48 grey pixels, less their mean: what a model has to be better than."""

    def vectors(files: list[Path]) -> np.ndarray:
        pixels = np.stack([np.asarray(Image.open(file).convert("L").resize((48, 48)), np.float32).ravel() for file in files])
        return pixels - pixels.mean(1, keepdims=True)

    _, places = vector_index(vectors(indexed)).search(unit(vectors(queries)), count)
    return [[indexed[place] for place in row] for row in places]
