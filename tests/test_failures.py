"""When the model or the handler itself fails: who is told so, and who does not notice."""

import json

import pytest
import torch

from tests.in_process import handle, jpeg, statuses
from vit_core import predictor
from vit_core.model import Model


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
    handler.predictor.model = FailingModel(handler.predictor.model, torch.OutOfMemoryError("CUDA out of memory"), most=2)
    assert handle(handler, context, rows) == [pytest.approx(answer, abs=1e-2) for answer in expected]
    assert handler.predictor.model.tried == [7, 3, 1, 2, 4, 2, 2]


def test_without_memory_for_one_image_the_answer_is_503(loaded):
    handler, context = loaded
    handler.predictor.model = FailingModel(handler.predictor.model, torch.OutOfMemoryError("CUDA out of memory"), most=0)
    answers = handle(handler, context, [{"body": jpeg(1)}, {"body": b"x"}])
    assert [answer["type"] for answer in answers] == ["OutOfMemory", "UnsupportedImage"]
    assert statuses(context) == [503, 415]


def test_a_failure_of_the_model_is_a_500_for_those_it_touched(loaded, caplog):
    handler, context = loaded
    handler.predictor.model = FailingModel(handler.predictor.model, RuntimeError("a bad day"), most=3)
    rows = [{"body": jpeg(seed)} for seed in range(10)] + [{"body": b"x"}]  # a batch of 8 and one of 2
    answers = handle(handler, context, rows)
    assert [answer.get("code", 200) for answer in answers] == [500] * 8 + [200] * 2 + [415]
    assert "a bad day" in caplog.text
    assert "a bad day" not in json.dumps(answers)


def test_a_gpu_that_has_failed_ends_the_worker(loaded):
    handler, context = loaded
    handler.predictor.model = FailingModel(handler.predictor.model, torch.AcceleratorError("device-side assert", 710), most=0)
    with pytest.raises(SystemExit, match="device-side assert"):
        handle(handler, context, [{"body": jpeg(1)}])


def test_a_mistake_of_our_own_is_a_500_for_one_request(loaded, monkeypatch, caplog):
    handler, context = loaded
    decode = predictor.decode

    def sometimes(data, *rest):
        if data == b"poison":
            raise KeyError("a mistake")
        return decode(data, *rest)

    monkeypatch.setattr(predictor, "decode", sometimes)
    answers = handle(handler, context, [{"body": jpeg(1)}, {"body": b"poison"}])
    assert [answer.get("type") for answer in answers] == [None, "PreprocessingFailed"]
    assert statuses(context) == [200, 500]
    assert "a mistake" in caplog.text
