"""The model's weights among others: what fits is taken, what is left out is named, and what is not clear is refused."""

import pytest
import timm
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from export.__main__ import main
from export.errors import ExportError
from export.sources.checkpoint import load_checkpoint
from export.sources.checkpoint_file import read_checkpoint
from tests.conftest import TINY


def tiny(**changes) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", **{"num_classes": 2, **TINY, **changes})


@pytest.fixture(scope="module")
def mine() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return tiny().state_dict()


def prefixed(weights: dict, prefix: str) -> dict:
    return {f"{prefix}{key}": value for key, value in weights.items()}


def backbone(weights: dict, head: str = "head.") -> dict:
    """As a module of one's own has them: a backbone, and a head next to it."""
    return {
        (key.replace("head.", head) if key.startswith("head.") else f"backbone.{key}"): each for key, each in weights.items()
    }


ONE = torch.ones(1)
LOSS = {"criterion.weight": ONE, "loss_fn.pos_weight": ONE}
METRICS = {"train_acc.tp": ONE, "val_metrics.f1.tp": ONE, "test_f1.fn": ONE, "acc1.total": ONE, "valAUROC.preds": ONE}
TEACHER = prefixed(
    timm.create_model("vit_tiny_patch16_224", num_classes=2, **{**TINY, "embed_dim": 96}).state_dict(), "teacher."
)


def load(content: dict, folder, key: str | None = None, **changes) -> tuple[nn.Module, list[str]]:
    torch.save(content, folder / "mine.ckpt")
    module = tiny(**changes)
    return module, load_checkpoint(module, read_checkpoint(folder / "mine.ckpt", key))


TAKEN = {
    "a loss beside Lightning's model": (
        lambda w: {"state_dict": prefixed(w, "model.") | LOSS},
        "2 keys (criterion.weight, loss_fn",
    ),
    "metrics": (lambda w: prefixed(w, "net.") | METRICS, "5 keys (acc1.total, test_f1.fn, train_acc.tp, …)"),
    "nested": (lambda w: prefixed(w, "model.net.") | LOSS, "2 keys"),
    "a compiled model": (lambda w: prefixed(w, "model._orig_mod.") | LOSS, "2 keys"),
    "another teacher": (lambda w: prefixed(w, "student.") | TEACHER, f"{len(TEACHER)} keys (teacher.blocks.0.attn.proj.bias"),
    "torch's average": (lambda w: AveragedModel(tiny()).state_dict() | prefixed(w, "module."), "1 keys (n_averaged)"),
    "a backbone and its head": (backbone, None),
    "these in a module": (lambda w: prefixed(backbone(w), "model."), None),
    "a backbone, its head and a loss": (lambda w: backbone(w) | LOSS, "2 keys (criterion.weight"),
}


@pytest.mark.parametrize("form", TAKEN)
def test_the_models_weights_are_taken_and_the_others_named(form, mine, tmp_path):
    content, said = TAKEN[form]
    module, left_out = load(content(mine), tmp_path)
    assert all(torch.equal(value, mine[key]) for key, value in module.state_dict().items())
    assert bool(left_out) == bool(said)
    assert not said or (said in left_out[0] and "left out" in left_out[0])


NOT_CLEAR = {
    "two that fit": (
        lambda w: prefixed(w, "student.") | prefixed(w, "teacher."),
        "fit the model under student. and teacher.: choose with --checkpoint-key, student say",
    ),
    "a layer after the model": (
        lambda w: prefixed(w, "backbone.") | {"fc.weight": ONE, "fc.bias": ONE},
        "2 keys (fc.bias, fc.weight) that may be a part of it: --checkpoint-key backbone leaves them out",
    ),
    "a layer in between": (lambda w: backbone(w) | {"neck.weight": ONE}, "2 keys missing (head.bias, head.weight)"),
    "a head of another name": (lambda w: backbone(w, "fc."), "beside them it has 2 keys (fc.bias, fc.weight)"),
    "a loss in the model": (lambda w: w | LOSS, "2 keys unexpected (criterion.weight, loss_fn.pos_weight)"),
    "whole numbers": (lambda w: {key: each.to(torch.int8) for key, each in w.items()}, "torch.int8 in the file"),
    "no numbers": (lambda w: {key: each.to("meta") for key, each in w.items()}, "could not be loaded"),
    "entries of other names": (lambda w: {"student": w, "teacher": w}, "--checkpoint-key takes one of student, teacher"),
}


@pytest.mark.parametrize("form", NOT_CLEAR)
def test_what_is_not_clear_is_refused(form, mine, tmp_path):
    content, message = NOT_CLEAR[form]
    with pytest.raises(ExportError) as caught:
        load(content(mine), tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_prefix_can_be_chosen(mine, tmp_path):
    other = {key: value + 1 for key, value in mine.items()}
    both = prefixed(mine, "student.") | prefixed(other, "teacher.module.") | {"fc.weight": ONE}
    for content, key, weights in (
        (both, "teacher", other),
        ({"state_dict": both}, "teacher.module.", other),
        ({"epoch": 1, "state_dict": both}, "student", mine),
        ({"student": mine, "teacher": other}, "teacher", other),
    ):
        module, left_out = load(content, tmp_path, key)
        assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
        assert not left_out
    with pytest.raises(ExportError, match="no weights under 'ema': it has a state dict alone"):
        load(both, tmp_path, "ema")


@pytest.mark.parametrize("own", [False, True])
def test_the_export_says_what_it_has_left_out(own, mine, tiny_model, tmp_path, capsys):
    text = f"import timm\ndef build():\n    return timm.create_model('vit_tiny_patch16_224', num_classes=2, **{TINY})\n"
    (tmp_path / "net.py").write_text(text)
    torch.save({"state_dict": prefixed(mine, "model.") | LOSS}, tmp_path / "mine.ckpt")
    (tmp_path / "labels.txt").write_text("a\nb\n")
    options = ["--checkpoint", str(tmp_path / "mine.ckpt"), "--labels", str(tmp_path / "labels.txt"), "--precision", "fp32"]
    options += ["--img-size", "32"] if own else []
    model = f"{tmp_path}/net.py:build" if own else f"local-dir:{tiny_model}"
    assert main([model, *options, "--model-store", str(tmp_path)]) == 0
    said = "mine.ckpt has 2 keys (criterion.weight, loss_fn.pos_weight) beside the model's: they are left out"
    assert said in capsys.readouterr().out


def test_what_the_training_said_may_be_anything(mine, tmp_path):
    torch.save(
        {"state_dict": mine, "hyper_parameters": {"arch": torch.ones(2), "mean": torch.ones(3), "lr": 1}}, tmp_path / "a.pt"
    )
    assert read_checkpoint(tmp_path / "a.pt").arguments == {"lr": 1}


def test_a_shard_that_holds_no_weights_is_named(tmp_path):
    torch.save([ONE], tmp_path / "a.bin")
    (tmp_path / "x.index.json").write_text('{"weight_map": {"head.bias": "a.bin"}}')
    with pytest.raises(ExportError, match=r"a\.bin holds a list: expected a part of the weights"):
        read_checkpoint(tmp_path / "x.index.json")
