"""What the handler says of itself and of its work: the description, the log, the metrics."""

import json
import logging

from tests.in_process import handle, jpeg


def test_it_describes_itself(loaded):
    handler, context = loaded
    (described,) = handle(handler, context, [{}], {"describe": "True"})
    assert described["preprocessing"]["input_size"] == [3, 32, 32]
    assert described["classes"] == ["cat", "dog", "owl"]
    assert (described["device"], described["precision"]) == ("cpu", handler.predictor.model.way.precision)
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
    (line,) = [record.message for record in caplog.records if record.name == "vit_handler"]
    assert json.loads(line) == {"event": "refused", "request": "request-1", "code": 400, "type": "BadJSON"}


def test_the_workers_line_for_each_batch_is_not_logged_but_warnings_and_metrics_are(loaded, caplog):
    caplog.set_level("INFO")
    logging.info("Backend received inference at: 1")  # on the root logger, as TorchServe's worker does
    logging.warning("a warning")
    logging.getLogger("ts.metrics.caching_metric").info("[METRICS]…")
    assert [record.message for record in caplog.records] == ["a warning", "[METRICS]…"]


def test_a_batch_is_one_line_in_the_log_at_debug_level(loaded, caplog):
    handler, context = loaded
    caplog.set_level("DEBUG", "vit_handler")
    handle(handler, context, [{"body": jpeg(1)}, {"body": jpeg(2)}])
    lines = [json.loads(record.message) for record in caplog.records if record.name == "vit_handler"]
    assert lines == [{"event": "batch", "images": 2, "requests": {"0": "request-0", "1": "request-1"}}]


def test_times_are_measured(loaded):
    handler, context = loaded
    handle(handler, context, [{"body": jpeg(1)}, {"body": b"x"}])
    for name in ("PreprocessSeconds", "InferenceSeconds", "PostprocessSeconds"):
        (seconds,) = context.metrics.of(name)
        assert 0 < seconds < 60
