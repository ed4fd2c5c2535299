"""Checkpoints as people have them: taken, or named for what they are."""

import argparse
import json
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from export.__main__ import main
from export.errors import ExportError
from export.sources.checkpoint import load_checkpoint
from export.sources.checkpoint_file import read_checkpoint
from tests.conftest import TINY, export_to, read


@pytest.fixture
def mine() -> nn.Module:
    torch.manual_seed(1)
    return timm.create_model("vit_tiny_patch16_224", num_classes=2, **TINY).eval()


def prefixed(weights: dict, prefix: str) -> dict:
    return {f"{prefix}{key}": value for key, value in weights.items()}


FORMS = {
    "Lightning": lambda weights: {"state_dict": prefixed(weights, "model."), "hyper_parameters": {"lr": 0.1}},
    "Lightning, compiled": lambda weights: {"state_dict": prefixed(weights, "net._orig_mod.")},
    "model_state_dict": lambda weights: {"epoch": 3, "model_state_dict": weights, "optimizer_state_dict": {"state": {}}},
    "EMA in a module": lambda weights: {"state_dict": {}, "ema": {"module": weights, "decay": 0.9}},
    "net": lambda weights: {"net": weights, "acc": 0.9},
    "compiled and data parallel": lambda weights: prefixed(weights, "module._orig_mod."),
    "a prefix of one's own": lambda weights: prefixed(weights, "backbone."),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_of_training_programs_are_taken(form, mine, tmp_path):
    torch.save(FORMS[form](mine.state_dict()), tmp_path / "mine.ckpt")
    loaded = timm.create_model("vit_tiny_patch16_224", num_classes=2, **TINY)
    load_checkpoint(loaded, read_checkpoint(tmp_path / "mine.ckpt"))
    assert all(torch.equal(value, mine.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_an_index_of_shards_is_read_whole(mine, tmp_path):
    weights = list(mine.state_dict().items())
    shards = {"a.safetensors": dict(weights[:5]), "b.safetensors": dict(weights[5:])}
    for name, part in shards.items():
        safetensors.torch.save_file(part, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {key: name for name, part in shards.items() for key in part}}))
    assert read_checkpoint(index).state_dict.keys() == mine.state_dict().keys()
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(ExportError, match=r"names b\.safetensors, which is not beside it"):
        read_checkpoint(index)


def test_weights_of_an_average_are_named_and_others_can_be_chosen(mine, tiny_model, tmp_path):
    weights, other = mine.state_dict(), {key: value + 1 for key, value in mine.state_dict().items()}
    torch.save({"state_dict": other, "state_dict_ema": weights}, tmp_path / "mine.pth")
    (tmp_path / "labels.txt").write_text("a\nb\n")
    options = ("--checkpoint", str(tmp_path / "mine.pth"), "--precision", "fp32", "--force")
    options += ("--labels", str(tmp_path / "labels.txt"))
    averaged = json.loads(read(export_to(tmp_path, f"local-dir:{tiny_model}", *options), "record.json"))
    assert averaged["weights"] == "checkpoint mine.pth, its state_dict_ema"
    plain = export_to(tmp_path, f"local-dir:{tiny_model}", *options, "--checkpoint-key", "state_dict")
    assert json.loads(read(plain, "record.json"))["weights_sha256"] != averaged["weights_sha256"]
    with pytest.raises(ExportError, match="no weights under 'ema2': it has state_dict_ema, state_dict"):
        read_checkpoint(tmp_path / "mine.pth", "ema2")


def test_an_older_layout_is_converted_as_timm_does(tmp_path):
    """BEiT's own checkpoints hold tensors that timm makes anew."""
    torch.manual_seed(0)
    model = timm.create_model("beit_base_patch16_224", num_classes=3, depth=1, embed_dim=48, num_heads=3)
    old = {"model": model.state_dict()}
    old["model"]["blocks.0.attn.relative_position_index"] = torch.zeros(2, 2)  # which timm no longer keeps
    torch.save(old, tmp_path / "old.pth")
    loaded = timm.create_model("beit_base_patch16_224", num_classes=3, depth=1, embed_dim=48, num_heads=3)
    load_checkpoint(loaded, read_checkpoint(tmp_path / "old.pth"))
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)


def wrong(folder: Path) -> dict[str, str]:
    """File name → what is said of it; the files are in `folder`."""
    (folder / "lfs.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    (folder / "page.pth").write_text("\n<!DOCTYPE html><html>404</html>")
    (folder / "empty.pth").write_bytes(b"")
    (folder / "model.onnx").write_bytes(b"\x08\x07")
    (folder / "keras.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(folder / "script.pt"))
    torch.save(Whole(), folder / "whole.pth")
    torch.save(nn.Linear(2, 2), folder / "linear.pth")
    torch.save([torch.zeros(1)], folder / "list.pth")
    weights = timm.create_model("vit_tiny_patch16_224", num_classes=3, **TINY).state_dict()
    torch.save(weights | {"head.bias": torch.tensor([1.0, float("nan"), 0.0])}, folder / "nan.pth")
    torch.save({1: torch.zeros(1)}, folder / "numbers.pth")
    torch.save({"a": torch.zeros(1)}, folder / "cut.pth")
    (folder / "cut.pth").write_bytes((folder / "cut.pth").read_bytes()[:200])
    (folder / "x.index.json").write_text("[]")
    return {
        "lfs.safetensors": "a pointer of Git LFS",
        "page.pth": "an HTML page",
        "empty.pth": "it is empty",
        "model.onnx": "an ONNX model",
        "keras.h5": "an HDF5 file",
        "script.pt": "a TorchScript program",
        "whole.pth": "could run code: save model.state_dict() alone",
        "linear.pth": "a whole module (torch.nn.modules.linear.Linear)",
        "list.pth": "holds a list",
        "nan.pth": "the weights head.bias hold numbers that are not finite",
        "numbers.pth": "holds no state dict",
        "cut.pth": "no weights could be read from",
        "x.index.json": "is no index of shards",
    }


def test_what_is_no_checkpoint_is_named_for_what_it_is(tiny_model, tmp_path, capsys):
    for name, said in wrong(tmp_path).items():
        arguments = [f"local-dir:{tiny_model}", "--checkpoint", str(tmp_path / name), "--model-store", str(tmp_path / "store")]
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, (name, error)


def test_what_the_training_said_is_compared(mine, tmp_path, capsys):
    """timm's train.py keeps its arguments in the checkpoint."""
    model = timm.create_model("test_vit", num_classes=2)
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    arguments = argparse.Namespace(model="test_vit", mean=[0.1, 0.2, 0.3], std=None, img_size=None, crop_pct=0.5, lr=0.1)
    torch.save({"arch": "test_vit", "state_dict": model.state_dict(), "args": arguments}, tmp_path / "mine.pth")
    command = ["--checkpoint", str(tmp_path / "mine.pth"), "--labels", str(labels), "--model-store", str(tmp_path), "--force"]
    assert main(["test_vit", *command]) == 0
    printed = capsys.readouterr().out
    assert "mine.pth was trained with mean (0.1, 0.2, 0.3), and is served with (0.5, 0.5, 0.5): see --mean" in printed
    assert "trained with crop_pct 0.5" in printed and "trained with std" not in printed
    assert main(["test_vit", *command, "--mean", "0.1,0.2,0.3", "--crop-pct", "0.5"]) == 0
    assert "trained with" not in capsys.readouterr().out
    assert main(["test_vit2", *command]) == 1
    assert "says that it was trained as test_vit, and not as test_vit2" in capsys.readouterr().err


def test_position_embeddings_of_another_size_point_to_the_option(mine, tmp_path, capsys):
    other = timm.create_model("vit_tiny_patch16_224", num_classes=3, **{**TINY, "img_size": 64})
    torch.save(other.state_dict(), tmp_path / "large.pth")
    small = timm.create_model("vit_tiny_patch16_224", num_classes=3, **TINY)
    with pytest.raises(ExportError, match=r"pos_embed is \[1, 17, 48\] in the file.*--img-size sets the size"):
        load_checkpoint(small, read_checkpoint(tmp_path / "large.pth"))


PACKAGE = {
    "layers.py": "from torch import nn\nclass Last(nn.Linear):\n    pass\n",
    "late.py": "def twice(x):\n    return 2 * x\n",
    "net.py": """
from dataclasses import dataclass
import torch
from torch import nn
from .layers import Last

@dataclass
class Config:
    classes: int = 3

class Net(nn.Module):
    def __init__(self, config=Config()):
        super().__init__()
        torch.manual_seed(0)
        self.pool, self.last = nn.AdaptiveAvgPool2d(2), Last(12, config.classes)

    def forward(self, pixels):
        from late import twice
        return twice(self.last(self.pool(pixels).flatten(1)))
""",
}


@pytest.mark.parametrize("relative", [True, False])
def test_a_module_may_have_dataclasses_relative_imports_and_imports_when_it_runs(relative, tmp_path):
    folder = tmp_path / f"nets_{relative}"
    folder.mkdir()
    for name, text in PACKAGE.items():
        (folder / name).write_text(text if relative else text.replace("from .layers", "from layers"))
    archive = export_to(tmp_path, f"{folder}/net.py:Net", "--img-size", "32", "--model-name", "net", "--precision", "fp32")
    assert json.loads(read(archive, "index_to_name.json")) == {"0": "0", "1": "1", "2": "2"}
