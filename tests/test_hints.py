"""What is probably not meant is said, with what to write in its place."""

import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from export.__main__ import main

MODULE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 3))
"""


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("folder", "local-dir:folder is the model in that folder"),
        ("./folder/", "local-dir:./folder/ is the model in that folder"),
        ("net.py", "net.py:NAME is the module that the callable NAME of that file returns"),
        ("best.pth", "a file of weights goes behind --checkpoint, and MODEL is their architecture"),
        ("folder/model.safetensors", "a file of weights goes behind --checkpoint"),
        ("vit_tiny_patch16_224.pth", "a file of weights goes behind --checkpoint"),
        ("model.onnx", "an ONNX model cannot be traced"),
        ("net.py:", "net.py:NAME is the module that the callable NAME of that file returns"),
        ("xray.mar", "that is an archive already; --show xray.mar says what is in it"),
        ("https://huggingface.co/timm/vit_tiny_patch16_224", "hf-hub:timm/vit_tiny_patch16_224 is the repository of that page"),
        ("hf.co/timm/vit_tiny_patch16_224/tree/main", "hf-hub:timm/vit_tiny_patch16_224 is the repository of that page"),
        ("s3://bucket/model.pth", "nothing is loaded from addresses"),
        ("torchvision:resnet18", "did you mean "),
        (
            "google/vit-base-patch16-224",
            "hf-hub:google/vit-base-patch16-224 is the repository of that name; did you mean vit_",
        ),
        ("somebody/something", "hf-hub:somebody/something is the repository of that name"),
        ("vit_base_patch16_225", "did you mean vit_base_patch16_224"),
    ],
)
def test_a_model_that_timm_does_not_know_is_told_how_to_be_named(given, hint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    assert main([given]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"export: timm has no model named '{given}'")
    assert hint in error and error.count("\n") == 1


def test_a_folder_in_the_place_of_a_checkpoint_is_told_which_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def said() -> str:
        assert main(["vit_tiny_patch16_224", "--checkpoint", "run"]) == 1
        error = capsys.readouterr().err
        assert error.startswith("export: run is a folder: --checkpoint takes ") and error.count("\n") == 1
        return error

    Path("run").mkdir()
    assert "a file, and none in it looks like weights" in said()
    for name in ("last.pth", "best.pth", "log.txt"):
        Path("run", name).write_text("")
    assert "one of its files, run/best.pth say" in said()
    Path("run", "config.json").write_text("{}")
    assert "MODEL takes local-dir:run, if timm or transformers saved it" in said()


def test_a_folder_without_weights_says_so(tiny_model, tmp_path, capsys):
    (tiny_model / "model.safetensors").unlink()
    options = [f"local-dir:{tiny_model}", "--model-store", str(tmp_path)]
    assert main(options) == 1
    error = capsys.readouterr().err
    assert "holds config.json and no weights: put model.safetensors beside it" in error and error.count("\n") == 1
    assert main([*options, "--no-pretrained"]) == 0


def test_random_weights_are_warned_of(tmp_path, capsys):
    options = ["--no-pretrained", "--img-size", "32", "--num-classes", "3", "--precision", "fp32"]
    assert main(["vit_tiny_patch16_224", "--model-store", str(tmp_path), *options]) == 0
    assert "warning  the weights are random: --checkpoint FILE gives trained ones" in capsys.readouterr().out


def test_trained_weights_are_not(tiny_model, tmp_path, capsys):
    assert main([f"local-dir:{tiny_model}", "--model-store", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "random" not in printed and "timm's defaults" not in printed
    assert re.search(r"^mean     0\.5, 0\.5, 0\.5; std 0\.5, 0\.5, 0\.5$", printed, re.MULTILINE)


def test_preprocessing_that_nobody_has_said_is_named(tmp_path, capsys):
    (tmp_path / "net.py").write_text(MODULE)
    options = [f"{tmp_path / 'net.py'}:build", "--model-store", str(tmp_path), "--force", "--precision", "fp32"]
    assert main(options) == 0
    said = "the module does not say what pixels it wants, and gets timm's defaults: "
    pixels = "--img-size 224 x 224; --interpolation bicubic; --crop-pct 0.875"
    numbers = "--mean 0.485, 0.456, 0.406; --std 0.229, 0.224, 0.225"
    assert f"warning  {said}{pixels}; {numbers}\n" in capsys.readouterr().out
    known = ["--img-size", "64", "--interpolation", "bilinear", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]
    assert main([*options, *known]) == 0
    assert f"warning  {said}--crop-pct 0.875\n" in capsys.readouterr().out
    assert main([*options, *known, "--crop-pct", "1"]) == 0
    assert "timm's defaults" not in capsys.readouterr().out


def test_embeddings_that_are_all_the_same_are_warned_of(tiny_model, tmp_path, capsys):
    weights = load_file(tiny_model / "model.safetensors")
    norm = {key: torch.zeros_like(each) if key in ("norm.weight", "norm.bias") else each for key, each in weights.items()}
    norm["norm.bias"] += 1
    save_file(norm, tiny_model / "model.safetensors")
    assert main([f"local-dir:{tiny_model}", "--model-store", str(tmp_path), "--task", "embed"]) == 0
    assert "warning  all 12 pictures, photographs and noise, get the same embedding" in capsys.readouterr().out


def test_a_full_disk_is_one_line_and_nothing_is_left(tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    assert main([f"local-dir:{tiny_model}", "--model-store", str(tmp_path / "store")]) == 1
    error = capsys.readouterr().err
    assert re.search(r"could not be written to .*store: it takes \d+ MB meanwhile, and 5 MB are free there\n$", error)
    assert error.count("\n") == 1 and not list((tmp_path / "store").iterdir())


def test_a_model_store_that_cannot_be_written_to_is_refused_before_anything_is_done(tiny_model, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("export.pipeline.create_classifier", None)
    assert main([f"local-dir:{tiny_model}", "--model-store", str(tmp_path / "file" / "store")]) == 1
    assert capsys.readouterr().err.endswith(f"{tmp_path / 'file'} is no folder\n")
    monkeypatch.setattr(os, "access", lambda *_: False)  # as on a disk that is mounted to be read alone
    assert main([f"local-dir:{tiny_model}", "--model-store", str(tmp_path / "store")]) == 1
    assert capsys.readouterr().err.endswith(f"{tmp_path} cannot be written to\n")
