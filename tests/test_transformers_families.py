"""Every family of image classifiers that transformers saves answers as transformers' own processor and model do."""

import io
import json
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image
from timm.data import create_transform, resolve_data_config

from export.__main__ import main
from export.pictures import PHOTOGRAPHS
from tests.conftest import export_to
from vit_core.predictor import Predictor
from vit_core.request import Request

PICTURES = [(PHOTOGRAPHS / name).read_bytes() for name in ("chelsea.jpg", "coffee.jpg", "rocket.jpg")]
# Wider than high: on a square one, squashing and cropping are the same.
_wide = io.BytesIO()
Image.open(io.BytesIO(PICTURES[1])).convert("RGB").crop((0, 60, 380, 250)).save(_wide, "PNG")
PICTURES.append(_wide.getvalue())
SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96, "initializer_range": 0.2}
VIT = {**SMALL, "image_size": 32, "patch_size": 8}
SQUARE = {"size": {"height": 32, "width": 32}}
STAGES = {"depths": [1, 1], "hidden_sizes": [16, 32], "num_stages": 2, "out_features": None}
FAMILIES = {
    "ViT": (VIT, "ViTImageProcessor", SQUARE),
    "DeiT": (VIT, "DeiTImageProcessor", {"size": {"height": 36, "width": 36}, "crop_size": {"height": 32, "width": 32}}),
    "Beit": ({**VIT, "use_relative_position_bias": True}, "BeitImageProcessor", {**SQUARE, "do_center_crop": False}),
    "Data2VecVision": (VIT, "BeitImageProcessor", {**SQUARE, "do_center_crop": False}),
    "ViTMSN": (VIT, "ViTImageProcessor", SQUARE),
    "Dinov2": (
        {**SMALL, "mlp_ratio": 2, "image_size": 32, "patch_size": 8},
        "BitImageProcessor",
        {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}},
    ),
    "Swin": (
        {"image_size": 32, "patch_size": 2, "embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
        "ViTImageProcessor",
        SQUARE,
    ),
    "ConvNext": (
        {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 56}, "crop_pct": 0.875},
    ),
    "ConvNextV2": (
        {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 384}, "crop_pct": 0.875},
    ),
    "ResNet": (
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 64}, "crop_pct": 0.875},
    ),
    "RegNet": (
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 8},
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 64}, "crop_pct": 0.875},
    ),
    "MobileViT": (
        {
            "image_size": 64,
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 16, 24, 32, 40, 48],
            "initializer_range": 0.3,
        },
        "MobileViTImageProcessor",
        {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}},
    ),
    "EfficientNet": (
        {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320, "initializer_range": 0.3},
        "EfficientNetImageProcessor",
        {"size": {"height": 64, "width": 64}, "resample": 2, "rescale_offset": False, "include_top": True},
    ),
    "Siglip": ({"vision_config": VIT}, "SiglipImageProcessor", SQUARE),
}


@torch.inference_mode()
def logits_of(model, processor) -> torch.Tensor:
    """[pictures, classes], as transformers' own processor and model have them."""
    images = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in PICTURES]
    return model(processor(images, return_tensors="pt")["pixel_values"]).logits


def saved(folder: Path, family: str, **config):
    """A small model of random weights that differ enough for the answers to differ, and its processor."""
    values, processor_name, processing = FAMILIES[family]
    torch.manual_seed(0)
    labels = {0: "cat", 1: "dog", 2: "owl"}
    config = getattr(transformers, f"{family}Config")(**values, id2label=labels, **config)
    model = getattr(transformers, f"{family}ForImageClassification")(config).eval()
    processor = getattr(transformers, processor_name)(**processing)
    spread = logits_of(model, processor).std(0).mean()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "classifier" in name and parameter.dim() == 2:
                parameter.mul_(0.5 / spread)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor, labels


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answers_are_transformers_own(family, tmp_path):
    model, processor, labels = saved(tmp_path / "saved", family)
    archive = export_to(tmp_path, f"local-dir:{tmp_path / 'saved'}", "--precision", "fp32", "--model-name", "net")
    answers = Predictor.load(archive).answer([Request([picture], top_k=3) for picture in PICTURES])
    expected = logits_of(model, processor).softmax(1)
    assert (expected.amax(0) - expected.amin(0)).max() > 0.05  # the pictures do get different answers
    for probs, answer in zip(expected.tolist(), answers, strict=True):
        assert answer.body == pytest.approx({labels[index]: value for index, value in enumerate(probs)}, abs=1e-3)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("ViT", {"size": 32}),
        ("ConvNext", {"size": 56}),
        ("ConvNextV2", {"size": 384}),
        ("Dinov2", {"size": 36, "crop_size": 32}),
        ("MobileViT", {"size": 72, "crop_size": 64}),
    ],
)
def test_a_size_of_one_number_means_what_the_processor_means_by_it(family, changes, tmp_path):
    model, _, labels = saved(tmp_path / "saved", family)
    edited(tmp_path / "saved", "preprocessor_config.json", **changes)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "saved")
    archive = export_to(tmp_path, f"local-dir:{tmp_path / 'saved'}", "--precision", "fp32", "--model-name", "net")
    answers = Predictor.load(archive).answer([Request([picture], top_k=3) for picture in PICTURES])
    for probs, answer in zip(logits_of(model, processor).softmax(1).tolist(), answers, strict=True):
        assert answer.body == pytest.approx({labels[index]: value for index, value in enumerate(probs)}, abs=1e-3)


@pytest.mark.parametrize(
    ("problem_type", "activation"),
    [
        ("multi_label_classification", torch.sigmoid),
        ("regression", lambda x: x),
        ("single_label_classification", lambda x: x.softmax(0)),
    ],
)
def test_the_problem_type_says_what_the_outputs_mean(problem_type, activation, tmp_path):
    model, processor, labels = saved(tmp_path / "saved", "ViT", problem_type=problem_type)
    archive = export_to(tmp_path, f"local-dir:{tmp_path / 'saved'}", "--precision", "fp32", "--model-name", "net")
    (answer,) = Predictor.load(archive).answer([Request([PICTURES[0]], top_k=3)])
    expected = activation(logits_of(model, processor)[0])
    assert answer.body == pytest.approx({labels[index]: value for index, value in enumerate(expected.tolist())}, abs=5e-3)


def test_a_model_of_timms_that_transformers_has_wrapped_is_timms(tmp_path):
    config = transformers.TimmWrapperConfig(architecture="test_vit", num_labels=3)
    torch.manual_seed(0)
    model = transformers.TimmWrapperForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "saved")
    archive = export_to(tmp_path, f"local-dir:{tmp_path / 'saved'}", "--precision", "fp32", "--model-name", "net")
    transform = create_transform(**resolve_data_config({}, model=model.timm_model))
    with torch.inference_mode():
        expected = model(transform(Image.open(io.BytesIO(PICTURES[0])).convert("RGB"))[None]).logits.softmax(1)[0]
    (answer,) = Predictor.load(archive).answer([Request([PICTURES[0]], top_k=3)])
    assert answer.body == pytest.approx({f"LABEL_{index}": value for index, value in enumerate(expected.tolist())}, abs=1e-4)


def edited(folder: Path, name: str, **changes) -> None:
    content = json.loads((folder / name).read_text()) | changes
    (folder / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.mark.parametrize(
    ("family", "file", "changes", "message"),
    [
        ("ViT", "config.json", {"problem_type": "captioning"}, "problem_type is 'captioning'"),
        ("ViT", "preprocessor_config.json", {"do_pad": True}, "asks for do_pad, which the handler does not do"),
        ("ViT", "preprocessor_config.json", {"size": {"longest_edge": 32}}, "asks for the size {'longest_edge': 32}"),
        ("ViT", "preprocessor_config.json", {"size": {"shortest_edge": 32}}, "crops nothing"),
        ("Dinov2", "preprocessor_config.json", {"resample": 0}, "asks for resample 0"),
        (
            "ConvNext",
            "preprocessor_config.json",
            {"image_processor_type": "PoolFormerImageProcessor"},
            "PoolFormerImageProcessor",
        ),
        (
            "Dinov2",
            "preprocessor_config.json",
            {"image_processor_type": "LevitImageProcessor"},
            "LevitImageProcessor: known are",
        ),
        ("Dinov2", "preprocessor_config.json", {"image_processor_type": None}, "of an unnamed kind"),
        ("Dinov2", "preprocessor_config.json", {"crop_pct": 0.9}, "asks for crop_pct"),
        ("Dinov2", "config.json", {"num_hidden_layers": 3}, "lacks weights of its model, which would be random"),
        ("Dinov2", "config.json", {"architectures": ["Dinov2Model"]}, "holds a Dinov2Model"),
        ("Dinov2", "config.json", {"model_type": "nonsense"}, "transformers could not load"),
    ],
)
def test_what_has_no_counterpart_is_refused_in_one_line(family, file, changes, message, tmp_path, capsys):
    saved(tmp_path / "saved", family)
    edited(tmp_path / "saved", file, **changes)
    capsys.readouterr()
    assert main([f"local-dir:{tmp_path / 'saved'}", "--model-store", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_folder_without_its_processor_says_so(tmp_path, capsys):
    saved(tmp_path / "saved", "Dinov2")
    (tmp_path / "saved" / "preprocessor_config.json").unlink()
    capsys.readouterr()
    assert main([f"local-dir:{tmp_path / 'saved'}", "--model-store", str(tmp_path)]) == 1
    assert "preprocessor_config.json could not be read" in capsys.readouterr().err


def test_shards_of_a_vit_are_read(tmp_path):
    model, _, _ = saved(tmp_path / "saved", "ViT")
    (tmp_path / "saved" / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "saved", max_shard_size="30KB")
    assert (tmp_path / "saved" / "model.safetensors.index.json").exists()
    export_to(tmp_path, f"local-dir:{tmp_path / 'saved'}", "--precision", "fp32")


def test_without_transformers_there_is_one_line(tmp_path, monkeypatch, capsys):
    saved(tmp_path / "saved", "Swin")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    capsys.readouterr()
    assert main([f"local-dir:{tmp_path / 'saved'}", "--model-store", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "pip install transformers" in error and error.count("\n") == 1
