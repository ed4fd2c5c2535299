"""A fitted temperature goes into an archive, which then answers with it."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluate.__main__ import main
from export.__main__ import main as export
from serve.archive import identity
from tests.conftest import DIGITS, export_to, read
from tests.in_process import handle, load
from tests.labelled import by_class, evaluated, in_table, refused
from train import handwritten, scan
from vit_core.predictor import Predictor
from vit_core.request import Request

SAMPLE = DIGITS / "samples" / "7-a.png"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return by_class(tmp_path_factory.mktemp("pictures") / "p")


@pytest.fixture(scope="module")
def fitted(pictures, digits_store, tmp_path_factory) -> tuple[Path, dict]:
    """An archive with a temperature, and the report of the fit."""
    folder = tmp_path_factory.mktemp("fitted")
    archive = folder / "calibrated.mar"
    options = ("--fit-temperature", archive, "--version", "1.1")
    return archive, evaluated(folder, digits_store / "digits.mar", pictures, *options)


def test_the_temperature_is_that_of_the_least_loss(fitted, pictures, digits_store, tmp_path):
    """By a search over the raw numbers that the server gives."""
    _, report = fitted
    files = sorted(pictures.rglob("*.png"))
    requests = [Request([file.read_bytes()], raw_scores=True, top_k=10) for file in files]
    answers = [answer.body for answer in Predictor.load(digits_store / "digits.mar").answer(requests)]
    logits = torch.tensor([[answer[str(digit)] for digit in range(10)] for answer in answers], dtype=torch.float64)
    truth = torch.tensor([int(file.parent.name) for file in files])
    steps = torch.arange(0.5, 8, 0.001)
    losses = [torch.nn.functional.cross_entropy(logits / step, truth).item() for step in steps]
    found = report["calibration"]
    assert found["temperature"] == pytest.approx(steps[np.argmin(losses)].item(), abs=0.002)
    assert found["temperature"] > 1.2  # one of seven pictures has a wrong label, of which the model is too sure
    before, after = found["negative_log_likelihood"]
    assert before == pytest.approx(torch.nn.functional.cross_entropy(logits, truth).item(), abs=1e-4)
    assert after == pytest.approx(min(losses), abs=1e-4)


def test_the_archive_has_the_effect_that_was_said(fitted, pictures, tmp_path):
    archive, report = fitted
    again, before = evaluated(tmp_path, archive, pictures)["runs"][0]["metrics"], report["runs"][0]["metrics"]
    for name in ("negative_log_likelihood", "calibration_error"):
        said = report["calibration"][name]
        assert [before[name], again[name]] == pytest.approx(said, abs=1e-4)
        assert said[1] < said[0]
    assert again["confusion"] == before["confusion"] and again["top5"] == before["top5"]


def test_the_archive_says_what_it_was_fitted_to(fitted, digits_store, capsys):
    archive, report = fitted
    assert export(["--show", str(archive)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["calibration"] == report["calibration"]
    assert record["calibration"]["pictures"] == 80
    assert record["calibration"]["pictures_sha256"] == report["runs"][0]["pictures_sha256"]
    assert record["head"]["temperature"] == record["calibration"]["temperature"]
    original = json.loads(read(digits_store / "digits.mar", "record.json"))
    assert "temperature" not in original["head"]
    assert {name: record[name] for name in original if name != "head"} == {n: v for n, v in original.items() if n != "head"}
    assert identity(archive) == ("calibrated", "1.1")
    assert identity(digits_store / "digits.mar") == ("digits", "1.0")


def test_the_same_inputs_make_the_same_bytes(fitted, pictures, digits_store, tmp_path):
    archive, _ = fitted
    evaluated(tmp_path, digits_store / "digits.mar", pictures, "--fit-temperature", tmp_path / archive.name, "--version", "1.1")
    assert (tmp_path / archive.name).read_bytes() == archive.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == [archive.name, "report.json"]


def test_an_archive_of_an_older_handler_gets_todays(fitted, pictures, digits_store, tmp_path):
    """The older one would refuse the temperature, which it does not know."""
    with zipfile.ZipFile(digits_store / "digits.mar") as source, zipfile.ZipFile(tmp_path / "old.mar", "w") as target:
        for name in source.namelist():
            target.writestr(name, "an older one" if name == "vit_core/head.py" else source.read(name))
        target.writestr("vit_core/gone.py", "a file that the handler has no longer")
    evaluated(tmp_path, tmp_path / "old.mar", pictures, "--fit-temperature", tmp_path / "calibrated.mar", "--version", "1.1")
    assert (tmp_path / "calibrated.mar").read_bytes() == fitted[0].read_bytes()


def test_the_handler_in_the_archive_divides_by_it_and_explains(fitted, tmp_path):
    archive, report = fitted
    handler, context = load(archive, tmp_path / "unpacked")
    (answer,), (raw,) = (
        handle(handler, context, [{"body": SAMPLE.read_bytes()}], {"x-top-k": "10", **more})
        for more in ({}, {"x-raw-scores": "true"})
    )
    scaled = torch.tensor(list(raw.values())) / report["calibration"]["temperature"]
    assert answer == pytest.approx(dict(zip(raw, scaled.softmax(0).tolist(), strict=True)), abs=1e-6)
    (explained,) = Predictor.load(archive).answer([Request([SAMPLE.read_bytes()], explains=True)])
    assert explained.body["class"] == "7" and explained.body["probability"] == pytest.approx(answer["7"], abs=0.02)


def test_thresholds_move_with_the_temperature(pictures, tmp_path):
    """So that each answer has the labels that it had."""
    thresholds = {str(digit): 0.05 + 0.1 * digit for digit in range(10)}
    (tmp_path / "t.json").write_text(json.dumps(thresholds))
    options = ("--head", "sigmoid", "--thresholds", str(tmp_path / "t.json"))
    archive = export_to(tmp_path, f"local-dir:{DIGITS}", *options)
    report = evaluated(tmp_path, archive, pictures, "--fit-temperature", tmp_path / "calibrated.mar")
    before, after = report["calibration"]["negative_log_likelihood"]
    assert after < before and abs(report["calibration"]["temperature"] - 1) > 0.1
    again, first = (
        evaluated(tmp_path, tmp_path / "calibrated.mar", pictures)["runs"][0]["metrics"],
        report["runs"][0]["metrics"],
    )
    for name in ("precision", "recall", "f1", "pictures"):
        assert [each[name] for each in again["classes"].values()] == [each[name] for each in first["classes"].values()]
    assert again["negative_log_likelihood"] == pytest.approx(after, abs=1e-4)


@pytest.mark.parametrize(("head", "message"), [("none", "no probabilities to calibrate: its head is none")])
def test_a_head_without_probabilities_is_refused(head, message, pictures, tmp_path, capsys):
    archive = export_to(tmp_path, f"local-dir:{DIGITS}", "--head", head)
    assert message in refused(capsys, archive, pictures, "--fit-temperature", tmp_path / "calibrated.mar")


def test_pictures_that_tell_no_temperature_are_refused(digits_store, tmp_path, capsys):
    """All right: the colder the better."""
    ink, labels = handwritten("heldout")
    rows = []
    for index in range(12):
        scan(ink[index]).save(tmp_path / f"{index}.png")
        rows.append((f"{index}.png", labels[index]))
    table = in_table(tmp_path / "t.csv", rows)
    capsys.readouterr()
    output = tmp_path / "calibrated.mar"
    assert main([str(digits_store / "digits.mar"), str(table), "--fit-temperature", str(output)]) == 1
    printed = capsys.readouterr()
    assert "do not tell a temperature, as the model is right about all of them" in printed.err and printed.err.count("\n") == 1
    assert "top-1" in printed.out and not output.exists()
