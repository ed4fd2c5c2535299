"""The export step, from its command line to the bytes in the archive."""

import argparse
import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import yaml
from timm.data import resolve_model_data_config
from timm.layers import StdConv2dSame
from torch import nn

from export.__main__ import main
from export.errors import ExportError
from export.fold import fold
from export.trace import prove, trace
from tests.conftest import ROOT, TINY, export_to

INPUT_SIZE = [3, 32, 32]


def read(archive: Path, name: str) -> bytes:
    with zipfile.ZipFile(archive) as file:
        return file.read(name)


def test_the_archive_holds_the_model_and_all_that_serving_it_needs(tiny_model, tmp_path):
    archive = export_to(
        tmp_path / "store", f"local-dir:{tiny_model}", "--batch-size", "16", "--workers", "2", "--version", "2.1"
    )
    eager = timm.create_model(f"local-dir:{tiny_model}", pretrained=True).eval()

    config = yaml.safe_load(read(archive, "model-config.yaml"))
    resolved = resolve_model_data_config(eager)
    assert {key: config["handler"][key] for key in resolved} == {
        key: list(value) if isinstance(value, tuple) else value for key, value in resolved.items()
    }
    assert (config["batchSize"], config["minWorkers"], config["maxWorkers"], config["maxBatchDelay"]) == (16, 2, 2, 1)
    assert json.loads(read(archive, "index_to_name.json")) == {"0": "cat", "1": "dog", "2": "owl"}
    manifest = json.loads(read(archive, "MAR-INF/MANIFEST.json"))["model"]
    assert (manifest["modelName"], manifest["modelVersion"]) == ("tiny", "2.1")
    with zipfile.ZipFile(archive) as file:
        modules = {name for name in file.namelist() if name.endswith(".py")}
    assert modules == {path.name for path in (ROOT / "handler").glob("*.py")}

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
    assert config["input_size"] == list(mine.backbone.pretrained_cfg["input_size"])
    assert json.loads(read(archive, "index_to_name.json")) == {"0": "0", "1": "1"}
    Path("model.pt").write_bytes(read(archive, "model.pt"))
    pixels = torch.randn(2, *config["input_size"])
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
    own.pop("explain"), actual.pop("explain")  # has the grid of patches, which goes with the size
    assert actual == own | expected


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
    assert yaml.safe_load(read(archive, "model-config.yaml"))["handler"]["input_size"] == [3, 96, 96]


def test_an_archive_says_what_it_is(tiny_model, tmp_path, capsys):
    archive = export_to(tmp_path, f"local-dir:{tiny_model}")
    module = timm.create_model(f"local-dir:{tiny_model}", pretrained=True)
    capsys.readouterr()
    assert main(["--show", str(archive)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["model"], record["weights"], record["num_classes"]) == ("tiny", "its own", 3)
    assert record["parameters"] == sum(parameter.numel() for parameter in module.parameters())
    assert record["preprocessing"]["input_size"] == [3, 32, 32]
    assert record["proof"]["batch_sizes"] == [1, 3, 8] and record["proof"]["top1_agreement"] == 1
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


# --- the proof: each of these traces without complaint, and is not the model ---


class BakedBatch(nn.Module):
    """Reshapes to the batch size of the traced example."""

    def forward(self, pixels):
        return pixels.reshape(int(pixels.shape[0]), -1)[:, :10]


class BakedBroadcast(nn.Module):
    """Adds a tensor of the batch size of the traced example, which fails for most others."""

    def forward(self, pixels):
        return pixels.flatten(1)[:, :10] + torch.zeros(len(pixels), 1)


class Random(nn.Module):
    def forward(self, pixels):
        return nn.functional.dropout(pixels.flatten(1)[:, :10], training=True)


class DependsOnItsInput(nn.Module):
    """Takes, in Python, the branch that the traced example asks for."""

    def forward(self, pixels):
        logits = pixels.flatten(1)[:, :10]
        return logits if pixels.shape[0] == 2 else -logits


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (BakedBatch(), "batch of 2 baked in"),
        (BakedBroadcast(), "batch of 2 baked in"),
        (Random(), "is random"),
        (DependsOnItsInput(), "depends on the input in Python"),
    ],
    ids=["batch size", "broadcast", "dropout", "branch"],
)
def test_the_proof_fails_when_the_trace_is_wrong(module, reason):
    module.eval()
    with pytest.raises(ExportError, match=reason):
        prove(module, trace(module, INPUT_SIZE), INPUT_SIZE)


def test_weight_standardization_is_done_once_and_changes_nothing():
    torch.manual_seed(0)
    hybrid = timm.create_model("vit_tiny_r_s16_p8_224", num_classes=3).eval()
    folded = fold(hybrid)
    assert any(isinstance(layer, StdConv2dSame) for layer in hybrid.modules())
    assert not any(isinstance(layer, StdConv2dSame) for layer in folded.modules())
    pixels = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(folded(pixels), hybrid(pixels), rtol=1e-5, atol=1e-5)
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=3, **TINY)
    assert fold(plain) is plain


@pytest.mark.parametrize("name", ["deit3_small_patch16_224", "vit_small_patch14_reg4_dinov2", "beitv2_base_patch16_224"])
def test_layer_scale_goes_into_the_layer_before_it_and_changes_nothing(name):
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=3, depth=2, img_size=28 if "dinov2" in name else 32).eval()
    gammas = [parameter for key, parameter in module.named_parameters() if "gamma" in key]
    for gamma in gammas:
        nn.init.normal_(gamma)
    folded = fold(module)
    assert len(gammas) == 4
    assert not [key for key, _ in folded.named_parameters() if "gamma" in key]
    pixels = torch.randn(2, 3, *folded.patch_embed.img_size)
    with torch.inference_mode():
        torch.testing.assert_close(folded(pixels), module(pixels), rtol=1e-4, atol=1e-4)


def test_the_proof_fails_for_one_changed_weight(tiny_model):
    module = timm.create_model(f"local-dir:{tiny_model}", pretrained=True).eval()
    traced = trace(copy.deepcopy(module), INPUT_SIZE)
    assert prove(module, traced, INPUT_SIZE).top1_agreement == 1
    with torch.no_grad():
        module.head.bias[0] += 0.01
    with pytest.raises(ExportError, match=r"differs from the model by 0\.01"):
        prove(module, traced, INPUT_SIZE)


# --- nothing is lost ---


def test_an_archive_is_replaced_only_with_force(tiny_model, tmp_path, capsys):
    archive = tmp_path / "tiny.mar"
    archive.write_bytes(b"the archive of yesterday")
    assert main([f"local-dir:{tiny_model}", "--model-store", str(tmp_path)]) == 1
    assert "--force replaces it" in capsys.readouterr().err
    assert archive.read_bytes() == b"the archive of yesterday"
    assert main([f"local-dir:{tiny_model}", "--model-store", str(tmp_path), "--force"]) == 0
    assert zipfile.is_zipfile(archive)


def test_a_failed_export_leaves_the_model_store_as_it_was(tiny_model, tmp_path, monkeypatch, capsys):
    store = tmp_path / "store"
    store.mkdir()
    (store / "tiny.mar").write_bytes(b"the archive of yesterday")
    monkeypatch.setattr("export.archive.ENTRY", "missing.py")  # the archiver fails in its last step
    assert main([f"local-dir:{tiny_model}", "--model-store", str(store), "--force"]) == 1
    assert "torch-model-archiver failed" in capsys.readouterr().err
    assert [(file.name, file.read_bytes()) for file in store.iterdir()] == [("tiny.mar", b"the archive of yesterday")]


def test_a_folder_of_the_models_name_in_the_temporary_directory_is_left_alone(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("three years of work")
    export_to(tmp_path / "a [b], c", f"local-dir:{tiny_model}", "--model-name", "precious")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "three years of work"


def test_two_exports_of_one_name_at_once_do_not_disturb_each_other(tiny_model, tmp_path):
    command = [sys.executable, "-m", "export", f"local-dir:{tiny_model}", "--force", "--model-store", str(tmp_path / "store")]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert [file.name for file in (tmp_path / "store").iterdir()] == ["tiny.mar"]
    assert zipfile.ZipFile(tmp_path / "store" / "tiny.mar").testzip() is None


def test_a_killed_export_leaves_the_old_archive_whole(tiny_model, tmp_path):
    store = tmp_path / "store"
    archive = export_to(store, f"local-dir:{tiny_model}")
    before = archive.read_bytes()
    command = [
        sys.executable,
        "-m",
        "export",
        f"local-dir:{tiny_model}",
        "--force",
        "--version",
        "2",
        "--model-store",
        str(store),
    ]
    process = subprocess.Popen(command, cwd=ROOT)
    while process.poll() is None and not list(store.glob(".unfinished-export-*/output/*")):
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL  # so it was in the middle of packing
    assert archive.read_bytes() == before
    assert len(list(store.iterdir())) == 2  # what it had made so far
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert list(store.iterdir()) == [archive]  # the next one clears it away
    assert archive.read_bytes() != before


# --- the same bytes ---


def test_two_builds_are_the_same_bytes_and_name_no_place_or_time(tiny_model, tmp_path):
    archives = []
    for number, umask in enumerate((0o022, 0o077)):
        # Another folder, another temporary directory, other permissions, and later by two seconds, the step of a zip's clock.
        checkout, temporary = tmp_path / f"checkout-{number}", tmp_path / f"temporary-{number}"
        temporary.mkdir()
        for package in ("export", "handler"):
            shutil.copytree(ROOT / package, checkout / package)
        command = [sys.executable, "-m", "export", f"local-dir:{tiny_model}"]
        subprocess.run(
            command, cwd=checkout, env={**os.environ, "TMPDIR": str(temporary)}, umask=umask, check=True, timeout=120
        )
        archives.append((checkout / "model_store" / "tiny.mar").read_bytes())
        time.sleep(2)
    assert archives[0] == archives[1]
    for place in (str(tmp_path), str(ROOT), sys.prefix, time.strftime("%d/%m/%Y")):
        assert place.encode() not in archives[0]


# --- every mistake is one line, and says what to do ---


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "export", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vit_tiny_patch16_225"], "timm has no model named 'vit_tiny_patch16_225'; did you mean vit_tiny_patch16_224,"),
        (["--show", "/nowhere.mar"], "/nowhere.mar cannot be read as an archive"),
        (["--show", "two.txt"], "two.txt cannot be read as an archive"),
        (["--show", "two.pth"], "two.pth has no record of itself"),
        (["local-dir:TINY", "--num-classes", "2"], "is pretrained for 3 classes, and a head of 2 would be random"),
        (["vit_tiny_patch16_dinov3_qkvb", "--no-pretrained"], "has no classifier head"),
        (["local-dir:TINY", "--mean", "0.5,0.5"], "mean has 2 values, but the model takes 3 channels"),
        (["local-dir:/nowhere"], "/nowhere holds no timm model"),
        (["local-dir:TINY", "--checkpoint", "/nowhere.pth"], "no checkpoint at /nowhere.pth"),
        (["local-dir:TINY", "--checkpoint", "TINY/config.json"], "no weights could be read from"),
        (
            ["local-dir:TINY", "--checkpoint", "other.pth"],
            "4 keys missing (blocks.0.attn.proj.bias, blocks.0.attn.proj.weight, ",
        ),
        (["local-dir:TINY", "--checkpoint", "wide.pth"], "pos_embed is [1, 5, 96] in the file, but [1, 5, 48] in the model"),
        (
            ["local-dir:TINY", "--checkpoint", "two.pth", "--num-classes", "3"],
            "a head of 2 classes, but the model was asked to",
        ),
        (["local-dir:TINY", "--checkpoint", "number.pth"], "holds no state dict"),
        (["local-dir:TINY", "--labels", "/nowhere.txt"], "could not be read from /nowhere.txt"),
        (["local-dir:TINY", "--labels", "two.txt"], "two.txt has 2 labels, but the model has 3 classes"),
        (["local-dir:TINY", "--labels", "same.txt"], "same.txt gives 'a' to more than one class"),
        (["local-dir:TINY", "--labels", "broken.json"], "broken.json is not JSON"),
        (["local-dir:TINY", "--labels", "number.json"], "should hold a JSON list of labels"),
        (["local-dir:TINY", "--model-store", "two.txt"], "could not be written to"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_is_one_clear_line(arguments, message, tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, text in {"two.txt": "a\nb\n", "same.txt": "a\nb\na\n", "broken.json": "[", "number.json": "3"}.items():
        Path(name).write_text(text)
    two = timm.create_model("vit_tiny_patch16_224", num_classes=2, **TINY).state_dict()
    torch.save(two, "two.pth")
    torch.save({key.replace("attn", "attention"): value for key, value in two.items()}, "other.pth")
    torch.save({**two, "pos_embed": torch.zeros(1, 5, 96)}, "wide.pth")
    torch.save({"loss": 0.1}, "number.pth")
    arguments = [argument.replace("TINY", str(tiny_model)) for argument in arguments]
    store = [] if {"--model-store", "--show"} & {*arguments} else ["--model-store", str(tmp_path / "store")]
    assert main([*arguments, *store]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("export: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not list(tmp_path.rglob("*.mar"))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["m", "--batch-size", "0"],
        ["m", "--max-batch-delay", "x"],
        ["m", "--model-name", "../evil"],
        ["m", "--nonsense"],
        ["local-dir:/my models/my model"],
        ["m", "--crop-pct", "0"],
        ["m", "--mean", "a,b"],
        ["m", "--in-chans", "4"],
        ["m", "--crop-mode", "x"],
    ],
    ids=" ".join,
)
def test_a_wrong_argument_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m export" in capsys.readouterr().err


def test_without_a_network_there_is_one_clear_line(tmp_path):
    # Port 9 of loopback: nothing listens there.
    result = run(
        "vit_tiny_patch16_224", "--model-store", str(tmp_path), HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path)
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "not in the cache, and http://127.0.0.1:9 cannot be reached" in result.stderr
    assert not list(tmp_path.glob("*.mar"))


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
