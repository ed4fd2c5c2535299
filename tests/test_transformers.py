"""Folders that transformers saves, served: the answers must be transformers' own."""

import io
import json
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image
from sklearn.datasets import load_sample_images

from export.__main__ import main
from tests.conftest import export_to
from tests.in_process import handle, load

TINY = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 16,
    "id2label": {0: "cat", 1: "dog", 2: "owl"},
    "initializer_range": 0.1,  # so that the answers differ from each other
}
MODELS = {
    "ViTForImageClassification": (transformers.ViTConfig, transformers.ViTImageProcessor),
    "DeiTForImageClassification": (transformers.DeiTConfig, transformers.DeiTImageProcessor),
    "DeiTForImageClassificationWithTeacher": (transformers.DeiTConfig, transformers.DeiTImageProcessor),
}


def save(folder, architecture="ViTForImageClassification", processing=None, **config):
    """A small model of random weights, saved by transformers; returns it and its image processor."""
    config_class, processor_class = MODELS[architecture]
    torch.manual_seed(0)
    model = getattr(transformers, architecture)(config_class(**TINY | config)).eval()
    sizes = {"size": {"height": 32, "width": 32}}
    if processor_class is transformers.DeiTImageProcessor:
        sizes = {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}}
    processor = processor_class(**sizes | (processing or {}))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize(
    "config", [{}, {"hidden_act": "gelu_new", "qkv_bias": False, "layer_norm_eps": 1e-6}], ids=["plain", "other"]
)
def test_the_answers_are_transformers_own(architecture, config, tmp_path):
    model, processor = save(tmp_path / "saved", architecture, **config)
    archive = export_to(tmp_path / "store", f"local-dir:{tmp_path / 'saved'}", "--top-k", "3")
    handler, context = load(archive, tmp_path / "unpacked")
    pictures = [bytearray(Path(file).read_bytes()) for file in load_sample_images().filenames]  # two photographs
    for picture, answer in zip(pictures, handle(handler, context, [{"body": picture} for picture in pictures]), strict=True):
        pixels = processor(Image.open(io.BytesIO(picture)).convert("RGB"), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            probs = model(pixels).logits.softmax(1)[0]
        expected = {label: probs[index].item() for index, label in TINY["id2label"].items()}
        # Its processor resizes tensors, where the handler, as timm, resizes the picture: off by 1/255 here and there.
        assert answer == pytest.approx(expected, abs=0.01)
        # The model itself is the same to rounding.
        exact = torch.jit.load(tmp_path / "unpacked" / "model.pt")(pixels).softmax(1)[0]
        torch.testing.assert_close(exact, probs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda config, processor: config.update(architectures=["BertModel"]), "holds a BertModel"),
        (lambda config, processor: config.update(hidden_act="mish"), "has the activation 'mish'"),
        (lambda config, processor: config.update(num_hidden_layers=3), "12 keys missing (blocks.2"),
        (lambda config, processor: config.update(id2label=["cat", "dog", "owl"]), "of another kind"),
        (lambda config, processor: processor.update(do_resize=False), "do_resize off"),
        (lambda config, processor: processor.update(rescale_factor="1/255"), "of another kind"),
        (lambda config, processor: processor.update(resample=0), "resample 0"),
        (lambda config, processor: processor.pop("size"), "lacks the setting 'size'"),
    ],
    ids=["architecture", "activation", "layers", "labels", "resize", "rescale", "resample", "size"],
)
def test_what_cannot_be_taken_over_is_one_clear_line(changed, message, tmp_path, capsys):
    folder = tmp_path / "saved"
    save(folder)
    contents = {name: json.loads((folder / name).read_text()) for name in ("config.json", "preprocessor_config.json")}
    changed(*contents.values())
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))
    capsys.readouterr()
    assert main([f"local-dir:{folder}", "--model-store", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
