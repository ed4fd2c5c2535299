"""What the refusal of a large answer advises fits, also if the numbers of the next answer are longer in JSON."""

import re

import pytest

from vit_core.answer import JSON, Answer
from vit_core.size import within

SHORT, LONG = 0.5, -1.401298464324817e-45
MOST = 3000


def labels(number: float, count: int) -> dict[str, float]:
    return {f"{index} 猫": number for index in range(count)}


@pytest.mark.parametrize(
    ("what", "answer"),
    [
        ("image", lambda number, count: [labels(number, 20) for _ in range(count)]),
        ("image", lambda number, count: {"predictions": [[number] * 48 for _ in range(count)]}),
        ("label", lambda number, count: [labels(number, count) for _ in range(3)]),
        ("label", labels),
    ],
    ids=["labels of images", "embeddings of images", "labels of three images", "labels of an image"],
)
def test_what_is_advised_fits_whatever_its_numbers_are(what, answer):
    refused = within(Answer(answer(SHORT, 300), JSON), MOST)
    count = int(re.search(rf"ask for at most (\d+) {what}", refused.message)[1])
    assert count > 1
    allowed = Answer(answer(LONG, count), JSON)
    assert within(allowed, MOST) is allowed
