"""The handler in process: what it makes of a batch, with TorchServe's own context."""

import base64
import io
import json
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

import vit_handler
import vit_model
import vit_threads
from tests.conftest import export_to
from tests.in_process import handle, jpeg, load, statuses
from vit_model import Model
from vit_precision import Way


@pytest.fixture
def loaded(tiny_model, tmp_path):
    return load(export_to(tmp_path / "store", f"local-dir:{tiny_model}"), tmp_path / "unpacked")


def test_a_batch_is_answered_as_timm_answers(loaded, tiny_model):
    handler, context = loaded
    model = timm.create_model(f"local-dir:{tiny_model}", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model))
    rows = [{"body": jpeg(1)}, {"data": jpeg(2)}, {"body": jpeg(3)}]
    for row, answer in zip(rows, handle(handler, context, rows), strict=True):
        image = Image.open(io.BytesIO(next(iter(row.values())))).convert("RGB")
        with torch.inference_mode():
            probs = model(transform(image)[None]).softmax(1)[0]
        expected = {label: probs[index].item() for index, label in enumerate(["cat", "dog", "owl"])}
        assert answer == pytest.approx(expected, abs=1e-3)
        assert list(answer.values()) == sorted(answer.values(), reverse=True)
    assert context.metrics.of("BatchSize") == [3]


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
    handler.model = None
    assert [answer["code"] for answer in handle(handler, context, [{"body": b"x"}, {}])] == [415, 400]
    assert context.metrics.of("BatchSize") == []


def test_top_k_is_the_archives(tiny_model, tmp_path):
    archive = export_to(tmp_path / "store", f"local-dir:{tiny_model}", "--top-k", "2")
    handler, context = load(archive, tmp_path / "unpacked")
    assert len(handle(handler, context, [{"body": jpeg(1)}])[0]) == 2


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


def test_a_request_may_ask_for_fewer_labels(loaded):
    handler, context = loaded
    whole = handle(handler, context, [{"body": jpeg(1)}])[0]
    rows = [{"data": jpeg(1), "top_k": b"2"}, {"data": jpeg(1), "top_k": b"99"}, {"data": jpeg(1)}]
    assert [len(answer) for answer in handle(handler, context, rows)] == [2, 3, 3]
    first, second, _ = whole.values()
    threshold = str((first + second) / 2).encode()
    assert list(handle(handler, context, [{"data": jpeg(1), "threshold": threshold}])[0]) == list(whole)[:1]
    assert handle(handler, context, [{"data": jpeg(1), "threshold": b"1"}])[0] == {}
    assert len(handle(handler, context, [{"body": jpeg(1)}], {"X-Top-K": "1"})[0]) == 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(neighbours=st.lists(st.one_of(st.integers(0, 50), st.binary(max_size=40)), max_size=9), place=st.integers(0, 9))
def test_an_answer_does_not_depend_on_the_neighbours(neighbours, place, loaded):
    handler, context = loaded
    alone = handle(handler, context, [{"body": jpeg(99)}])[0]
    rows = [{"body": bytes(jpeg(each)) if isinstance(each, int) else each} for each in neighbours]
    rows.insert(place, {"body": jpeg(99)})
    answer = handle(handler, context, rows)[min(place, len(neighbours))]
    assert next(iter(answer)) == next(iter(alone))
    assert answer == pytest.approx(alone, abs=1e-4 if handler.model.way.precision == "fp32" else 1e-2)


def test_the_archives_limits_hold(tiny_model, tmp_path):
    options = ("--max-bytes", "3000", "--max-pixels", "2500", "--max-images", "2")
    handler, context = load(export_to(tmp_path, f"local-dir:{tiny_model}", *options), tmp_path / "unpacked")
    large, small = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (51, 50)).save(large, "PNG")
    Image.new("RGB", (50, 50)).save(small, "PNG")
    rows = [{"body": bytes(3001)}, {"body": large.getvalue()}, dict.fromkeys("abc", small.getvalue()), {"a": small.getvalue()}]
    types = [answer.get("type") for answer in handle(handler, context, rows)]
    assert types == ["FileTooLarge", "ImageTooLarge", "TooManyImages", None]
    assert statuses(context) == [413, 413, 413, 200]


@pytest.mark.parametrize("size", [(1, 40_000), (40_000, 1), (3, 2_000_000), (1, 1)])
def test_a_thin_strip_is_answered_without_being_made_whole(size, loaded, monkeypatch):
    handler, context = loaded
    made, resize = [], Image.Image.resize

    def noted(image, size, *rest):
        made.append(size[0] * size[1])
        return resize(image, size, *rest)

    monkeypatch.setattr(Image.Image, "resize", noted)
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, "PNG")
    assert handle(handler, context, [{"body": buffer.getvalue()}])[0].keys() == {"cat", "dog", "owl"}
    assert max(made) < 2_000_000


def test_fast_pixels_are_the_archives_choice(tiny_model, tmp_path, monkeypatch):
    asked = []
    decode = vit_handler.decode
    monkeypatch.setattr(vit_handler, "decode", lambda *arguments: asked.append(arguments[-1]) or decode(*arguments))
    for name, options in (("timms", []), ("fast", ["--fast-pixels"])):
        archive = export_to(tmp_path / name, f"local-dir:{tiny_model}", "--precision", "fp32", *options)
        handler, context = load(archive, tmp_path / f"{name} unpacked")
        (answer,) = handle(handler, context, [{"body": jpeg(1)}])
        assert set(answer) == {"cat", "dog", "owl"}
        assert handler.describe()["fast_pixels"] == bool(options)
    assert asked == [None, 2 * 36]  # 32 pixels are nine tenths of 35.6


# --- threads and batch sizes ---


def test_a_fused_model_runs_in_powers_of_two(loaded):
    handler, context = loaded
    rows = [{"body": jpeg(seed)} for seed in range(8)]
    expected = [handle(handler, context, [row])[0] for row in rows]
    ran, trace = [], handler.model._trace
    handler.model._trace = lambda pixels: ran.append(len(pixels)) or trace(pixels)
    handler.model.way = Way(handler.model.way.precision, fused=True)
    for count, sizes in ((1, [1]), (3, [2, 1]), (7, [4, 2, 1]), (8, [8])):
        ran.clear()
        answers = handle(handler, context, rows[:count])
        assert answers == [pytest.approx(answer, abs=1e-2) for answer in expected[:count]]
        assert ran == sizes
    handler.model.way = Way(handler.model.way.precision, fused=False)
    ran.clear()
    handle(handler, context, rows[:7])
    assert ran == [7]


def test_the_model_has_run_in_all_its_batch_sizes_before_the_first_request(tiny_model, tmp_path, monkeypatch):
    ran = []
    outputs = Model.outputs
    monkeypatch.setattr(Model, "outputs", lambda model, pixels: ran.append(len(pixels)) or outputs(model, pixels))
    monkeypatch.setattr(vit_model, "fastest", lambda trace, *rest: (torch.jit.freeze(trace), Way("fp32", fused=True)))
    load(export_to(tmp_path, f"local-dir:{tiny_model}", "--precision", "fp32"), tmp_path / "unpacked")
    assert ran == [8, 4, 2, 1]


def test_each_request_gets_its_own_answer_whichever_thread_is_done_first(tiny_model, tmp_path, monkeypatch):
    archive = export_to(tmp_path / "store", f"local-dir:{tiny_model}", "--precision", "fp32")
    handler, context = load(archive, tmp_path / "unpacked")
    rows = [{"body": jpeg(seed)} for seed in range(5)] + [{"body": b"no image"}]
    expected = [handle(handler, context, [row])[0] for row in rows]
    decode = vit_handler.decode
    monkeypatch.setattr(
        vit_handler, "decode", lambda data, *rest: time.sleep(0.2 * (data is rows[0]["body"])) or decode(data, *rest)
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(handler, "decoders", ThreadPoolExecutor(2))
    *answers, error = handle(handler, context, rows)
    assert answers == [pytest.approx(answer, abs=1e-6) for answer in expected[:-1]]
    assert answers[0] != pytest.approx(expected[1], abs=1e-4)
    assert error == expected[-1] and statuses(context) == [200] * 5 + [415]


@pytest.mark.parametrize(
    ("cores", "quota", "workers", "threads"),
    [
        (16, None, 1, 16),
        (16, None, 4, 4),
        (2, None, 4, 1),
        (16, "max 100000", 2, 8),
        (16, "350000 100000", 2, 2),
        (1, "x", 1, 1),
    ],
)
def test_cores_are_shared_out_among_workers(cores, quota, workers, threads, tmp_path, monkeypatch):
    if quota:
        (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(vit_threads, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert vit_threads.threads_per_worker(workers) == threads


@pytest.mark.parametrize(
    ("device", "threads", "gpus", "workers"),
    [("cpu", 16, 0, 1), ("cpu", 1, 0, 16), ("cpu", 6, 0, 2), ("cpu", 32, 0, 1), ("cuda:0", 16, 1, 4), ("cuda:0", 16, 4, 12)],
)
def test_workers_are_of_use_as_long_as_there_are_cores_or_gpus_for_them(device, threads, gpus, workers, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert vit_threads.useful_workers(torch.device(device), threads) == workers


# --- when the model or the handler itself fails ---


class FailingModel(Model):
    """Fails with `error` for batches of more than `most` images."""

    def __init__(self, model: Model, error: Exception, most: int):
        self.__dict__.update(model.__dict__)
        self.error, self.most, self.tried = error, most, []

    def outputs(self, pixels):
        self.tried.append(len(pixels))
        if len(pixels) > self.most:
            raise self.error
        return super().outputs(pixels)


def test_a_batch_that_the_gpu_has_no_memory_for_is_tried_in_halves(loaded):
    handler, context = loaded
    rows = [{"body": jpeg(seed)} for seed in range(7)]
    expected = handle(handler, context, rows)
    handler.model = FailingModel(handler.model, torch.OutOfMemoryError("CUDA out of memory"), most=2)
    assert handle(handler, context, rows) == [pytest.approx(answer, abs=1e-2) for answer in expected]
    assert handler.model.tried == [7, 3, 1, 2, 4, 2, 2]


def test_without_memory_for_one_image_the_answer_is_503(loaded):
    handler, context = loaded
    handler.model = FailingModel(handler.model, torch.OutOfMemoryError("CUDA out of memory"), most=0)
    answers = handle(handler, context, [{"body": jpeg(1)}, {"body": b"x"}])
    assert [answer["type"] for answer in answers] == ["OutOfMemory", "UnsupportedImage"]
    assert statuses(context) == [503, 415]


def test_a_failure_of_the_model_is_a_500_for_those_it_touched(loaded, caplog):
    handler, context = loaded
    handler.model = FailingModel(handler.model, RuntimeError("a bad day"), most=3)
    rows = [{"body": jpeg(seed)} for seed in range(10)] + [{"body": b"x"}]  # a batch of 8 and one of 2
    answers = handle(handler, context, rows)
    assert [answer.get("code", 200) for answer in answers] == [500] * 8 + [200] * 2 + [415]
    assert "a bad day" in caplog.text
    assert "a bad day" not in json.dumps(answers)


def test_a_gpu_that_has_failed_ends_the_worker(loaded):
    handler, context = loaded
    handler.model = FailingModel(handler.model, torch.AcceleratorError("device-side assert", 710), most=0)
    with pytest.raises(SystemExit, match="device-side assert"):
        handle(handler, context, [{"body": jpeg(1)}])


def test_a_mistake_of_our_own_is_a_500_for_one_request(loaded, monkeypatch, caplog):
    handler, context = loaded
    decode = vit_handler.decode

    def sometimes(data, *rest):
        if data == b"poison":
            raise KeyError("a mistake")
        return decode(data, *rest)

    monkeypatch.setattr(vit_handler, "decode", sometimes)
    answers = handle(handler, context, [{"body": jpeg(1)}, {"body": b"poison"}])
    assert [answer.get("type") for answer in answers] == [None, "PreprocessingFailed"]
    assert statuses(context) == [200, 500]
    assert "a mistake" in caplog.text


# --- what it says of itself ---


def test_it_describes_itself(loaded):
    handler, context = loaded
    (described,) = handle(handler, context, [{"body": b""}], {"describe": "True"})
    assert described["input_size"] == [3, 32, 32]
    assert described["classes"] == ["cat", "dog", "owl"]
    assert (described["device"], described["precision"]) == ("cpu", handler.model.way.precision)
    assert described["limits"]["max_pixels"] == 50_000_000
    assert described["record"]["weights"] == "its own"
    json.dumps(described)
    # The header of a client does not get in the way of its prediction.
    for field in ("body", "data"):
        assert len(handle(handler, context, [{field: jpeg(1)}], {"describe": "True"})[0]) == 3


def test_a_refused_request_is_one_line_in_the_log_without_what_was_sent(loaded, caplog):
    handler, context = loaded
    caplog.set_level("INFO")
    secret = b'{"data": "c2VjcmV0", "secret\n[METRICS]": 1}'
    handle(handler, context, [{"body": jpeg(1)}, {"body": secret}])
    (line,) = [record.message for record in caplog.records if record.name == "vit_metrics"]
    assert json.loads(line) == {"event": "refused", "request": "request-1", "code": 400, "type": "BadJSON"}


def test_the_workers_line_for_each_batch_is_not_logged_but_warnings_and_metrics_are(loaded, caplog):
    caplog.set_level("INFO")
    logging.info("Backend received inference at: 1")  # on the root logger, as TorchServe's worker does
    logging.warning("a warning")
    logging.getLogger("ts.metrics.caching_metric").info("[METRICS]…")
    assert [record.message for record in caplog.records] == ["a warning", "[METRICS]…"]


def test_a_batch_is_one_line_in_the_log_at_debug_level(loaded, caplog):
    handler, context = loaded
    caplog.set_level("DEBUG", "vit_metrics")
    handle(handler, context, [{"body": jpeg(1)}, {"body": jpeg(2)}])
    lines = [json.loads(record.message) for record in caplog.records if record.name == "vit_metrics"]
    assert lines == [{"event": "batch", "images": 2, "requests": {"0": "request-0", "1": "request-1"}}]


def test_times_are_measured(loaded):
    handler, context = loaded
    handle(handler, context, [{"body": jpeg(1)}, {"body": b"x"}])
    for name in ("PreprocessSeconds", "InferenceSeconds", "PostprocessSeconds"):
        (seconds,) = context.metrics.of(name)
        assert 0 < seconds < 60


@pytest.mark.gpu
def test_the_gpu_answers_as_the_cpu_does_in_fp32(tiny_model, tmp_path):
    tolerances = {"fp32": 1e-4, "fp16": 2e-3, "bf16": 1e-2}
    # All before the first is loaded: a handler may turn fusion on, for the whole process.
    archives = {name: export_to(tmp_path / name, f"local-dir:{tiny_model}", "--precision", name) for name in tolerances}
    rows = [{"body": jpeg(seed)} for seed in range(5)]
    expected = handle(*load(archives["fp32"], tmp_path / "cpu"), rows)
    for name, tolerance in tolerances.items():
        handler, context = load(archives[name], tmp_path / f"{name}-unpacked", gpu_id=0)
        assert handler.device.type == "cuda"
        assert handle(handler, context, rows) == [pytest.approx(answer, abs=tolerance) for answer in expected]
