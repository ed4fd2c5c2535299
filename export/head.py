"""Decides what the model's logits mean: by the user's options, by the model's source, or softmax."""

from __future__ import annotations

import json
import math
from pathlib import Path

from export.errors import ExportError
from export.options import Options
from vit_core.settings import NONE, SIGMOID, SOFTMAX, UNKNOWN, Head

# transformers' `problem_type`
PROBLEM_TYPES = {
    "single_label_classification": SOFTMAX,
    "multi_label_classification": SIGMOID,
    "regression": NONE,
}


def choose_head(options: Options, problem_type: str | None, labels: list[str]) -> Head:
    """Returns the head for classes with these labels. Raises ExportError for an unknown problem type, or for bad thresholds.

    By default an answer has five labels. If thresholds or scores decide which labels it has, none is cut off.
    """
    if problem_type not in (None, *PROBLEM_TYPES):
        raise ExportError(f"the model's problem_type is {problem_type!r}: expected {', '.join(PROBLEM_TYPES)}, or give --head")
    activation = options.head or PROBLEM_TYPES.get(problem_type, SOFTMAX)
    thresholds = _thresholds(options.thresholds, labels) if options.thresholds else None
    if thresholds and activation != SIGMOID:
        raise ExportError(f"--thresholds are for --head {SIGMOID}, not for {activation}")
    if options.abstain is not None:
        _check_abstain(options.abstain, activation, labels)
    most = len(labels) if thresholds or activation == NONE else Head.top_k
    return Head(activation, min(options.top_k or most, len(labels)) or Head.top_k, thresholds, abstain=options.abstain)


def _check_abstain(probability: float, activation: str, labels: list[str]) -> None:
    if activation != SOFTMAX:
        instead = f": --thresholds say which labels a {SIGMOID} head leaves out" if activation == SIGMOID else ""
        raise ExportError(f"--abstain is for --head {SOFTMAX}, not for {activation}{instead}")
    if UNKNOWN in labels:
        raise ExportError(f"--abstain answers {UNKNOWN!r}, and a class is called so: give it another label")
    if labels and probability <= 1 / len(labels):
        raise ExportError(
            f"--abstain {probability} would never abstain: the most probable of {len(labels)} classes has "
            f"{1 / len(labels):.2g} at least"
        )


def _thresholds(given: str, labels: list[str]) -> tuple[float, ...]:
    """Reads thresholds: one number for all classes, or a JSON file of label → number."""
    try:
        values = [float(given)] * len(labels)
    except ValueError:
        values = _read(Path(given), labels)
    if not all(isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value <= 1 for value in values):
        raise ExportError(f"{given}: each threshold should be a probability from 0 to 1")
    return tuple(map(float, values))


def _read(file: Path, labels: list[str]) -> list[float]:
    try:
        by_label = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ExportError(f"the thresholds could not be read from {file}: {error}") from error
    if not isinstance(by_label, dict) or by_label.keys() != set(labels):
        named = by_label.keys() ^ set(labels) if isinstance(by_label, dict) else set()
        which = f": {sorted(named)[0]!r} is in one of both alone" if named else ""
        raise ExportError(f"{file} should be JSON that gives a threshold to each of the {len(labels)} labels{which}")
    return [by_label[label] for label in labels]
