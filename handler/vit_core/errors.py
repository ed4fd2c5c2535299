"""Errors that a request is answered with."""

from __future__ import annotations

from http import HTTPStatus


class RequestError(Exception):
    """Ends one request and leaves the others in its batch alone.

    `code` is the HTTP status, `type` one word for programs, and `message` a sentence for people.
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
    """The client sent something that cannot be answered: 4xx."""


class ServerError(RequestError):
    """The request was good, but it could not be answered: 5xx."""
