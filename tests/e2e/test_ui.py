"""The page of `make ui` in a real browser: labels, heat map and like pictures; and a sentence for what goes wrong."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from serve.client import Client
from tests.conftest import DIGITS, ROOT, export_to
from tests.e2e.browser import Browser
from tests.e2e.conftest import processes_below, serving
from tests.e2e.page import (
    ALERT,
    HEAT_MAP,
    SECONDS,
    UI,
    UI_PYTHON,
    asked,
    choose,
    drop,
    give,
    opened,
    page_and_uploads,
    page_of,
    said,
    shown,
)

SAMPLE, OTHER = (DIGITS / "samples" / name for name in ("7-a.png", "4-b.png"))
pytestmark = UI


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("ui")


@pytest.fixture(scope="module")
def served(folder) -> Iterator[Client]:
    model = f"local-dir:{DIGITS}"
    export_to(folder / "store", model, "--task", "classify,embed")
    export_to(folder / "store", model, "--task", "embed", "--model-name", "vectors")
    export_to(folder / "store", model, "--head", "none", "--model-name", "numbers")
    export_to(folder / "store", model, "--head", "sigmoid", "--model-name", "tags")
    export_to(folder / "store", "test_vit", "--no-pretrained", "--model-name", "thousand")
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


def test_a_picture_gets_labels_a_heat_map_and_its_like(browser, served, index):
    with page_of(served.run_dir, "--index", str(index)) as url:
        browser.requested.clear()
        asked(browser, url, SAMPLE)
        answer = served.predict("digits", SAMPLE.read_bytes()).json()
        rows = [[label, f"{score:.1%}"] for label, score in answer.items() if score >= 0.0005]
        assert shown(browser) == rows

        drawn = browser.wait(HEAT_MAP)
        assert browser.wait("document.querySelector('#heat-map img').naturalWidth") == 288  # 48 pixels, six times
        captions = "[...document.querySelectorAll('#nearest figcaption')].map(caption => caption.innerText.split(' ')[0])"
        assert browser.wait(f"{captions}.length") == 3
        assert browser.evaluate(captions) == ["7-a.png", "7-b.png", "0-a.jpg"]

        browser.evaluate(f"document.querySelector('#labels [data-value=\"{rows[1][0]}\"]').click()")
        assert browser.wait(f"{HEAT_MAP} !== {drawn!r} && {HEAT_MAP}")
        assert browser.evaluate("document.querySelector('#labels [aria-pressed=true]').dataset.value") == rows[1][0]
        assert browser.evaluate("document.querySelector('#heat-map img').alt").endswith(f" {rows[1][0]} comes from")
        hosts = {urlsplit(each).netloc for each in browser.requested if not each.startswith(("data:", "blob:"))}
        assert hosts == {urlsplit(url).netloc}


def test_a_new_picture_takes_the_place_of_the_old_one(browser, served):
    """A file, a sample, a file that is dropped onto the picture: each is answered, and of quick clicks the last one."""
    with page_of(served.run_dir) as url:
        asked(browser, url, SAMPLE)
        assert shown(browser)[0][0] == "7"
        samples = "[...document.querySelectorAll('#samples button img')].map(image => image.alt)"
        names = browser.evaluate(samples)
        assert names == [f"Sample {each.name}" for each in sorted((DIGITS / "samples").glob("*.*g"))[::2]]
        for places in [[2, 5, 9], [3, 4, 7]] * 5:  # often enough that the requests overtake one another
            browser.evaluate(f"{places}.forEach(place => document.querySelectorAll('#samples button')[place].click())")
            answered(browser, served, DIGITS / "samples" / names[places[-1]].removeprefix("Sample "))
        drop(browser, OTHER)
        answered(browser, served, OTHER)


def answered(browser: Browser, served: Client, picture: Path) -> None:
    """Waits until the picture, the label that the server gives it, and a map are there."""
    label = next(iter(served.predict("digits", picture.read_bytes()).json()))
    first = f"document.querySelector('#labels button')?.dataset.value === {label!r}"
    browser.wait(f"document.querySelector('#picture img')?.alt === {picture.name!r} && {first} && !!{HEAT_MAP}")


def test_what_is_waited_for_is_said_and_nothing_moves(browser, served):
    """While the map is made its place says so; each place is where it was before the answer came."""
    places = "['labels', 'heat-map', 'samples'].map(id => document.getElementById(id).getBoundingClientRect().top)"
    with page_of(served.run_dir) as url:
        for width in (390, 1200):
            browser.resize(width, 800)
            opened(browser, url)
            browser.wait("document.querySelector('#about-files p') !== null")
            before = browser.evaluate(places)
            assert (before[0] < before[1]) == (width == 390)  # on a phone labels come before the map
            browser.evaluate("""
                window.said = [];
                const note = () => document.querySelectorAll('[role=status].busy').forEach(each => said.push(each.innerText));
                new MutationObserver(note).observe(document.body, {childList: true, subtree: true});
            """)
            give(browser, SAMPLE)
            browser.wait(HEAT_MAP)
            assert browser.evaluate(places) == pytest.approx(before, abs=1)
            assert {"Asking the model", "Making the map"} <= set(browser.evaluate("window.said"))
            assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_everything_has_a_name_and_is_reached_by_the_keyboard(browser, served, index):
    with page_of(served.run_dir, "--index", str(index)) as url:
        asked(browser, url, SAMPLE)
        browser.wait("document.querySelector('#nearest img') !== null")
        nodes = [node for node in browser.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
        named = [(node["role"]["value"], node.get("name", {}).get("value")) for node in nodes]
        named = [(role, name) for role, name in named if role in ("button", "image", "link", "combobox", "textbox")]
        assert all(name for _, name in named), named
        roles = {name: role for role, name in named}
        assert roles["7-a.png"] == roles["Where in the picture the first label comes from"] == "image"
        assert roles["Sample 7-a.png"] in ("button", "image") and ("button", "Sample 7-a.png") in named
        browser.evaluate("document.querySelectorAll('#samples button')[4].focus()")
        for kind in ("rawKeyDown", "char", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)
        browser.wait("document.querySelector('#picture img').alt === '4-a.png'")


def test_a_file_that_is_no_picture_gets_a_sentence(browser, served, tmp_path):
    (tmp_path / "empty.png").touch()
    with page_of(served.run_dir) as url:
        asked(browser, url, ROOT / "Makefile")
        assert said(browser, "labels").startswith("Not an image in a supported format")
        assert not browser.evaluate(HEAT_MAP)
        give(browser, SAMPLE)
        browser.wait(f"{ALERT.format('labels')} === null")
        browser.wait(HEAT_MAP)
        give(browser, tmp_path / "empty.png")
        assert said(browser, "labels") == "This file is empty."
        assert not browser.evaluate(HEAT_MAP)


def test_the_pictures_to_click_are_those_of_a_folder(browser, served, tmp_path):
    for place in range(23):
        shutil.copy(SAMPLE, tmp_path / f"{place:02}.png")
    with page_of(served.run_dir, "--samples", str(tmp_path)) as url:
        opened(browser, url)
        names = browser.evaluate("[...document.querySelectorAll('#samples img')].map(image => image.alt)")
        assert names == [f"Sample {place:02}.png" for place in range(0, 23, 3)]


def test_a_picture_that_is_gone_is_said_so(browser, served):
    """Folders for what is temporary are tidied up, and a page may be open for days."""
    with page_and_uploads(served.run_dir) as (url, uploads):
        asked(browser, url, SAMPLE)
        browser.wait(HEAT_MAP)
        for file in uploads.rglob(SAMPLE.name):
            file.unlink()
        browser.evaluate("document.querySelectorAll('#labels button')[1].click()")
        assert said(browser, "heat-map") == "The picture is no longer on this machine: choose it again."


@contextlib.contextmanager
def registered(client: Client, name: str) -> Iterator[None]:
    client.register(f"{name}.mar")
    try:
        yield
    finally:
        client.unregister(name)


def test_what_an_archive_cannot_do_is_said_in_its_place(browser, served, index):
    with registered(served, "vectors"), page_of(served.run_dir, "--index", str(index)) as url:
        asked(browser, url, SAMPLE)
        choose(browser, "vectors")  # while the picture is asked about
        assert said(browser, "heat-map").startswith("This archive gives no explanations: the archive was exported to embed")
        assert said(browser, "labels") == "There are no labels: vectors was exported to embed."
        assert browser.evaluate("document.querySelectorAll('[role=alert].quiet').length") == 2  # it is no failure
        assert browser.wait("document.querySelectorAll('#nearest figcaption').length") == 3  # of the same weights
        assert browser.evaluate("document.querySelector('#who p').innerText").startswith("vectors 1.0, in ")


def test_a_model_that_is_chosen_while_another_is_asked_stays_chosen(browser, served):
    with registered(served, "numbers"), page_of(served.run_dir) as url:
        opened(browser, url)
        (server,) = (each for each in processes_below(served.run_dir) if each.name() == "java")
        server.suspend()
        try:
            give(browser, SAMPLE)
            choose(browser, "numbers")
            browser.wait("document.querySelector('input[aria-label=Model]').value === 'numbers'")
        finally:
            server.resume()
        browser.wait("document.querySelector('#who p').innerText.startsWith('numbers ')")
        assert browser.evaluate("document.querySelector('input[aria-label=Model]').value") == "numbers"


@pytest.mark.parametrize("name", ["numbers", "tags", "thousand"])
def test_scores_are_shown_as_what_they_are(browser, served, name):
    """Scores without a head, labels that do not exclude each other, and a thousand classes of which none is likely."""
    with registered(served, name), page_of(served.run_dir) as url:
        asked(browser, url, SAMPLE)
        choose(browser, name)
        browser.wait(f"document.querySelector('#who p').innerText.startsWith('{name} ')")
        browser.wait(HEAT_MAP)
        scores = served.predict(name, SAMPLE.read_bytes()).json()
        rows = shown(browser)
        assert [label for label, _ in rows] == list(scores)[: len(rows)]
        written = "{:.4g}" if name == "numbers" else "{:.1%}"
        assert [score for _, score in rows] == [written.format(scores[label]) for label, _ in rows]
        assert "0.0%" not in dict(rows).values() and len(rows) == {"numbers": 10, "thousand": 5}.get(name, len(rows))
