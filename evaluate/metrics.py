"""Computes the metrics of a run with scikit-learn, as a dictionary for programs and for the table."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from evaluate.probabilities import bins, calibration_error, claims, loss
from evaluate.run import Run
from vit_core.settings import SIGMOID

TOP = 5  # if there are more classes than that
THRESHOLD = 0.5  # of a sigmoid head without thresholds of its own


def measure(run: Run) -> dict:
    """Returns all metrics of a run as shares from 0 to 1. A metric that is not defined is None, such as the recall of a class
    without pictures.
    """
    found = {"pictures": len(run), "errors": len(run.errors), "images_per_second": _rate(run)}
    found |= _each_by_itself(run) if run.head.activation == SIGMOID else _excluding(run)
    if run.head.gives_probabilities:
        reliability = bins(*claims(run))
        found["calibration_error"] = calibration_error(reliability)
        found["negative_log_likelihood"] = loss(run, run.head.temperature)
        found["reliability"] = [asdict(each) for each in reliability]
    return found


def decided(run: Run) -> np.ndarray:
    """Returns the labels that the run gives a picture, bool [N, C]: the first one, or those that reach their thresholds."""
    if run.head.activation == SIGMOID:
        return run.scores >= np.array(run.head.thresholds or [THRESHOLD] * len(run.labels), np.float32)
    return run.first[:, None] == np.arange(len(run.labels))


def right(run: Run) -> np.ndarray:
    """Whether the run gives a picture exactly the labels that it has, bool [N]."""
    return (decided(run) == run.truth).all(1)


def _rate(run: Run) -> float:
    return (len(run) + len(run.errors)) / run.seconds


def _excluding(run: Run) -> dict:
    classes, truth = np.arange(len(run.labels)), run.truth.argmax(1)
    hits = right(run)
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, "wilson")
    found = {"top1": float(accuracy_score(truth, run.first)), "top1_interval": [float(interval.low), float(interval.high)]}
    if (top := min(TOP, len(classes) - 1)) > 1:
        found[f"top{top}"] = float(top_k_accuracy_score(truth, run.scores, k=top, labels=classes))
    if run.head.abstain is not None:
        answered = run.scores.max(1).astype(np.float64) >= run.head.abstain  # compared as the answer does
        found["coverage"] = float(answered.mean())
        found["top1_of_answered"] = float(hits[answered].mean()) if answered.any() else None
    each = precision_recall_fscore_support(truth, run.first, labels=classes, zero_division=np.nan)
    matrix = confusion_matrix(truth, run.first, labels=classes)
    confusion = {
        run.labels[row]: {run.labels[column]: int(matrix[row, column]) for column in matrix[row].nonzero()[0]}
        for row in matrix.any(1).nonzero()[0]
    }
    return found | _by_class(run, *each) | {"confusion": confusion}


def _each_by_itself(run: Run) -> dict:
    said, truth = decided(run), run.truth
    pairs = zip(truth.T, said.T, strict=True)
    each = [precision_recall_fscore_support(has, gets, average="binary", zero_division=np.nan)[:3] for has, gets in pairs]
    micro = precision_recall_fscore_support(truth.ravel(), said.ravel(), average="binary", zero_division=np.nan)
    found = _by_class(run, *np.array(each).T, truth.sum(0))
    for index, of_class in enumerate(found["classes"].values()):
        has = truth[:, index]
        of_class["average_precision"] = float(average_precision_score(has, run.scores[:, index])) if has.any() else None
    return {
        "exact_match": float(right(run).mean()),
        "mean_average_precision": _mean([of_class["average_precision"] for of_class in found["classes"].values()]),
        "micro_f1": _or_none(micro[2]),
        **found,
    }


def _by_class(run: Run, precision: np.ndarray, recall: np.ndarray, f1: np.ndarray, pictures: np.ndarray) -> dict:
    """Returns the metrics of each class, and their means over the classes that have pictures. A class that is never answered
    has no precision.
    """
    classes = {}
    for index, label in enumerate(run.labels):
        there = pictures[index] > 0
        classes[label] = {
            "pictures": int(pictures[index]),
            "precision": _or_none(precision[index]),
            "recall": _or_none(recall[index]),
            "f1": _or_none(f1[index]) if there else None,
        }
    with_pictures = [each for each in classes.values() if each["pictures"]]
    means = {f"macro_{name}": _mean([each[name] for each in with_pictures]) for name in ("precision", "recall", "f1")}
    return {**means, "classes": classes}


def _mean(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
