"""Runs an archive on labelled pictures: the numbers that all metrics are made of."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from command_line import UserError
from evaluate.sources import Example
from predict.loading import load
from vit_core.errors import InputError, RequestError
from vit_core.settings import Head

if TYPE_CHECKING:
    from vit_core.predictor import Predictor


@dataclass(frozen=True)
class Subject:
    """An archive in one precision (None: the one that it is served in), and its name in the reports."""

    name: str
    archive: Path
    precision: str | None = None


@dataclass(frozen=True)
class Run:
    """The outputs of a subject for the N pictures that it could read. Columns are classes, in the order of `labels`."""

    name: str
    labels: tuple[str, ...]
    head: Head
    precision: str
    device: str
    places: np.ndarray  # int64 [N]: which of the examples these pictures are, ascending
    truth: np.ndarray  # bool [N, C]: the labels that a picture has
    logits: np.ndarray  # float32 [N, C], before the activation of the head
    scores: np.ndarray  # float32 [N, C], after it
    first: np.ndarray  # int64 [N]: the class that an answer has first
    errors: dict[int, RequestError]  # by the place of their example
    sha256: str  # hash of the pictures and their labels, in any order and under any file names
    seconds: float  # for reading and answering all pictures

    def __len__(self) -> int:
        return len(self.places)


def run(
    subject: Subject,
    labels: Sequence[str],
    examples: Sequence[Example],
    device: str | None,
    step: Callable[[str], None] = lambda step: None,
) -> Run:
    """Runs the subject on the examples, whose classes are indices into `labels`: the archive's labels, possibly in another
    order.

    `step` receives progress messages. Raises UserError if no picture can be read.
    """
    step(f"loading {subject.name}")
    predictor = load(subject.archive, device, subject.precision)
    head, order = predictor.archive.settings.head, [predictor.archive.labels.index(label) for label in labels]
    found, errors, digests, begun = [], {}, [], time.monotonic()
    for place, (outcome, digest) in enumerate(_outcomes(predictor, examples)):
        if isinstance(outcome, RequestError):
            errors[place] = outcome
            continue
        # In the order of the answer, which for equal scores depends on top_k.
        first = outcome.scores.topk(min(head.top_k, len(labels))).indices[0].item()
        found.append((place, outcome.logits.numpy()[order], outcome.scores.numpy()[order], order.index(first)))
        digests.append(f"{digest} {sorted(labels[index] for index in examples[place].classes)}\n")
        if place % predictor.batch_size == 0:
            rate = (place + 1) / max(time.monotonic() - begun, 1e-9)
            step(f"{subject.name}: {place + 1} of {len(examples)} pictures, {rate:.3g} a second")
    seconds = time.monotonic() - begun
    if not found:
        file, error = examples[0].picture, errors[0]
        raise UserError(f"{subject.name} answers none of the {len(examples)} pictures; {file}: {error}")
    places, logits, scores, first = zip(*found, strict=True)
    truth = np.zeros((len(places), len(labels)), bool)
    for row, place in enumerate(places):
        truth[row, list(examples[place].classes)] = True
    return Run(
        name=subject.name,
        labels=tuple(labels),
        head=replace(head, thresholds=head.thresholds and tuple(head.thresholds[index] for index in order)),
        precision=predictor.model.way.precision,
        device=str(predictor.device),
        places=np.array(places),
        truth=truth,
        logits=np.stack(logits),
        scores=np.stack(scores),
        first=np.array(first),
        errors=errors,
        sha256=hashlib.sha256("".join(sorted(digests)).encode()).hexdigest(),
        seconds=seconds,
    )


def _outcomes(predictor: Predictor, examples: Sequence[Example]):
    """Yields for each example the model's outputs, or its error, and the SHA-256 of its file."""
    for start in range(0, len(examples), predictor.batch_size):
        read = [_read(example.picture) for example in examples[start : start + predictor.batch_size]]
        images = [each for each in read if isinstance(each, bytes)]
        outputs = iter(predictor.outputs(images) if images else ())
        for each in read:
            if isinstance(each, bytes):
                yield next(outputs), hashlib.sha256(each).hexdigest()
            else:
                yield each, None


def _read(file: Path) -> bytes | InputError:
    try:
        return file.read_bytes()
    except OSError as error:  # concerns one picture; the others are answered
        return InputError(400, "UnreadableFile", error.strerror or str(error))
