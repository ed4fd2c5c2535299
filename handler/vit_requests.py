"""What a request holds, and how a request that is wrong is told so."""

from __future__ import annotations

from http import HTTPStatus


class InputError(Exception):
    """A request that cannot be answered because of what was sent. Its neighbours in the batch are not touched.

    `code` is the HTTP status (4xx), `type` one word for programs, `message` a sentence for people.
    """

    def __init__(self, code: int, type: str, message: str):
        super().__init__(message)
        self.code, self.type, self.message = code, type, message

    @property
    def phrase(self) -> str:
        return HTTPStatus(self.code).phrase

    def as_dict(self) -> dict[str, int | str]:
        return {"code": self.code, "type": self.type, "message": self.message}


def image_bytes(row: dict) -> bytes | bytearray:
    """The image file in one request: the form field `data`, or the raw body. Raises InputError if there is none.

    `row` is what TorchServe hands over: `{"body": bytearray}` for a raw body, field name → value for a form.
    """
    data = row.get("data") or row.get("body")
    if not data:
        raise InputError(400, "EmptyBody", "no image in the request: send one as the body, or as the form field 'data'")
    if not isinstance(data, (bytes, bytearray)):  # TorchServe has parsed a JSON or text body
        raise InputError(415, "UnsupportedBody", "the body is text, not an image: send the bytes of an image file")
    return data
