"""The example model: small, and good enough to show to people."""

import csv
import json

import pytest
import timm
from PIL import Image

from tests.conftest import DIGITS
from train import accuracy, handwritten, heldout_pictures, scan


@pytest.fixture(scope="module")
def model():
    return timm.create_model(f"local-dir:{DIGITS}", pretrained=True).eval()


@pytest.fixture(scope="module")
def recorded() -> dict[str, float]:
    return json.loads((DIGITS / "accuracy.json").read_text())


def test_the_heldout_scans_are_read_as_recorded(model, recorded):
    scans = [(scan(ink), int(digit)) for ink, digit in zip(*handwritten("heldout"), strict=True)]
    measured = accuracy(model, scans)
    assert measured >= 0.98
    assert measured == pytest.approx(recorded["heldout_scans"], abs=0.003)


def test_pictures_made_from_the_heldout_digits_are_read_as_recorded(model, recorded):
    measured = accuracy(model, heldout_pictures())
    assert measured >= 0.95
    assert measured == pytest.approx(recorded["heldout_pictures"], abs=0.003)


def test_it_is_a_small_vision_transformer(model):
    assert isinstance(model, timm.models.VisionTransformer)
    assert (DIGITS / "model.safetensors").stat().st_size < 1_500_000


def test_every_digit_has_sample_pictures():
    rows = list(csv.DictReader((DIGITS / "samples" / "labels.csv").open()))
    assert {row["label"] for row in rows} == set("0123456789")
    assert {row["file"] for row in rows} | {"labels.csv"} == {file.name for file in (DIGITS / "samples").iterdir()}
    assert len({Image.open(DIGITS / "samples" / row["file"]).size for row in rows}) == len(rows) >= 10
