"""The size and crop that timm evaluates a model with, where they differ from those of its training."""

import io
import json
import math
import zipfile

import pytest
import timm
import torch
import yaml
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg

from export.errors import ExportError
from export.pictures import PHOTOGRAPHS
from export.preprocessing import Overrides, resolve_preprocessing
from tests.conftest import export_to
from vit_core.cost import Bounds
from vit_core.predictor import Predictor
from vit_core.request import Request

DIFFERENT = [
    name
    for name in timm.list_pretrained()
    if (config := get_pretrained_cfg(name)).test_input_size not in (None, config.input_size)
    or config.test_crop_pct not in (None, config.crop_pct)
]


@pytest.mark.parametrize("train_size", [False, True])
def test_every_model_has_the_size_that_timms_validation_gives_it(train_size):
    assert len(DIFFERENT) > 300
    compared = 0
    for name in DIFFERENT:
        config = get_pretrained_cfg(name).to_dict()
        expected = resolve_data_config({}, pretrained_cfg=config, use_test_size=not train_size)
        try:
            actual = resolve_preprocessing(config, Overrides(), train_size)
        except ExportError:
            continue  # asks for what the handler does not have
        assert (actual.input_size, actual.crop_pct) == (expected["input_size"], expected["crop_pct"])
        compared += 1
    assert compared > 300


def test_an_archive_answers_as_timms_evaluation_does_unless_the_size_of_the_training_is_asked_for(tmp_path):
    torch.manual_seed(0)
    name = "resnet10t.c3_in1k"  # trained at 176, tested at 224
    model = timm.create_model(name, num_classes=3).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    picture = (PHOTOGRAPHS / "coffee.jpg").read_bytes()
    options = ("--checkpoint", str(tmp_path / "weights.pth"), "--labels", str(tmp_path / "labels.txt"), "--precision", "fp32")
    for size, train in ((224, []), (176, ["--train-size"])):
        archive = export_to(tmp_path / "store", name, "--model-name", "net", "--force", *options, *train)
        with zipfile.ZipFile(archive) as file:
            settings = yaml.safe_load(file.read("model-config.yaml"))["handler"]
            assert json.loads(file.read("record.json"))["preprocessing"]["input_size"] == [3, size, size]
        assert settings["preprocessing"]["input_size"] == [3, size, size]
        transform = create_transform(**resolve_data_config({}, model=model, use_test_size=not train))
        with torch.inference_mode():
            expected = model(transform(Image.open(io.BytesIO(picture)).convert("RGB"))[None]).softmax(1)[0]
        (answer,) = Predictor.load(archive).answer([Request([picture])])
        assert answer.body == pytest.approx(dict(zip("abc", expected.tolist(), strict=True)), abs=1e-4)


def test_relevance_of_a_distilled_model_starts_at_both_of_its_tokens(tmp_path):
    """Its answer is the mean of two heads, one for the class token, one for the distillation token."""
    torch.manual_seed(0)
    options = {"img_size": 64, "embed_dim": 48, "depth": 2, "num_heads": 3}
    model = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3, **options)
    timm.models.save_for_hf(model, tmp_path / "net", model_config={"model_args": options}, safe_serialization=True)
    archive = export_to(tmp_path, f"local-dir:{tmp_path / 'net'}", "--precision", "fp32", "--img-size", "64")
    with zipfile.ZipFile(archive) as file:
        explanations = yaml.safe_load(file.read("model-config.yaml"))["handler"]["explanations"]
    assert (explanations["prefix_tokens"], explanations["answer_tokens"]) == (2, [0, 1])

    predictor, picture = Predictor.load(archive), (PHOTOGRAPHS / "coffee.jpg").read_bytes()
    explainer = predictor._explainer
    _, (pixels,) = predictor._prepare(Request([picture]), Bounds(), math.inf)

    def attention() -> list[torch.Tensor]:
        with torch.no_grad(), torch.jit.optimized_execution(False):
            return explainer._loaded().explain((pixels[None].float() / 255 - explainer._mean) / explainer._std)[2:]

    first, second = ((each[0].mean(0) + torch.eye(18)) / 2 for each in attention())
    rolled = (second @ first)[:2].sum(0)[2:]
    expected = (rolled - rolled.min()) / (rolled.max() - rolled.min())
    relevance = explainer.explain(pixels, 0, "rollout").relevance.flatten()
    torch.testing.assert_close(relevance, expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(expected, _of_the_class_token_alone(second @ first), atol=1e-2)


def _of_the_class_token_alone(rolled: torch.Tensor) -> torch.Tensor:
    row = rolled[0, 2:]
    return (row - row.min()) / (row.max() - row.min())
