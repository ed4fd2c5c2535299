"""search on a real server: a folder is indexed, a picture finds its like, the recall is what the README says."""

import re
import shutil
from collections.abc import Iterator

import pytest
from PIL import Image

from examples.search.recall import measure
from search import __main__ as commands
from search import server
from search.embedding import Embedder
from serve.client import Client
from tests.conftest import DIGITS, ROOT, export_to
from tests.e2e.conftest import serving

SAMPLES = DIGITS / "samples"


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("embedding")
    export_to(folder / "store", f"local-dir:{DIGITS}", "--task", "classify,embed", "--normalize")
    with serving(folder / "store", folder / "run", "digits.mar") as client:
        yield client


@pytest.fixture(autouse=True)
def run_dir(monkeypatch, served):
    monkeypatch.setattr(server, "RUN_DIR", served.run_dir)


def test_a_smaller_copy_of_a_picture_finds_it(tmp_path, capsys):
    folder, index, copy = tmp_path / "pictures", tmp_path / "pictures.index", tmp_path / "copy.jpg"
    shutil.copytree(SAMPLES, folder)
    assert commands.main(["index", str(folder), "--name", "digits", "--index", str(index)]) == 0
    printed = capsys.readouterr()
    assert "20 pictures, 1 other files skipped" in printed.out
    assert "labels.csv: not an image in a format that is read here" in printed.err
    assert printed.err.count("\n") == 1  # no line of progress where there is no terminal

    for name in ("0-a.jpg", "9-b.png"):
        image = Image.open(folder / name).convert("RGB")
        image.resize((max(24, image.width // 2), max(24, image.height // 2))).save(copy)
        assert commands.main(["find", str(copy), "--index", str(index), "-k", "3"]) == 0
        rows = capsys.readouterr().out.splitlines()
        assert len(rows) == 3 and rows[0].endswith(f"/{name}")
        similarities = [float(row.split()[0]) for row in rows]
        assert similarities == sorted(similarities, reverse=True) and similarities[0] > 0.9

    assert commands.main(["find", str(ROOT / "Makefile"), "--index", str(index)]) == 1
    assert "search: not an image" in capsys.readouterr().err


def test_the_recall_is_that_of_a_model_that_knows_digits(served, tmp_path, capsys):
    share, any_of_five = measure(Embedder(served, "digits"), tmp_path, most=(400, 60))
    printed = capsys.readouterr().out
    assert re.search(r"400 pictures of training digits, 64 numbers each\nqueries +60 pictures", printed)
    assert f"{share:.1%}" in printed and f"{any_of_five:.1%}" in printed
    assert share > 0.9 and any_of_five > 0.9  # 0.960 and 0.967 when this was written
