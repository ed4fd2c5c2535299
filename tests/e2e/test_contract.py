"""An archive carries its own handler and the contract between both: on a real server, and in process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from serve.client import Client
from serve.errors import ServeError
from serve.server import Server
from serve.settings import free_ports
from tests.conformance.asked import between
from tests.conftest import DIGITS, LAST_DIGITS, ROOT, export_to
from tests.e2e.conftest import SAMPLES, altered, serving
from vit_core.settings import FORMAT


def predict(*arguments: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "predict", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_each_model_runs_the_handler_that_its_archive_carries(client, digits_store, tmp_path, expected):
    """Two versions of the handler in one server: neither meets the modules, nor the contract, of the other."""
    newer = digits_store / "newer.mar"
    changes = {
        "model-config.yaml": (b"format: %d" % FORMAT, b"format: %d" % (FORMAT + 1)),
        "vit_core/settings.py": (b"FORMAT = %d" % FORMAT, b"FORMAT = %d" % (FORMAT + 1)),
        "vit_core/answer.py": (b"{self.labels[index]: value", b"{'digit ' + self.labels[index]: value"),
        "MAR-INF/MANIFEST.json": (b'"modelName": "digits"', b'"modelName": "newer"'),
    }
    altered(digits_store, newer, changes)
    client.register(newer.name)
    try:
        for picture, _ in SAMPLES[:4]:
            answers = [client.predict(name, picture.read_bytes()).json() for name in ("digits", "newer", "digits")]
            assert answers[0] == answers[2]
            assert answers[1] == {f"digit {label}": value for label, value in answers[0].items()}
    finally:
        client.unregister("newer")
        newer.unlink()


@pytest.mark.parametrize(("found", "advice"), [(FORMAT - 1, "export the model again"), (FORMAT + 1, "or a newer one")])
def test_an_archive_with_another_contract_is_refused_in_one_line(found, advice, digits_store, tmp_path):
    archive = tmp_path / "digits.mar"
    altered(digits_store, archive, {"model-config.yaml": (b"format: %d" % FORMAT, b"format: %d" % found)})
    said = f"the archive's settings have format {found}, and this handler reads format {FORMAT}: "
    server = Server(tmp_path / "run")
    client = server.start(ROOT / "config.properties", tmp_path, free_ports())
    try:
        with pytest.raises(ServeError, match="Failed to start workers"):
            client.register(archive.name)
        reason = server.reason()
    finally:
        server.stop()
    in_process = predict(archive, SAMPLES[0][0])
    assert (in_process.returncode, in_process.stdout, in_process.stderr.count("\n")) == (1, "", 1)
    for line in (reason, in_process.stderr):
        assert said in line and advice in line


@pytest.mark.parametrize("options", [[], ["--precision", "fp32"], ["--precision", "int8"]], ids=["auto", "fp32", "int8"])
def test_predict_gives_the_numbers_that_the_server_gives(options, tmp_path):
    """To the last digit, though the one gets the pictures one by one, and the other in full batches."""
    archive = export_to(tmp_path / "store", f"local-dir:{DIGITS}", *options)
    with serving(tmp_path / "store", tmp_path / "run", archive.name) as client:
        served = {str(picture): client.predict("digits", picture.read_bytes()).json() for picture, _ in SAMPLES}
    result = predict(archive, DIGITS / "samples", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert between({line["picture"]: line["answer"] for line in lines}, served, LAST_DIGITS) is None


def test_a_worker_says_by_which_rule_it_runs_the_model(client: Client):
    described = client.describe("digits")["customizedMetadata"]
    assert described["rule"].startswith(f"{described['precision']}, as this CPU multiplies it fast")
    assert "one thread for 0.035 billion operations an image" in described["rule"] and described["threads"] == 1
    assert ("not fused" in described["rule"]) != described["fused"]
