"""The messages between the front and the models, and the response to the client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vit_core.answer import JSON, Answer
from vit_core.errors import RequestError
from vit_core.request import Sent
from vit_core.size import encoded


@dataclass(frozen=True)
class Question:
    """A request for a model. While one version replaces another, a replica of either may get it."""

    sent: Sent
    version: str | None = None  # that the client has named


@dataclass(frozen=True)
class Reply:
    """Status, headers and body of the response to one request."""

    code: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, answer: Answer | RequestError) -> Reply:
        if isinstance(answer, RequestError):
            return cls(answer.code, encoded(answer.as_dict()), {"Content-Type": JSON})
        return cls(200, encoded(answer.body), {"Content-Type": answer.content_type, **answer.headers})
