"""`python -m predict … --output OUT`: the rows are the core's answers, whatever the format, the source and the pictures."""

import csv
import json
import os
import signal
import time
import zipfile
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from predict.__main__ import main, parse
from predict.job import PART
from predict.progress import Progress, duration
from predict.resume import Run
from predict.sinks import FORMATS
from tests.bulk import SAMPLES, Core, finished, repeated, rows, start
from tests.conformance.asked import between
from tests.conftest import DIGITS, LAST_DIGITS, export_to

BOTH = ("--task", "classify,embed")


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return export_to(tmp_path_factory.mktemp("store"), f"local-dir:{DIGITS}", "--task", "classify,embed")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Good pictures, and five that are not: cut off, empty, no picture, without a right to read it, too large."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, sample in enumerate(SAMPLES):
        (folder / f"{number:02}{sample.suffix}").write_bytes(sample.read_bytes())
    (folder / "05-cut.jpg").write_bytes(SAMPLES[0].read_bytes()[:300])
    (folder / "06-empty.png").write_bytes(b"")
    (folder / "07-text.png").write_text("no picture")
    (folder / "08-large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20_000_001))
    (folder / os.fsdecode(b"09-\xff-odd,\n.png")).write_bytes(SAMPLES[4].read_bytes())
    return folder


@pytest.fixture(scope="module")
def expected(archive, pictures) -> list[dict]:
    core = Core(archive)
    return [core.expected(file.read_bytes()) for file in sorted(pictures.iterdir())]


@pytest.fixture(scope="module")
def found(archive, pictures, tmp_path_factory) -> list[dict]:
    out = tmp_path_factory.mktemp("whole") / "out.jsonl"
    printed = finished(archive, pictures, *BOTH, "--output", out)
    assert printed.startswith(f"{out}: 25 pictures, 4 with an error in its row; 25 answered in ")
    assert len(list(out.parent.iterdir())) == 1
    return rows(out)


def test_each_row_is_the_cores_answer_to_the_last_digit(found, expected, pictures):
    assert [row["id"] for row in found] == list(range(25))
    names = [row["path"].removeprefix(f"{pictures}/") for row in found]
    assert names == [file.name.encode("utf-8", "backslashreplace").decode() for file in sorted(pictures.iterdir())]
    answers = [{name: row[name] for name in row if name not in ("id", "path")} for row in found]
    assert between(answers, expected, LAST_DIGITS) is None


def test_each_broken_picture_is_one_row_with_its_error(found):
    refused = {Path(row["path"]).name: row["error"].partition(":")[0] for row in found if row["error"]}
    assert refused == {
        "05-cut.jpg": "BrokenImage",
        "06-empty.png": "UnsupportedImage",
        "07-text.png": "UnsupportedImage",
        "08-large.png": "FileTooLarge",
    }


def merged(suffix: str, found: list[dict], folder: Path) -> Path:
    """The rows in a format, from two parts."""
    sink = FORMATS[suffix](("classify", "embed"))
    for number, part in enumerate((found[:10], found[10:])):
        (folder / str(number)).write_bytes(sink.encode(part))
    with (folder / f"out{suffix}").open("wb") as file:
        sink.merge((folder / str(number) for number in range(2)), file)
    return folder / f"out{suffix}"


def test_csv_and_parquet_have_the_same_rows(found, tmp_path):
    table = pq.read_table(merged(".parquet", found, tmp_path))
    assert table.to_pylist() == found
    assert str(table.schema.field("embedding").type).startswith("list<") and "float" in str(table.schema.field("score").type)
    with merged(".csv", found, tmp_path).open(newline="") as file:
        read = list(csv.DictReader(file))
    numbers = ("labels", "scores", "embedding", "id", "score")
    for row in read:
        for name, value in row.items():
            row[name] = None if value == "" else json.loads(value) if name in numbers else value
    assert read == found


def test_one_task_has_its_columns_alone_of_an_unpacked_archive_too(archive, tmp_path):
    finished(archive, SAMPLES[0], SAMPLES[1], "--output", tmp_path / "labels.jsonl", "--top-k", "2")
    assert [list(row) for row in rows(tmp_path / "labels.jsonl")] == [
        ["id", "path", "label", "score", "labels", "scores", "error"]
    ] * 2
    assert [len(row["labels"]) for row in rows(tmp_path / "labels.jsonl")] == [2, 2]
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "unpacked")
    finished(tmp_path / "unpacked", SAMPLES[0], "--output", tmp_path / "vectors.parquet", "--task", "embed")
    assert pq.read_table(tmp_path / "vectors.parquet").column_names == ["id", "path", "embedding", "error"]


def test_a_worker_that_is_killed_is_replaced(archive, tmp_path):
    run = start(archive, repeated(tmp_path, 4 * PART), "--output", tmp_path / "out.jsonl")
    folder = tmp_path / "out.jsonl.parts"
    while run.poll() is None and not list(folder.glob("part-*")):
        time.sleep(0.01)
    for worker in psutil.Process(run.pid).children():
        worker.send_signal(signal.SIGKILL)
    _, err = run.communicate()
    assert run.returncode == 0, err
    found = rows(tmp_path / "out.jsonl")
    assert [row["id"] for row in found] == list(range(4 * PART)) and not any(row["error"] for row in found)
    assert sum(Path(row["path"]).name[0] == row["label"] for row in found) >= 0.9 * len(found)


# Ends the process that is asked for outputs of a picture with this in it, as a decoder that is broken might.
DEADLY = """
import os, sys
if "predict.worker" in " ".join(sys.orig_argv):
    from vit_core.predictor import Predictor
    outputs = Predictor.outputs
    def deadly(self, images):
        if any(b"deadly" in image for image in images):
            os.kill(os.getpid(), 11)
        return outputs(self, images)
    Predictor.outputs = deadly
"""


def test_a_picture_that_ends_the_worker_is_a_row_with_an_error(archive, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(DEADLY)
    handler = DIGITS.parent.parent / "handler"
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(12):
        deadly = b"deadly" if number == 3 else b""
        (pictures / f"{number:02}{SAMPLES[number].suffix}").write_bytes(SAMPLES[number].read_bytes() + deadly)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{handler}"}
    finished(archive, pictures, "--output", tmp_path / "out.jsonl", env=environment)
    found = rows(tmp_path / "out.jsonl")
    assert {row["id"]: row["error"] for row in found if row["error"]} == {
        3: "WorkerDied: a worker was ended by SIGSEGV on this picture"
    }
    assert [row["label"] for row in found if not row["error"]] == [SAMPLES[n].name[0] for n in range(12) if n != 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ARCHIVE", "PICTURE", "--output", "out.xlsx"], "out.xlsx should end in .parquet, .csv, .jsonl, which is its format"),
        (["ARCHIVE", "/nowhere", "--output", "FOLDER/out.csv"], "there is no file or folder /nowhere"),
        (["ARCHIVE", "EMPTY", "--output", "FOLDER/out.csv"], "there are no pictures in"),
        (["/nowhere.mar", "PICTURE", "--output", "FOLDER/out.csv"], "/nowhere.mar cannot be read: No such file"),
        (["PICTURE", "PICTURE", "--output", "FOLDER/out.csv"], "is no archive of this project"),
        (["ARCHIVE", "PICTURE", "--output", "FOLDER/none/out.csv"], "/none\n"),
        (
            ["ARCHIVE", "PICTURE", "--output", "s3://bucket/out.csv"],
            "s3://bucket/out.csv is an address: a run writes to a disk",
        ),
        (["ARCHIVE", "PICTURE", "--output", "FOLDER/there.csv"], "there.csv is there already: remove it, or name another"),
        (["ARCHIVE", "PICTURE", "--output", "FOLDER/out.csv", "--device", "cuda:99"], "the archive could not be loaded: "),
        (["ARCHIVE", "PICTURE", "--output", "FOLDER/out.csv", "--ray", "127.0.0.1:1"], "127.0.0.1:1 could not be reached"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_clear_line(arguments, message, archive, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.csv").write_text("mine")
    places = {"ARCHIVE": archive, "PICTURE": SAMPLES[0], "EMPTY": tmp_path / "empty"}
    given = [str(places.get(each, each)).replace("FOLDER", str(tmp_path)) for each in arguments]
    assert main(given) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("predict: ") and printed.err.count("\n") == 1
    assert message in printed.err
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_a_task_that_the_archive_has_not_is_one_line(tmp_path, capsys):
    labels = export_to(tmp_path, f"local-dir:{DIGITS}")
    assert main([str(labels), str(SAMPLES[0]), *BOTH, "--output", str(tmp_path / "out.csv")]) == 1
    assert capsys.readouterr().err.endswith("digits.mar answers classify, not embed\n")


@pytest.mark.parametrize("arguments", [["--ray"], [*BOTH], ["--output", "out.csv", "--json"], ["--task", "guess"]])
def test_options_that_do_not_go_together_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        parse(["a.mar", "b.png", *arguments])
    assert "python -m predict --help lists the options" in capsys.readouterr().err


def test_the_progress_says_how_far_how_fast_and_how_long(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress(10_000, 1_000)
    for _ in range(4):
        progress.add(500, 1)
        now[0] += 2
    lines = capsys.readouterr().err.splitlines()
    # The first part waited for the workers: the rate is of those that came after it.
    assert lines == ["2,500 of 10,000 pictures, 3 with an error, 250 pictures/s, 30 s left"]
    assert [duration(each) for each in (59, 61, 7500)] == ["59 s", "1 min 1 s", "2 h 5 min"]


def test_two_runs_do_not_write_one_output(tmp_path):
    from command_line import UserError

    first = Run(tmp_path / "out.csv", {})
    with pytest.raises(UserError, match="another process is writing"):
        Run(tmp_path / "out.csv", {})
    first.discard()
