"""How much work a fixed load is: counted, since times depend on the machine. More than this is a step back in speed."""

import resource
import threading
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.conftest import DIGITS, export_to
from tests.in_process import handle, load
from vit_core import predictor, way

IMAGES = 8


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """The example in fp32, without fusion, with all threads, and eight requests with its pictures."""
    monkeypatch.setattr(way, "BRIEF", 0)
    archive = export_to(tmp_path, f"local-dir:{DIGITS}", "--precision", "fp32")
    handler, context = load(archive, tmp_path / "unpacked")
    model = handler.predictor.model
    model.way = replace(model.way, fused=False)
    rows = [{"body": file.read_bytes()} for file in sorted((DIGITS / "samples").glob("*"))[:IMAGES]]
    handle(handler, context, rows)
    return handler, context, rows


def test_a_full_batch_is_decoded_once_each_and_is_one_call_of_the_model(digits, monkeypatch):
    handler, context, rows = digits
    calls = Counter()
    trace, decode = handler.predictor.model._trace, predictor.decode
    handler.predictor.model._trace = lambda pixels: calls.update(model=1) or trace(pixels)
    monkeypatch.setattr(predictor, "decode", lambda *arguments: calls.update(decode=1) or decode(*arguments))
    handle(handler, context, rows)
    assert calls == {"decode": IMAGES, "model": 1}


def test_outside_of_the_model_a_batch_is_copied_only_where_it_must_be(digits):
    """Stacked (uint8), made floats and normalised in place, softmax: no tensor of the batch's size is made beside those."""
    handler, context, rows = digits
    handler.predictor.model._trace = lambda pixels: torch.zeros(len(pixels), 10)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        handle(handler, context, rows)
    values = IMAGES * 3 * 48 * 48
    allocated = sum(max(0, event.self_cpu_memory_usage) for event in profiled.key_averages())
    assert values * (1 + 4) <= allocated < values * (1 + 4) * 1.2
    operators = Counter({event.key: event.count for event in profiled.key_averages()})
    assert operators["aten::stack"] == 1
    assert operators["aten::_softmax"] == 1
    assert operators["aten::topk"] == IMAGES
    assert sum(operators[name] for name in ("aten::div_", "aten::sub_")) == 3


def test_memory_of_one_batch_is_there_for_the_next(digits):
    """Without `keep_freed_memory` each page of each tensor is asked for anew, with a page fault."""
    size = 5_000_000

    def batch():
        return [torch.ones(size) for _ in range(3)]

    batch()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        batch()
    pages = 10 * 3 * size * 4 / resource.getpagesize()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < pages / 10


def test_nothing_is_told_to_the_front_end_before_the_work_is_done(digits):
    """It reads each metric at once, on cores that the model needs."""
    handler, context, rows = digits
    trace, told = handler.predictor.model._trace, []
    handler.predictor.model._trace = lambda pixels: told.append(len(context.metrics.added)) or trace(pixels)
    context.metrics.added.clear()
    handle(handler, context, rows)
    assert told == [0] and len(context.metrics.added) == 4


def test_a_worker_has_as_many_threads_as_it_may_and_starts_none_for_a_request(digits):
    handler, context, rows = digits
    for _ in range(3):
        handle(handler, context, rows)
    before = set(threading.enumerate())
    for _ in range(20):
        handle(handler, context, rows)
    assert set(threading.enumerate()) == before
    assert len(handler.predictor._decoders._threads) <= torch.get_num_threads()


@pytest.mark.parametrize(("count", "threads"), [(1, 2), (IMAGES, 1)])
def test_what_one_thread_can_do_is_not_handed_over_to_another(digits, monkeypatch, count, threads):
    handler, context, rows = digits
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(handler.predictor._decoders, "submit", None)
    assert len(handle(handler, context, rows[:count])) == count
