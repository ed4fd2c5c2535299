"""What a request may look like, and what is said of one that does not."""

import base64
import json

import pytest

from vit_core.errors import InputError
from vit_core.request import Form, Request, Sent, read_request

CAT, DOG = b"\xff\xd8 a cat", b"\x89PNG a dog \xfb\xff"
CAT64, DOG64 = (base64.b64encode(image).decode() for image in (CAT, DOG))
URL = f"data:image/jpeg;base64,{CAT64}"


def read(row: dict | bytes | object, headers: dict | None = None) -> Request:
    if not isinstance(row, dict) or not all(isinstance(value, (bytes, bytearray)) for value in row.values()):
        row = {"body": row if isinstance(row, bytes) else json.dumps(row).encode()}
    return read_request(Sent(row, headers or {}), max_images=3)


@pytest.mark.parametrize(
    ("row", "images", "form"),
    [
        (CAT, [CAT], Form.ONE),
        ({"data": bytearray(CAT)}, [CAT], Form.ONE),
        ({"file": CAT, "file 1": DOG}, [CAT, DOG], Form.LIST),
        ({"data": CAT64}, [CAT], Form.ONE),
        ({"b64": CAT64}, [CAT], Form.ONE),
        ({"image": {"b64": CAT64}}, [CAT], Form.ONE),
        ({"data": URL}, [CAT], Form.ONE),
        ({"data": [CAT64, DOG64]}, [CAT, DOG], Form.LIST),
        ({"data": [CAT64]}, [CAT], Form.LIST),
        ([CAT64, {"b64": DOG64}], [CAT, DOG], Form.LIST),
        ({"instances": [{"data": CAT64}, {"image_bytes": {"b64": DOG64}}, URL]}, [CAT, DOG, CAT], Form.PREDICTIONS),
        ({"instances": [CAT64]}, [CAT], Form.PREDICTIONS),
        (CAT64, [CAT], Form.ONE),
        (URL.encode(), [CAT], Form.ONE),
        (b" \n" + json.dumps({"data": base64.encodebytes(DOG * 9).decode()}).encode(), [DOG * 9], Form.ONE),
        ({"data": base64.urlsafe_b64encode(DOG).decode()}, [DOG], Form.ONE),
        ({"data": CAT, "more": json.dumps({"instances": [DOG64]}).encode()}, [CAT, DOG], Form.PREDICTIONS),
    ],
)
def test_images_come_in_many_forms(row, images, form):
    request = read(row)
    assert ([bytes(image) for image in request.images], request.form) == (images, form)


@pytest.mark.parametrize(
    ("row", "headers"),
    [
        ({"data": CAT, "top_k": b"2", "threshold": b"0.25"}, {}),
        ({"data": CAT64, "top_k": 2, "threshold": 0.25}, {}),
        ({"instances": [CAT64], "top_k": "2", "threshold": "0.25"}, {}),
        (CAT, {"X-Top-K": "2", "x-threshold": "0.25"}),
        ({"data": CAT64, "top_k": 2}, {"X-Top-K": "9", "X-THRESHOLD": "0.25", "data": {"content-type": "of a field"}}),
    ],
)
def test_options_come_as_fields_keys_or_headers(row, headers):
    request = read(row, headers)
    assert (request.top_k, request.threshold) == (2, 0.25)


def test_options_are_left_to_the_archive_where_none_are_given():
    assert (read(CAT).top_k, read(CAT).threshold) == (None, None)


@pytest.mark.parametrize("content_type", ["image/jpeg", "text/plain", "application/json", "application/octet-stream", "", "x"])
def test_an_image_may_come_with_any_content_type(content_type):
    assert read(CAT, {"Content-Type": content_type}).images == [CAT]


WRONG = [
    ({}, "EmptyBody", "no image in the request"),
    (b"", "EmptyBody", "no image in the request"),
    ({"top_k": b"3"}, "EmptyBody", "no image in the request"),
    ({"data": ""}, "EmptyBody", "is empty"),
    ({"instances": []}, "EmptyBody", "no image in the request"),
    (b'{"data": ', "BadJSON", "not JSON"),
    (b"[" * 100_000, "BadJSON", "not JSON: nested too deeply"),
    (b'{"data": "\xff"}', "BadJSON", "not JSON"),
    ({"instances": CAT64}, "BadJSON", "should be a list"),
    ({"picture": CAT64}, "BadJSON", "no image in the JSON"),
    ({"data": CAT64, "topk": 3}, "BadJSON", "unknown key 'topk'"),
    ({"data": 3}, "BadJSON", "base64 in a string, not int"),
    ({"data": {"b64": {"b64": {"b64": CAT64}}}}, "BadJSON", "not dict"),
    ({"data": [[CAT64]]}, "BadJSON", "not list"),
    ({"data": "not base64!"}, "BadBase64", "not base64"),
    ({"data": CAT64[:-1] + "é"}, "BadBase64", "not base64"),
    ({"data": "data:image/jpeg,plain"}, "BadBase64", "data URL"),
    (b"data:image/jpeg;base64", "BadBase64", "data URL"),
    ({"data": [CAT64] * 4}, "TooManyImages", "the request has 4 images: at most 3 are allowed"),
    ({"data": CAT64, "top_k": "many"}, "BadOption", "top_k should be a whole number, not 'many'"),
    ({"data": CAT64, "top_k": 2.5}, "BadOption", "top_k should be a whole number, not '2.5'"),
    ({"data": CAT64, "top_k": True}, "BadOption", "top_k should be a whole number"),
    ({"data": CAT64, "top_k": [1]}, "BadOption", "top_k should be a whole number"),
    ({"data": CAT, "top_k": b"0"}, "BadOption", "at least 1, not 0"),
    ({"data": CAT, "top_k": b"9" * 5000}, "BadOption", "top_k should be a whole number"),
    ({"data": CAT, "threshold": b"nan"}, "BadOption", "threshold should be a number, not nan"),
    ({"data": CAT, "raw_scores": b"maybe"}, "BadOption", "raw_scores should be true or false, not 'maybe'"),
    ({"data": CAT, "threshold": b"\xff"}, "BadOption", "threshold should be a number"),
]


@pytest.mark.parametrize(
    ("row", "type", "message"), WRONG, ids=[f"{type} {number}" for number, (_, type, _) in enumerate(WRONG)]
)
def test_what_is_wrong_is_said(row, type, message):
    with pytest.raises(InputError) as caught:
        read(row)
    assert (caught.value.code, caught.value.type) == (413 if type == "TooManyImages" else 400, type)
    assert message in caught.value.message
    assert len(caught.value.message) < 300


def test_text_that_calls_itself_json_is_told_what_json_lacks():
    with pytest.raises(InputError, match="not JSON"):
        read(b"hello", {"Content-Type": "application/json; charset=utf-8"})
