"""Pictures of handwritten digits, drawn the many ways people draw and photograph them.

The ink comes from scikit-learn's handwritten digits (UCI "Optical Recognition of Handwritten Digits", 8 x 8 pixels, 13
writers, CC BY 4.0) and, for training only, from pen strokes that cover forms these writers did not use (a barred seven,
an open four, a one with a foot). `picture` turns ink into an ordinary RGB image.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter, map_coordinates
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

INK_SIZE = 96  # ink is drawn this large: twice what the model sees, so that shrinking it smooths every edge


@functools.cache
def handwritten(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The `train` (1,437) or `heldout` (360) digits: ink [N, 8, 8] float32 in 0..1, labels [N] int64. Seeded, stratified."""
    digits = load_digits()
    ink = (digits.images / 16).astype(np.float32)
    parts = train_test_split(ink, digits.target, test_size=360, stratify=digits.target, random_state=0)
    return (parts[0], parts[2]) if split == "train" else (parts[1], parts[3])


def enlarge(ink: np.ndarray, cutoff: float | None, edge: float) -> np.ndarray:
    """8 x 8 ink as [INK_SIZE, INK_SIZE]. A low cutoff gives a thick pen, a high one a thin pen, None leaves it soft."""
    framed = np.pad(ink, 1)
    large = Image.fromarray(framed).resize((INK_SIZE, INK_SIZE), Image.Resampling.BICUBIC)
    smooth = gaussian_filter(np.asarray(large), INK_SIZE / 50)
    if cutoff is None:
        return smooth.clip(0, 1)
    return 1 / (1 + np.exp(np.clip((cutoff - smooth) / edge, -30, 30)))


# Pen strokes for each digit in a unit square, x to the right and y down: lists of points, joined by smooth curves.
# An angular stroke repeats its corner points.
STROKES = {
    0: [
        [[(0.5, 0), (0.15, 0.2), (0.1, 0.6), (0.3, 0.95), (0.6, 0.98), (0.88, 0.7), (0.85, 0.25), (0.5, 0)]],
        [[(0.6, 0.02), (0.3, 0.05), (0.1, 0.5), (0.3, 0.95), (0.7, 0.95), (0.9, 0.5), (0.7, 0.05), (0.5, 0.02)]],
    ],
    1: [
        [[(0.5, 0), (0.5, 0.5), (0.5, 1)]],
        [[(0.25, 0.25), (0.55, 0), (0.55, 0), (0.55, 0.5), (0.55, 1)]],
        [[(0.25, 0.25), (0.5, 0), (0.5, 0), (0.5, 0.5), (0.5, 1)], [(0.2, 1), (0.8, 1)]],
    ],
    2: [
        [[(0.12, 0.25), (0.3, 0.02), (0.7, 0.02), (0.85, 0.3), (0.5, 0.65), (0.1, 1), (0.1, 1), (0.9, 1)]],
        [
            [
                (0.15, 0.2),
                (0.45, 0),
                (0.8, 0.2),
                (0.65, 0.55),
                (0.3, 0.9),
                (0.1, 0.95),
                (0.2, 0.75),
                (0.5, 0.9),
                (0.9, 1),
            ]
        ],
    ],
    3: [
        [
            [
                (0.15, 0.12),
                (0.5, 0),
                (0.82, 0.22),
                (0.45, 0.47),
                (0.45, 0.47),
                (0.88, 0.7),
                (0.55, 1),
                (0.1, 0.88),
            ]
        ],
        [[(0.12, 0), (0.85, 0), (0.85, 0), (0.42, 0.42), (0.42, 0.42), (0.88, 0.68), (0.55, 1), (0.1, 0.9)]],
    ],
    4: [
        [[(0.35, 0), (0.12, 0.55), (0.12, 0.55), (0.9, 0.55)], [(0.7, 0.2), (0.68, 0.6), (0.66, 1)]],
        [[(0.7, 1), (0.7, 0), (0.7, 0), (0.05, 0.68), (0.05, 0.68), (0.95, 0.68)]],
        [[(0.15, 0), (0.15, 0.5), (0.15, 0.5), (0.8, 0.5)], [(0.8, 0), (0.8, 1)]],
    ],
    5: [
        [
            [
                (0.85, 0),
                (0.2, 0),
                (0.2, 0),
                (0.15, 0.45),
                (0.15, 0.45),
                (0.55, 0.36),
                (0.88, 0.65),
                (0.6, 0.98),
                (0.1, 0.9),
            ]
        ],
        [[(0.22, 0), (0.18, 0.42), (0.6, 0.38), (0.85, 0.7), (0.5, 1), (0.12, 0.92)], [(0.2, 0), (0.88, 0)]],
    ],
    6: [
        [[(0.75, 0), (0.35, 0.2), (0.12, 0.65), (0.35, 1), (0.75, 0.9), (0.8, 0.6), (0.45, 0.48), (0.15, 0.7)]],
        [[(0.5, 0), (0.2, 0.4), (0.15, 0.8), (0.5, 1), (0.85, 0.8), (0.65, 0.52), (0.2, 0.65)]],
    ],
    7: [
        [[(0.1, 0), (0.9, 0), (0.9, 0), (0.6, 0.45), (0.4, 1)]],
        [[(0.1, 0), (0.9, 0), (0.9, 0), (0.6, 0.5), (0.35, 1)], [(0.3, 0.5), (0.85, 0.48)]],
        [[(0.1, 0.2), (0.1, 0), (0.1, 0), (0.9, 0), (0.9, 0), (0.4, 1)]],
    ],
    8: [
        [
            [
                (0.8, 0.15),
                (0.5, 0),
                (0.2, 0.2),
                (0.5, 0.48),
                (0.85, 0.75),
                (0.5, 1),
                (0.15, 0.75),
                (0.5, 0.48),
                (0.8, 0.2),
                (0.65, 0.03),
            ]
        ],
        [
            [(0.5, 0), (0.2, 0.22), (0.5, 0.46), (0.8, 0.22), (0.5, 0)],
            [(0.5, 0.46), (0.12, 0.74), (0.5, 1), (0.88, 0.74), (0.5, 0.46)],
        ],
    ],
    9: [
        [[(0.8, 0.25), (0.5, 0), (0.18, 0.25), (0.45, 0.52), (0.8, 0.3), (0.8, 0.1), (0.78, 0.6), (0.7, 1)]],
        [[(0.78, 0.3), (0.45, 0), (0.18, 0.3), (0.5, 0.55), (0.82, 0.25), (0.8, 0.7), (0.5, 1), (0.2, 0.9)]],
    ],
}


def _curve(points: np.ndarray) -> np.ndarray:
    """A Catmull-Rom spline through `points` [N, 2], eight samples a segment."""
    ends = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, 8)[:, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - 3 * c + d - a) * t**3)
        for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:], strict=False)
    ]
    return np.concatenate(pieces)


def pen_strokes(digit: int, rng: np.random.Generator) -> np.ndarray:
    """One digit drawn with a pen, as ink [INK_SIZE, INK_SIZE] in 0..1."""
    scale = 4  # drawn larger and shrunk, since Pillow's lines have hard edges
    size = INK_SIZE * scale
    image = Image.new("L", (size, size))
    draw = ImageDraw.Draw(image)
    forms = STROKES[digit]
    pen = size * rng.uniform(0.02, 0.14)
    width = rng.uniform(0.35, 0.65)
    for stroke in forms[rng.integers(len(forms))]:
        points = np.array(stroke) + rng.normal(0, 0.025, (len(stroke), 2))
        points = (points - 0.5) * (width, 0.66) + 0.5
        curve = [tuple(point) for point in _curve(points) * size]
        draw.line(curve, fill=255, width=round(pen), joint="curve")
        for x, y in (curve[0], curve[-1]):
            draw.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=255)
    return np.asarray(image.resize((INK_SIZE, INK_SIZE), Image.Resampling.BOX), dtype=np.float32) / 255


def warp(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same digit in a shakier hand: rotated, slanted, stretched and bent a little."""
    angle, slant = rng.normal(0, 0.14), rng.normal(0, 0.16)
    stretch = math.exp(rng.normal(0, 0.15))
    matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = matrix @ np.array([[1, 0], [slant, 1]]) @ np.diag([1 / stretch, stretch])
    grid = np.stack(np.meshgrid(np.arange(INK_SIZE), np.arange(INK_SIZE), indexing="ij")) - INK_SIZE / 2  # [2, H, W]
    bend = [gaussian_filter(rng.normal(0, 1, (INK_SIZE, INK_SIZE)), 12) * rng.uniform(0, 40) for _ in range(2)]
    source = np.einsum("ij,jhw->ihw", matrix, grid) + np.stack(bend) + INK_SIZE / 2
    return map_coordinates(ink, source, order=1)


def draw_digit(ink8: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """8 x 8 ink as [INK_SIZE, INK_SIZE] ink, in a pen and hand of chance."""
    cutoff = None if rng.random() < 0.2 else rng.uniform(0.3, 0.7)
    return warp(enlarge(ink8, cutoff, edge=rng.uniform(0.02, 0.1)), rng)


def _colours(rng: np.random.Generator, grey: float) -> tuple[np.ndarray, np.ndarray]:
    """Paper and ink, each [3] in 0..255, far enough apart in brightness to be read; without colour with chance `grey`."""
    while True:
        if rng.random() < grey:
            paper, ink = np.repeat(rng.uniform(0, 255, 2), 3).reshape(2, 3)
        else:
            paper, ink = rng.uniform(0, 255, (2, 3))
        if rng.random() < 0.3:
            paper = np.full(3, rng.choice([0.0, 255.0]))
        if abs(np.dot(paper - ink, (0.299, 0.587, 0.114))) > 80:
            return paper, ink


def picture(ink: np.ndarray, rng: np.random.Generator, widths: tuple[int, int] = (16, 2000), easy: bool = False) -> Image.Image:
    """An RGB picture of `ink` [INK_SIZE, INK_SIZE]: any colours, somewhere in a frame `widths` pixels wide.

    The width is drawn log-uniformly; paper can be shaded and grainy, and the camera a little out of focus. An `easy` one
    is grey and clean, and the digit fills most of it.
    """
    width = round(math.exp(rng.uniform(*np.log(widths))))
    height = max(16, round(width * math.exp(rng.normal(0, 0.2))))
    # A digit is 12 pixels high at the least: at fewer, people cannot tell a 3 from an 8 either.
    smallest = 0.75 if easy else max(0.4, min(0.95, 12 / min(width, height)))
    canvas = _place(ink, width, height, share=rng.uniform(smallest, 0.97), rng=rng)
    paper, pen = _colours(rng, grey=1.0 if easy else 0.4)
    if easy:
        return Image.fromarray((paper + (pen - paper) * canvas[..., None]).astype(np.uint8))
    if rng.random() < 0.3:  # light falls from one side
        across, down = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
        paper = paper + (rng.uniform(-30, 30) * across + rng.uniform(-30, 30) * down)[..., None]
    pixels = paper + (pen - paper) * canvas[..., None]
    if rng.random() < 0.4:
        pixels = pixels + rng.normal(0, rng.uniform(1, 10), pixels.shape)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.012) * min(width, height)))
    return image


def _place(ink: np.ndarray, width: int, height: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """`ink` trimmed to the digit, put somewhere into a [height, width] canvas of which it takes `share`."""
    rows, columns = np.nonzero(ink.max(1) > 0.2)[0], np.nonzero(ink.max(0) > 0.2)[0]
    trimmed = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = share * min(height / trimmed.shape[0], width / trimmed.shape[1])
    size = [max(2, round(side * scale)) for side in trimmed.shape]
    digit = Image.fromarray(trimmed.astype(np.float32)).resize(size[::-1], Image.Resampling.BICUBIC)
    canvas = Image.new("F", (width, height))
    canvas.paste(digit, (int(rng.integers(0, width - size[1] + 1)), int(rng.integers(0, height - size[0] + 1))))
    return np.asarray(canvas).clip(0, 1)
