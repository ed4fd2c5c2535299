"""What the worker finds out about the server that it belongs to."""

import os
from types import SimpleNamespace

import psutil
import pytest

import vit_torchserve
from vit_torchserve import FRONT_END, ServerSettings, said_before_it_ends, server_settings

DEFAULT = ServerSettings()


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Makes this process the worker of a Java that was started in a folder with these arguments."""
    monkeypatch.delenv("TS_CONFIG_FILE", raising=False)

    def start(*arguments: str) -> None:
        java = SimpleNamespace(cmdline=lambda: ["java", "-cp", ".", FRONT_END, *arguments], cwd=lambda: str(tmp_path))
        others = [SimpleNamespace(cmdline=lambda: ["sh"], cwd=lambda: "/")]
        monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(parents=lambda: [*others, java, *others]))

    return start


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("max_response_size=1000", 1000),
        ("max_response_size = 1000\nmax_response_size: 2000\n", 2000),  # the last line that sets a key counts
        ("#max_response_size=1000\n", DEFAULT.max_response_size),
        ("max_response_size=many\n", DEFAULT.max_response_size),
    ],
)
def test_the_largest_answer_is_read_where_torchserve_reads_it(text, size, started, tmp_path):
    (tmp_path / "some.properties").write_text(text)
    started("--python", "python", "-f", "some.properties", "-ncs")
    assert server_settings() == ServerSettings(max_response_size=size)


def test_the_file_may_be_named_in_the_environment_or_lie_where_torchserve_runs(started, tmp_path, monkeypatch):
    started("-s", "model_store")
    assert server_settings() == DEFAULT
    (tmp_path / "config.properties").write_text("max_request_size=7")
    assert server_settings() == ServerSettings(max_request_size=7)
    (tmp_path / "other.properties").write_text("max_request_size=8")
    monkeypatch.setitem(os.environ, "TS_CONFIG_FILE", str(tmp_path / "other.properties"))
    assert server_settings() == ServerSettings(max_request_size=8)


def test_a_process_that_is_no_worker_has_torchserves_defaults(monkeypatch):
    monkeypatch.setattr(vit_torchserve, "FRONT_END", "no such class")
    assert server_settings() == DEFAULT


def test_a_worker_says_why_it_does_not_start_while_it_is_still_read(caplog, monkeypatch):
    said = []
    monkeypatch.setattr(vit_torchserve.time, "sleep", lambda seconds: said.append((seconds > 0, *caplog.messages)))
    with pytest.raises(ValueError, match="crop_mood"), said_before_it_ends():
        raise ValueError("crop_mood is no setting")
    assert said == [(True, "ValueError: crop_mood is no setting")]
