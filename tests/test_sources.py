"""Weights and modules of the user's own."""

import argparse
import json
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import yaml

from export.__main__ import main
from tests.conftest import TINY, export_to, read


@pytest.mark.parametrize("form", ["state dict", "safetensors", "training checkpoint", "data parallel", "EMA"])
def test_a_checkpoint_of_ones_own_is_served(form, tiny_model, tmp_path):
    """Of two classes, where the model's own head has three: the number is read from the checkpoint."""
    torch.manual_seed(1)
    mine = timm.create_model("vit_tiny_patch16_224", num_classes=2, **TINY).eval()
    weights, stale = mine.state_dict(), {key: torch.zeros_like(value) for key, value in mine.state_dict().items()}
    file = tmp_path / "mine.pth"
    if form == "safetensors":
        file = file.with_suffix(".safetensors")
        safetensors.torch.save_file(weights, file)
    else:
        prefixed = {f"module.{key}": value for key, value in weights.items()}
        saved = {
            "state dict": weights,
            "training checkpoint": {"epoch": 3, "state_dict": weights, "args": argparse.Namespace(lr=0.1)},
            "data parallel": {"model": prefixed},
            "EMA": {"state_dict": stale, "state_dict_ema": weights},
        }
        torch.save(saved[form], file)
    (tmp_path / "labels.txt").write_text("healthy\nill\n")
    options = ("--checkpoint", str(file), "--labels", str(tmp_path / "labels.txt"))
    archive = export_to(tmp_path / "store", f"local-dir:{tiny_model}", *options)
    assert json.loads(read(archive, "index_to_name.json")) == {"0": "healthy", "1": "ill"}
    (tmp_path / "model.pt").write_bytes(read(archive, "model.pt"))
    pixels = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(torch.jit.load(tmp_path / "model.pt")(pixels), mine(pixels), rtol=1e-4, atol=1e-5)


OWN = """
import timm
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = timm.create_model("test_vit", num_classes=0)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(self.backbone.num_features, 2))

    def forward(self, pixels):
        return self.head(self.backbone(pixels))

def features():
    return nn.Conv2d(3, 8, 3)

def broken():
    raise RuntimeError("no such luck")

number = lambda: 3
"""


def test_a_module_of_ones_own_is_served(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(OWN)
    namespace = {}
    exec(OWN, namespace)
    torch.manual_seed(1)
    mine = namespace["Net"]().eval()
    torch.save(mine.state_dict(), "mine.pth")
    archive = export_to(tmp_path, "net.py:Net", "--checkpoint", "mine.pth", "--model-name", "mine")
    config = yaml.safe_load(read(archive, "model-config.yaml"))["handler"]
    assert config["preprocessing"]["input_size"] == list(mine.backbone.pretrained_cfg["input_size"])
    assert json.loads(read(archive, "index_to_name.json")) == {"0": "0", "1": "1"}
    Path("model.pt").write_bytes(read(archive, "model.pt"))
    pixels = torch.randn(2, *config["preprocessing"]["input_size"])
    with torch.inference_mode():
        torch.testing.assert_close(torch.jit.load("model.pt")(pixels), mine(pixels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.py:Net"], "no file at nowhere.py"),
        (["net.py:Other"], "net.py has no callable named Other"),
        (["net.py:broken"], "net.py:broken failed with RuntimeError: no such luck"),
        (["net.py:number"], "net.py:number returned a int, expected a torch.nn.Module"),
        (["net.py:features"], "for two images, expected logits [2, classes]"),
        (["net.py:Net", "--img-size", "31"], "net.py:Net failed on an input of 3 x 31 x 31"),
        (["net.py:Net", "--num-classes", "5"], "net.py:Net has 2 classes, not the 5 of --num-classes"),
        (["net.py:Net", "--checkpoint", "mine.pth"], "keys missing (backbone."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_with_ones_own_module_is_one_clear_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(OWN)
    torch.save({"head.1.bias": torch.zeros(2)}, "mine.pth")
    assert main([*arguments, "--model-store", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


class Evil:
    """Would write a file when it is unpickled."""

    def __reduce__(self):
        return (open, ("evil.txt", "w"))


def test_a_checkpoint_cannot_run_code(tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "hook": Evil()}, "evil.pth")
    assert main([f"local-dir:{tiny_model}", "--checkpoint", "evil.pth", "--model-store", str(tmp_path)]) == 1
    assert "could run code" in capsys.readouterr().err
    assert not Path("evil.txt").exists()
