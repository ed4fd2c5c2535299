"""What a body, a field or a header may be: each form of an image is read, and each mistake gets its own name."""

import base64
import gzip
import json
import tracemalloc
import zlib

import pytest

from tests.conftest import DIGITS
from vit_core.accept import best
from vit_core.errors import InputError
from vit_core.request import Form, Request, Sent, read_request

JPEG, PNG = ((DIGITS / "samples" / name).read_bytes() for name in ("0-a.jpg", "7-a.png"))
B64 = base64.b64encode(JPEG).decode()
URLENCODED = {"Content-Type": "application/x-www-form-urlencoded"}
PART = b'--abc\r\nContent-Disposition: form-data; name="data"; filename="a.jpg"\r\n\r\n' + JPEG + b"\r\n--abc--\r\n"


def read(fields: dict | bytes, headers: dict | None = None, **limits) -> Request:
    fields = fields if isinstance(fields, dict) else {"body": fields}
    return read_request(Sent(fields, headers or {}), **{"max_images": 3, **limits})


def refused(fields: dict | bytes, headers: dict | None = None, **limits) -> InputError:
    with pytest.raises(InputError) as caught:
        read(fields, headers, **limits)
    assert len(caught.value.message) < 300 and "\n" not in caught.value.message
    return caught.value


def said(error: InputError) -> tuple[int, str]:
    return error.code, error.type


def as_json(**keys: object) -> bytes:
    return json.dumps(keys).encode()


# --- forms of one image ---


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        (B64.encode(), {"Content-Type": "text/plain"}),
        (B64.encode(), {"Content-Type": "application/json"}),
        (b"\xef\xbb\xbf" + B64.encode(), {}),
        (base64.encodebytes(JPEG).replace(b"\n", b"\r\n"), {}),
        (base64.urlsafe_b64encode(JPEG).rstrip(b"="), {}),
        ({"data": B64.encode()}, {}),
        ({"anything": B64.encode()}, {}),
        ({"data": B64.replace("+", " ").encode()}, URLENCODED),
        ({"data": as_json(data=B64)}, URLENCODED),
        ({"model_name": b"digits", "body": JPEG}, {}),
        (gzip.compress(JPEG), {"Content-Encoding": "gzip"}),
        (gzip.compress(as_json(data=B64)), {"content-encoding": "X-GZIP"}),
        (zlib.compress(JPEG), {"Content-Encoding": "deflate"}),
        (zlib.compress(JPEG)[2:-4], {"Content-Encoding": "deflate"}),
        (JPEG, {"Content-Encoding": "identity"}),
        (as_json(data=B64.rstrip("=")), {}),
        (as_json(data="DATA:image/jpeg;BASE64," + B64), {}),
        (as_json(data="data:image/jpeg;charset=x;base64," + B64.replace("+", "%2B").replace("=", "%3d")), {}),
        (f"  Data:image/jpeg;base64,{B64}".encode(), {}),
        *(
            (as_json(data=B64).decode().encode(each), {})
            for each in ("utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-le")
        ),
    ],
)
def test_an_image_comes_in_the_forms_that_programs_send(fields, headers):
    request = read(fields, headers)
    assert ([bytes(image) for image in request.images], request.form) == ([JPEG], Form.ONE)


@pytest.mark.parametrize("file", [b"P3\n1 1\n255\n255 0 0\n", b"P1\n1\n1\n0000000000000000000000000000000000\n", JPEG, PNG])
@pytest.mark.parametrize("name", ["body", "picture"])
def test_a_file_is_a_file_even_if_it_is_text(file, name):
    assert read({name: file}).images == [file]


def test_files_and_base64_of_one_form_keep_their_order():
    request = read({"a": JPEG, "b": base64.b64encode(PNG), "c": as_json(data=B64)})
    assert ([bytes(image) for image in request.images], request.form) == ([JPEG, PNG, JPEG], Form.LIST)


# --- mistakes ---

MISTAKES = [
    ({"a": JPEG, "b": b"", "c": JPEG}, {}, 400, "EmptyBody", "the field 'b' is empty"),
    ({"data": JPEG, "submit": b"Upload"}, {}, 400, "UnknownField", "unknown field 'submit': known are top_k,"),
    ({"data": JPEG, "topk": b"2"}, {}, 400, "UnknownField", "did you mean 'top_k'?"),
    ({"data": JPEG, "Treshold": b"2"}, {}, 400, "UnknownField", "did you mean 'threshold'?"),
    ({"data": JPEG, "note": "猫\n".encode()}, {}, 400, "UnknownField", "unknown field 'note'"),
    ({"data": JPEG, "top_k": b"2", "top_k 2": b"3"}, {}, 400, "BadOption", "top_k is there twice"),
    ({'{"data": "abc': b'"}'}, URLENCODED, 400, "BadForm", "Content-Type: application/json"),
    ({B64: b""}, URLENCODED, 400, "BadForm", "is no form"),
    ({}, {**URLENCODED, "content-length": "20"}, 400, "BadForm", "has no field"),
    ({}, {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": "9"}, 400, "BadForm", "boundary 'x'"),
    ({}, {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": "0"}, 400, "EmptyBody", "no image"),
    (PART, {"Content-Type": "multipart/form-data"}, 400, "BadForm", "names no boundary"),
    (PART, {"Content-Type": "application/json"}, 400, "BadForm", "its Content-Type is 'application/json'"),
    (JPEG, {"Content-Encoding": "br"}, 415, "UnsupportedEncoding", "'br' is not supported"),
    (JPEG, {"Content-Encoding": "zstd"}, 415, "UnsupportedEncoding", "send gzip, deflate or none"),
    (JPEG, {"Content-Encoding": "gzip, gzip"}, 415, "UnsupportedEncoding", "'gzip, gzip'"),
    (JPEG, {"Content-Encoding": "gzip"}, 400, "BadEncoding", "is not gzip"),
    (gzip.compress(JPEG)[:-9], {"Content-Encoding": "gzip"}, 400, "BadEncoding", "cut off"),
    (gzip.compress(JPEG) + b"more", {"Content-Encoding": "gzip"}, 400, "BadEncoding", "followed by something else"),
    (b"\x01", {"Content-Encoding": "deflate"}, 400, "BadEncoding", "deflate"),
    (gzip.compress(JPEG), {}, 415, "UnsupportedEncoding", "say so with Content-Encoding: gzip"),
    (b'{"data": "a", "data": "b"}', {}, 400, "BadJSON", "the key 'data' is there twice"),
    (b'{"data": "a", "threshold": NaN}', {}, 400, "BadJSON", "NaN is not a number"),
    (b'{"data": "a", "threshold": -Infinity}', {}, 400, "BadJSON", "-Infinity is not a number"),
    (b'{"data": "a", "threshold": 1e400}', {}, 400, "BadOption", "threshold should be a"),
    (b'{"data": "a", "top_k": 1e400}', {}, 400, "BadOption", "top_k should be a whole number, not 'inf'"),
    (b'{"data": "a", "top_k": %s}' % (b"9" * 5000), {}, 400, "BadOption", "top_k should be a whole number"),
    (b'{"data": "a", "top_k": false}', {}, 400, "BadOption", "top_k should be a whole number"),
    (b'{"data": "a", "threshold": true}', {}, 400, "BadOption", "threshold should be a number, not 'True'"),
    (b'{"data": "a", "target": true}', {}, 400, "BadOption", "target should be text"),
    (b'{"data": "a", "task": ["embed"]}', {}, 400, "BadOption", "task should be text"),
    (b'{"data": "a", "method": {"a": 1}}', {}, 400, "BadOption", "method should be text"),
    (b'{"data": "a", "topk": 1}', {}, 400, "BadJSON", "unknown key 'topk': did you mean 'top_k'?"),
    (b'{"imag": "a"}', {}, 400, "BadJSON", "did you mean 'image'?"),
    (b'{"data": "a", "image": "b"}', {}, 400, "BadJSON", "'data' and 'image' both hold images"),
    (b'{"data": %s1%s}' % (b"[" * 90_000, b"]" * 90_000), {}, 400, "BadJSON", "nested too deeply"),
    (b'{"data": "a"}'.decode().encode("utf-16")[:-1], {}, 400, "BadJSON", "not JSON"),
    ({"data": JPEG, "top_k": b"1_0"}, {}, 400, "BadOption", "top_k should be a whole number"),
    ({"data": JPEG, "top_k": "٣".encode()}, {}, 400, "BadOption", "top_k should be a whole number"),
    (JPEG, {"X-Topk": "2"}, 400, "BadOption", "did you mean 'x-top-k'?"),
    (JPEG, {"x-treshold": "1"}, 400, "BadOption", "did you mean 'x-threshold'?"),
    (as_json(data="data:image/jpeg;base64,%zz"), {}, 400, "BadBase64", "not base64"),
    (as_json(data=B64[:-3] + "="), {}, 400, "BadBase64", "not base64"),
]


@pytest.mark.parametrize(("fields", "headers", "code", "type", "part"), MISTAKES, ids=[case[4][:30] for case in MISTAKES])
def test_a_mistake_is_said_by_name(fields, headers, code, type, part):
    error = refused(fields, headers)
    assert said(error) == (code, type)
    assert part in error.message


@pytest.mark.parametrize("file", [b"\x00\x00\x00\x7bftypavif" + bytes(120), b"\x00\x00\x00\x20ftypavif" + bytes(30)])
def test_the_size_of_a_box_of_an_avif_file_is_not_the_brace_of_json(file):
    assert read(file).images == [file]


def test_headers_of_other_programs_are_left_alone():
    others = ("X-Request-Id", "X-Forwarded-For", "X-HTTP-Method-Override", "X-Requested-With", "X-Task-Id", "X-Amzn-Trace-Id")
    assert read(JPEG, dict.fromkeys(others, "1")).top_k is None


def test_a_compressed_body_is_not_held_beyond_its_limit():
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 60_000
    tracemalloc.start()
    error = refused(bomb, {"Content-Encoding": "gzip"}, max_bytes=1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    assert said(error) == (413, "FileTooLarge") and "more than 1000 bytes" in error.message
    assert read(gzip.compress(JPEG), {"Content-Encoding": "gzip"}, max_bytes=len(JPEG)).images == [JPEG]


def test_images_are_counted_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr("vit_core.request.file_of", lambda image: pytest.fail("decoded"))
    assert said(refused(as_json(data=[B64] * 4))) == (413, "TooManyImages")
    assert said(refused({"a": as_json(data=[B64] * 3), "b": B64.encode()})) == (413, "TooManyImages")


# --- headers ---


@pytest.mark.parametrize(
    ("value", "target"),
    [
        ("cat", "cat"),
        ("猫 é".encode().decode("latin-1"), "猫 é"),  # as TorchServe reads UTF-8
        ("é", "é"),
        ("%E7%8C%AB%0Ab", "猫\nb"),
        ("UTF-8''%e7%8c%ab", "猫"),
        ("100%", "100%"),
    ],
)
def test_a_label_in_a_header_may_be_of_any_script(value, target):
    assert read(JPEG, {"X-Target": value}).target == target


JSON, PICTURE = "application/json", "image/png"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("Image/PNG", PICTURE),
        ("image/*", PICTURE),
        ("application/json, image/png;q=0.1", JSON),
        ("image/png;q=0.1, application/json", JSON),
        ("image/png;q=0.9, application/json;q=0.5", PICTURE),
        ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", PICTURE),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", JSON),
        ("image/png, */*", PICTURE),
        ("image/png;q=0, */*", JSON),
        ("image/png;q=0", None),
        ("*/*;q=0", None),
        ("text/html", None),
        ("application/json;charset=utf-8;q=0.2, image/png;q=0.10", JSON),
    ],
)
def test_the_header_accept_is_followed(accept, chosen):
    assert best(accept, (JSON, PICTURE)) == chosen
