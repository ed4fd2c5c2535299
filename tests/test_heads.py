"""What the model's numbers become: probabilities of one class or of each, scores as they are; and what cannot be meant."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.__main__ import main
from tests.conftest import export_to
from vit_core.predictor import Predictor
from vit_core.request import Request, Sent

NETS = """
import torch
from torch import nn

class Linear(nn.Module):
    def __init__(self, classes=4, last=nn.Identity()):
        super().__init__()
        torch.manual_seed(1)
        self.pool, self.head, self.last = nn.AdaptiveAvgPool2d(4), nn.Linear(48, classes), last

    def forward(self, pixels):
        return self.last(3 * self.head(self.pool(pixels).flatten(1)))

def plain(): return Linear()
def one(): return Linear(1)
def softmaxed(): return Linear(last=nn.Softmax(1))
def sigmoided(): return Linear(last=nn.Sigmoid())

class Same(nn.Module):
    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, pixels):
        return self.logits + 1e-6 * pixels.mean((1, 2, 3))[:, None]

class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=False)
        self.patches, self.head = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, 3)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, pixels):
        return self.head(self.encoder(self.patches(pixels).flatten(2).transpose(1, 2)).mean(1))

class BatchNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, pixels):
        return self.head(nn.functional.batch_norm(pixels.mean((2, 3)), None, None, training=True))

class Unfinished(Linear):
    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.head.weight[1, 2] = float("nan")

class Overflowing(Linear):
    def forward(self, pixels):
        return super().forward(pixels) * 1e38 * 1e38

class BlackIsNotANumber(Linear):
    def forward(self, pixels):
        return super().forward(pixels) + torch.sqrt(pixels.mean((1, 2, 3)) + 1 - 1e-6)[:, None]
"""


@pytest.fixture
def net(tmp_path) -> str:
    file = tmp_path / "net.py"
    file.write_text(NETS)
    return str(file)


def archive_of(net: str, name: str, tmp_path: Path, *options: str) -> Path:
    sizes = ("--img-size", "32", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--crop-pct", "1")
    return export_to(tmp_path / "store", f"{net}:{name}", "--model-name", "net", "--force", *sizes, *options)


def png(seed: int = 0, black: bool = False) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8) * (not black)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def logits_of(seed: int, name: str = "Linear") -> torch.Tensor:
    namespace: dict = {}
    exec(NETS, namespace)
    pixels = torch.from_numpy(np.asarray(Image.open(io.BytesIO(png(seed)))).copy()).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return namespace[name]().eval()(pixels.float() / 127.5 - 1)[0]


def asked(archive: Path, **options) -> dict:
    (answer,) = Predictor.load(archive).answer([Request([png()], **options)])
    return answer.body


@pytest.mark.parametrize(
    ("head", "expected"),
    [("softmax", lambda x: x.softmax(0)), ("sigmoid", torch.sigmoid), ("none", lambda x: x)],
    ids=["softmax", "sigmoid", "none"],
)
def test_each_head_gives_its_scores_and_the_raw_ones_where_they_are_asked_for(head, expected, net, tmp_path):
    archive = archive_of(net, "plain", tmp_path, "--head", head, "--precision", "fp32")
    logits = logits_of(0)
    for options, scores in (({}, expected(logits)), ({"raw_scores": True}, logits)):
        answer = asked(archive, top_k=4, **options)
        assert answer == pytest.approx({str(index): value for index, value in enumerate(scores.tolist())}, abs=1e-5)
        assert list(answer.values()) == sorted(answer.values(), reverse=True)


@pytest.mark.parametrize("given", [{"raw_scores": b"true"}, {"X-Raw-Scores": "1"}])
def test_raw_scores_are_an_option_of_a_request(given, net, tmp_path):
    predictor = Predictor.load(archive_of(net, "plain", tmp_path, "--precision", "fp32"))
    fields = {"data": png(), **{name: value for name, value in given.items() if isinstance(value, bytes)}}
    headers = {name: value for name, value in given.items() if isinstance(value, str)}
    (answer,) = predictor.answer([Sent(fields, headers)])
    assert answer.body == pytest.approx({str(index): value for index, value in enumerate(logits_of(0).tolist())}, abs=1e-5)
    (error,) = predictor.answer([Sent({"data": png(), "raw_scores": b"maybe"})])
    assert (error.code, error.type) == (400, "BadOption") and "raw_scores should be true or false" in error.message


def test_thresholds_decide_which_labels_a_sigmoid_answers_with(net, tmp_path):
    probabilities = torch.sigmoid(logits_of(0)).tolist()
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\n")
    labelled = dict(zip("abcd", probabilities, strict=True))
    own = {label: value + (0.01 if label in "ac" else -0.01) for label, value in labelled.items()}
    (tmp_path / "thresholds.json").write_text(json.dumps(own))
    options = ("--head", "sigmoid", "--labels", str(tmp_path / "labels.txt"), "--precision", "fp32")
    one_for_each = archive_of(net, "plain", tmp_path, *options, "--thresholds", str(tmp_path / "thresholds.json"))
    assert asked(one_for_each).keys() == {"b", "d"}
    assert asked(one_for_each, threshold=0.0).keys() == set("abcd")  # the request's takes the place of the archive's
    assert len(asked(one_for_each, top_k=1)) == 1
    middle = sorted(probabilities)[1:3]
    one_for_all = archive_of(net, "plain", tmp_path, *options, "--thresholds", str(sum(middle) / 2))
    assert asked(one_for_all).keys() == {label for label, value in labelled.items() if value >= middle[1]}


def test_with_thresholds_or_scores_no_label_is_cut_off(net, tmp_path):
    for options, count in (
        (("--head", "sigmoid", "--thresholds", "0"), 4),
        (("--head", "none"), 4),
        (("--head", "none", "--top-k", "2"), 2),
    ):
        assert len(asked(archive_of(net, "plain", tmp_path, *options))) == count


def test_a_threshold_is_a_probability_only_where_the_answer_is_one(net, tmp_path):
    archive = archive_of(net, "plain", tmp_path, "--precision", "fp32")
    (error,) = Predictor.load(archive).answer([Request([png()], threshold=1.5)])
    assert (error.code, error.type) == (400, "BadOption") and "from 0 to 1, not 1.5" in error.message
    least = logits_of(0).median().item()
    raw = asked(archive, raw_scores=True, threshold=least)
    assert raw and min(raw.values()) >= least
    scores = asked(archive_of(net, "plain", tmp_path, "--head", "none", "--precision", "fp32"), threshold=-1000.0)
    assert len(scores) == 4


def test_a_score_that_is_not_finite_is_a_500_of_that_image_alone(net, tmp_path, caplog):
    predictor = Predictor.load(archive_of(net, "BlackIsNotANumber", tmp_path, "--head", "none"))
    good, bad, several, other = predictor.answer(
        [Request([png(1)]), Request([png(black=True)]), Request([png(2), png(black=True)]), Request([png(3)])]
    )
    assert [(error.code, error.type) for error in (bad, several)] == [(500, "NotFinite")] * 2
    for answer in (good, other):
        assert len(answer.body) == 4 and np.isfinite(list(answer.body.values())).all()
    assert "not finite for 2 of 5 images" in caplog.text
    json.dumps(good.body, allow_nan=False)


# --- what cannot be meant is refused by name, what looks wrong is said ---


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("one", [], "a model of one class always answers 1.0 with softmax: --head sigmoid"),
        ("softmaxed", [], "the model's outputs are probabilities already"),
        ("Mixing", [], "the model mixes the images of a batch: an output differs by"),
        ("BatchNorm", [], "the model fails on a batch of 1 with ValueError: Expected more than 1 value per channel"),
        ("Unfinished", [], "the weights head.weight hold numbers that are not finite"),
        ("Overflowing", [], "the model's outputs are not finite for real pictures"),
        ("plain", ["--std", "0.5,0,0.5"], "std is 0.5, 0.0, 0.5: expected numbers above 0"),
        ("plain", ["--std", "nan,1,1"], "std is nan, 1.0, 1.0"),
        ("plain", ["--mean", "0.5,inf,0.5"], "mean is 0.5, inf, 0.5"),
        ("plain", ["--thresholds", "0.5"], "--thresholds are for --head sigmoid, not for softmax"),
        ("plain", ["--head", "sigmoid", "--thresholds", "1.5"], "should be a probability from 0 to 1"),
        ("plain", ["--head", "sigmoid", "--thresholds", "/nowhere.json"], "could not be read from /nowhere.json"),
        ("plain", ["--head", "sigmoid", "--thresholds", "some.json"], "'3' is in one of both alone"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(name, options, message, net, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("some.json").write_text('{"0": 0.5, "1": 0.5, "2": 0.5}')
    assert main([f"{net}:{name}", "--img-size", "32", "--model-store", str(tmp_path / "store"), *options]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


# All that a module of one's own does not say by itself.
PIXELS = ["--img-size", "32", "--interpolation", "bicubic", "--crop-pct", "1", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]


@pytest.mark.parametrize(
    ("name", "options", "warning"),
    [
        ("Same", [], "all 12 pictures, photographs and noise, get the same answer"),
        ("Same", ["--head", "none"], "all 12 pictures"),
        ("sigmoided", ["--head", "sigmoid"], "all outputs are between 0 and 1"),
        ("plain", [], None),
        ("plain", ["--head", "sigmoid"], None),
        ("softmaxed", ["--head", "none"], None),
        ("one", ["--head", "none"], None),
    ],
)
def test_what_looks_wrong_is_said(name, options, warning, net, tmp_path, capsys):
    arguments = [f"{net}:{name}", "--model-name", "net", *PIXELS, "--model-store", str(tmp_path / "store"), *options]
    assert main(arguments) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(said) == (warning is not None) and (warning or "") in "".join(said)
