"""`python -m predict`: answers in process, as a table or as JSON lines."""

import json
import re
import shutil
from pathlib import Path

import pytest

from predict.__main__ import main
from predict.pictures import pictures
from tests.conftest import DIGITS, export_to

SAMPLES = sorted((DIGITS / "samples").glob("*.*g"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return export_to(tmp_path_factory.mktemp("store"), f"local-dir:{DIGITS}", "--task", "classify,embed")


@pytest.fixture
def mixed(tmp_path) -> Path:
    """A folder with pictures at several depths, and with what is none."""
    folder = tmp_path / "mixed"
    (folder / "b" / ".hidden").mkdir(parents=True)
    for name in ("z.jpg", "b/a.png", "b/.hidden/c.png", ".d.png"):
        shutil.copy(next(file for file in SAMPLES if file.suffix == Path(name).suffix), folder / name)
    (folder / "notes.txt").write_text("no picture")
    (folder / "b" / "broken.JPG").write_bytes(SAMPLES[0].read_bytes()[:300])
    return folder


def test_a_folder_is_a_row_for_each_picture(archive, capsys):
    assert main([str(archive), str(DIGITS / "samples")]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == len(SAMPLES) == 20
    found = [
        re.fullmatch(rf".*{re.escape(file.name)}  +\d+\.\d\d%  (\d)", row)[1] for row, file in zip(rows, SAMPLES, strict=True)
    ]
    assert sum(label == file.name[0] for label, file in zip(found, SAMPLES, strict=True)) >= 18


def test_a_single_picture_is_a_row_for_each_label(archive, capsys):
    assert main([str(archive), str(SAMPLES[0]), "--top-k", "3"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 3 and re.fullmatch(r"0  +\d+\.\d\d%  █+", rows[0])


def test_an_embedding_is_its_length_and_its_first_numbers(archive, capsys):
    assert main([str(archive), str(SAMPLES[0]), "--task", "embed"]) == 0
    assert re.fullmatch(r".*0-a\.jpg  64 numbers: (-?\d+\.\d{4}, ){4}…\n", capsys.readouterr().out)


@pytest.fixture(scope="module")
def scores(tmp_path_factory) -> Path:
    return export_to(tmp_path_factory.mktemp("scores"), f"local-dir:{DIGITS}", "--head", "none")


def test_scores_that_are_no_probabilities_are_numbers(scores, capsys):
    assert main([str(scores), str(SAMPLES[0])]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 10 and all(re.fullmatch(r"\d  +-?\d+\.?\d*", row) for row in rows)
    assert float(rows[0].split()[1]) > 1
    assert main([str(scores), *map(str, SAMPLES[:2])]) == 0
    assert all(re.fullmatch(r".*0-[ab]\.jpg  +\d+\.?\d*  0", row) for row in capsys.readouterr().out.splitlines())


def test_an_answer_without_labels_is_said(tmp_path, capsys):
    thresholds = ("--head", "sigmoid", "--thresholds", "1")
    archive = export_to(tmp_path, f"local-dir:{DIGITS}", *thresholds)
    assert main([str(archive), str(SAMPLES[0])]) == 0
    assert capsys.readouterr().out.endswith("0-a.jpg  no label reaches its threshold\n")


def test_a_bad_picture_has_its_error_in_its_row(archive, mixed, capsys):
    assert main([str(archive), str(mixed), str(mixed / "notes.txt"), "--json"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(line["picture"]).name for line in lines] == ["a.png", "broken.JPG", "z.jpg", "notes.txt"]
    assert [line.get("error", {}).get("type") for line in lines] == [None, "BrokenImage", None, "UnsupportedImage"]
    assert [len(line.get("answer", {})) for line in lines] == [5, 0, 5, 0]
    assert main([str(archive), str(mixed)]) == 1
    assert "broken.JPG  refused: the JPEG image could not be decoded" in capsys.readouterr().out


def test_an_unpacked_archive_answers_as_the_packed_one(archive, tmp_path, capsys):
    shutil.unpack_archive(archive, tmp_path / "unpacked", "zip")
    printed = []
    for path in (archive, tmp_path / "unpacked"):
        assert main([str(path), str(SAMPLES[0]), "--json"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere.mar", "PICTURE"], "/nowhere.mar cannot be read: No such file"),
        (["TEXT", "PICTURE"], "notes.txt is no archive of this project"),
        (["FOLDER", "PICTURE"], "mixed is no archive of this project"),
        (["ARCHIVE", "/nowhere.jpg"], "there is no file or folder /nowhere.jpg"),
        (["ARCHIVE", "EMPTY"], "there are no pictures in"),
        (["ARCHIVE", "PICTURE", "--device", "cuda:99"], "could not be loaded: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_clear_line(arguments, message, archive, mixed, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    paths = {
        "PICTURE": SAMPLES[0],
        "TEXT": mixed / "notes.txt",
        "FOLDER": mixed,
        "ARCHIVE": archive,
        "EMPTY": tmp_path / "empty",
    }
    assert main([str(paths.get(argument, argument)) for argument in arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("predict: ") and printed.err.count("\n") == 1
    assert message in printed.err


def test_files_are_taken_in_the_order_given(mixed):
    assert [file.name for file in pictures([mixed / "z.jpg", mixed])] == ["z.jpg", "a.png", "broken.JPG", "z.jpg"]
