"""The page of `make ui`, in a program of its own, and what a person does with it in the browser."""

import base64
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.settings import free_ports
from tests.conftest import ROOT
from tests.e2e.browser import CHROMIUM, Browser

UI_PYTHON = Path(sys.prefix) / "ui" / "bin" / "python"
UI = [
    pytest.mark.skipif(not UI_PYTHON.exists(), reason="Gradio is not installed: make test-ui installs it"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no browser: apt install chromium"),
]
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


ALERT = "document.querySelector('#{} [role=alert]')"
HEAT_MAP = "document.querySelector('#heat-map img')?.src"


def asked(browser: Browser, url: str, file: Path) -> None:
    """Opens the page and gives it a file."""
    opened(browser, url)
    give(browser, file)


def opened(browser: Browser, url: str) -> None:
    browser.open(url)
    browser.wait("document.querySelector('input[type=file]') !== null && document.querySelector('#who p') !== null")


def give(browser: Browser, file: Path) -> None:
    """Gives the page a file, as the dialog does; another one may be there already."""
    browser.wait("document.querySelector('input[type=file]') !== null")
    browser.choose_file("input[type=file]", file)
    browser.wait(f"document.querySelector('#picture img')?.alt === {file.name!r} || {ALERT.format('labels')} !== null")


def said(browser: Browser, place: str) -> str:
    return browser.wait(f"{ALERT.format(place)}?.innerText")


def shown(browser: Browser) -> list[list[str]]:
    """The labels with their scores, as they are written."""
    browser.wait("document.querySelector('#labels button') !== null")
    return browser.evaluate("[...document.querySelectorAll('#labels button')].map(row => row.innerText.split('\\n'))")


def choose(browser: Browser, model: str) -> None:
    browser.evaluate("document.querySelector('input[aria-label=Model]').focus()")
    browser.wait(f"document.querySelector('[role=option][aria-label={model}]') !== null")
    press = "new MouseEvent('mousedown', {bubbles: true})"
    browser.evaluate(f"document.querySelector('[role=option][aria-label={model}]').dispatchEvent({press})")


def drop(browser: Browser, file: Path) -> None:
    """Drops a file onto what lies over the middle of the picture."""
    browser.evaluate(f"""(() => {{
        const bytes = Uint8Array.from(atob('{base64.b64encode(file.read_bytes()).decode()}'), each => each.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], '{file.name}', {{type: 'image/png'}}));
        const {{left, top, width, height}} = document.querySelector('#picture img').getBoundingClientRect();
        const target = document.elementFromPoint(left + width / 2, top + height / 2);
        for (const name of ['dragenter', 'dragover', 'drop'])
            target.dispatchEvent(new DragEvent(name, {{dataTransfer: transfer, bubbles: true, cancelable: true}}));
    }})()""")
