"""Pretrained weights from the hub: timm's real loading code against a hub on loopback."""

import json
import os
import subprocess
import sys
import zipfile

import pytest
import timm
import torch
import transformers

from export.sources.hub import transformers_repository
from tests.conftest import ROOT
from tests.hub import hub


def export(*arguments: str, endpoint: str, cache) -> subprocess.CompletedProcess:
    """In a process of its own: the hub's library reads its settings when it is imported."""
    command = [sys.executable, "-m", "export", *arguments]
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_a_model_from_the_hub_is_downloaded_once_and_then_served_from_the_cache(tiny_model, tmp_path):
    options = ["hf-hub:zoo/tiny-vit", "--model-store", str(tmp_path / "store")]
    with hub({"zoo/tiny-vit": tiny_model}) as endpoint:
        result = export(*options, endpoint=endpoint, cache=tmp_path / "cache")
        assert result.returncode == 0, result.stderr
    with zipfile.ZipFile(tmp_path / "store" / "tiny-vit.mar") as archive:
        archive.extractall(tmp_path / "unpacked")
    assert list(json.loads((tmp_path / "unpacked" / "index_to_name.json").read_text()).values()) == ["cat", "dog", "owl"]
    eager = timm.create_model(f"local-dir:{tiny_model}", pretrained=True).eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        actual = torch.jit.load(tmp_path / "unpacked" / "model.pt")(pixels)
        torch.testing.assert_close(actual, eager(pixels), rtol=1e-4, atol=1e-5)

    # The hub is gone by now.
    again = export(*options, "--force", endpoint=endpoint, cache=tmp_path / "cache")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("missing", ["repository", "weights"])
def test_what_the_hub_does_not_have_is_one_clear_line(missing, tiny_model, tmp_path):
    repositories = {}
    if missing == "weights":
        (tiny_model / "model.safetensors").unlink()
        repositories = {"zoo/tiny-vit": tiny_model}
    with hub(repositories) as endpoint:
        result = export("hf-hub:zoo/tiny-vit", "--model-store", str(tmp_path), endpoint=endpoint, cache=tmp_path / "cache")
    assert result.returncode == 1
    assert result.stderr.startswith("export: timm could not create hf-hub:zoo/tiny-vit:")
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.mar"))


def test_a_repository_that_transformers_saved_is_taken_too(tmp_path):
    config = transformers.Dinov2Config(
        hidden_size=48, num_hidden_layers=1, num_attention_heads=3, image_size=28, id2label={0: "cat", 1: "dog"}
    )
    torch.manual_seed(0)
    transformers.Dinov2ForImageClassification(config).save_pretrained(tmp_path / "dino")
    size = {"height": 28, "width": 28}
    transformers.ViTImageProcessor(size=size).save_pretrained(tmp_path / "dino")
    options = ["hf-hub:zoo/dino", "--model-store", str(tmp_path / "store"), "--precision", "fp32"]
    with hub({"zoo/dino": tmp_path / "dino"}) as endpoint:
        result = export(*options, endpoint=endpoint, cache=tmp_path / "cache")
        assert result.returncode == 0, result.stderr
    assert "pretrained, hf-hub:zoo/dino" in result.stdout and "2: cat; dog" in result.stdout
    # From the cache, without a network.
    result = export(*options, "--force", endpoint="http://127.0.0.1:9", cache=tmp_path / "cache")
    assert result.returncode == 0, result.stderr


def test_a_processor_is_downloaded_under_both_of_its_names(tmp_path, monkeypatch):
    asked = []

    def download(repository, file, revision):
        asked.append(file)
        (tmp_path / file).write_text('{"architectures": ["CLIPForImageClassification"]}')
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert transformers_repository("hf-hub:zoo/clip") == tmp_path
    assert {"preprocessor_config.json", "processor_config.json"} <= set(asked)
