"""How every command of this project ends."""

import os
import signal
import subprocess
import sys

import pytest

import command_line
from command_line import UserError, exit_status, undisturbed
from export.__main__ import main as export
from predict.__main__ import main as predict
from serve.__main__ import main as serve
from tests.conftest import DIGITS, ROOT


def failing(error: Exception):
    raise error


def test_a_mistake_of_the_users_is_one_line_and_one_of_ours_keeps_its_traceback(capsys):
    assert exit_status("demo", lambda: None) == 0
    assert exit_status("demo", lambda: 3) == 3
    assert exit_status("demo", lambda: failing(UserError("no such file"))) == 1
    assert capsys.readouterr().err == "demo: no such file\n"
    with pytest.raises(KeyError):
        exit_status("demo", lambda: failing(KeyError("ours")))


def test_sigterm_ends_a_command_as_an_exception_which_cleans_up():
    script = (
        "import os, signal, sys\n"
        "from command_line import exit_status\n"
        "def run():\n"
        "    try:\n        os.kill(os.getpid(), signal.SIGTERM)\n        signal.pause()\n"
        "    finally:\n        print('cleaned up')\n"
        "sys.exit(exit_status('demo', run))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (128 + signal.SIGTERM, "cleaned up\n")


@pytest.mark.parametrize("platform", ["darwin", "win32"])
@pytest.mark.parametrize(
    ("main", "arguments"),
    [(export, [f"local-dir:{DIGITS}"]), (predict, ["digits.mar", "a.jpg"]), (serve, ["start", "digits"])],
    ids=["export", "predict", "serve"],
)
def test_on_another_system_each_command_says_that_it_needs_linux(main, arguments, platform, monkeypatch, capsys):
    monkeypatch.setattr(command_line.sys, "platform", platform)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "this needs Linux" in error and error.count("\n") == 1


@pytest.mark.parametrize("variables", [{"PATH": "Darwin"}, {"OS": "Windows_NT"}], ids=["macOS", "Windows"])
def test_on_another_system_make_says_so_before_it_installs_anything(variables, tmp_path):
    uname = tmp_path / "uname"
    uname.write_text(f"#!/bin/sh\necho {variables.get('PATH', 'MINGW64_NT-10.0')}\n")
    uname.chmod(0o755)
    environment = {**os.environ, **variables, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["make", "--no-print-directory", "demo", f"VENV={tmp_path / 'venv'}"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode != 0 and result.stdout == ""
    assert "this needs Linux" in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["NAME=a;touch b"], "cannot have any of ;"),
        (["NAME=a%b"], "cannot have any of ;"),
        (["NAME=a'b"], "cannot have quotes or backslashes"),
        (["MODEL=x`touch b`"], "cannot have quotes or backslashes"),
        (["MODEL=a;touch b"], "NAME (else the end of MODEL) and MODEL_STORE cannot have any of ;"),
        (["MODEL_STORE=a|b"], "cannot have any of ;"),
        (["NAME=../a"], "argument --model-name: expected letters, digits, '_', '-' and '.', not '../a'"),
        (["NAME=a", "ARGS=--model-name b"], "say how make names an archive and where it puts it, not ARGS"),
        (["NAME=a", "ARGS=--model-store=b"], "say how make names an archive and where it puts it, not ARGS"),
    ],
    ids=" ".join,
)
@pytest.mark.skipif(not (ROOT / ".venv/ready").is_file(), reason="make would install the environment first")
def test_make_refuses_names_that_a_shell_would_take_for_more(arguments, message, tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    store = [] if any(each.startswith("MODEL_STORE") for each in arguments) else [f"MODEL_STORE={tmp_path}"]
    command = ["make", "--no-print-directory", "archive", *arguments, *store]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode != 0 and result.stdout == ""
    assert message in result.stderr and result.stderr.count("\n") <= 2
    assert not (ROOT / "b").exists() and not list(tmp_path.iterdir())


def test_what_must_be_done_whole_is_interrupted_at_its_end():
    done = []
    with pytest.raises(KeyboardInterrupt), undisturbed():
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        done.append(True)
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
