"""Measures how well probabilities match the share of answers that are right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_expit, log_softmax, softmax

from evaluate.run import Run
from vit_core.settings import SIGMOID

BINS = 15  # of equal width, as in Guo et al., On Calibration of Modern Neural Networks (2017)


@dataclass(frozen=True)
class Bin:
    """The answers whose probability is above `low` and at most `high`."""

    low: float
    high: float
    count: int
    confidence: float  # their mean probability
    accuracy: float  # the share of correct answers among them


def losses(logits: np.ndarray, truth: np.ndarray, activation: str, temperature: float) -> np.ndarray:
    """Returns the negative log-likelihood of each picture, float64 [N]; for a sigmoid head, the mean over its classes.

    `logits` are [N, C], `truth` is bool [N, C].
    """
    scaled = logits.astype(np.float64) / temperature
    if activation == SIGMOID:
        return -np.where(truth, log_expit(scaled), log_expit(-scaled)).mean(1)
    return -log_softmax(scaled, axis=1)[truth]


def loss(run: Run, temperature: float) -> float:
    return float(losses(run.logits, run.truth, run.head.activation, temperature).mean())


def claims(run: Run, temperature: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the probabilities that the run claims, and whether each claim is true, at the head's own temperature or at
    another one.

    A claim is the first label of each picture, [N]; for a sigmoid head, each label of each picture, [N * C].
    """
    sigmoid = run.head.activation == SIGMOID
    scores = run.scores
    if temperature is not None:
        scaled = run.logits.astype(np.float64) / temperature
        scores = expit(scaled) if sigmoid else softmax(scaled, axis=1)
    if sigmoid:
        return scores.ravel(), run.truth.ravel()
    rows = np.arange(len(run))
    return scores[rows, run.first], run.truth[rows, run.first]


def bins(probabilities: np.ndarray, right: np.ndarray) -> list[Bin]:
    """Sorts the claims into bins by their probability, without the empty bins."""
    places = np.clip(np.ceil(probabilities * BINS).astype(int) - 1, 0, BINS - 1)
    found = []
    for place in np.unique(places):
        own = places == place
        confidence, accuracy = float(probabilities[own].mean(dtype=np.float64)), float(right[own].mean())
        found.append(Bin(place / BINS, (place + 1) / BINS, int(own.sum()), confidence, accuracy))
    return found


def calibration_error(found: list[Bin]) -> float:
    """Returns the expected calibration error: the mean distance, over all claims, between the probability and the share that is
    true.
    """
    return sum(each.count * abs(each.confidence - each.accuracy) for each in found) / sum(each.count for each in found)
