"""Labelled pictures for the tests of the evaluation, and what it says of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from evaluate.__main__ import main
from train import handwritten, scan

PER_DIGIT = 8
WRONG = 7  # one of so many is labelled as the next digit, which gives the metrics something to say


def digits() -> list[tuple[np.ndarray, int, int]]:
    """(8 x 8 ink, the digit, what it is labelled as) of some held-out digits, the same of each."""
    ink, labels = handwritten("heldout")
    found = [(ink[index], digit) for digit in range(10) for index in np.nonzero(labels == digit)[0][:PER_DIGIT]]
    return [(ink8, digit, (digit + (number % WRONG == 0)) % 10) for number, (ink8, digit) in enumerate(found)]


def by_class(folder: Path, names: str | list[str] = "0123456789") -> Path:
    """A folder of pictures for each class, called as `names` has them."""
    for number, (ink8, _, label) in enumerate(digits()):
        (folder / names[label]).mkdir(parents=True, exist_ok=True)
        scan(ink8).save(folder / names[label] / f"{number:03}.png")
    return folder


def in_table(file: Path, rows: list[tuple], header: tuple = ("path", "label")) -> Path:
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([header, *rows])
    return file


def evaluated(tmp_path: Path, *arguments: object, status: int = 0) -> dict:
    """What `--json` has of the command with these arguments."""
    report = tmp_path / "report.json"
    assert main([*map(str, arguments), "--json", str(report)]) == status
    return json.loads(report.read_text())


def refused(capsys, *arguments: object) -> str:
    """The line that the command refuses these arguments with."""
    capsys.readouterr()
    assert main(list(map(str, arguments))) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("evaluate: ") and printed.err.count("\n") == 1
    return printed.err
