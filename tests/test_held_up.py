"""A worker that could not run while it decoded does not blame the image."""

import time

import pytest

import vit_core.predictor as core
from tests.in_process import handle, jpeg, statuses
from vit_core.cost import BatchDeadline
from vit_core.image import Deadline


def run_for_long() -> None:
    begun = time.process_time()
    while time.process_time() < begun + 0.4:
        pass


def be_suspended() -> None:
    time.sleep(0.4)


@pytest.mark.parametrize(("spend", "status", "type"), [(be_suspended, 503, "Busy"), (run_for_long, 413, "DecodeTimeout")])
def test_a_picture_is_not_to_blame_where_the_process_did_not_run(spend, status, type, loaded, monkeypatch):
    """It was suspended, or others had the cores: that is no fault of what was sent, and another try may do."""
    handler, context = loaded

    def decoded(data, channels, limits, deadline: Deadline, least):
        spend()
        deadline.check()

    monkeypatch.setattr(core, "decode", decoded)
    monkeypatch.setattr(core, "BatchDeadline", lambda seconds, end: BatchDeadline(0.3, end))
    (answer,) = handle(handler, context, [{"body": jpeg(1)}])
    assert (answer["type"], statuses(context)) == (type, [status])
