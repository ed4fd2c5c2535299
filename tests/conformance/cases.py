"""The requests: good ones in all forms, bad ones, and hostile ones. No case counts on a limit or a label of one archive."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from tests import bombs
from tests.conformance.asked import Case
from tests.conformance.servers import MAX_REQUEST_SIZE
from tests.made import encoded, exif_bomb, png

URLENCODED = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


def cases(pictures: list[Path]) -> list[Case]:
    """All cases, of these pictures."""
    bodies = [picture.read_bytes() for picture in pictures]
    return [*good(bodies[0]), *several(bodies[:4]), *all_of(pictures), *explained(bodies[:3]), *bad(bodies[0]), *hostile()]


def good(body: bytes) -> list[Case]:
    """One picture in many forms, with options, at all addresses."""
    b64 = base64.b64encode(body).decode()
    forms = {
        "bytes": {"data": body},
        "bytes as an image": {"data": body, "headers": {"Content-Type": "image/jpeg"}},
        "bytes as JSON": {"data": body, "headers": JSON},
        "a file in a form": {"files": {"data": ("a.jpg", body, "image/jpeg")}},
        "a field of a form": {"files": {"data": (None, body)}},
        "a field of any name": {"files": {'a "name" with ü': ("a.jpg", body)}},
        "base64 in a form": {"files": {"data": (None, b64)}},
        "base64, urlencoded": {"data": {"data": b64}},
        "base64, not encoded": {"data": f"data={b64}", "headers": URLENCODED},
        "base64 as text": {"data": b64, "headers": {"Content-Type": "text/plain"}},
        "base64 as JSON": {"data": b64, "headers": JSON},
        "JSON": {"json": {"data": b64}},
        "JSON, b64": {"json": {"b64": b64}},
        "JSON, no padding": {"json": {"data": b64.rstrip("=")}},
        "JSON, for URLs": {"json": {"data": base64.urlsafe_b64encode(body).decode()}},
        "JSON with a BOM": {"data": b"\xef\xbb\xbf" + json.dumps({"data": b64}).encode(), "headers": JSON},
        "JSON in UTF-16": {"data": json.dumps({"data": b64}).encode("utf-16"), "headers": JSON},
        "a data URL": {"data": f"data:image/jpeg;base64,{b64}"},
        "a data URL in JSON": {"json": {"data": f"DATA:image/jpeg;base64,{quote(b64, safe='')}"}},
        "gzip": {"data": gzip.compress(body), "headers": {"Content-Encoding": "gzip"}},
        "deflate": {"data": zlib.compress(body), "headers": {"Content-Encoding": "deflate"}},
        "gzip of JSON": {"data": gzip.compress(json.dumps({"data": b64}).encode()), "headers": {"Content-Encoding": "gzip"}},
        "top_k in a form": {"files": {"data": body}, "data": {"top_k": "2"}},
        "top_k in JSON": {"json": {"data": b64, "top_k": 2}},
        "top_k in a header": {"data": body, "headers": {"X-Top-K": "2"}},
        "a threshold": {"data": body, "headers": {"X-Threshold": "0.5"}},
        "raw scores": {"data": body, "headers": {"X-Raw-Scores": "true"}},
        "an embedding": {"data": body, "headers": {"X-Task": "embed"}},
        "an embedding in bytes": {"data": body, "headers": {"X-Task": "embed", "Accept": "application/octet-stream"}},
        "an explain header": {"data": body, "headers": {"explain": "True"}},
        "in its query": {"data": body, "path": "/predictions/MODEL?top_k=2"},
        "a slash at the end": {"data": body, "path": "/predictions/MODEL/"},
        "KServe V1": {"data": body, "path": "/v1/models/MODEL:predict"},
        "SageMaker": {"data": body, "path": "/models/MODEL/invoke?top_k=2"},
        "SageMaker, one address": {"data": body, "path": "/invocations?model_name=MODEL"},
        "the oldest address": {"data": body, "path": "/MODEL/predict"},
        "PUT": {"data": body, "method": "PUT"},
    }
    return [Case.of(f"good: {name}", **options) for name, options in forms.items()]


def several(bodies: list[bytes]) -> list[Case]:
    """Many images in one request."""
    b64 = [base64.b64encode(body).decode() for body in bodies]
    forms = {
        "JSON": {"json": {"data": b64}},
        "a list": {"json": b64},
        "one in a list": {"json": b64[:1]},
        "fields of one name": {"files": [("data", body) for body in bodies]},
        "fields of several names": {"files": {f"picture{index}": body for index, body in enumerate(bodies)}},
        "KServe V1": {"json": {"instances": [{"data": image} for image in b64]}, "path": "/v1/models/MODEL:predict"},
        "TensorFlow Serving": {"json": {"instances": [{"image_bytes": {"b64": image}} for image in b64]}},
        "embeddings": {"files": [("data", body) for body in bodies] + [("task", b"embed")]},
        "embeddings in bytes": {
            "json": {"data": b64, "task": "embed"},
            "headers": {"Accept": "application/octet-stream"},
        },
        "one of them bad": {"json": {"data": [*b64, base64.b64encode(b"no image").decode()]}},
        "thirty-three": {"json": b64[:1] * 33},
        "a thousand": {"json": [base64.b64encode(encoded(_picture(), "PNG")).decode()] * 1000},
    }
    return [Case.of(f"several: {name}", **options) for name, options in forms.items()]


def all_of(pictures: list[Path]) -> list[Case]:
    return [Case.of(f"picture: {picture.name}", data=picture.read_bytes()) for picture in pictures]


def explained(bodies: list[bytes]) -> list[Case]:
    body = bodies[0]
    forms = {
        "JSON": {"data": body},
        "PNG": {"data": body, "headers": {"Accept": "image/png"}},
        "rollout": {"data": body, "headers": {"X-Method": "rollout"}},
        "the class 1": {"data": body, "headers": {"X-Target": "1"}},
        "several": {"files": [("data", each) for each in bodies]},
        "several as PNG": {"files": [("data", each) for each in bodies], "headers": {"Accept": "image/png"}},
        "too many": {"files": [("data", body)] * 9},
        "no such class": {"data": body, "headers": {"X-Target": "no such class"}},
        "no such method": {"data": body, "headers": {"X-Method": "guess"}},
        "no image": {"data": b"no image"},
        "HTML": {"data": body, "headers": {"Accept": "text/html"}},
    }
    found = [Case.of(f"explained: {name}", "/explanations/MODEL", **options) for name, options in forms.items()]
    return [*found, Case.of("explained: KServe V1", "/v1/models/MODEL:explain", data=body)]


def bad(body: bytes) -> list[Case]:
    """Mistakes: each has an error of its own."""
    b64 = base64.b64encode(body).decode()
    multipart = "multipart/form-data"
    forms = {
        "no body": {"data": b""},
        "GET": {"method": "GET"},
        "no image in JSON": {"json": {"data": ""}},
        "no image in a form": {"files": {"top_k": (None, "3")}},
        "no instances": {"json": {"instances": []}},
        "half of JSON": {"data": b'{"data": '},
        "a text as JSON": {"data": b"hello", "headers": JSON},
        "an unknown key": {"json": {"image_url": "http://127.0.0.1/cat.jpg"}},
        "a key too many": {"json": {"data": b64, "topk": 2}},
        "a key twice": {"data": f'{{"data": "{b64}", "data": "{b64}"}}', "headers": JSON},
        "instances in an object": {"json": {"instances": {"data": b64}}},
        "numbers": {"json": {"data": [1, 2, 3]}},
        "NaN": {"data": f'{{"data": "{b64}", "threshold": NaN}}', "headers": JSON},
        "no base64": {"json": {"data": "not base64!"}},
        "a data URL without base64": {"data": "data:image/png,plain"},
        "top_k of many": {"data": body, "headers": {"X-Top-K": "many"}},
        "top_k of none": {"json": {"data": b64, "top_k": 0}},
        "threshold of two": {"files": {"data": body}, "data": {"threshold": "2"}},
        "a task": {"data": body, "headers": {"X-Task": "detect"}},
        "a slip in a header": {"data": body, "headers": {"X-TopK": "2"}},
        "a slip in a field": {"files": {"data": body}, "data": {"topk": "2"}},
        "an unknown field": {"files": {"data": body}, "data": {"submit": "Upload"}},
        "an empty field": {"files": {"data": body, "top_k": (None, "2"), "c": b""}},
        "an option twice": {"files": [("data", body), ("top_k", (None, "2")), ("top_k", (None, "3"))]},
        "half an image": {"data": body[: len(body) // 2]},
        "a text": {"data": b"plain text"},
        "a PDF": {"data": b"%PDF-1.7 ..."},
        "a SVG": {"data": b'<svg xmlns="http://www.w3.org/2000/svg"/>'},
        "HTML wanted": {"data": body, "headers": {"Accept": "text/html"}},
        "PNG wanted": {"data": body, "headers": {"Accept": "image/png"}},
        "brotli": {"data": body, "headers": {"Content-Encoding": "br"}},
        "no gzip": {"data": body, "headers": {"Content-Encoding": "gzip"}},
        "half of gzip": {"data": gzip.compress(body)[:-9], "headers": {"Content-Encoding": "gzip"}},
        "gzip, not said": {"data": gzip.compress(body)},
        "a form without a boundary": {"files": {"data": body}, "headers": {"Content-Type": multipart}},
        "a form as JSON": {"files": {"data": body}, "headers": JSON},
        "a form with another boundary": {"files": {"data": body}, "headers": {"Content-Type": f"{multipart}; boundary=abc"}},
        "JSON as a form": {"data": json.dumps({"data": b64}), "headers": URLENCODED},
        "short JSON as a form": {"data": '{"data": "YWJj"}', "headers": URLENCODED},
        "a form without parts": {"data": b"--abc--\r\n", "headers": {"Content-Type": f"{multipart}; boundary=abc"}},
        "describe": {"data": b"", "headers": {"describe": "True"}},
        "no such model": {"data": body, "path": "/predictions/no-such-model"},
        "no such version": {"data": body, "path": "/predictions/MODEL/no-such-version"},
        "no such address": {"data": body, "path": "/predict"},
        "no such model, V1": {"data": body, "path": "/v1/models/no-such-model:predict"},
        "no name": {"data": body, "path": "/predictions"},
        "no token": {"data": body, "token": False},
        "another token": {"data": body, "token": False, "headers": {"Authorization": "Bearer another"}},
        "no token, ping": {"path": "/ping", "method": "GET", "token": False},
        "more bytes than the server takes": {"data": bytes(MAX_REQUEST_SIZE + 1)},
    }
    return [Case.of(f"bad: {name}", **options) for name, options in forms.items()]


def hostile() -> list[Case]:
    """Small bodies that ask for much, and noise."""
    random = np.random.default_rng(0)
    pixels = np.zeros((4, 4, 1))
    bodies = {
        "a huge PNG": png(np.zeros((1, 1, 1)), 1).replace(b"\0\0\0\1\0\0\0\1", b"\0\0\x75\x30\0\0\x75\x30"),
        "a huge tile": bombs.tile_of(60_000, 60_000),
        "a huge canvas": bombs.webp_canvas(16_000),
        "a huge frame": bombs.gif_frame(60_000),
        "two sizes": bombs.jpeg_of_two_sizes(),
        "packed texts": bombs.bomb_texts(),
        "hidden EXIF": bombs.hidden_exif(200),
        "EXIF of a megabyte": encoded(_picture(), "PNG", exif=exif_bomb(1, 50)),
        "empty segments": bombs.jpeg_of_segments(20_000),
        "a bad fax": bombs.bad_fax(1000),
        "a PNG without its end": png(pixels, 8)[:-20],
        "deep JSON": b"[" * 90_000,
        "a long number": b'{"data": "", "top_k": ' + b"9" * 5000 + b"}",
        "a gzip bomb": gzip.compress(bytes(MAX_REQUEST_SIZE + 1)),
        "NUL": b"\0",
        **{f"noise of {size} bytes": random.bytes(size) for size in (1, 7, 100, 5000, 300_000)},
    }
    extra = {"a gzip bomb": {"Content-Encoding": "gzip"}, "deep JSON": JSON}
    return [Case.of(f"hostile: {name}", data=body, headers=extra.get(name, {})) for name, body in bodies.items()]


def _picture() -> Image.Image:
    return Image.new("RGB", (8, 8), "red")
