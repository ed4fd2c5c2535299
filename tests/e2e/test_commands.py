"""`serve start`, `predict`, `stop` and `demo`, as `make` runs them, and what they leave behind: nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from serve import __main__ as commands
from serve.client import Client
from serve.register import add_workers
from tests.conftest import DIGITS, ROOT
from tests.e2e.conftest import altered, eventually, processes_below

MAIN = "import sys; sys.exit(commands.main(sys.argv[1:]))"
SAMPLE = DIGITS / "samples" / "7-a.png"


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

    assert commands.main(["predict", "/nowhere.jpg"]) == 1
    assert "there is no file or folder /nowhere.jpg" in capsys.readouterr().err
    assert commands.main(["predict", str(ROOT / "Makefile")]) == 1
    assert capsys.readouterr().out.startswith("Makefile  refused: 415: not an image")

    pattern = f"'{SAMPLE}' {SAMPLE.parent}/0-*"
    assert commands.main(["predict", pattern, str(ROOT / "Makefile"), "--json"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(line["picture"]).name for line in lines] == ["7-a.png", "0-a.jpg", "0-b.jpg", "Makefile"]
    assert [next(iter(line["answer"])) for line in lines[:3]] == ["7", "0", "0"]
    assert lines[3]["error"]["type"] == "UnsupportedImage"
    assert commands.main(["predict", str(SAMPLE), "--model-name", "other"]) == 1
    assert capsys.readouterr().err == "serve: Model not found: other\n"

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
    add_workers(None, client, "any")
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
    assert (
        "of 3 workers that this machine can use, not all have started: torch.OutOfMemoryError: CUDA out of memory."
        in printed.err
    )
    assert commands.main(["predict", str(SAMPLE)]) == 0


def test_several_models_are_served_and_more_are_added(home, ports, digits_store, capsys):
    for name in ("first", "second", "vectors", "fourth"):
        altered(digits_store, home / f"{name}.mar", {"MAR-INF/MANIFEST.json": (b'"digits"', f'"{name}"'.encode())})
    start = ["start", "--model-store", str(home)]
    assert commands.main([*start, "first", "second", *ports]) == 0
    printed = capsys.readouterr().out
    assert "first 1.0 is served at" in printed and "second 1.0 is served at" in printed
    (home / "vectors.mar").rename(home / "renamed.mar")  # a model is called as it was exported, whatever its file is called
    assert commands.main([*start, "renamed"]) == 0
    assert "vectors 1.0 is served at" in capsys.readouterr().out
    assert commands.main(["status"]) == 0
    head, *rows = (re.split("  +", row) for row in capsys.readouterr().out.splitlines())
    assert head == ["model", "version", "workers", "runs in", "waiting", "in flight"]
    assert [row[:3] for row in rows] == [[name, "1.0", "default"] for name in ("first", "second", "vectors")]
    assert all(re.fullmatch(r"(bf16|fp32) on cpu|\w+ on cuda:0", row[4]) and row[5] == "0" for row in rows)
    for arguments, said in (
        (["start", "renamed", "--model-store", str(home)], "vectors is served by a server that is running already: make stop"),
        (["start", "first", "--model-store", str(home)], "first is served by a server that is running already: make stop"),
        (["start", "digits", "--model-store", str(digits_store)], f"running already, with the archives in {home}"),
        (["start", "fourth", "--model-store", str(home), "--port", "8080"], "running already, with its own ports"),
        (["start", "nothing", "--model-store", str(home)], f"there is no nothing.mar in {home}: make archive"),
    ):
        assert commands.main(arguments) == 1
        assert said in capsys.readouterr().err
    assert Client(commands.RUN_DIR).models() == ["first", "second", "vectors"]
    status = subprocess.Popen(in_this_folder("status"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    status.stdout.close()  # as `| head` does
    assert status.communicate(timeout=60)[1] == b""


def in_folder(folder: Path, *arguments: object) -> list[str]:
    """`python -m serve` in a process of its own, with this folder for the server."""
    begin = f"from serve import __main__ as commands; from pathlib import Path; commands.RUN_DIR = Path({str(folder)!r})"
    return [sys.executable, "-c", f"{begin}; {MAIN}", *map(str, arguments)]


def in_this_folder(*arguments: str) -> list[str]:
    """The same with the folder of this test."""
    return in_folder(commands.RUN_DIR, *arguments)


def test_ctrl_c_while_it_starts_leaves_nothing_and_is_one_line(home, ports, digits_store):
    command = in_this_folder("start", "digits", "--model-store", str(digits_store), *ports)
    for written in ("config.properties", "key_file.json"):  # before TorchServe is started, and when it runs
        started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert eventually((commands.RUN_DIR / written).exists)
        started.send_signal(signal.SIGINT)
        time.sleep(0.3)
        started.send_signal(signal.SIGINT)
        printed, error = started.communicate(timeout=60)
        # 130 to a shell in both cases: Python ends by the second signal where it comes once Python is ending.
        assert started.returncode in (130, -signal.SIGINT)
        assert (printed, error) == ("", "serve: interrupted\n")
        assert processes_below(home) == []


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
    assert '-m export "vit_x" --model-name "xray"' in dry_run("MODEL=vit_x", "NAME=xray")
    for name in ("xray.mar", "digits.mar"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))  # older than everything
    for variables in (["NAME=xray"], ["MODEL=vit_x", "NAME=xray"]):
        printed = dry_run(*variables)
        assert "-m export" not in printed and "-m serve start xray" in printed
    assert '-m export "local-dir:examples/digits" --model-name "digits"' in dry_run()
