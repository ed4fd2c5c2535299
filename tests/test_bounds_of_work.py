"""What one batch may cost, in time, in bytes and in memory; and that the neighbours of what costs more are answered."""

import base64
import gc
import json
import math
import time
import weakref

import numpy as np
import pytest
import timm
import torch
from timm.models import save_for_hf

import vit_core.predictor as core
from tests.conftest import TINY, export_to
from tests.in_process import handle, jpeg, load, statuses
from vit_core.cost import Bounds
from vit_core.errors import RequestError
from vit_core.image import Deadline
from vit_core.request import Sent

LABELS = [f"class number {index}, {'猫' * (index % 7)}" for index in range(400)]
EXPLAIN = {"explain": "True"}


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A one-block ViT of random weights with 400 classes and embeddings of 48 features."""
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=len(LABELS), **TINY)
    save_for_hf(model, folder / "model", model_config={"model_args": TINY}, safe_serialization=True)
    (folder / "labels.json").write_text(json.dumps(LABELS))
    options = ("--labels", str(folder / "labels.json"), "--task", "classify,embed", "--precision", "fp32")
    return load(export_to(folder / "store", f"local-dir:{folder / 'model'}", *options), folder / "unpacked")


@pytest.fixture
def loaded(wide):
    """The same, with the bounds that a test sets taken back at its end."""
    handler, context = wide
    bounds = handler.bounds
    yield handler, context
    handler.bounds = bounds


def several(count: int, **keys: object) -> dict[str, bytes]:
    pictures = [base64.b64encode(jpeg(seed)).decode() for seed in range(count)]
    return {"body": json.dumps({"instances": pictures, **keys}).encode()}


def length(body: object) -> int:
    return len(body if isinstance(body, bytes) else json.dumps(body))


# --- bytes ---


@pytest.mark.parametrize("keys", [{"top_k": 400}, {"task": "embed"}], ids=["labels", "embeddings"])
def test_an_answer_that_is_too_large_says_what_fits_and_that_fits(keys, loaded):
    handler, context = loaded
    neighbour = {"body": jpeg(1)}
    _, whole, _ = handle(handler, context, [neighbour, several(6, **keys), neighbour])
    handler.bounds = Bounds(answer_bytes=length(whole) // 2)
    answers = handle(handler, context, [neighbour, several(6, **keys), neighbour])
    assert statuses(context) == [200, 413, 200] and len(answers[0]) == len(answers[2]) == 5
    assert (answers[1]["type"], answers[1]["code"]) == ("ResponseTooLarge", 413)
    assert f"of {length(whole)} bytes, and the server sends at most {length(whole) // 2}: " in answers[1]["message"]
    count = int(answers[1]["message"].split("ask for at most ")[1].split()[0])
    assert 2 <= count <= 3
    handle(handler, context, [several(count, **keys)])
    assert statuses(context) == [200]
    if "top_k" in keys:
        labels = int(answers[1]["message"].split("ask for at most ")[2].split()[0])
        assert labels > 100
        handle(handler, context, [several(6, top_k=labels)])
    else:
        assert answers[1]["message"].endswith("or accept application/octet-stream")
        handle(handler, context, [several(6, **keys)], {"Accept": "application/octet-stream"})
    assert statuses(context) == [200]


def test_every_kind_of_answer_has_its_advice(loaded):
    handler, context = loaded
    handler.bounds = Bounds(answer_bytes=700)
    for row, headers, advice in (
        ({"body": jpeg(1), "top_k": b"400"}, {}, "ask for at most"),
        ({"body": jpeg(1)}, {"X-Task": "embed"}, "accept application/octet-stream"),
        (several(9), {"X-Task": "embed", "Accept": "application/octet-stream"}, "ask for at most 3 images"),
        ({"body": jpeg(1)}, {**EXPLAIN, "Accept": "image/png"}, "accept application/json"),
    ):
        (answer,) = handle(handler, context, [row], headers)
        assert (answer["code"], answer["type"]) == (413, "ResponseTooLarge")
        assert advice in answer["message"] and len(answer["message"]) < 300


def test_labels_are_left_out_of_a_description_that_is_too_large(loaded):
    handler, context = loaded
    (whole,) = handle(handler, context, [{}], {"describe": "True"})
    assert whole["classes"] == LABELS
    handler.bounds = Bounds(answer_bytes=length(whole) - 1)
    (described,) = handle(handler, context, [{}], {"describe": "True"})
    assert described == {**whole, "classes": None}


@pytest.mark.parametrize(
    ("row", "headers"),
    [
        ({"body": b""}, {}),
        ({}, {"explain": "False"}),
        ({}, {"Content-Type": "multipart/form-data; boundary=x"}),
        ({}, {"content-type": "application/x-www-form-urlencoded"}),
    ],
)
def test_a_client_of_predictions_is_not_told_the_archives_record(row, headers, loaded):
    (answer,) = handle(*loaded, [row], {"describe": "True", **headers})
    assert (answer["code"], answer["type"]) == (400, "EmptyBody")


# --- seconds ---


def test_what_a_batch_has_no_time_for_is_refused_and_not_run(loaded, monkeypatch):
    handler, context = loaded
    handler.bounds = Bounds(seconds=-1)
    monkeypatch.setattr(core, "decode", lambda *_: pytest.fail("decoded"))
    answers = handle(handler, context, [{"body": jpeg(1)}, several(2), {"body": b"{"}])
    assert [answer["type"] for answer in answers] == ["Busy", "Busy", "BadJSON"]
    assert statuses(context) == [503, 503, 400]


def test_decoding_ends_with_the_batchs_time_in_the_middle_of_a_picture(loaded, monkeypatch):
    handler, context = loaded
    handler.bounds = Bounds(seconds=0.5)
    decode, slow = core.decode, bytes(jpeg(9))

    def decoded(data, channels, limits, deadline: Deadline, least):
        while bytes(data) == slow:  # a decoder that reads on
            deadline.check()
            time.sleep(0.01)
        return decode(data, channels, limits, deadline, least)

    monkeypatch.setattr(core, "decode", decoded)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    started = time.monotonic()
    answers = handle(handler, context, [{"body": jpeg(1)}, {"body": slow}, {"body": jpeg(2)}])
    assert time.monotonic() - started < 2  # the first picture was decoded, and the model had no time left for it
    assert [answer["type"] for answer in answers] == ["Busy"] * 3


def test_the_model_is_not_called_after_the_batchs_time(loaded, monkeypatch):
    handler, context = loaded
    handler.bounds = Bounds(seconds=1)
    outcomes, called = handler.predictor.model.outcomes, []

    def slow(pixels):
        called.append(len(pixels))
        time.sleep(1.2)
        return outcomes(pixels)

    monkeypatch.setattr(handler.predictor.model, "outcomes", slow)
    answers = handle(handler, context, [several(8), {"body": jpeg(1)}])
    assert called == [8] and len(answers[0]["predictions"]) == 8
    assert (statuses(context), answers[1]["type"]) == ([200, 503], "Busy")


def test_the_bound_is_below_the_archives_response_timeout(loaded):
    handler, _ = loaded
    assert handler.bounds.seconds == 0.75 * handler.predictor.archive.serving.response_timeout < math.inf


def test_predictions_of_a_batch_come_before_its_explanations_which_have_a_time_of_their_own(loaded, monkeypatch):
    handler, _ = loaded
    order, model, explainer = [], handler.predictor.model, handler.predictor._explainer
    outcomes, outcome = model.outcomes, explainer.outcome

    def explained(*arguments):
        order.append("explain")
        time.sleep(0.6)
        return outcome(*arguments)

    monkeypatch.setattr(model, "outcomes", lambda pixels: order.append("predict") or outcomes(pixels))
    monkeypatch.setattr(explainer, "outcome", explained)
    limits = handler.predictor._settings.limits
    monkeypatch.setitem(limits.__dict__, "max_explain_seconds", 1)
    sent = [Sent({"body": bytes(jpeg(seed))}, explains=seed != 1) for seed in range(4)]
    answers = handler.predictor.answer(sent)
    assert order == ["predict", "explain", "explain"]
    assert [getattr(answer, "type", None) for answer in answers] == [None, None, None, "Busy"]
    assert answers[3].code == 503


def test_explanations_have_a_limit_of_their_own(loaded):
    handler, context = loaded
    whole, refused = handle(handler, context, [several(4), several(5)], EXPLAIN)
    assert len(whole["predictions"]) == 4
    assert (refused["code"], refused["type"]) == (413, "TooManyImages")
    assert refused["message"] == "the request has 5 images to explain: at most 4 are allowed"
    handle(handler, context, [several(5)])
    assert statuses(context) == [200]


def test_an_archive_may_have_no_explanations(tiny_model, tmp_path):
    archive = export_to(tmp_path / "store", f"local-dir:{tiny_model}", "--no-explain")
    handler, context = load(archive, tmp_path / "unpacked")
    (answer,) = handle(handler, context, [{"body": jpeg(1)}], EXPLAIN)
    assert answer["code"] == 501 and "it was exported without explanations" in answer["message"]
    assert not hasattr(torch.jit.load(tmp_path / "unpacked" / "model.pt"), "explain")


# --- errors ---


def test_an_error_holds_nothing_of_what_was_sent(loaded, monkeypatch):
    handler, _ = loaded
    kept = []

    def decoded(data, *rest):
        picture = np.frombuffer(bytes(data), np.uint8)  # is in a frame of the traceback
        kept.append(weakref.ref(picture))
        try:
            raise OSError("broken")
        except OSError as error:
            raise core.InputError(400, "BrokenImage", f"{len(picture)} bytes") from error

    monkeypatch.setattr(core, "decode", decoded)
    gc.disable()
    try:
        answers = handler.predictor.answer([Sent(several(2)), Sent({"body": bytes(jpeg(1))})])
        assert [each() for each in kept] == [None, None]
    finally:
        gc.enable()
    for answer in answers:
        assert isinstance(answer, RequestError) and answer.__traceback__ is answer.__cause__ is answer.__context__ is None


def test_a_mistake_in_one_answer_does_not_fail_its_neighbours(loaded, monkeypatch):
    handler, context = loaded
    answer = handler.predictor._answers.answer

    def fails(request, outcomes):
        if request.top_k == 1:
            raise ZeroDivisionError
        return answer(request, outcomes)

    monkeypatch.setattr(handler.predictor._answers.__class__, "answer", lambda _, *rest: fails(*rest))
    answers = handle(handler, context, [{"body": jpeg(1)}, {"body": jpeg(1), "top_k": b"1"}])
    assert statuses(context) == [200, 500] and answers[1]["type"] == "PredictionFailed"
