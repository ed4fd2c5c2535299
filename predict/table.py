"""Answers as a person reads them."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import print_labels, relative
from vit_core.errors import RequestError

SHOWN = 4  # numbers of an embedding


class Table:
    """A row for each picture, with its most probable label; for a single picture a row for each of its labels."""

    def __init__(self, files: list[Path]):
        self._width = max(len(str(relative(file))) for file in files)
        self._single = len(files) == 1

    def print_row(self, file: Path, answer: dict | list | None, error: RequestError | None) -> None:
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


class Lines:
    """A line of JSON for each picture, with its path and its answer, or the error that it got."""

    def print_row(self, file: Path, answer: dict | list | None, error: RequestError | None) -> None:
        outcome = {"answer": answer} if error is None else {"error": error.as_dict()}
        print(json.dumps({"picture": str(file), **outcome}, ensure_ascii=False), flush=True)
