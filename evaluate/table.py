"""Formats a report for a person at a terminal."""

from __future__ import annotations

from pathlib import Path

from command_line import relative
from evaluate.compare import CHANCE

CLASSES = 30  # rows of classes; of more, the worst
PAIRS, DIFFERENT, REFUSED = 10, 20, 20  # rows
NAMES = {
    "pictures": "pictures",
    "errors": "errors",
    "images_per_second": "images a second",
    "top1": "top-1",
    "top1_interval": "95 % interval",
    **{f"top{top}": f"top-{top}" for top in range(2, 6)},
    "coverage": "answered",
    "top1_of_answered": "top-1 of these",
    "exact_match": "exact match",
    "mean_average_precision": "mean average precision",
    "micro_f1": "micro F1",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "calibration_error": "calibration error",
    "negative_log_likelihood": "negative log-likelihood",
}
PLAIN = ("pictures", "errors", "images_per_second", "negative_log_likelihood")  # numbers that are no shares


def table(runs: list[dict]) -> str:
    """Formats the metrics with a column for each run; for a single run, also its classes and its most frequent confusions."""
    lines = columns([["", *(run["name"] for run in runs)], *_rows(runs)])
    if len(runs) == 1:
        lines += ["", *_classes(runs[0]["metrics"]), *_confused(runs[0]["metrics"])]
    refused = dict.fromkeys((each["picture"], each["error"]["message"]) for run in runs for each in run["errors"])
    if refused:
        lines += ["", *(f"{_path(picture)}  refused: {message}" for picture, message in list(refused)[:REFUSED])]
        lines += _more(len(refused) - REFUSED)
    return "\n".join(lines)


def comparison(found: dict, shares: bool) -> str:
    """Formats the comparison of two runs. `shares`: their scores are probabilities."""
    first, second, pictures = found["first"], found["second"], found["pictures"]
    gain = (found["only_second_right"] - found["only_first_right"]) / pictures
    sure = found["p_value"] < CHANCE
    lines = [
        f"{second} beside {first}, on {pictures:,} pictures",
        f"both right {found['both_right']:,}, neither {found['neither_right']:,}, only {first} {found['only_first_right']:,}, "
        f"only {second} {found['only_second_right']:,}",
        f"{gain:+.2%}, which is {'more' if sure else 'no more'} than chance (McNemar's exact test: p = {found['p_value']:.3g})",
        f"scores differ by {found['largest_score_difference']:.4f} at most, {found['mean_score_difference']:.2g} in the mean",
    ]
    differ = found["differ"]
    if differ:
        lines.append(f"the answers differ for {len(differ):,} picture{'s' * (len(differ) > 1)}:")
        rows = []
        for each in differ[:DIFFERENT]:
            said = (_said(each[which], shares) for which in ("first", "second"))
            rows.append([_path(each["picture"]), f"is {', '.join(each['true']) or 'none'}", *said])
        lines += columns([["", "", first, second], *rows], indent="  ")
        lines += _more(len(differ) - DIFFERENT)
    return "\n".join(lines)


def columns(rows: list[list[str]], indent: str = "") -> list[str]:
    """Aligns rows: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append((indent + "  ".join(cells)).rstrip())
    return lines


def _rows(runs: list[dict]) -> list[list[str]]:
    rows = [["runs in", *(f"{run['precision']} on {run['device']}" for run in runs)]]
    for key, name in NAMES.items():
        values = [run["metrics"].get(key) for run in runs]
        if any(value is not None for value in values):
            rows.append([name, *(_value(key, value) for value in values)])
    return rows


def _value(key: str, value: float | list | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return "–".join(f"{100 * each:.1f}" for each in value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if key in PLAIN else f"{value:.2%}"


def _classes(metrics: dict) -> list[str]:
    """Returns the rows of the classes; the worst ones if there are too many to show."""
    classes = metrics["classes"]
    names = list(classes)
    if len(names) > CLASSES:
        names = sorted((name for name in names if classes[name]["pictures"]), key=lambda name: classes[name]["f1"])[:CLASSES]
    keys = [key for key in ("precision", "recall", "f1", "average_precision") if key in next(iter(classes.values()))]
    head = {"f1": "F1", "average_precision": "average precision"}
    rows = [[name, f"{classes[name]['pictures']:,}", *(_value(key, classes[name][key]) for key in keys)] for name in names]
    lines = columns([["class", "pictures", *(head.get(key, key) for key in keys)], *rows])
    without = sum(not each["pictures"] for each in classes.values())
    lines += _more(len(classes) - without - len(names)) if len(classes) > CLASSES else []
    if without:
        lines.append(f"{without} of {len(classes)} classes have no pictures: the means are over the others")
    return lines


def _confused(metrics: dict) -> list[str]:
    pairs = confused(metrics)
    if not pairs:
        return []
    rows = [["most confused", "said", "pictures"], *([true, said, f"{count:,}"] for true, said, count in pairs[:PAIRS])]
    return ["", *columns(rows), *_more(len(pairs) - PAIRS)]


def confused(metrics: dict) -> list[tuple[str, str, int]]:
    """Returns (true label, answered label, pictures), the most frequent first."""
    confusion = metrics.get("confusion", {})
    pairs = [(true, said, count) for true, row in confusion.items() for said, count in row.items() if said != true]
    return sorted(pairs, key=lambda pair: -pair[2])


def _more(count: int) -> list[str]:
    return [f"… and {count:,} more, which --json has"] if count > 0 else []


def _said(labels: dict[str, float], shares: bool) -> str:
    return ", ".join(f"{label} {f'{score:.1%}' if shares else f'{score:.4g}'}" for label, score in labels.items()) or "none"


def _path(picture: str) -> str:
    return str(relative(Path(picture)))


def calibration(fitted: dict, before: float, archive: Path) -> str:
    """Formats the effect of a fitted temperature on the pictures that it was fitted to."""
    likelihood, error = fitted["negative_log_likelihood"], fitted["calibration_error"]
    rows = [
        ["", "before", "after"],
        ["temperature", f"{before:.4g}", f"{fitted['temperature']:.4g}"],
        ["negative log-likelihood", *(f"{each:.4g}" for each in likelihood)],
        ["calibration error", *(f"{each:.2%}" for each in error)],
    ]
    return "\n".join([*columns(rows), f"archive  {archive}"])
