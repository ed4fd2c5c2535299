"""The page of `make ui` in a real browser: labels, heat map and like pictures; and a sentence for what goes wrong."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from serve.client import Client
from serve.settings import free_ports
from tests.conftest import DIGITS, ROOT, export_to
from tests.e2e.browser import CHROMIUM, Browser
from tests.e2e.conftest import serving
from tests.e2e.page import SECONDS, UI_PYTHON, page_and_uploads, page_of

SAMPLE = DIGITS / "samples" / "7-a.png"

pytestmark = [
    pytest.mark.skipif(not UI_PYTHON.exists(), reason="Gradio is not installed: make test-ui installs it"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no browser: apt install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("ui")


@pytest.fixture(scope="module")
def served(folder) -> Iterator[Client]:
    model = f"local-dir:{DIGITS}"
    export_to(folder / "store", model, "--task", "classify,embed")
    export_to(folder / "store", model, "--task", "embed", "--model-name", "vectors")
    export_to(folder / "store", model, "--head", "none", "--model-name", "numbers")
    with serving(folder / "store", folder / "run", "digits.mar") as client:
        yield client


@pytest.fixture(scope="module")
def index(folder, served) -> Path:
    """An index of three of the sample pictures, made in the page's own environment."""
    (folder / "pictures").mkdir()
    for name in ("0-a.jpg", "7-a.png", "7-b.png"):
        shutil.copy(DIGITS / "samples" / name, folder / "pictures")
    script = """
import sys
from pathlib import Path
from search.embedding import Embedder
from search.index import build
from serve.client import Client
run_dir, pictures, index = map(Path, sys.argv[1:])
build(Embedder(Client(run_dir), "digits"), pictures, index, print).save(index)
"""
    file = folder / "pictures.index"
    command = [str(UI_PYTHON), "-c", script, str(served.run_dir), str(folder / "pictures"), str(file)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=SECONDS)
    return file


def asked(browser: Browser, url: str, file: Path) -> None:
    """Opens the page and drops a file onto it."""
    browser.open(url)
    browser.wait("document.querySelector('input[type=file]') !== null")
    browser.choose_file("input[type=file]", file)


def said(browser: Browser, place: str) -> str:
    return browser.wait(f"document.querySelector('#{place} [role=alert]')?.innerText")


def choose(browser: Browser, model: str) -> None:
    browser.evaluate("document.querySelector('input[aria-label=Model]').focus()")
    browser.wait(f"document.querySelector('[role=option][aria-label={model}]') !== null")
    press = "new MouseEvent('mousedown', {bubbles: true})"
    browser.evaluate(f"document.querySelector('[role=option][aria-label={model}]').dispatchEvent({press})")


HEAT_MAP = "document.querySelector('#heat-map img')?.src"


def test_a_picture_gets_labels_a_heat_map_and_its_like(browser, served, index):
    with page_of(served.run_dir, "--index", str(index)) as url:
        browser.requested.clear()
        asked(browser, url, SAMPLE)
        rows = browser.wait("document.querySelectorAll('#labels [aria-valuenow]').length")
        labels = "[...document.querySelectorAll('#labels [aria-valuenow]')].map(bar => [bar.ariaLabel, +bar.ariaValueNow])"
        probabilities = browser.evaluate(labels)
        answer = served.predict("digits", SAMPLE.read_bytes()).json()
        expected = {label: score for label, score in answer.items() if score >= 0.005}  # no row says 0 %
        assert rows == len(expected) and [label for label, _ in probabilities] == list(expected)
        assert [value for _, value in probabilities] == pytest.approx([100 * each for each in expected.values()], abs=2)

        drawn = browser.wait(HEAT_MAP)
        assert browser.wait("document.querySelector('#heat-map img').naturalWidth") == 288  # 48 pixels, six times
        captions = "[...document.querySelectorAll('#nearest .caption-label')].map(caption => caption.innerText.split(' ')[0])"
        assert browser.wait(f"{captions}.length") == 3
        assert browser.evaluate(captions) == ["7-a.png", "7-b.png", "0-a.jpg"]

        other = probabilities[1][0]
        browser.evaluate(f"document.querySelector('[data-testid=\"{other}-confidence-set\"]').click()")
        assert browser.wait(f"{HEAT_MAP} !== {drawn!r} && {HEAT_MAP}")
        hosts = {urlsplit(each).netloc for each in browser.requested if not each.startswith(("data:", "blob:"))}
        assert hosts == {urlsplit(url).netloc}


def test_a_file_that_is_no_picture_gets_the_servers_sentence(browser, served):
    with page_of(served.run_dir) as url:
        asked(browser, url, ROOT / "Makefile")
        assert said(browser, "trouble").startswith("Not an image in a format that is read here")
        assert not browser.evaluate(HEAT_MAP)
        browser.evaluate("document.querySelector('button[aria-label=Clear]').click()")
        browser.wait("document.querySelector('#trouble [role=alert]') === null")


def test_a_picture_that_is_gone_is_said_so(browser, served):
    """Folders for what is temporary are tidied up, and a page may be open for days."""
    with page_and_uploads(served.run_dir) as (url, uploads):
        asked(browser, url, SAMPLE)
        browser.wait(HEAT_MAP)
        for file in uploads.rglob(SAMPLE.name):
            file.unlink()
        other = browser.evaluate("document.querySelectorAll('#labels [aria-valuenow]')[1].ariaLabel")
        browser.evaluate(f"document.querySelector('[data-testid=\"{other}-confidence-set\"]').click()")
        assert said(browser, "no-heat-map") == "The picture is no longer on this machine: choose it again."


def test_what_an_archive_cannot_do_is_said_in_its_place(browser, served, index):
    served.register("vectors.mar")
    try:
        with page_of(served.run_dir, "--index", str(index)) as url:
            asked(browser, url, SAMPLE)
            browser.wait(HEAT_MAP)
            choose(browser, "vectors")
            assert said(browser, "no-heat-map").startswith(
                "This archive gives no explanations: the archive was exported to embed"
            )
            assert browser.evaluate("document.querySelector('#no-heat-map .quiet') !== null")  # it is no failure
            assert browser.wait("document.querySelectorAll('#nearest .caption-label').length") == 3  # of the same weights
            assert browser.evaluate("document.querySelector('#answers p').innerText").startswith("vectors 1.0, in ")
            assert not browser.evaluate("document.querySelector('#labels [aria-valuenow], #trouble [role=alert]')")
    finally:
        served.unregister("vectors")


def test_scores_that_are_no_probabilities_are_shown_as_they_are(browser, served):
    served.register("numbers.mar")
    try:
        with page_of(served.run_dir) as url:
            asked(browser, url, SAMPLE)
            browser.wait(HEAT_MAP)
            choose(browser, "numbers")
            cells = browser.wait("[...document.querySelectorAll('#scores td')].map(cell => cell.innerText).join(' ')").split()
            scores = served.predict("numbers", SAMPLE.read_bytes()).json()
            assert cells[::2] == list(scores) and len(scores) == 10
            assert [float(cell) for cell in cells[1::2]] == pytest.approx(list(scores.values()), rel=1e-2)
            assert max(scores.values()) > 1 and not browser.evaluate("document.querySelector('#labels [aria-valuenow]')")
    finally:
        served.unregister("numbers")


def test_a_server_that_is_not_there_is_said_so(browser, tmp_path):
    with page_of(tmp_path / "nothing") as url:
        browser.open(url)
        assert said(browser, "trouble") == "No server is running: make serve starts one."
        asked(browser, url, SAMPLE)
        assert said(browser, "trouble") == "No server is running: make serve starts one."


def test_the_page_finds_a_server_that_is_started_later(browser, served, tmp_path):
    run_dir = tmp_path / "later"
    with page_of(run_dir) as url:
        browser.open(url)
        assert said(browser, "trouble") == "No server is running: make serve starts one."
        run_dir.symlink_to(served.run_dir)
        about = browser.wait("document.querySelector('#answers p')?.innerText")
        assert about.startswith("digits 1.0, in ") and about.endswith(" on cpu")
        assert not browser.evaluate("document.querySelector('#trouble [role=alert]')")


def test_a_server_that_has_died_and_a_token_that_is_wrong_are_said(browser, served, tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    settings, keys = ((served.run_dir / name).read_text() for name in ("config.properties", "key_file.json"))
    (run_dir / "key_file.json").write_text(
        keys.replace(served.token("inference"), "wrong").replace(served.token("management"), "wrong")
    )
    (run_dir / "config.properties").write_text(settings)
    with page_of(run_dir) as url:
        asked(browser, url, SAMPLE)
        assert "token" in said(browser, "trouble").lower()
        port = free_ports()["management-port"]
        changed = tmp_path / "changed.properties"
        changed.write_text(f"{settings}\nmanagement_address=http://127.0.0.1:{port}\n")
        changed.replace(run_dir / "config.properties")  # at once: the page may be reading it
        asked(browser, url, SAMPLE)
        assert browser.wait(
            "document.querySelector('#trouble [role=alert]')?.innerText.startsWith('The server does not answer')"
        )


def test_a_port_in_use_is_named_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [str(UI_PYTHON), "-m", "ui", "--port", port]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"ui: port {port} cannot be used (Address already in use): make ui UI_PORT=…")
    assert ended.stderr.count("\n") == 1
