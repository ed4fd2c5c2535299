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
from tests.conftest import export_to
from tests.saved_by_transformers import FAMILIES, PICTURES, edited, logits_of, saved
from vit_core.predictor import Predictor
from vit_core.request import Request


@pytest.fixture(autouse=True)
def one_thread(process_as_it_was):
    """Models this small gain nothing from several threads, which wait for each other where the machine is busy."""
    torch.set_num_threads(1)


def answers(folder: Path) -> list[dict[str, float]]:
    """What the archive of a folder answers to the pictures."""
    archive = export_to(folder.parent, f"local-dir:{folder}", "--precision", "fp32", "--model-name", "net")
    return [answer.body for answer in Predictor.load(archive).answer([Request([picture], top_k=3) for picture in PICTURES])]


def expected_of(model, processor, labels) -> list[dict[str, float]]:
    rows = logits_of(model, processor).softmax(1).tolist()
    return [pytest.approx({labels[index]: value for index, value in enumerate(row)}, abs=1e-3) for row in rows]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answers_are_transformers_own(family, tmp_path):
    model, processor, labels = saved(tmp_path / "saved", family)
    probabilities = logits_of(model, processor).softmax(1)
    assert (probabilities.amax(0) - probabilities.amin(0)).max() > 0.05  # the pictures do get different answers
    assert answers(tmp_path / "saved") == expected_of(model, processor, labels)


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
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "saved", backend="pil")
    assert answers(tmp_path / "saved") == expected_of(model, processor, labels)


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


def test_a_processor_without_a_name_is_that_of_the_models_type(tmp_path):
    expected = expected_of(*saved(tmp_path / "saved", "Dinov2"))
    edited(tmp_path / "saved", "preprocessor_config.json", image_processor_type=None)
    assert answers(tmp_path / "saved") == expected


def test_a_processor_may_be_a_part_of_a_whole_one(tmp_path):
    expected = expected_of(*saved(tmp_path / "saved", "CLIP"))
    part = tmp_path / "saved" / "preprocessor_config.json"
    (tmp_path / "saved" / "processor_config.json").write_text(json.dumps({"image_processor": json.loads(part.read_text())}))
    edited(tmp_path / "saved", "preprocessor_config.json", size=99)  # transformers prefers the whole one
    assert answers(tmp_path / "saved") == expected


@pytest.mark.parametrize("family", ["ViT", "Swin"])
def test_the_names_of_two_classes_that_transformers_leaves_out_are_its_own(family, tmp_path):
    model, processor, _ = saved(tmp_path / "saved", family, id2label={0: "LABEL_0", 1: "LABEL_1"})
    assert "id2label" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    assert answers(tmp_path / "saved") == expected_of(model, processor, model.config.id2label)


def test_a_vits_mlp_may_be_of_any_width(tmp_path):
    expected = expected_of(*saved(tmp_path / "saved", "ViT", hidden_size=21, intermediate_size=59))  # 21 * (59 / 21) is 58.99…
    assert answers(tmp_path / "saved") == expected


@pytest.mark.parametrize(
    ("family", "file", "changes", "message"),
    [
        ("ViT", "config.json", {"problem_type": "captioning"}, "problem_type is 'captioning'"),
        ("ViT", "preprocessor_config.json", {"do_pad": True}, "asks for do_pad, which the handler does not do"),
        ("ViT", "preprocessor_config.json", {"size": {"longest_edge": 32}}, "asks for the size {'longest_edge': 32}"),
        ("ViT", "preprocessor_config.json", {"size": {"shortest_edge": 32}}, "crops nothing"),
        ("Dinov2", "preprocessor_config.json", {"resample": 0}, "asks for resample 0"),
        (
            "Dinov2",
            "preprocessor_config.json",
            {"image_processor_type": "YolosImageProcessor"},
            "YolosImageProcessor: known are",
        ),
        ("Dinov2", "preprocessor_config.json", {"crop_pct": 0.9}, "asks for crop_pct"),
        ("Dinov2", "config.json", {"num_hidden_layers": 3}, "lacks weights of its model, which would be random"),
        ("Dinov2", "config.json", {"architectures": ["Dinov2Model"]}, "holds a Dinov2Model"),
        ("Dinov2", "config.json", {"model_type": "nonsense"}, "transformers could not load"),
        ("Dinov2", "config.json", {"model_type": "siglip2"}, "a model of the type siglip2, which takes patches"),
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


def test_code_in_a_folder_is_not_run(tmp_path, monkeypatch, capsys):
    saved(tmp_path / "saved", "Dinov2")
    own = {"AutoConfig": "own.Config", "AutoModelForImageClassification": "own.Net"}
    edited(tmp_path / "saved", "config.json", auto_map=own, model_type="own")
    (tmp_path / "saved" / "own.py").write_text("raise RuntimeError('it was run')")
    monkeypatch.setattr("builtins.input", lambda question: "yes")  # transformers would ask
    assert main([f"local-dir:{tmp_path / 'saved'}", "--model-store", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "contains custom code" in error and "it was run" not in error


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
