"""Answers as a person reads them."""

from __future__ import annotations

from pathlib import Path

from command_line import print_labels, relative

SHOWN = 4  # numbers of an embedding


class Table:
    """A row for each picture, with its most probable label; for a single picture a row for each of its labels."""

    def __init__(self, files: list[Path]):
        self._width = max(len(str(relative(file))) for file in files)
        self._single = len(files) == 1

    def print_row(self, file: Path, answer: dict | list | None, error: Exception | None) -> None:
        name = f"{relative(file)!s:{self._width}}"
        if error is not None:
            print(f"{name}  refused: {error}")
        elif isinstance(answer, list):
            numbers = ", ".join(f"{value:.4f}" for value in answer[:SHOWN])
            print(f"{name}  {len(answer)} numbers: {numbers}{', …' if len(answer) > SHOWN else ''}")
        elif self._single:
            print_labels(answer)
        else:
            label, probability = next(iter(answer.items()))
            print(f"{name}  {probability:7.2%}  {label}")
