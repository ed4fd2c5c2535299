"""How well probabilities say how often they are right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_expit, log_softmax, softmax

from evaluate.run import Run
from vit_core.settings import SIGMOID

BINS = 15  # of equal width, as in Guo et al., On Calibration of Modern Neural Networks (2017)


@dataclass(frozen=True)
class Bin:
    """The answers whose probability is above `low`, up to `high`."""

    low: float
    high: float
    count: int
    confidence: float  # their mean probability
    accuracy: float  # the share of them that is right


def losses(logits: np.ndarray, truth: np.ndarray, activation: str, temperature: float) -> np.ndarray:
    """The negative log-likelihood of each picture, float64 [N]; of a sigmoid head the mean over its classes.

    `logits` are [N, C], `truth` is bool [N, C].
    """
    scaled = logits.astype(np.float64) / temperature
    if activation == SIGMOID:
        return -np.where(truth, log_expit(scaled), log_expit(-scaled)).mean(1)
    return -log_softmax(scaled, axis=1)[truth]


def loss(run: Run, temperature: float) -> float:
    return float(losses(run.logits, run.truth, run.head.activation, temperature).mean())


def claims(run: Run, temperature: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """What the run says with which probability, and whether it is so: the first label of each picture, [N]; of a sigmoid head
    each label of each picture, [N * C]. At the head's own temperature, or at another one."""
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
    """The claims by their probability, without the bins that are empty."""
    places = np.clip(np.ceil(probabilities * BINS).astype(int) - 1, 0, BINS - 1)
    found = []
    for place in np.unique(places):
        own = places == place
        confidence, accuracy = float(probabilities[own].mean(dtype=np.float64)), float(right[own].mean())
        found.append(Bin(place / BINS, (place + 1) / BINS, int(own.sum()), confidence, accuracy))
    return found


def calibration_error(found: list[Bin]) -> float:
    """The expected calibration error: how far probabilities are from the share that is right, in the mean over all claims."""
    return sum(each.count * abs(each.confidence - each.accuracy) for each in found) / sum(each.count for each in found)
