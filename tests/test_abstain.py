"""What an archive answers below the probability that it was exported with: unknown."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.__main__ import main as export
from predict.__main__ import main as predict
from tests.conftest import DIGITS, export_to
from tests.in_process import handle, load
from tests.labelled import by_class, evaluated
from vit_core.archive import Archive
from vit_core.predictor import Predictor
from vit_core.request import Request

SAMPLE = DIGITS / "samples" / "7-a.png"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return by_class(tmp_path_factory.mktemp("pictures") / "p")


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def nothing() -> list[bytes]:
    """Pictures of nothing: noise, blurred noise, blanks."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (64, 64, 3)) for _ in range(12)]
    blurred = [np.asarray(Image.fromarray(each[:4, :4].astype(np.uint8)).resize((64, 64))) for each in noise]
    return [png(each) for each in (*noise, *blurred, *(np.full((64, 64, 3), grey) for grey in (0, 128, 255)))]


@pytest.fixture(scope="module")
def cautious(tmp_path_factory) -> Path:
    return export_to(tmp_path_factory.mktemp("cautious"), f"local-dir:{DIGITS}", "--abstain", "0.9")


def test_below_the_probability_the_answer_is_unknown(cautious):
    predictor, images = Predictor.load(cautious), [*nothing(), *(file.read_bytes() for file in SAMPLE.parent.glob("*.*g"))]
    answers, whole, raw = (
        [answer.body for answer in predictor.answer([Request([image], **options) for image in images])]
        for options in ({}, {"threshold": 0.0}, {"raw_scores": True})
    )
    unknown = 0
    for answer, own, numbers in zip(answers, whole, raw, strict=True):
        highest = max(own.values())
        assert len(own) == len(numbers) == 5 and "unknown" not in own.keys() | numbers.keys()
        if highest < 0.9:
            assert answer == {"unknown": pytest.approx(1 - highest)}
            unknown += 1
        else:
            assert answer == own
    assert 10 < unknown < len(images) - 10


def test_pictures_of_nothing_are_unknown_more_often_than_digits(cautious):
    """Not all of them: a probability says how sure the model is among the classes that it knows."""
    predictor = Predictor.load(cautious)
    samples = [file.read_bytes() for file in SAMPLE.parent.glob("*.*g")]
    shares = []
    for images in (nothing(), samples):
        answers = [answer.body for answer in predictor.answer([Request([image]) for image in images])]
        shares.append(np.mean([list(answer) == ["unknown"] for answer in answers]))
    assert shares[0] > 0.4 > shares[1] + 0.1


def test_predict_and_the_handler_say_it_too(cautious, tmp_path, capsys):
    (tmp_path / "noise.png").write_bytes(nothing()[12])
    assert predict([str(cautious), str(tmp_path / "noise.png"), str(SAMPLE)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].endswith("%  unknown") and rows[1].endswith("%  7")
    handler, context = load(cautious, tmp_path / "unpacked")
    answers = handle(handler, context, [{"body": nothing()[12]}, {"body": SAMPLE.read_bytes()}])
    assert [next(iter(answer)) for answer in answers] == ["unknown", "7"] and len(answers[0]) == 1


def test_the_share_that_is_answered_is_reported(cautious, pictures, tmp_path, capsys):
    found = evaluated(tmp_path, cautious, pictures)["runs"][0]["metrics"]
    files = sorted(pictures.rglob("*.png"))
    answers = Predictor.load(cautious).answer([Request([file.read_bytes()]) for file in files])
    said = [(next(iter(answer.body)), file.parent.name) for answer, file in zip(answers, files, strict=True)]
    answered = [first == true for first, true in said if first != "unknown"]
    assert found["coverage"] == pytest.approx(len(answered) / len(said)) and 0 < found["coverage"] < 1
    assert found["top1_of_answered"] == pytest.approx(np.mean(answered))
    assert "top-1 of these" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--head", "sigmoid"), "--abstain is for --head softmax, not for sigmoid: --thresholds say which labels"),
        (("--head", "none"), "--abstain is for --head softmax, not for none"),
        (("--labels", "LABELS"), "--abstain answers 'unknown', and a class is called so: give it another label"),
        (("--abstain", "0.1"), "--abstain 0.1 would never abstain: the most probable of 10 classes has 0.1 at least"),
    ],
)
def test_an_abstention_that_cannot_be_meant_is_refused(options, message, tmp_path, capsys):
    (tmp_path / "labels.json").write_text(json.dumps([*"012345678", "unknown"]))
    options = [str(tmp_path / "labels.json") if option == "LABELS" else option for option in options]
    assert export([f"local-dir:{DIGITS}", "--model-store", str(tmp_path), "--abstain", "0.6", *options]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("given", ["0", "1.1", "sixty", "nan"])
def test_a_number_that_is_no_probability_is_refused(given, capsys):
    with pytest.raises(SystemExit):
        export(["local-dir:x", "--abstain", given])
    assert "expected a probability above 0, up to 1" in capsys.readouterr().err


def test_an_archive_without_them_is_written_as_before(digits_store, tmp_path):
    """Handlers from before the temperature and the abstention read it."""
    with zipfile.ZipFile(digits_store / "digits.mar") as file:
        file.extractall(tmp_path)
    head = Archive.read(tmp_path).settings.head
    assert (head.temperature, head.abstain) == (1, None)
    assert "temperature" not in (tmp_path / "model-config.yaml").read_text()
