"""The export step: what it makes of the options that it is given, and what it prints."""

import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import version

import pytest
import timm
import torch
import yaml
from timm.data import resolve_model_data_config

import handler
from export.__main__ import main
from tests.conftest import ROOT, export_to, read


def test_the_archive_holds_the_model_and_all_that_serving_it_needs(tiny_model, tmp_path):
    archive = export_to(
        tmp_path / "store", f"local-dir:{tiny_model}", "--batch-size", "16", "--workers", "2", "--version", "2.1"
    )
    eager = timm.create_model(f"local-dir:{tiny_model}", pretrained=True).eval()

    config = yaml.safe_load(read(archive, "model-config.yaml"))
    resolved = resolve_model_data_config(eager)
    assert config["handler"]["preprocessing"] == {
        key: list(value) if isinstance(value, tuple) else value for key, value in resolved.items()
    }
    assert (config["batchSize"], config["minWorkers"], config["maxWorkers"], config["maxBatchDelay"]) == (16, 2, 2, 1)
    assert json.loads(read(archive, "index_to_name.json")) == {"0": "cat", "1": "dog", "2": "owl"}
    manifest = json.loads(read(archive, "MAR-INF/MANIFEST.json"))["model"]
    assert (manifest["modelName"], manifest["modelVersion"]) == ("tiny", "2.1")
    with zipfile.ZipFile(archive) as file:
        modules = {name for name in file.namelist() if name.endswith(".py")}
    code = {file.relative_to(handler.FOLDER).as_posix() for file in handler.FOLDER.rglob("*.py")}
    assert modules == code - {"__init__.py"}
    assert {"vit_handler.py", "vit_torchserve.py", "vit_core/predictor.py"} < modules

    (tmp_path / "model.pt").write_bytes(read(archive, "model.pt"))
    traced = torch.jit.load(tmp_path / "model.pt")
    pixels = torch.randn(5, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(traced(pixels), eager(pixels), rtol=1e-4, atol=1e-5)


def test_the_command_prints_a_summary(tiny_model, tmp_path, capsys):
    assert main([f"local-dir:{tiny_model}", "--model-store", str(tmp_path)]) == 0
    summary = capsys.readouterr().out
    for part in (
        "M parameters",
        "3 x 32 x 32, bicubic",
        "3: cat; dog; owl",
        "batch 1, 3, 8",
        "top-1 agreement 100%",
        "tiny.mar",
    ):
        assert part in summary


def test_imagenets_labels_are_unique(tmp_path):
    archive = export_to(tmp_path, "test_vit", "--no-pretrained")
    labels = list(json.loads(read(archive, "index_to_name.json")).values())
    assert len(set(labels)) == len(labels) == 1000
    assert [label for label in labels if label.startswith("crane")] == ["crane (n02012849)", "crane (n03126707)"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--img-size", "48"], {"input_size": [3, 48, 48]}),
        (["--in-chans", "1"], {"input_size": [1, 32, 32], "mean": [0.5], "std": [0.5]}),
        (["--mean", "0.1,0.2,0.3", "--std", "1,1,1"], {"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]}),
        (
            ["--interpolation", "bilinear", "--crop-pct", "1", "--crop-mode", "squash"],
            {"interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_preprocessing_can_be_set_otherwise(options, expected, tiny_model, tmp_path):
    own = yaml.safe_load(read(export_to(tmp_path, f"local-dir:{tiny_model}"), "model-config.yaml"))["handler"]
    archive = export_to(tmp_path, f"local-dir:{tiny_model}", "--model-name", "other", *options)
    actual = yaml.safe_load(read(archive, "model-config.yaml"))["handler"]
    for settings in (own, actual):  # the grid of patches and the number of operations go with the size
        del settings["explanations"], settings["flops"]
    assert actual == own | {"preprocessing": own["preprocessing"] | expected}


def test_another_image_size_resamples_the_position_embeddings(tiny_model, tmp_path):
    archive = export_to(tmp_path / "store", f"local-dir:{tiny_model}", "--img-size", "64")
    (tmp_path / "model.pt").write_bytes(read(archive, "model.pt"))
    larger = timm.create_model(f"local-dir:{tiny_model}", pretrained=True, img_size=64).eval()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        actual = torch.jit.load(tmp_path / "model.pt")(pixels)
        torch.testing.assert_close(actual, larger(pixels), rtol=1e-4, atol=1e-5)


def test_a_convolutional_net_takes_another_image_size(tmp_path):
    archive = export_to(tmp_path, "mobilenetv3_small_050", "--no-pretrained", "--img-size", "96")
    assert yaml.safe_load(read(archive, "model-config.yaml"))["handler"]["preprocessing"]["input_size"] == [3, 96, 96]


def test_an_archive_says_what_it_is(tiny_model, tmp_path, capsys):
    archive = export_to(tmp_path, f"local-dir:{tiny_model}")
    module = timm.create_model(f"local-dir:{tiny_model}", pretrained=True)
    capsys.readouterr()
    assert main(["--show", str(archive)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["model"], record["weights"], record["num_classes"]) == ("tiny", "its own", 3)
    assert record["parameters"] == sum(parameter.numel() for parameter in module.parameters())
    assert record["preprocessing"]["input_size"] == [3, 32, 32]
    assert record["check"]["batch_sizes"] == [1, 3, 8] and record["check"]["top1_agreement"] == 1
    assert record["versions"] == {"torch": version("torch"), "timm": version("timm")}

    with torch.no_grad():
        module.head.bias[0] += 1e-3
    torch.save(module.state_dict(), tmp_path / "other.pth")
    options = ("--checkpoint", str(tmp_path / "other.pth"), "--model-name", "other")
    other = json.loads(read(export_to(tmp_path, f"local-dir:{tiny_model}", *options), "record.json"))
    assert other["weights"] == "checkpoint other.pth"
    assert other["weights_sha256"] != record["weights_sha256"]


def test_show_does_not_wait_for_torch(tiny_model, tmp_path):
    archive = export_to(tmp_path, f"local-dir:{tiny_model}")
    command = [sys.executable, "-X", "importtime", "-m", "export", "--show", str(archive)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert json.loads(result.stdout)["model"] == "tiny"
    assert "| torch\n" not in result.stderr


@pytest.mark.parametrize(("options", "least", "most"), [((), 1, 24), (("--workers", "1"), 1, 1)])
def test_workers_can_be_added_unless_their_number_was_asked_for(options, least, most, tiny_model, tmp_path):
    config = yaml.safe_load(read(export_to(tmp_path, f"local-dir:{tiny_model}", *options), "model-config.yaml"))
    assert (config["minWorkers"], config["maxWorkers"]) == (least, most)


def test_a_trace_with_the_cpu_baked_in_is_kept_off_gpus(tiny_model, tmp_path, capsys):
    assert main([f"local-dir:{tiny_model}", "--model-store", str(tmp_path)]) == 0
    assert "device   any" in capsys.readouterr().out
    assert "deviceType" not in yaml.safe_load(read(tmp_path / "tiny.mar", "model-config.yaml"))
    # Its position encoding counts with torch.arange(..., device=...).
    assert main(["xcit_nano_12_p16_224", "--no-pretrained", "--img-size", "64", "--model-store", str(tmp_path)]) == 0
    assert "device   CPU alone" in capsys.readouterr().out
    assert yaml.safe_load(read(tmp_path / "xcit_nano_12_p16_224.mar", "model-config.yaml"))["deviceType"] == "cpu"


def test_progress_is_shown_on_a_terminal_and_not_in_a_pipe(tiny_model, tmp_path):
    command = [sys.executable, "-m", "export", f"local-dir:{tiny_model}", "--force", "--model-store", str(tmp_path)]
    piped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (piped.returncode, piped.stderr) == (0, "")
    controller, terminal = os.openpty()
    shown = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=terminal, text=True, timeout=120)
    os.close(terminal)
    steps = os.read(controller, 10_000).decode()
    os.close(controller)
    assert shown.stdout == piped.stdout
    assert all(step in steps for step in ("creating", "tracing", "side by side", "packing"))
    assert steps.endswith("\r\033[K")  # wiped off at the end


def test_help_does_not_wait_for_torch():
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "export", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0
    assert "examples:" in result.stdout
    assert "| torch\n" not in result.stderr
