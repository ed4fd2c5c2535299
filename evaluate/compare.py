"""Compares two runs: the pictures on which they differ, and whether one is better by more than chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

from evaluate.metrics import decided, right
from evaluate.run import Run
from evaluate.sources import Example

CHANCE = 0.05  # the p-value above which a difference counts as chance


def compare(first: Run, second: Run, examples: Sequence[Example]) -> dict:
    """Compares two runs on the pictures that both could read.

    `p_value` is that of McNemar's exact test, two-sided: the probability that chance alone would divide the pictures that only
    one run gets right as unevenly as this.
    """
    _, own, others = np.intersect1d(first.places, second.places, assume_unique=True, return_indices=True)
    hits, others_hits = right(first)[own], right(second)[others]
    only_first, only_second = int((hits & ~others_hits).sum()), int((~hits & others_hits).sum())
    differ = (decided(first)[own] != decided(second)[others]).any(1).nonzero()[0]
    apart = np.abs(first.scores[own] - second.scores[others])
    return {
        "first": first.name,
        "second": second.name,
        "pictures": len(own),
        "both_right": int((hits & others_hits).sum()),
        "neither_right": int((~hits & ~others_hits).sum()),
        "only_first_right": only_first,
        "only_second_right": only_second,
        "p_value": mcnemar(only_first, only_second),
        "largest_score_difference": float(apart.max(initial=0)),
        "mean_score_difference": float(apart.mean(dtype=np.float64)) if apart.size else 0.0,
        "differ": [
            {
                "picture": str(examples[first.places[own[row]]].picture),
                "true": answer(first, first.truth[own[row]]),
                "first": answer(first, decided(first)[own[row]], own[row]),
                "second": answer(second, decided(second)[others[row]], others[row]),
            }
            for row in differ
        ],
    }


def mcnemar(only_first: int, only_second: int) -> float:
    """Returns the two-sided p-value of the exact test, for the numbers of pictures that only one of the runs gets right."""
    discordant = only_first + only_second
    return float(binomtest(min(only_first, only_second), discordant).pvalue) if discordant else 1.0


def answer(run: Run, which: np.ndarray, row: int | None = None) -> dict[str, float] | list[str]:
    """Returns the labels of `which`, bool [C]; with their scores if the `row` of a picture is given."""
    labels = [run.labels[index] for index in which.nonzero()[0]]
    return labels if row is None else dict(zip(labels, run.scores[row, which].tolist(), strict=True))
