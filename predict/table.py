"""Formats answers for a person."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import bar, relative
from vit_core.errors import RequestError
from vit_core.settings import NONE

SHOWN = 4  # numbers of an embedding


class Table:
    """A row for each picture, with its most probable label; for a single picture, a row for each of its labels.

    `described` is the model's description. Scores that are not probabilities are shown as numbers, not percentages.
    """

    def __init__(self, files: list[Path], described: dict):
        self._width = max(len(str(relative(file))) for file in files)
        self._single = len(files) == 1
        self._probabilities = described.get("head", {}).get("activation") != NONE

    def print_row(self, file: Path, answer: dict | list | None, error: RequestError | None) -> None:
        name = f"{relative(file)!s:{self._width}}"
        if error is not None:
            print(f"{name}  refused: {error}")
        elif isinstance(answer, list):
            numbers = ", ".join(f"{value:.4f}" for value in answer[:SHOWN])
            print(f"{name}  {len(answer)} numbers: {numbers}{', …' if len(answer) > SHOWN else ''}")
        elif not answer:
            print(f"{name}  no label reaches its threshold")
        elif self._single:
            width = max(map(len, answer))
            for label, score in answer.items():
                print(f"{label:{width}}  {self._score(score)}  {bar(score) if self._probabilities else ''}".rstrip())
        else:
            label, score = next(iter(answer.items()))
            print(f"{name}  {self._score(score)}  {label}")

    def _score(self, score: float) -> str:
        return f"{score:7.2%}" if self._probabilities else f"{score:10.4g}"


class Lines:
    """A line of JSON for each picture, with its path and its answer or error."""

    def print_row(self, file: Path, answer: dict | list | None, error: RequestError | None) -> None:
        outcome = {"answer": answer} if error is None else {"error": error.as_dict()}
        print(json.dumps({"picture": str(file), **outcome}, ensure_ascii=False), flush=True)
