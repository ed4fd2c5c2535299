"""What the front of Ray Serve reads, without Ray: forms, addresses, tokens. The e2e tests compare the rest with TorchServe."""

import numpy as np
import pytest

from deploy.ray.forms import MOST_FIELDS, fields_of
from deploy.ray.routes import Asked, read_address
from deploy.ray.tokens import Tokens
from tests.conformance.asked import Got, difference
from vit_core.errors import InputError
from vit_core.request import distinct

MULTIPART = {"content-type": "multipart/form-data; boundary=abc"}


def part(name: str, content: bytes) -> bytes:
    return b"--abc\r\nContent-Disposition: form-data; " + name.encode() + b"\r\n\r\n" + content + b"\r\n"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (part('name="a"', b"x"), {"a": b"x"}),
        (part('name="a"', b"\r\n\r\n"), {"a": b"\r\n\r\n"}),
        (part('name="a"', b""), {"a": b""}),
        (part('name="a"', b"--abd\r\n--ab"), {"a": b"--abd\r\n--ab"}),
        (part('name="a"; filename="name=b"', b"x"), {"a": b"x"}),
        (part('filename="x"; name=a', b"x"), {"a": b"x"}),
        (part('name="a \\"b\\""', b"x"), {'a "b"': b"x"}),
        (part('name="a"', b"x") + part('name="a"', b"y"), {"a": b"x", "a 1": b"y"}),
        (part('name="a"', b"x").replace(b"\r\n", b"\n"), {"a": b"x"}),
        (b"\r\n" + part('name="a"', b"x"), {"a": b"x"}),
        (b"preamble\r\n" + part('name="a"', b"x"), {}),
        (b"", {}),
    ],
)
def test_the_parts_of_a_form_come_out_to_the_byte(body, fields):
    assert fields_of(body + b"--abc--\r\n", MULTIPART) == fields
    assert fields_of(body + b"--abc--", {"content-type": 'multipart/form-data;charset=utf-8; boundary="abc"'}) == fields


@pytest.mark.parametrize("cut", [1, 20, 45, 75])
def test_a_form_that_is_cut_off_never_loses_a_field_in_silence(cut):
    whole = part('name="a"', b"x" * 20) + part('name="b"', b"y") + b"--abc--"
    rest = whole[:-cut]
    if cut < 3:  # only the dashes at its end
        assert fields_of(rest + b"-", MULTIPART).keys() == {"a", "b"}
    elif cut < 50:
        with pytest.raises(InputError, match=r"cut off, or damaged, behind its field \d"):
            fields_of(rest, MULTIPART)
    else:  # no field is whole, which the core refuses
        assert fields_of(rest, MULTIPART) == {}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (part('filename="x"', b"x"), "a field without a name"),
        (part('name=""', b"x"), "a field without a name"),
        (b"--abc\r\n\r\nx\r\n", "a field without a name"),
        (part('name="a"', b"x") * (MOST_FIELDS + 1), f"more than {MOST_FIELDS} fields"),
    ],
)
def test_a_form_that_cannot_be_read_is_refused(body, said):
    with pytest.raises(InputError, match=said) as error:
        fields_of(body + b"--abc--", MULTIPART)
    assert (error.value.code, error.value.type) == (400, "BadForm")


def test_a_form_of_pairs_and_other_bodies():
    pairs = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    assert fields_of(b"a=x%2By+z&b=&a=2", pairs) == {"a": b"x+y z", "b": b"", "a 2": b"2"}
    assert fields_of(b"no pair", pairs) == {}
    with pytest.raises(InputError, match="more than"):
        fields_of(b"a=1&" * (MOST_FIELDS + 1), pairs)
    assert fields_of(b"a=1", {}) == {"body": b"a=1"}
    assert fields_of(b"--abc", {"content-type": "multipart/form-data"}) == {"body": b"--abc"}


def test_fields_of_one_name_get_names_of_their_own():
    assert distinct(["a", "a 2", "a", "b", "a"]) == ["a", "a 2", "a 2 2", "b", "a 4"]


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/predictions/digits", Asked("digits")),
        ("/predictions/digits/2.0/more", Asked("digits", "2.0")),
        ("/predictions/%64igits/", Asked("digits")),
        ("/explanations/digits", Asked("digits", explains=True)),
        ("/v1/models/digits:explain", Asked("digits", explains=True)),
        ("/models/digits/2.0", Asked("digits", "2.0", describes=True)),
        ("/digits/2.0/predict", Asked("digits", "2.0")),
    ],
)
def test_an_address_says_what_is_asked(path, asked):
    assert read_address(path) == asked


@pytest.mark.parametrize(
    "path", ["/", "/predictions/", "/predictions/a%2Fb", "/predictions/a%00", "/v1/models/digits", "//predictions/a"]
)
def test_other_addresses_are_not_found(path):
    with pytest.raises(InputError) as error:
        read_address(path)
    assert error.value.code == 404


def test_only_the_tokens_of_the_file_are_let_in(tmp_path):
    file = tmp_path / "tokens"
    file.write_text("first\n\n second \n")
    tokens = Tokens(file)
    tokens.check("Bearer first")
    tokens.check("Bearer second")
    for wrong in ("", "first", "Bearer", "Bearer ", "bearer first", "Basic first", "Bearer first second", "Bearer firs"):
        with pytest.raises(InputError):
            tokens.check(wrong)
    file.unlink()
    with pytest.raises(InputError):  # with the file goes who may ask
        tokens.check("Bearer first")
    file.write_text("\n")
    with pytest.raises(ValueError, match="no token"):
        Tokens(file)


def test_the_conformance_suite_sees_each_difference():
    one = Got.of(200, [("Content-Type", "application/json"), ("Date", "today")], b'{"a": 0.5, "b": [0.25]}')
    same = Got.of(200, [("content-type", "application/json"), ("Date", "tomorrow")], b'{"a": 0.50, "b": [0.25]}')
    assert difference(one, same) is None
    others = {
        "status 200 and 500": Got(500, one.headers, one.body),
        "headers": Got(200, {}, one.body),
        "the answer, b, 0: 0.25 and 0.250001": Got(200, one.headers, {"a": 0.5, "b": [0.250001]}),
        "the answer: ": Got(200, one.headers, {"b": [0.25], "a": 0.5}),  # another order: the most probable is not first
    }
    for said, other in others.items():
        assert difference(one, other).startswith(said)
    assert difference(one, others["the answer, b, 0: 0.25 and 0.250001"], tolerance=1e-5) is None


def test_the_numbers_of_raw_embeddings_are_compared_and_not_their_bytes():
    headers = [("Content-Type", "application/octet-stream"), ("X-Dtype", "float32"), ("X-Shape", "2")]
    one, other = (Got.of(200, headers, np.array(numbers, "<f4").tobytes()) for numbers in ([0.5, 0.25], [0.5, 0.250001]))
    assert difference(one, other).startswith("the answer, 1: 0.25 and 0.25000")
    assert difference(one, other, tolerance=1e-5) is None
