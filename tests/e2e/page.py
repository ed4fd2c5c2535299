"""The page of `make ui`, in a program of its own."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from serve.settings import free_ports
from tests.conftest import ROOT

UI_PYTHON = Path(sys.prefix) / "ui" / "bin" / "python"
SECONDS = 120  # for the page's program to start or end


@contextlib.contextmanager
def page_of(run_dir: Path, *options: str) -> Iterator[str]:
    """The address of a page for the server in `run_dir`, from a program of its own that leaves nothing behind."""
    with page_and_uploads(run_dir, *options) as (url, _):
        yield url


@contextlib.contextmanager
def page_and_uploads(run_dir: Path, *options: str) -> Iterator[tuple[str, Path]]:
    port = str(free_ports()["port"])
    command = [str(UI_PYTHON), "-m", "ui", "--port", port, "--run-dir", str(run_dir), *options]
    with tempfile.TemporaryDirectory(prefix="page-") as folder:
        environment = os.environ | {"TMPDIR": folder}
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        program = subprocess.Popen(command, cwd=ROOT, env=environment, **output)
        try:
            started = program.stdout.readline()
            assert f"http://127.0.0.1:{port}" in started, started + program.stdout.read()
            yield f"http://127.0.0.1:{port}", Path(folder)
        finally:
            program.terminate()
            printed, _ = program.communicate(timeout=SECONDS)
        assert not printed
        assert not list(Path(folder).iterdir())
