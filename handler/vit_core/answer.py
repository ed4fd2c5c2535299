"""Turns the model's outputs for the images of a request into the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from vit_core.accept import best
from vit_core.errors import InputError, RequestError
from vit_core.explain import Explanation
from vit_core.heatmap import header_of, picture
from vit_core.model import Outputs
from vit_core.request import Form, Request
from vit_core.settings import CLASSIFY, EMBED, UNKNOWN, Settings

JSON, PNG, RAW = "application/json", "image/png", "application/octet-stream"


@dataclass(frozen=True)
class Answer:
    """The body and the headers of one answer."""

    body: dict | list | bytes
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """Builds the answers of one archive."""

    labels: Sequence[str]  # in the order of the classes; empty if the archive does not classify
    settings: Settings

    def check(self, request: Request) -> None:
        """Raises InputError for options that this archive cannot follow (400), or for a content type that it does not have
        (406).
        """
        if request.explains:
            self.target(request)
        else:
            self._task(request)
            threshold, probabilities = request.threshold, self.settings.head.gives_probabilities and not request.raw_scores
            if threshold is not None and probabilities and not 0 <= threshold <= 1:
                raise InputError(400, "BadOption", f"threshold should be a probability from 0 to 1, not {threshold}")
        self.content_type(request)

    def content_type(self, request: Request) -> str:
        """Returns the content type of the answer. Raises InputError 406 if the request accepts none that this archive has."""
        offers = (JSON, PNG) if request.explains else (JSON, RAW) if self._task(request) == EMBED else (JSON,)
        chosen = best(request.accept, offers)
        if chosen == PNG and request.form != Form.ONE:
            chosen = best(request.accept, (JSON,))
            if chosen is None:
                raise InputError(406, "OneImageOnly", "a heat map shows one image: send one, or accept application/json")
        if chosen is None:
            raise InputError(
                406, "NotAcceptable", f"Accept has to name {' or '.join(offers)}, or */*: the answer has no other type"
            )
        return chosen

    def target(self, request: Request) -> int | None:
        """Returns the index of the class to explain. The request names the class by its label or by its index."""
        wanted = request.target
        if wanted is None or wanted in self.labels:
            return None if wanted is None else self.labels.index(wanted)
        # Python refuses to read thousands of digits; no index has more than the last one, but for zeros before it.
        digits = wanted.lstrip("0") or "0"
        if wanted.isdecimal() and len(digits) <= len(str(len(self.labels))) and int(digits) < len(self.labels):
            return int(digits)
        raise InputError(
            400, "BadOption", f"target should be a label, or an index below {len(self.labels)}, not {wanted[:50]!r}"
        )

    def answer(
        self, request: Request | RequestError, outcomes: list[Outputs | Explanation | RequestError]
    ) -> Answer | RequestError:
        """Returns the answer to a request, given the model's outputs or the explanation for each of its images.

        If the request or one of its images ended in an error, it returns that error.
        """
        for ending in (request, *outcomes):
            if isinstance(ending, RequestError):
                return ending
        kind = self.content_type(request)
        if request.explains:
            if kind == PNG:
                (explanation,) = outcomes
                label = self.labels[explanation.target]
                return Answer(picture(explanation, label, self.settings.head), PNG, {"X-Class": header_of(label)})
            return Answer(_formed(request, outcomes, self._explained))
        if self._task(request) == CLASSIFY:
            return Answer(_formed(request, outcomes, lambda outputs: self._labelled(outputs, request)))
        embeddings = torch.stack([outputs.embedding for outputs in outcomes])  # [images, features]
        if self.settings.embedding.normalize:
            embeddings = torch.nn.functional.normalize(embeddings, dim=1)
        if kind == RAW:
            shape = embeddings.shape[1:] if request.form == Form.ONE else embeddings.shape
            body = embeddings.numpy().astype("<f4").tobytes()
            return Answer(body, RAW, {"X-Dtype": "float32", "X-Shape": ",".join(map(str, shape))})
        return Answer(_formed(request, embeddings, torch.Tensor.tolist))

    def _task(self, request: Request) -> str:
        if request.task not in (None, *self.settings.tasks):
            known = " or ".join(self.settings.tasks)
            raise InputError(400, "BadOption", f"task should be {known} for this archive, not {request.task[:50]!r}")
        return request.task or self.settings.tasks[0]

    def _labelled(self, outputs: Outputs, request: Request) -> dict[str, float]:
        """Returns label → score for the top k labels at or above the threshold, the highest first. The threshold is the
        request's, or else that of each class.

        An archive that abstains answers with UNKNOWN alone, and with the probability that the most probable label is wrong.
        """
        head = self.settings.head
        shown = outputs.logits if request.raw_scores else outputs.scores
        if head.abstain is not None and request.threshold is None and not request.raw_scores:
            highest = outputs.scores.max().item()
            if highest < head.abstain:
                return {UNKNOWN: 1 - highest}
        if request.threshold is not None:
            kept = (shown >= request.threshold).nonzero().flatten()
        elif head.thresholds:
            kept = (outputs.scores >= torch.tensor(head.thresholds)).nonzero().flatten()
        else:
            kept = torch.arange(len(self.labels))
        values, places = shown[kept].topk(min(request.top_k or head.top_k, len(kept)))
        return {self.labels[index]: value for index, value in zip(kept[places].tolist(), values.tolist(), strict=True)}

    def _explained(self, explanation: Explanation) -> dict:
        return {
            "class": self.labels[explanation.target],
            "probability" if self.settings.head.gives_probabilities else "score": explanation.score,
            "method": explanation.method,
            "relevance": [[round(value, 4) for value in row] for row in explanation.relevance.tolist()],
        }


def _formed(request: Request, outcomes: list | torch.Tensor, to_json: Callable) -> dict | list:
    """Gives the answers for the images of a request the form of that request: one, a list, or `predictions`."""
    answers = [to_json(outcome) for outcome in outcomes]
    if request.form == Form.ONE:
        return answers[0]
    return answers if request.form == Form.LIST else {"predictions": answers}
