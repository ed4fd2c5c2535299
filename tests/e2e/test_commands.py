"""`serve start`, `predict`, `stop` and `demo`, as `make` runs them, and what they leave behind: nothing."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from serve import __main__ as commands
from serve.client import Client
from serve.server import Server
from serve.settings import free_ports
from tests.conftest import DIGITS, ROOT
from tests.e2e.conftest import altered

SAMPLE = DIGITS / "samples" / "7-a.png"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder for the server and its temporary files, which must be gone at the end, with its processes."""
    temporary = Path(tempfile.mkdtemp(prefix="t"))  # short: TorchServe opens sockets below it
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(commands, "RUN_DIR", tmp_path / "run")
    yield tmp_path
    Server(tmp_path / "run").stop()
    left = list(temporary.iterdir())
    shutil.rmtree(temporary)
    assert left == []
    assert processes_below(tmp_path) == []


def processes_below(folder: Path) -> list[psutil.Process]:
    """Processes that run in `folder`, or name it."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(folder) in text for text in (process.cwd(), *process.cmdline())):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def ports() -> list[str]:
    return [part for name, port in free_ports().items() for part in (f"--{name}", str(port))]


def test_start_predict_and_stop(home, ports, digits_store, capsys):
    assert commands.main(["start", "digits", "--model-store", str(digits_store), *ports]) == 0
    printed = capsys.readouterr().out
    assert "digits 1.0 is served at" in printed

    workers = len(Client(commands.RUN_DIR).describe("digits")["workers"])
    assert f"{workers} worker{'s' * (workers > 1)} on the" in printed

    curl = re.search(r"curl .*\\\n.*", printed)[0]
    answered = subprocess.run(curl, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert '"0":' in answered.stdout

    assert commands.main(["predict", str(SAMPLE)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 5
    assert re.fullmatch(r"\d  +\d+\.\d\d%  █+", rows[0])

    for image, reason in (("/nowhere.jpg", "No such file"), (str(ROOT / "Makefile"), "415: not an image")):
        assert commands.main(["predict", image]) == 1
        assert reason in capsys.readouterr().err

    assert commands.main(["start", "digits", "--model-store", str(digits_store), *ports]) == 1
    assert "running already: make stop ends it" in capsys.readouterr().err

    assert commands.main(["stop"]) == 0
    assert capsys.readouterr().out == "stopped\n"
    assert processes_below(home) == []
    assert commands.main(["stop"]) == 0
    assert capsys.readouterr().out.startswith("no server")
    assert commands.main(["predict", str(SAMPLE)]) == 1
    assert "make serve starts one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("told", "most", "added"),
    [
        ({"useful_workers": 4}, 8, [4]),
        ({"useful_workers": 16}, 8, [8]),
        ({"useful_workers": 4}, 1, []),  # exported with --workers 1
        ({"useful_workers": 1}, 8, []),
        ({}, 8, []),  # of a handler of another project
        (None, 8, []),
    ],
)
def test_workers_are_added_where_they_are_of_use_and_the_archive_allows_it(told, most, added):
    class OneWorker:
        def __init__(self):
            self.scaled = []

        def describe(self, name):
            return {"workers": [{}], "maxWorkers": most, "customizedMetadata": told}

        def scale(self, name, workers):
            self.scaled.append(workers)

    client = OneWorker()
    commands._add_workers(None, client, "any")
    assert client.scaled == added


def test_where_a_second_worker_finds_no_memory_the_first_one_serves(home, ports, digits_store, capsys):
    alone = b"""
        import fcntl

        self.alone = open(Path(context.system_properties["model_dir"]) / "alone", "w")
        try:
            fcntl.flock(self.alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise torch.OutOfMemoryError("CUDA out of memory.") from None
"""
    begins = b"        properties = context.system_properties\n"
    counts = b"cores() // threads"
    altered(
        digits_store, home / "digits.mar", {"vit_handler.py": (begins, begins + alone), "vit_core/machine.py": (counts, b"3")}
    )
    assert commands.main(["start", "digits", "--model-store", str(home), *ports]) == 0
    printed = capsys.readouterr()
    assert ": 1 worker on the CPU" in printed.out
    assert "3 workers would be of use, and did not all start: torch.OutOfMemoryError: CUDA out of memory." in printed.err
    assert commands.main(["predict", str(SAMPLE)]) == 0


def test_stop_ends_what_it_started_and_nothing_else(home, ports, digits_store):
    assert commands.main(["start", "digits", "--model-store", str(digits_store), *ports]) == 0
    neighbour = subprocess.Popen([sys.executable, "-c", "input()", "ModelServer"], stdin=subprocess.PIPE, cwd="/")
    state = commands.RUN_DIR / "server.json"
    recorded = state.read_text()
    assert commands.main(["stop"]) == 0
    # As after a restart of the machine: the recorded id is another program's by now.
    state.write_text(re.sub(r"\[\s*\d+,", f"[{neighbour.pid},", recorded))
    assert commands.main(["stop"]) == 0
    assert neighbour.poll() is None
    neighbour.communicate(b"\n")


def test_a_server_that_was_killed_is_noticed_and_cleared(home, ports, digits_store, capsys):
    start = ["start", "digits", "--model-store", str(digits_store), *ports]
    assert commands.main(start) == 0
    killed = processes_below(commands.RUN_DIR)
    for process in killed:
        process.kill()
    assert psutil.wait_procs(killed, timeout=30)[1] == []
    assert commands.main(["predict", str(SAMPLE)]) == 1
    assert "make serve starts one" in capsys.readouterr().err
    assert commands.main(start) == 0


def test_a_port_in_use_is_named(home, ports, digits_store, capsys):
    for name in ("port", "grpc-management-port"):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            number = str(taken.getsockname()[1])
            arguments = ["start", "digits", "--model-store", str(digits_store), *ports, f"--{name}", number]
            assert commands.main(arguments) == 1
        variable = name.upper().replace("-", "_")
        assert re.search(rf"port {number} .* Address already in use.* {variable}=…", capsys.readouterr().err)


def test_a_port_that_cannot_be_is_named(home, digits_store, capsys):
    assert commands.main(["start", "digits", "--model-store", str(digits_store), "--port", "99999"]) == 1
    assert "port 99999 (inference_address) cannot be used" in capsys.readouterr().err


def test_a_server_that_does_not_come_up_says_why(home, ports, digits_store, capsys):
    (home / "no.pem").write_text("no certificate, and no key")
    broken = "inference_address=https://127.0.0.1:8443\nprivate_key_file=no.pem\ncertificate_file=no.pem\n"
    (home / "config.properties").write_text((ROOT / "config.properties").read_text() + broken)
    (home / "metrics.yaml").write_text((ROOT / "metrics.yaml").read_text())
    config = ["--config", str(home / "config.properties")]
    assert commands.main(["start", "digits", "--model-store", str(digits_store), *config, *ports]) == 1
    assert re.search(r"TorchServe ended while it started: .*(Invalid configuration|Exception|Error)", capsys.readouterr().err)


def test_a_file_that_the_settings_name_and_is_not_there_is_named(home, ports, digits_store, capsys):
    (home / "config.properties").write_text((ROOT / "config.properties").read_text() + "certificate_file=/nowhere.pem\n")
    config = ["--config", str(home / "config.properties")]
    (home / "metrics.yaml").write_text((ROOT / "metrics.yaml").read_text())
    assert commands.main(["start", "digits", "--model-store", str(digits_store), *config, *ports]) == 1
    assert "certificate_file=/nowhere.pem in " in capsys.readouterr().err


def test_a_worker_that_dies_while_loading_says_why(home, ports, digits_store, capsys):
    altered(digits_store, home / "digits.mar", {"model-config.yaml": (b"crop_mode", b"crop_mood")})
    assert commands.main(["start", "digits", "--model-store", str(home), *ports]) == 1
    error = capsys.readouterr().err
    assert "a worker of digits died while it loaded: vit_core.settings.ArchiveError:" in error
    assert "'crop_mood'" in error
    assert error.count("\n") == 1


def test_an_archive_that_is_not_there_is_named(home, ports, digits_store, capsys):
    assert commands.main(["start", "nothing", "--model-store", str(digits_store), *ports]) == 1
    assert "nothing was not registered: Model not found at: nothing.mar" in capsys.readouterr().err


def test_the_demo_reads_the_sample_pictures_and_leaves_nothing(home, digits_store, capsys):
    assert commands.main(["demo", "digits", "--model-store", str(digits_store)]) == 0
    printed = capsys.readouterr().out
    right, asked = map(int, re.search(r"(\d+) of (\d+) right; the server is stopped", printed).groups())
    assert asked == 20 and right >= 18


def test_make_without_a_python_that_is_new_enough_says_so(tmp_path):
    for name in ("python3.12", "python3.11", "python3"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["make", "--no-print-directory", "setup", f"VENV={tmp_path / 'venv'}"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)
    assert result.returncode != 0
    assert result.stdout == ""
    assert result.stderr.splitlines()[0].startswith("make: needs Python 3.11 or 3.12")
    assert not (tmp_path / "venv").exists()


def test_make_does_not_build_an_archive_of_the_users_again(tmp_path):
    """The options that made it are not known to `make serve`: another model would take its place."""
    environment = {**os.environ, "MAKEFLAGS": ""}
    command = ["make", "--no-print-directory", "--dry-run", "serve", f"MODEL_STORE={tmp_path}", f"VENV={sys.prefix}"]

    def dry_run(*variables: str) -> str:
        result = subprocess.run([*command, *variables], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)
        return result.stdout + result.stderr

    assert "no " + str(tmp_path / "xray.mar") in dry_run("NAME=xray")
    assert "-m export vit_x --model-name xray" in dry_run("MODEL=vit_x", "NAME=xray")
    for name in ("xray.mar", "digits.mar"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))  # older than everything
    for variables in (["NAME=xray"], ["MODEL=vit_x", "NAME=xray"]):
        printed = dry_run(*variables)
        assert "-m export" not in printed and "-m serve start xray" in printed
    assert "-m export local-dir:examples/digits --model-name digits" in dry_run()
