"""Draws a report: which classes are confused with which, and how far the probabilities can be trusted."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

from evaluate.table import confused

WHOLE, NUMBERED = 40, 20  # classes of which the matrix is shown as a whole, and with numbers in it
BARS = 30  # the most confused pairs, or the worst classes, where there are more classes
LONGEST = 24  # characters of a label
BLUE = "#2f6db3"


def plot(report: dict, file: Path) -> None:
    """Writes a PNG of one run.

    It shows the confusion matrix (for many classes, the most confused pairs; for a sigmoid head, the average precision of its
    classes), and the reliability diagram if there are probabilities.
    """
    metrics = report["metrics"]
    reliable = "reliability" in metrics
    figure, axes = pyplot.subplots(1, 1 + reliable, figsize=(15 if reliable else 8, 7.5), squeeze=False, layout="constrained")
    left = axes[0][0]
    if "confusion" not in metrics:
        _average_precision(left, metrics["classes"])
    elif len(metrics["classes"]) <= WHOLE:
        _matrix(left, metrics)
    else:
        _pairs(left, confused(metrics)[:BARS])
    if reliable:
        _reliability(axes[0][1], metrics)
    figure.suptitle(f"{report['name']}, {report['precision']}: {metrics['pictures']:,} pictures")
    figure.savefig(file, format="png", dpi=100, metadata={"Software": None})  # the same bytes each time
    pyplot.close(figure)


def _matrix(axes: Axes, metrics: dict) -> None:
    labels = list(metrics["classes"])
    counts = np.array([[metrics["confusion"].get(true, {}).get(said, 0) for said in labels] for true in labels])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)  # the root, so that one mistake in a hundred is visible
    ticks = [_short(label) for label in labels]
    axes.set_xticks(range(len(labels)), ticks, rotation=0 if max(map(len, ticks)) < 4 else 90)
    axes.set_yticks(range(len(labels)), ticks)
    axes.set(xlabel="said", ylabel="true", title="Confusion: pictures, shaded by their share of the true class")
    if len(labels) <= NUMBERED:
        for row, column in zip(*counts.nonzero(), strict=True):
            colour = "white" if shares[row, column] > 0.4 else "black"
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour, fontsize=9)


def _pairs(axes: Axes, pairs: list[tuple[str, str, int]]) -> None:
    _bars(axes, [f"{_short(true)} → {_short(said)}" for true, said, _ in pairs], [count for *_, count in pairs], BLUE)
    axes.set(xlabel="pictures", title="Most confused: true → said")
    axes.xaxis.get_major_locator().set_params(integer=True)


def _average_precision(axes: Axes, classes: dict) -> None:
    there = {label: each["average_precision"] for label, each in classes.items() if each["average_precision"] is not None}
    worst = sorted(there, key=there.get)[:BARS]
    _bars(axes, [_short(label) for label in worst], [there[label] for label in worst], BLUE)
    axes.set(xlabel="average precision", xlim=(0, 1), title="The worst classes" if len(there) > BARS else "The classes")


def _bars(axes: Axes, names: list[str], values: list[float], colour: str) -> None:
    axes.barh(range(len(names)), values, color=colour)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()


def _reliability(axes: Axes, metrics: dict) -> None:
    found = metrics["reliability"]
    middles = [(each["low"] + each["high"]) / 2 for each in found]
    width = found[0]["high"] - found[0]["low"]
    axes.bar(middles, [each["accuracy"] for each in found], 0.9 * width, color=BLUE, label="right, of so many answers")
    axes.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle="--", label="as often as it says")
    for middle, each in zip(middles, found, strict=True):
        axes.text(middle, each["accuracy"] + 0.01, _count(each["count"]), ha="center", fontsize=9)
    axes.set(xlim=(0, 1), ylim=(0, 1.06), xlabel="probability", ylabel="share that is right")
    axes.set_title(f"Reliability; calibration error {metrics['calibration_error']:.1%}")
    axes.legend(loc="upper left")


def _count(number: int) -> str:
    return str(number) if number < 10_000 else f"{number / 1000:,.0f}k"


def _short(label: str) -> str:
    label = label.replace("$", r"\$")  # matplotlib would read mathematics between two of them
    return label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"
