"""Reads the texts of the command line. Each function raises argparse.ArgumentTypeError, which says what was expected."""

from __future__ import annotations

import argparse
import re

from vit_core.settings import LEAST_CROP, MOST_CROP, TASKS


def tasks(text: str) -> tuple[str, ...]:
    tasks = tuple(text.split(","))
    if len(set(tasks)) != len(tasks) or not set(tasks) <= set(TASKS):
        raise argparse.ArgumentTypeError(f"expected classify, embed or both with a comma between them, not {text!r}")
    return tasks


def fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not LEAST_CROP <= value <= MOST_CROP:
        raise argparse.ArgumentTypeError(f"expected a number of at least {LEAST_CROP}, 1 for no crop, not {text!r}")
    return value


def probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a probability above 0, up to 1, not {text!r}")
    return value


def floats(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected numbers with commas between them, not {text!r}") from error


def model_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text):
        raise argparse.ArgumentTypeError(f"expected letters, digits, '_', '-' and '.', not {text!r}")
    return text
