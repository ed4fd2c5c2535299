"""Finds the pictures that a run gets wrong: a list, the worst first, and a contact sheet."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from evaluate.compare import answer
from evaluate.metrics import decided, right
from evaluate.probabilities import losses
from evaluate.run import Run
from evaluate.sources import Example
from vit_core.heatmap import written
from vit_core.image import Deadline, decode
from vit_core.settings import Limits

COLUMNS, ROWS = 8, 5
CELL, MARGIN, FONT_SIZE = 180, 10, 14  # pixels
LINE = FONT_SIZE + 4
NO_LIMITS = Limits(max_bytes=sys.maxsize, max_pixels=sys.maxsize)  # the archive's own limits have admitted these pictures
TRUE, SAID = "#2f6db3", "#b3542f"


def mistakes(run: Run, examples: Sequence[Example]) -> list[dict]:
    """Returns the pictures whose labels the run gets wrong, the one with the largest negative log-likelihood first.

    If scores are not probabilities, the order is by the distance between the highest score and the true label's.
    """
    if run.head.gives_probabilities:
        bad = losses(run.logits, run.truth, run.head.activation, run.head.temperature)
    else:
        bad = run.scores.max(1) - run.scores[run.truth]
    wrong = (~right(run)).nonzero()[0]
    said = decided(run)
    return [
        {
            "picture": str(examples[run.places[row]].picture),
            "true": answer(run, run.truth[row], row),
            "said": answer(run, said[row], row),
        }
        for row in wrong[np.argsort(-bad[wrong], kind="stable")]
    ]


def sheet(found: list[dict], percent: bool) -> Image.Image:
    """Draws the worst mistakes, the true labels above and the answered ones below. `percent`: scores are probabilities."""
    shown = found[: COLUMNS * ROWS]
    columns, rows = min(COLUMNS, len(shown)), -(-len(shown) // COLUMNS)
    height = CELL + 2 * LINE
    whole = Image.new("RGB", (MARGIN + columns * (CELL + MARGIN), MARGIN + rows * (height + MARGIN)), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(FONT_SIZE)
    for index, mistake in enumerate(shown):
        left, top = MARGIN + index % COLUMNS * (CELL + MARGIN), MARGIN + index // COLUMNS * (height + MARGIN)
        image = ImageOps.contain(decode(Path(mistake["picture"]).read_bytes(), 3, NO_LIMITS, Deadline(math.inf)), (CELL, CELL))
        whole.paste(image, (left + (CELL - image.width) // 2, top + (CELL - image.height) // 2))
        for line, (word, colour) in enumerate((("true", TRUE), ("said", SAID))):
            text = _caption(word, mistake[word], percent, font)
            draw.text((left, top + CELL + line * LINE), text, colour, font)
    return whole


def _caption(word: str, labels: dict[str, float], percent: bool, font: ImageFont.FreeTypeFont) -> str:
    """Returns the labels with their scores as far as they fit. A label that the font cannot write becomes a question mark."""
    scores = [f"({score:.0%})" if percent else f"({score:.3g})" for score in labels.values()]
    parts = [f"{written(label, font) or '?'} {score}" for label, score in zip(labels, scores, strict=True)]
    text = f"{word}: {', '.join(parts) or 'none'}"
    while font.getlength(text) > CELL:
        text = f"{text.removesuffix('…')[:-1]}…"
    return text
