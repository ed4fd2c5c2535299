"""Batches: whose images share them, which sizes the model is run in, and that no request notices another."""

import base64
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import export_to
from tests.in_process import handle, jpeg, load, statuses
from vit_core import predictor
from vit_core.model import EACH_SIZE, Model, _parts
from vit_core.way import Way


def b64(image: bytes) -> str:
    return base64.b64encode(image).decode()


def test_images_of_one_request_share_batches_with_those_of_others(loaded):
    handler, context = loaded  # batches of 8
    pictures = [jpeg(seed) for seed in range(11)]
    alone = [handle(handler, context, [{"body": picture}])[0] for picture in pictures]
    context.metrics.added.clear()
    rows = [
        {"body": pictures[0]},
        {"body": json.dumps({"data": [b64(picture) for picture in pictures[1:6]]}).encode()},
        {"body": json.dumps({"instances": [b64(picture) for picture in pictures[6:9]]}).encode()},
        {"a": pictures[9], "b": pictures[10]},
    ]
    one, several, instances, form = handle(handler, context, rows)
    for answers, expected in (
        ([one], alone[:1]),
        (several, alone[1:6]),
        (instances["predictions"], alone[6:9]),
        (form, alone[9:]),
    ):
        assert answers == [pytest.approx(answer, abs=1e-2) for answer in expected]
    assert instances.keys() == {"predictions"}
    assert context.metrics.of("BatchSize") == [8, 3]


def test_one_bad_image_of_several_is_named(loaded):
    handler, context = loaded
    rows = [{"body": json.dumps({"data": [b64(jpeg(1)), b64(b"no image"), b64(jpeg(2))]}).encode()}, {"body": jpeg(3)}]
    bad, good = handle(handler, context, rows)
    assert (bad["code"], bad["type"]) == (415, "UnsupportedImage")
    assert bad["message"].startswith("image 2 of 3: ")
    assert len(good) == 3
    assert context.metrics.of("BatchSize") == [1]  # the good images of a request that is refused are not run


def test_a_bad_request_leaves_the_batch_and_its_neighbours_do_not_notice(loaded):
    handler, context = loaded
    good = handle(handler, context, [{"body": jpeg(1)}, {"body": jpeg(2)}])
    rows = [{"body": b"not an image"}, {"body": jpeg(1)}, {}, {"body": jpeg(2)}, {"body": b'{"parsed": "json"}'}]
    answers = handle(handler, context, rows)
    assert [answers[1], answers[3]] == [pytest.approx(answer, abs=1e-6) for answer in good]
    assert statuses(context) == [415, 200, 400, 200, 400]
    for index in (0, 2, 4):
        assert set(answers[index]) == {"code", "type", "message"}
        assert answers[index]["code"] == statuses(context)[index]
    assert context.metrics.of("BatchSize") == [2, 2]
    assert context.metrics.of("RefusedRequests") == ["UnsupportedImage", "EmptyBody", "BadJSON"]


def test_a_batch_of_bad_requests_alone_does_not_run_the_model(loaded):
    handler, context = loaded
    handler.predictor.model = None
    assert [answer["code"] for answer in handle(handler, context, [{"body": b"x"}, {}])] == [415, 400]
    assert context.metrics.of("BatchSize") == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(neighbours=st.lists(st.one_of(st.integers(0, 50), st.binary(max_size=40)), max_size=9), place=st.integers(0, 9))
def test_an_answer_does_not_depend_on_the_neighbours(neighbours, place, loaded):
    handler, context = loaded
    alone = handle(handler, context, [{"body": jpeg(99)}])[0]
    rows = [{"body": bytes(jpeg(each)) if isinstance(each, int) else each} for each in neighbours]
    rows.insert(place, {"body": jpeg(99)})
    answer = handle(handler, context, rows)[min(place, len(neighbours))]
    assert next(iter(answer)) == next(iter(alone))
    assert answer == pytest.approx(alone, abs=1e-4 if handler.predictor.model.way.precision == "fp32" else 1e-2)


@pytest.mark.parametrize(
    ("brief", "split"), [(False, ((1, [1]), (3, [2, 1]), (7, [4, 2, 1]), (8, [8]))), (True, ((1, [1]), (3, [3]), (8, [8])))]
)
def test_a_fused_model_runs_in_powers_of_two_unless_it_is_brief(brief, split, loaded):
    handler, context = loaded
    handler.predictor.model._brief = brief
    rows = [{"body": jpeg(seed)} for seed in range(8)]
    expected = [handle(handler, context, [row])[0] for row in rows]
    ran, trace = [], handler.predictor.model._trace
    handler.predictor.model._trace = lambda pixels: ran.append(len(pixels)) or trace(pixels)
    handler.predictor.model.way = replace(handler.predictor.model.way, fused=True)
    for count, sizes in split:
        ran.clear()
        answers = handle(handler, context, rows[:count])
        assert answers == [pytest.approx(answer, abs=1e-2) for answer in expected[:count]]
        assert ran == sizes
    handler.predictor.model.way = replace(handler.predictor.model.way, fused=False)
    ran.clear()
    handle(handler, context, rows[:7])
    assert ran == [7]


@given(count=st.integers(0, 300), most_at_once=st.sampled_from([1, EACH_SIZE, sys.maxsize]))
def test_the_parts_of_a_batch_are_sizes_that_are_compiled(count, most_at_once):
    parts = _parts(count, most_at_once)
    assert sum(parts) == count
    assert all(part.bit_count() == 1 or part <= most_at_once for part in parts) and 0 not in parts
    assert len(parts) <= max(1, count.bit_length())


@pytest.mark.parametrize(
    ("brief", "batch_size", "sizes"),
    [(False, 8, [8, 4, 2, 1]), (True, 6, [6, 5, 4, 3, 2, 1]), (True, 40, [40, 32, *range(EACH_SIZE, 0, -1)])],
)
def test_the_model_has_run_in_all_its_batch_sizes_before_the_first_request(
    brief, batch_size, sizes, tiny_model, tmp_path, monkeypatch
):
    ran = []
    monkeypatch.setattr("vit_core.model.is_brief", lambda settings: brief)
    outputs = Model.outputs
    monkeypatch.setattr(Model, "outputs", lambda model, pixels: ran.append(len(pixels)) or outputs(model, pixels))
    way = Way("fp32", fused=True, threads=1, rule="")
    monkeypatch.setattr("vit_core.model.take_way", lambda trace, *rest: (trace.eval(), way))
    archive = export_to(tmp_path, f"local-dir:{tiny_model}", "--precision", "fp32")
    predictor.Predictor.load(archive, torch.device("cpu"), batch_size)
    assert ran == sizes


def test_each_request_gets_its_own_answer_whichever_thread_is_done_first(tiny_model, tmp_path, monkeypatch):
    archive = export_to(tmp_path / "store", f"local-dir:{tiny_model}", "--precision", "fp32")
    handler, context = load(archive, tmp_path / "unpacked")
    rows = [{"body": jpeg(seed)} for seed in range(5)] + [{"body": b"no image"}]
    expected = [handle(handler, context, [row])[0] for row in rows]
    decode = predictor.decode
    monkeypatch.setattr(
        predictor, "decode", lambda data, *rest: time.sleep(0.2 * (data is rows[0]["body"])) or decode(data, *rest)
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(handler.predictor, "_decoders", ThreadPoolExecutor(2))
    *answers, error = handle(handler, context, rows)
    assert answers == [pytest.approx(answer, abs=1e-6) for answer in expected[:-1]]
    assert answers[0] != pytest.approx(expected[1], abs=1e-4)
    assert error == expected[-1] and statuses(context) == [200] * 5 + [415]
