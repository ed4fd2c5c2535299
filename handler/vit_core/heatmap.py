"""Draws an explanation: the heat map over the image, and a line below that says what it explains."""

from __future__ import annotations

import io
import math
from urllib.parse import quote

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from vit_core.explain import Explanation
from vit_core.settings import GRADIENT, Head

LEAST_EDGE = 256  # pixels of the picture: a small image is enlarged, so that the caption is legible
# Viridis, of matplotlib: its brightness grows evenly, so that it reads the same to the colour-blind, and printed in grey.
VIRIDIS = [
    (68, 1, 84),
    (71, 45, 123),
    (59, 82, 139),
    (44, 114, 142),
    (33, 145, 140),
    (40, 174, 128),
    (94, 201, 98),
    (173, 220, 48),
    (253, 231, 37),
]
OPACITY = 0.6


def picture(explanation: Explanation, label: str, head: Head) -> bytes:
    """Returns a PNG file: the image as the model saw it, in grey, the relevance of its patches over it in colour, and below it
    `label` and the score.

    A label that the font cannot write is left out; `header_of` has it.
    """
    _, height, width = explanation.pixels.shape
    enlarged = math.ceil(LEAST_EDGE / min(height, width))
    size = (height * enlarged, width * enlarged)
    grey = F.interpolate(explanation.pixels.float().mean(0)[None, None], size, mode="bicubic")[0, 0].clamp(0, 255)
    smooth = F.interpolate(explanation.relevance[None, None], size, mode="bicubic", align_corners=False)[0, 0].clamp(0, 1)
    mixed = (1 - OPACITY) * grey[..., None] + OPACITY * _colours(smooth)
    image = Image.fromarray(mixed.round().to(torch.uint8).numpy())
    score = f"{explanation.score:.1%}" if head.gives_probabilities else f"{explanation.score:.4g}"
    of_what = score if explanation.method == GRADIENT else f"{score}, all classes"
    buffer = io.BytesIO()
    _with_caption(image, label, f"  {of_what}").save(buffer, "PNG")
    return buffer.getvalue()


def header_of(label: str) -> str:
    """Returns a label as the value of a header: UTF-8, percent-encoded where it is not ASCII."""
    return quote(label, errors="replace")


def written(label: str, font: ImageFont.FreeTypeFont) -> str:
    """Returns the label on one line, or nothing if the font lacks one of its characters."""
    line = " ".join(label.split())
    no_glyph = bytes(font.getmask("\uffff"))  # no font has this character: it is drawn as the box for missing ones
    return line if all(each == " " or bytes(font.getmask(each)) not in (no_glyph, b"") for each in set(line)) else ""


def _colours(values: torch.Tensor) -> torch.Tensor:
    """Maps [H, W] in 0..1 to colours, [H, W, 3] in 0..255."""
    table = torch.tensor(VIRIDIS, dtype=torch.float32)
    place = values * (len(table) - 1)
    below = place.floor().long().clamp_max(len(table) - 2)
    return torch.lerp(table[below], table[below + 1], (place - below)[..., None])


def _with_caption(image: Image.Image, label: str, end: str) -> Image.Image:
    """Adds a line below `image`. A label that is too long is shortened; `end` is always shown."""
    font_size = max(14, image.width // 18)
    font = ImageFont.load_default(font_size)
    shown = written(label, font)
    while shown and font.getlength(shown + end) > image.width - font_size:
        shown = shown.removesuffix("…")[:-1].rstrip() + "…" if len(shown) > 1 else ""
    whole = Image.new("RGB", (image.width, image.height + 2 * font_size), "white")
    whole.paste(image)
    ImageDraw.Draw(whole).text((font_size // 2, image.height + font_size // 3), shown + end, "black", font)
    return whole
