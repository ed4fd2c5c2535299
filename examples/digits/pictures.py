"""Pictures of handwritten digits, drawn the many ways people draw and photograph them.

The ink comes from scikit-learn's handwritten digits (UCI "Optical Recognition of Handwritten Digits", 8 x 8 pixels, 13
writers, CC BY 4.0) and, for training only, from pen strokes (strokes.py). `picture` turns ink into an ordinary RGB image.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter
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


@dataclass(frozen=True)
class Hand:
    """How far a hand is from the writers' own: standard deviations, and the most that `bend` may be."""

    turn: float  # radians
    slant: float  # x for each y
    stretch: float  # of the logarithm of width to height
    bend: float  # pixels of INK_SIZE, forty times


STEADY, SHAKY = Hand(0.14, 0.16, 0.15, 40), Hand(0.16, 0.25, 0.17, 120)


def warp(ink: np.ndarray, rng: np.random.Generator, hand: Hand = STEADY) -> np.ndarray:
    """The same digit in another hand: rotated, slanted, stretched and bent a little."""
    angle, slant = rng.normal(0, hand.turn), rng.normal(0, hand.slant)
    stretch = math.exp(rng.normal(0, hand.stretch))
    matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = matrix @ np.array([[1, 0], [slant, 1]]) @ np.diag([1 / stretch, stretch])
    grid = np.stack(np.meshgrid(np.arange(INK_SIZE), np.arange(INK_SIZE), indexing="ij")) - INK_SIZE / 2  # [2, H, W]
    bend = [gaussian_filter(rng.normal(0, 1, (INK_SIZE, INK_SIZE)), 12) * rng.uniform(0, hand.bend) for _ in range(2)]
    source = np.einsum("ij,jhw->ihw", matrix, grid) + np.stack(bend) + INK_SIZE / 2
    return map_coordinates(ink, source, order=1)


def ragged(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same ink [INK_SIZE, INK_SIZE] from a dry pen or a coarse scan: its outline wavers, and it may have had few pixels.

    A model that has seen none takes a one whose edges are not smooth for an 8: enlarged, the eights of 8 x 8 scans look so.
    """
    if rng.random() < 0.5:
        side = int(rng.integers(14, 40))
        few = Image.fromarray(ink.astype(np.float32)).resize((side, side), Image.Resampling.BOX)
        ink = np.asarray(few.resize((INK_SIZE, INK_SIZE), Image.Resampling.BICUBIC))
    soft = gaussian_filter(ink, rng.uniform(0.5, 2))
    waves = gaussian_filter(rng.normal(0, 1, soft.shape), rng.uniform(1, 5))
    height = soft / soft.max() + waves / waves.std() * rng.uniform(0, 0.15)
    return 1 / (1 + np.exp(np.clip((0.5 - height) / rng.uniform(0.03, 0.12), -30, 30)))


def draw_digit(ink8: np.ndarray, rng: np.random.Generator, hand: Hand = STEADY) -> np.ndarray:
    """8 x 8 ink as [INK_SIZE, INK_SIZE] ink, in a pen and hand of chance."""
    cutoff = None if rng.random() < 0.2 else rng.uniform(0.3, 0.7)
    return warp(enlarge(ink8, cutoff, edge=rng.uniform(0.02, 0.1)), rng, hand)


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


def picture(
    ink: np.ndarray,
    rng: np.random.Generator,
    widths: tuple[int, int] = (16, 2000),
    least_share: float = 0.4,
    easy: bool = False,
) -> Image.Image:
    """An RGB picture of `ink` [INK_SIZE, INK_SIZE]: any colours, somewhere in a frame `widths` pixels wide.

    The digit takes `least_share` of the frame's height or width, or more.

    The width is drawn log-uniformly; paper can be shaded and grainy, and the camera a little out of focus. An `easy` one
    is grey and clean, and the digit fills most of it.
    """
    width = round(math.exp(rng.uniform(*np.log(widths))))
    height = max(16, round(width * math.exp(rng.normal(0, 0.2))))
    # A digit is 12 pixels high at the least: at fewer, people cannot tell a 3 from an 8 either.
    smallest = 0.75 if easy else max(least_share, min(0.95, 12 / min(width, height)))
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
