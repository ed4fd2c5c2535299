"""What a request gets in place of an answer."""

from __future__ import annotations

from http import HTTPStatus


class RequestError(Exception):
    """The end of one request; its neighbours in the batch are not touched.

    `code` is the HTTP status, `type` one word for programs, `message` a sentence for people.
    """

    def __init__(self, code: int, type: str, message: str):
        super().__init__(message)
        self.code, self.type, self.message = code, type, message

    @property
    def phrase(self) -> str:
        return HTTPStatus(self.code).phrase

    def as_dict(self) -> dict[str, int | str]:
        return {"code": self.code, "type": self.type, "message": self.message}


class InputError(RequestError):
    """A request that cannot be answered because of what was sent: 4xx."""


class ServerError(RequestError):
    """A request that was good and could not be answered: 5xx."""
