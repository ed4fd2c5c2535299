"""A run in bulk that is ended at any moment goes on when it is started again, and ends as if nothing had been."""

import json
import random
import resource
import shutil
import zipfile
from pathlib import Path

import pytest

from predict.job import PART
from tests.bulk import PARTS, SAMPLES, finished, kill_after, repeated, rows, start
from tests.conftest import DIGITS, export_to

PICTURES = 7 * PART + 10


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return export_to(tmp_path_factory.mktemp("store"), f"local-dir:{DIGITS}", "--task", "classify,embed")


@pytest.fixture(scope="module")
def listing(tmp_path_factory) -> Path:
    """Paths over and over, with some that are not there."""
    file = repeated(tmp_path_factory.mktemp("list"), PICTURES)
    lines = file.read_text().splitlines()
    for number in range(5, PICTURES, 300):
        lines[number] = f"/nowhere/{number}.png"
    file.write_text("\n".join(lines))
    return file


@pytest.fixture(scope="module")
def undisturbed(archive, listing, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out.jsonl"
    finished(archive, listing, "--output", out)
    found = rows(out)
    assert [row["id"] for row in found] == list(range(PICTURES))
    assert sum(row["error"] is not None for row in found) == len(range(5, PICTURES, 300))
    return out


def test_killed_at_any_moment_it_ends_as_if_undisturbed(archive, listing, undisturbed, tmp_path):
    out, rng = tmp_path / "out.jsonl", random.Random(7)
    for parts in (0, 1 + rng.randrange(2), 4 + rng.randrange(2)):  # before the first worker is ready; then twice on the way
        kill_after(start(archive, listing, "--output", out), out, parts)
        assert not out.exists()
    left = PICTURES - sum(PART for _ in (tmp_path / "out.jsonl.parts").glob(PARTS))
    printed = finished(archive, listing, "--output", out)
    assert f"{left:,} answered in" in printed and left < PICTURES
    assert out.read_bytes() == undisturbed.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.fixture(scope="module")
def killed(archive, listing, tmp_path_factory) -> Path:
    """What is left of a run that was killed on its way."""
    out = tmp_path_factory.mktemp("killed") / "out.jsonl"
    kill_after(start(archive, listing, "--output", out), out, 2)
    return out.with_name("out.jsonl.parts")


@pytest.fixture
def half(killed, tmp_path) -> Path:
    """The output of that run, in a copy of its own."""
    shutil.copytree(killed, tmp_path / killed.name)
    return tmp_path / "out.jsonl"


def refused(*arguments: object) -> str:
    process = start(*arguments)
    out, err = process.communicate()
    assert process.returncode == 1 and out == "" and err.startswith("predict: ") and err.count("\n") == 1
    return err


def test_what_has_changed_is_refused_by_its_name(archive, listing, half, tmp_path):
    run = [archive, listing, "--output", half]
    assert "was begun with top-k none, not 3" in refused(*run, "--top-k", "3")
    assert "was begun with task classify, not embed" in refused(*run, "--task", "embed")
    other = export_to(tmp_path / "store", f"local-dir:{DIGITS}", "--task", "classify,embed", "--top-k", "2")
    assert "was begun with archive " in refused(other, *run[1:])
    assert "was begun with sources " in refused(archive, SAMPLES[0], *run[2:])
    kept = listing.read_text()
    try:
        listing.write_text(f"{kept}\n{SAMPLES[0]}")
        assert f"{listing} has changed since" in refused(*run)
    finally:
        listing.write_text(kept)
    shutil.copystat(SAMPLES[0], listing)  # another time: it cannot be known that it is the same
    assert f"{listing} has changed since" in refused(*run)


def test_a_manifest_that_is_damaged_is_said_so(archive, listing, half):
    folder = half.with_name("out.jsonl.parts")
    (folder / "listing.jsonl").write_text("[]")
    assert "listing.jsonl has changed" in refused(archive, listing, "--output", half)
    (folder / "manifest.json").write_text("{")
    assert "manifest.json cannot be read" in refused(archive, listing, "--output", half)


def test_a_disk_that_is_full_is_one_line_and_loses_nothing(archive, listing, undisturbed, tmp_path):
    out = tmp_path / "out.jsonl"
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "unpacked")
    size = undisturbed.stat().st_size // 2  # the parts fit, the whole does not
    limited = start(
        tmp_path / "unpacked",
        listing,
        "--output",
        out,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )
    _, err = limited.communicate()
    assert limited.returncode == 1 and err.splitlines()[-1].startswith("predict: ") and "Traceback" not in err
    assert "File too large; what is done is kept, and the same command goes on with it" in err
    assert "; 0 answered in" in finished(archive, listing, "--output", out)
    assert out.read_bytes() == undisturbed.read_bytes()


def test_killed_as_it_cleaned_up_it_only_cleans_up(archive, listing, undisturbed, tmp_path):
    out, folder = tmp_path / "out.jsonl", tmp_path / "out.jsonl.parts"
    folder.mkdir()
    shutil.copy(undisturbed, out)
    (folder / "done").touch()
    (folder / "part-000003-0").write_text("left over")
    assert finished(archive, listing, "--output", out).endswith("out.jsonl: was whole already\n")
    assert not folder.exists() and out.read_bytes() == undisturbed.read_bytes()


def test_the_manifest_names_archive_and_sources(half, listing):
    manifest = json.loads((half.with_name("out.jsonl.parts") / "manifest.json").read_text())
    assert len(manifest["archive"]) == len(manifest["listing_sha256"]) == 64
    assert manifest["sources"] == [str(listing)] and manifest["rows"] == PICTURES
