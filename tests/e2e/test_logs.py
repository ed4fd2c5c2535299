"""What is written to disk: little for each request, nothing without bound, and not what clients send."""

import xml.etree.ElementTree as ET
from pathlib import Path

import requests

from serve.client import Client
from serve.server import LOGGING, Server
from serve.settings import free_ports
from tests.conftest import ROOT
from tests.e2e.conftest import SAMPLES

REQUESTS = 100


def written(client: Client) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in client.run_dir.rglob("*.log")}


def test_a_request_is_one_line_in_the_access_log(client):
    picture = SAMPLES[0][0].read_bytes()
    client.predict("digits", picture)
    before = written(client)
    for _ in range(REQUESTS):
        assert client.predict("digits", picture).ok
    growth = {name: size - before[name] for name, size in written(client).items()}
    assert 0 < growth.pop("access_log.log") < 200 * REQUESTS
    assert sum(growth.values()) < 10 * REQUESTS


def test_a_body_that_torchserve_repeats_in_an_error_is_cut_off_in_its_logs(client):
    """A form with a bad percent sign fails in TorchServe's front end, which puts the whole body into its message."""
    headers = {"Authorization": f"Bearer {client.token('inference')}", "Content-Type": "application/x-www-form-urlencoded"}
    before = written(client)
    for _ in range(5):
        body = "data=%zz" + "secret" * 10_000
        response = requests.post(f"{client.inference}/predictions/digits", data=body, headers=headers, timeout=30)
        assert response.status_code == 500 and response.json()["type"] == "ErrorDataDecoderException"
    growth = sum(written(client).values()) - sum(before.values())
    assert 0 < growth < 5 * 2 * 10_000  # twice 60,000 each, uncut


def test_every_log_is_rotated_by_size_and_a_full_one_takes_no_older_ones_place():
    appenders = ET.parse(LOGGING).getroot().find("Appenders").findall("RollingFile")
    assert len(appenders) == 3
    for appender in appenders:
        assert appender.find("SizeBasedTriggeringPolicy").get("size") == "20 MB"
        assert appender.find("DefaultRolloverStrategy").get("max") == "4"
        assert "%i" in appender.get("filePattern")


def test_the_logs_of_the_server_before_are_kept(tmp_path):
    (tmp_path / "store").mkdir()
    server = Server(tmp_path / "run")
    for number in range(3):
        try:
            server.start(ROOT / "config.properties", tmp_path / "store", free_ports())
        finally:
            server.stop()
        (server.run_dir / "logs" / "model_log.log").write_text(f"how run {number} ended")
    kept = server.run_dir / "previous"
    assert (kept / "logs" / "model_log.log").read_text() == "how run 1 ended"
    assert (kept / "torchserve.log").exists()
    assert not list(kept.rglob("key_file.json")) and not (Path(kept) / "previous").exists()
