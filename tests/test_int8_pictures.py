"""The pictures that the scales of int8 are found on, and those that judge them."""

from pathlib import Path

import pytest
from PIL import Image

from export.calibration import LEAST, calibration
from export.errors import ExportError
from vit_core.settings import Limits, Preprocessing

PLAIN = Preprocessing((3, 32, 32), "bicubic", 1.0, "center", (0.5,) * 3, (0.5,) * 3)


def folder_of(pictures: int, folder: Path, name: str = "{}.png") -> Path:
    folder.mkdir()
    for number in range(pictures):
        Image.new("RGB", (40, 40), (number * 5, 90, 200)).save(folder / name.format(number))
    return folder


def test_a_folder_is_read_as_the_handler_reads_it_and_each_fifth_picture_judges(tmp_path):
    folder = folder_of(23, tmp_path / "a")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    found = calibration(folder, PLAIN, Limits())
    assert (found.images, sum(map(len, found.others)), found.source) == (18, 5, "pictures of yours")
    assert len(found.unreadable) == 1 and found.unreadable[0].startswith("broken.png (")
    renamed = calibration(folder_of(23, tmp_path / "b", "x{:03}.png"), PLAIN, Limits())
    assert renamed.sha256 == found.sha256
    assert calibration(folder_of(22, tmp_path / "c"), PLAIN, Limits()).sha256 != found.sha256


def test_too_few_pictures_are_refused(tmp_path):
    folder = folder_of(LEAST - 1, tmp_path / "few")
    with pytest.raises(ExportError, match=f"has {LEAST - 1} pictures that can be read: at least {LEAST} are needed"):
        calibration(folder, PLAIN, Limits())
    with pytest.raises(ExportError, match="--calibrate: there is no file or folder"):
        calibration(tmp_path / "nowhere", PLAIN, Limits())


def test_without_a_folder_it_is_the_shipped_photographs():
    found = calibration(None, PLAIN, Limits())
    assert (found.images, sum(map(len, found.others)), found.source) == (72, 24, "crops of the shipped photographs")
    assert calibration(None, PLAIN, Limits()).sha256 == found.sha256
