"""CLIP's image towers: no classifiers, embeddings as CLIP's users mean them, and classes made from texts."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.models import get_pretrained_cfg, save_for_hf
from torch import nn

from export.__main__ import main
from export.pictures import PHOTOGRAPHS
from export.sources.clip import projects
from tests.conftest import TINY, export_to
from vit_core.predictor import Predictor
from vit_core.request import Request

PICTURE = (PHOTOGRAPHS / "chelsea.jpg").read_bytes()
TEXTS = ("a photo of a cat", "a photo of a dog", "a rocket")
FEATURES = 24


def folder_of(tmp_path: Path, name: str, **options) -> Path:
    torch.manual_seed(0)
    tower = timm.create_model(name, **options, **TINY)
    save_for_hf(tower, tmp_path / name, model_config={"model_args": {**options, **TINY}}, safe_serialization=True)
    return tmp_path / name


@pytest.fixture
def tower(tmp_path) -> Path:
    return folder_of(tmp_path, "vit_base_patch32_clip_224", num_classes=FEATURES, patch_size=8)


def eager(folder: Path) -> tuple[nn.Module, torch.Tensor]:
    """The tower as timm loads it, and the picture as timm prepares it."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model))
    return model, transform(Image.open(io.BytesIO(PICTURE)).convert("RGB"))[None]


def text_tower(features: int) -> torch.Tensor:
    """[texts, features]: a bag of words, each word a vector."""
    torch.manual_seed(2)
    words = sorted({word for text in TEXTS for word in text.split()})
    embedding = nn.Embedding(len(words), features)
    return torch.stack(
        [embedding(torch.tensor([words.index(word) for word in text.split()])).sum(0) for text in TEXTS]
    ).detach()


def test_every_clip_model_of_timms_is_known_and_no_other():
    found = set()
    for name in timm.list_pretrained():
        config = get_pretrained_cfg(name).to_dict()
        if projects(SimpleNamespace(pretrained_cfg=config, num_classes=config["num_classes"])):
            found.add(name)
    assert len(found) >= 108
    assert {"vit_base_patch32_clip_224.openai", "convnext_base.clip_laion2b", "vit_pe_core_base_patch16_224.fb"} <= found
    for name in found:
        assert get_pretrained_cfg(name).num_classes in (384, 512, 640, 768, 1024, 1152, 1280)
    for name in ("vit_base_patch16_clip_224.openai_ft_in1k", "vit_base_patch16_224_miil.in21k", "resnet50.a1_in1k"):
        assert name not in found


def test_as_a_classifier_such_a_model_is_refused_with_what_to_do(tower, tmp_path, capsys):
    assert main([f"local-dir:{tower}", "--model-store", str(tmp_path / "store")]) == 1
    error = capsys.readouterr().err
    assert f"its {FEATURES} outputs are an embedding, no classes" in error and error.count("\n") == 1
    assert "--task embed" in error and "--classes FILE --text-embeddings FILE" in error


def test_its_embedding_is_the_one_after_the_projection(tower, tmp_path):
    model, pixels = eager(tower)
    with torch.inference_mode():
        expected = model(pixels)[0].numpy()
    archive = export_to(tmp_path / "store", f"local-dir:{tower}", "--task", "embed", "--precision", "fp32")
    (answer,) = Predictor.load(archive).answer([Request([PICTURE])])
    assert len(answer.body) == FEATURES
    np.testing.assert_allclose(answer.body, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".pt"])
def test_classes_can_be_made_from_texts(suffix, tower, tmp_path):
    texts, file = text_tower(FEATURES), tmp_path / f"texts{suffix}"
    if suffix == ".npy":
        np.save(file, texts.numpy())
    elif suffix == ".pt":
        torch.save(texts, file)
    else:
        safetensors.torch.save_file({"texts": texts}, file)
    (tmp_path / "classes.txt").write_text("\n".join(TEXTS))
    model, pixels = eager(tower)
    with torch.inference_mode():
        embedding = model(pixels)
        cosines = nn.functional.cosine_similarity(embedding, texts)
    options = ("--classes", str(tmp_path / "classes.txt"), "--text-embeddings", str(file), "--precision", "fp32")
    archive = export_to(tmp_path / "store", f"local-dir:{tower}", *options, "--task", "classify,embed", "--logit-scale", "20")
    predictor = Predictor.load(archive)
    labels, embedded, explained = predictor.answer(
        [Request([PICTURE]), Request([PICTURE], task="embed"), Request([PICTURE], explains=True, target=TEXTS[1])]
    )
    assert labels.body == pytest.approx(dict(zip(TEXTS, (20 * cosines).softmax(0).tolist(), strict=True)), abs=1e-4)
    np.testing.assert_allclose(embedded.body, embedding[0].numpy(), rtol=1e-4, atol=1e-5)
    assert explained.body["class"] == TEXTS[1] and np.ptp(explained.body["relevance"]) > 0


def test_siglip_gives_a_probability_for_each_text(tmp_path):
    folder = folder_of(tmp_path, "vit_base_patch16_siglip_224", num_classes=0, patch_size=8)
    model, pixels = eager(folder)
    texts = text_tower(TINY["embed_dim"])
    np.save(tmp_path / "texts.npy", texts.numpy())
    (tmp_path / "classes.txt").write_text("\n".join(TEXTS))
    with torch.inference_mode():
        cosines = nn.functional.cosine_similarity(model(pixels), texts)
    options = ["--classes", str(tmp_path / "classes.txt"), "--text-embeddings", str(tmp_path / "texts.npy")]
    options += ["--head", "sigmoid", "--logit-scale", "10", "--logit-bias", "-2", "--precision", "fp32"]
    (answer,) = Predictor.load(export_to(tmp_path / "store", f"local-dir:{folder}", *options)).answer([Request([PICTURE])])
    assert answer.body == pytest.approx(dict(zip(TEXTS, torch.sigmoid(10 * cosines - 2).tolist(), strict=True)), abs=1e-4)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (np.zeros((3, FEATURES + 1)), f"holds 3 x {FEATURES + 1} numbers: expected one row of {FEATURES} for each class"),
        (np.zeros(FEATURES), f"holds {FEATURES} numbers"),
        (np.zeros((3, FEATURES)), "holds a row of zeros"),
        (np.full((3, FEATURES), np.nan), "numbers that are not finite"),
        (np.ones((2, FEATURES)), "has 3 labels, but the model has 2 classes"),
        (None, "no text embeddings could be read from"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(texts, message, tower, tmp_path, capsys):
    (tmp_path / "classes.txt").write_text("\n".join(TEXTS))
    if texts is not None:
        np.save(tmp_path / "texts.npy", texts)
    options = ["--classes", str(tmp_path / "classes.txt"), "--text-embeddings", str(tmp_path / "texts.npy")]
    assert main([f"local-dir:{tower}", *options, "--model-store", str(tmp_path / "store")]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_texts_for_a_classifier_are_refused(tiny_model, tmp_path, capsys):
    np.save(tmp_path / "texts.npy", np.ones((3, 48)))
    arguments = [f"local-dir:{tiny_model}", "--text-embeddings", str(tmp_path / "texts.npy"), "--model-store", str(tmp_path)]
    assert main(arguments) == 1
    assert "is no image tower of CLIP or SigLIP" in capsys.readouterr().err
