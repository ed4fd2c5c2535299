"""Which class an explanation is of, and what a picture says of it; which types of content there are."""

import io
import json
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image, ImageFont

from tests.conftest import export_to
from tests.in_process import handle, jpeg, load
from vit_core.heatmap import header_of, written

LABELS = ["tabby, cat", "猫", "a\nb"]
EXPLAIN = {"explain": "True"}


@pytest.fixture
def loaded(tiny_model, tmp_path):
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    archive = export_to(tmp_path / "store", f"local-dir:{tiny_model}", "--labels", str(tmp_path / "labels.json"))
    return load(archive, tmp_path / "unpacked")


@pytest.mark.parametrize(
    ("label", "shown"),
    [("tabby, cat", "tabby, cat"), ("a\nb\tc", "a b c"), ("猫", ""), ("кот", ""), ("قط", ""), ("cat 😀", ""), ("a\u0301", "")],
)
def test_a_caption_has_no_character_that_the_font_has_not(label, shown):
    assert written(label, ImageFont.load_default(16)) == shown
    assert unquote(header_of(label)) == label and header_of(label).isascii() and header_of(label).isprintable()


def test_a_picture_has_its_label_in_a_header_and_below_it_where_it_can_be_written(loaded):
    handler, context = loaded
    dark = {}
    for index, label in enumerate(LABELS):
        row = {"body": jpeg(1), "target": str(index).encode()}
        (answer,) = handle(handler, context, [row], {**EXPLAIN, "Accept": "image/png"})
        picture = Image.open(io.BytesIO(answer)).convert("L")
        caption = np.asarray(picture.crop((0, picture.width, *picture.size)))
        dark[label] = (caption < 100).sum()
        assert unquote(context.get_response_headers(0)["X-Class"]) == label
    assert dark["tabby, cat"] > dark["a\nb"] > dark["猫"] > 0  # the probability is always there


@pytest.mark.parametrize("target", ["9" * 5000, "3", "-1", "1e2", "٤٠٠", "²"])
def test_a_target_that_is_no_index_is_refused(target, loaded):
    (answer,) = handle(*loaded, [{"body": jpeg(1), "target": target.encode()}], EXPLAIN)
    assert (answer["code"], answer["type"]) == (400, "BadOption") and len(answer["message"]) < 200


def test_a_target_may_be_an_index_with_zeros_before_it(loaded):
    (answer,) = handle(*loaded, [{"body": jpeg(1), "target": b"0" * 5000 + b"2"}], EXPLAIN)
    assert answer["class"] == LABELS[2]


@pytest.mark.parametrize(
    ("accept", "explains", "offered"), [("text/html", False, "application/json"), ("image/gif", True, "image/png")]
)
def test_who_accepts_nothing_that_there_is_is_told_what_there_is(accept, explains, offered, loaded):
    (answer,) = handle(*loaded, [{"body": jpeg(1)}], {"Accept": accept, "explain": str(explains)})
    assert (answer["code"], answer["type"]) == (406, "NotAcceptable") and offered in answer["message"]
