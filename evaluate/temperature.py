"""Fits the temperature that makes probabilities match the share of answers that are right.

Guo et al., On Calibration of Modern Neural Networks (2017): the logits are divided by one number, which is fitted to labelled
pictures by their negative log-likelihood. The order of the labels stays.
"""

from __future__ import annotations

import math

from scipy.optimize import minimize_scalar

from command_line import UserError
from evaluate.probabilities import bins, calibration_error, claims, loss
from evaluate.run import Run

LEAST, MOST = 0.05, 20.0  # a fit that ends at a bound is refused: the pictures do not determine the temperature
SAME = 1e-6  # of two losses
DIGITS = 4  # as precise as a few hundred pictures allow


def fit(run: Run) -> float:
    """Returns the temperature with the least negative log-likelihood, rounded. Raises UserError if the pictures do not
    determine it.
    """
    ends = (math.log(LEAST), math.log(MOST))
    found = minimize_scalar(lambda log: loss(run, math.exp(log)), bounds=ends, method="bounded", options={"xatol": 1e-7})
    temperature = round(math.exp(found.x), DIGITS)
    most = loss(run, temperature) * (1 + SAME)
    for end, why in (
        (LEAST, "the model is right about all of them: it needs some that it gets wrong"),
        (MOST, "its answers have nothing to do with the labels"),
    ):
        if loss(run, end) <= most:
            raise UserError(f"these {len(run)} pictures do not tell a temperature, as {why}")
    return temperature


def effect(run: Run, temperature: float) -> dict:
    """Returns what the new archive records: the fit, and the pictures' calibration with the old head and with the new one."""
    both = (run.head.temperature, temperature)
    return {
        "temperature": temperature,
        "pictures": len(run),
        "pictures_sha256": run.sha256,
        "precision": run.precision,
        "negative_log_likelihood": [round(loss(run, each), DIGITS) for each in both],
        "calibration_error": [round(calibration_error(bins(*claims(run, each))), DIGITS) for each in both],
    }
