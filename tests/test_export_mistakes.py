"""Every mistake is one line, and says what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from export.__main__ import main
from tests.conftest import ROOT, TINY


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
    error = capsys.readouterr().err
    assert error.startswith("python -m export: ") and error.endswith("; python -m export --help lists the options\n")
    assert error.count("\n") == 1


def test_without_a_network_there_is_one_clear_line(tmp_path):
    # Port 9 of loopback: nothing listens there.
    result = run(
        "vit_tiny_patch16_224", "--model-store", str(tmp_path), HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path)
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "not in the cache, and http://127.0.0.1:9 cannot be reached" in result.stderr
    assert not list(tmp_path.glob("*.mar"))
