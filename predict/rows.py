"""Makes one row for each picture, from an answer or an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vit_core.errors import RequestError
from vit_core.settings import CLASSIFY, EMBED

if TYPE_CHECKING:
    from vit_core.answer import Answer

# The most probable label and its score; all labels of the answer and their scores, the highest first; the embedding.
LABEL, SCORE, LABELS, SCORES, EMBEDDING = "label", "score", "labels", "scores", "embedding"
OF_TASK = {CLASSIFY: (LABEL, SCORE, LABELS, SCORES), EMBED: (EMBEDDING,)}


def columns(tasks: Sequence[str]) -> list[str]:
    """Returns the names of the columns for these tasks."""
    return ["id", "path", *(column for task in tasks for column in OF_TASK[task]), "error"]


@dataclass(frozen=True)
class Rows:
    """Makes rows of the pictures of a run."""

    tasks: tuple[str, ...]

    def answered(self, id: int, path: str, answers: Sequence[Answer | RequestError]) -> dict:
        """Returns the row of a picture with an answer to each task. Its numbers are those of the server's JSON."""
        row = self._empty(id, path)
        for task, answer in zip(self.tasks, answers, strict=True):
            if isinstance(answer, RequestError):
                return self.refused(id, path, answer)
            row |= _embedding(answer.body) if task == EMBED else _labels(answer.body)
        return row

    def refused(self, id: int, path: str, error: RequestError) -> dict:
        return self._empty(id, path) | {"error": f"{error.type}: {error.message}"}

    def _empty(self, id: int, path: str) -> dict:
        # Names of files may have bytes that are not text; these are escaped as Python does it.
        readable = path.encode("utf-8", "backslashreplace").decode()
        return dict.fromkeys(columns(self.tasks)) | {"id": id, "path": readable}


def _labels(body: dict[str, float]) -> dict:
    label, score = next(iter(body.items()), (None, None))  # none reaches its threshold
    return {LABEL: label, SCORE: score, LABELS: list(body), SCORES: list(body.values())}


def _embedding(body: bytes) -> dict:
    return {EMBEDDING: np.frombuffer(body, "<f4").tolist()}
