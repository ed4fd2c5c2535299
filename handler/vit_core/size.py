"""Refuses answers that are larger than the server sends: TorchServe ends a worker that returns one, with its whole batch."""

from __future__ import annotations

import itertools
import json

from vit_core.answer import JSON, PNG, RAW, Answer
from vit_core.errors import InputError

FRAME = 64  # the bytes around the items of an answer: brackets, and `{"predictions": …}`
COMMA = 2  # bytes between two items
FLOAT = 4  # bytes of a number of a raw embedding
NUMBER = 24  # bytes of a float32 in JSON, at most


def encoded(body: dict | list | bytes) -> bytes:
    """Returns the body as it is sent."""
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def within(answer: Answer, most: int) -> Answer | InputError:
    """Returns the answer, or InputError 413 if its body has more than `most` bytes. The error says what would fit."""
    size = len(encoded(answer.body))
    if size <= most:
        return answer
    said = f"the answer would be of {size} bytes, and the server sends at most {most}"
    return InputError(413, "ResponseTooLarge", f"{said}: {_advice(answer, most)}")


def _advice(answer: Answer, most: int) -> str:
    if answer.content_type == PNG:
        return f"accept {JSON}, which is smaller than a picture"
    if answer.content_type == RAW:
        shape = [int(number) for number in answer.headers["X-Shape"].split(",")]
        return _of_images(most // (FLOAT * shape[-1]))
    body = answer.body
    if isinstance(body, dict) and isinstance(body.get("predictions"), list):
        body = body["predictions"]
    items = body if isinstance(body, list) and body and not isinstance(body[0], float) else [body]
    largest = max(items, key=_most_bytes)
    fitting = [_of_images((most - FRAME) // (_most_bytes(largest) + COMMA))] if len(items) > 1 else []
    if isinstance(largest, dict) and "relevance" not in largest:
        fitting.append(_of_labels(largest, (most - FRAME) // len(items)))
    elif isinstance(largest, list):
        fitting.append(f"accept {RAW}")
    return " or ".join(filter(None, fitting)) or "nothing smaller can be asked for"


def _most_bytes(value: object) -> int:
    """Returns the most bytes that `value` has as JSON if it is computed again: in another batch its numbers have other last
    digits, and more or fewer of them.
    """
    if isinstance(value, float):
        return NUMBER
    if isinstance(value, list):
        return sum(_most_bytes(each) + COMMA for each in value)
    if isinstance(value, dict) and "relevance" not in value:
        return sum(_most_bytes(key) + COMMA + _most_bytes(each) + COMMA for key, each in value.items())
    return len(json.dumps(value).encode())  # also a relevance, whose numbers are rounded


def _of_images(count: int) -> str:
    return f"ask for at most {count} image{'s' * (count > 1)} in a request" if count else ""


def _of_labels(labels: dict[str, float], most: int) -> str:
    sizes = itertools.accumulate(_most_bytes({label: value}) for label, value in labels.items())
    count = sum(size <= most for size in sizes)
    return f"ask for at most {count} label{'s' * (count > 1)} (top_k)" if count else ""
