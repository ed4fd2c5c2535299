"""The archive on disk: nothing is lost, and the same inputs make the same bytes."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile

from export.__main__ import main
from tests.conftest import ROOT, export_to

# --- nothing is lost ---


def test_an_archive_is_replaced_only_with_force(tiny_model, tmp_path, capsys):
    archive = tmp_path / "tiny.mar"
    archive.write_bytes(b"the archive of yesterday")
    assert main([f"local-dir:{tiny_model}", "--model-store", str(tmp_path)]) == 1
    assert "--force replaces it" in capsys.readouterr().err
    assert archive.read_bytes() == b"the archive of yesterday"
    assert main([f"local-dir:{tiny_model}", "--model-store", str(tmp_path), "--force"]) == 0
    assert zipfile.is_zipfile(archive)


def test_a_failed_export_leaves_the_model_store_as_it_was(tiny_model, tmp_path, monkeypatch, capsys):
    store = tmp_path / "store"
    store.mkdir()
    (store / "tiny.mar").write_bytes(b"the archive of yesterday")
    monkeypatch.setattr("export.archive.ENTRY", "missing.py")  # the archiver fails in its last step
    assert main([f"local-dir:{tiny_model}", "--model-store", str(store), "--force"]) == 1
    assert "torch-model-archiver failed" in capsys.readouterr().err
    assert [(file.name, file.read_bytes()) for file in store.iterdir()] == [("tiny.mar", b"the archive of yesterday")]


def test_a_folder_of_the_models_name_in_the_temporary_directory_is_left_alone(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("three years of work")
    export_to(tmp_path / "a [b], c", f"local-dir:{tiny_model}", "--model-name", "precious")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "three years of work"


def test_two_exports_of_one_name_at_once_do_not_disturb_each_other(tiny_model, tmp_path):
    command = [sys.executable, "-m", "export", f"local-dir:{tiny_model}", "--force", "--model-store", str(tmp_path / "store")]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert [file.name for file in (tmp_path / "store").iterdir()] == ["tiny.mar"]
    assert zipfile.ZipFile(tmp_path / "store" / "tiny.mar").testzip() is None


def test_a_killed_export_leaves_the_old_archive_whole(tiny_model, tmp_path):
    store = tmp_path / "store"
    archive = export_to(store, f"local-dir:{tiny_model}")
    before = archive.read_bytes()
    command = [
        sys.executable,
        "-m",
        "export",
        f"local-dir:{tiny_model}",
        "--force",
        "--version",
        "2",
        "--model-store",
        str(store),
    ]
    process = subprocess.Popen(command, cwd=ROOT)
    while process.poll() is None and not list(store.glob(".unfinished-export-*/output/*")):
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL  # so it was in the middle of packing
    assert archive.read_bytes() == before
    assert len(list(store.iterdir())) == 2  # what it had made so far
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert list(store.iterdir()) == [archive]  # the next one clears it away
    assert archive.read_bytes() != before


# --- the same bytes ---


def test_two_builds_are_the_same_bytes_and_name_no_place_or_time(tiny_model, tmp_path):
    archives = []
    for number, umask in enumerate((0o022, 0o077)):
        # Another folder, another temporary directory, other permissions, and later by two seconds, the step of a zip's clock.
        checkout, temporary = tmp_path / f"checkout-{number}", tmp_path / f"temporary-{number}"
        temporary.mkdir()
        for package in ("export", "handler", "predict"):
            shutil.copytree(ROOT / package, checkout / package)
        shutil.copyfile(ROOT / "command_line.py", checkout / "command_line.py")
        command = [sys.executable, "-m", "export", f"local-dir:{tiny_model}"]
        subprocess.run(
            command, cwd=checkout, env={**os.environ, "TMPDIR": str(temporary)}, umask=umask, check=True, timeout=120
        )
        archives.append((checkout / "model_store" / "tiny.mar").read_bytes())
        time.sleep(2)
    assert archives[0] == archives[1]
    for place in (str(tmp_path), str(ROOT), sys.prefix, time.strftime("%d/%m/%Y")):
        assert place.encode() not in archives[0]
