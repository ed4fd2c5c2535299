"""The example model: small, and good enough to show to people."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
from PIL import Image

from evaluate.__main__ import main
from tests.conftest import DIGITS
from train import save_heldout


@pytest.fixture(scope="module")
def heldout(tmp_path_factory) -> Iterator[Path]:
    """The pictures that the model is measured on: a gigabyte, which pytest would keep."""
    folder = tmp_path_factory.mktemp("heldout")
    save_heldout(folder, "bmp")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(("name", "least"), [("scans", 0.98), ("pictures", 0.95)])
def test_the_heldout_digits_are_read_as_recorded(name, least, heldout, digits_store, tmp_path):
    report = tmp_path / "report.json"
    assert main([str(digits_store / "digits.mar"), str(heldout / name), "--precisions", "fp32", "--json", str(report)]) == 0
    metrics = json.loads(report.read_text())["runs"][0]["metrics"]
    assert metrics["pictures"] == {"scans": 360, "pictures": 1080}[name]
    assert metrics["top1"] >= least
    recorded = json.loads((DIGITS / "accuracy.json").read_text())[f"heldout_{name}"]
    assert metrics["top1"] == pytest.approx(recorded, abs=0.003)


def test_it_is_a_small_vision_transformer():
    assert isinstance(timm.create_model(f"local-dir:{DIGITS}"), timm.models.VisionTransformer)
    assert (DIGITS / "model.safetensors").stat().st_size < 1_500_000


def test_every_digit_has_sample_pictures():
    rows = list(csv.DictReader((DIGITS / "samples" / "labels.csv").open()))
    assert {row["label"] for row in rows} == set("0123456789")
    assert {row["file"] for row in rows} | {"labels.csv"} == {file.name for file in (DIGITS / "samples").iterdir()}
    assert len({Image.open(DIGITS / "samples" / row["file"]).size for row in rows}) == len(rows) >= 10
