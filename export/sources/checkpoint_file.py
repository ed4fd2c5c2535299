"""What is in a checkpoint's file: the tensors by name, read without running any code that is in it."""

from __future__ import annotations

import argparse
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from timm.models import clean_state_dict

from export.errors import ExportError
from export.sources.hints import WEIGHTS

# Where training programs put the weights, those of a moving average first, as timm has it: they are what is evaluated.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
ENTRIES = (*AVERAGED, "state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
BEGINNINGS = {
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself: run git lfs pull",
    b"<!doctype html": "an HTML page, not weights: the download went wrong",
    b"<html": "an HTML page, not weights: the download went wrong",
    b"\x89hdf": "an HDF5 file, of Keras say: save a PyTorch state dict",
    b"\x1f\x8b": "compressed: unpack it first",
}


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a file, and what the training said beside them."""

    file: Path
    state_dict: dict[str, torch.Tensor]
    entry: str | None = None  # their key in the file, if it has other weights, too
    arguments: dict = field(default_factory=dict)  # of the training: `arch` or `model`, `mean`, `img_size` and so on

    @property
    def description(self) -> str:
        return f"checkpoint {self.file.name}" + (f", its {self.entry}" if self.entry else "")


def read_checkpoint(file: Path, entry: str | None = None) -> Checkpoint:
    """Reads `.safetensors`, what `torch.save` wrote, or the index of such files (`….index.json`).

    `entry` names the part of a training checkpoint that holds the weights, or the prefix of their keys. Raises ExportError
    where there are none in the file, and says what it is, and where reading it would run code.
    """
    if file.is_dir():
        raise ExportError(f"{file} is a folder: --checkpoint takes {_file_in(file)}")
    if not file.is_file():
        raise ExportError(f"no checkpoint at {file}")
    _refuse_what_is_no_checkpoint(file)
    content = _sharded(file) if file.name.endswith(".index.json") else _load(file)
    if not isinstance(content, dict):
        raise ExportError(f"{file} holds a {type(content).__name__}: expected a state dict, or a checkpoint with one")
    arguments = _arguments(content)
    chosen, found = _entry(file, content, entry)
    if not _is_state_dict(found):
        others = [str(name) for name, value in content.items() if _is_state_dict(value)]
        hint = f"; --checkpoint-key takes one of {', '.join(others)}" if others else ""
        raise ExportError(
            f"{file} holds no state dict: expected tensors by name, or a checkpoint with 'state_dict' or 'model'{hint}"
        )
    return Checkpoint(file, clean_state_dict(found), chosen, arguments)


def _is_state_dict(content: object) -> bool:
    named = isinstance(content, dict) and all(isinstance(key, str) for key in content)
    return named and bool(content) and all(isinstance(value, torch.Tensor) for value in content.values())


def _file_in(folder: Path) -> str:
    """What to give in the place of a folder."""
    if (folder / "config.json").is_file():
        return f"a file of weights; MODEL takes local-dir:{folder}, if timm or transformers saved it"
    files = sorted(each for each in folder.iterdir() if each.suffix in WEIGHTS)
    return f"one of its files, {files[0]} say" if files else "a file, and none in it looks like weights"


def _refuse_what_is_no_checkpoint(file: Path) -> None:
    with file.open("rb") as opened:
        start = opened.read(64).lstrip().lower()
    what = next((what for beginning, what in BEGINNINGS.items() if start.startswith(beginning)), None)
    if not start:
        what = "empty"
    elif file.suffix.lower() == ".onnx":
        what = "an ONNX model: export takes PyTorch's weights"
    elif zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any("/code/" in name for name in archive.namelist()):
                what = "a TorchScript program, whose weights have no model to go into: save model.state_dict()"
    if what:
        raise ExportError(f"no weights could be read from {file}: it is {what}")


def _load(file: Path) -> object:
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and safetensors raise many kinds of errors
        reason = " ".join(str(error).split())
        if "weights_only" in reason or "Weights only" in reason:
            module = next((name for name in _unsafe(file) if name.startswith(("torch.nn.", "timm.", "__main__."))), None)
            what = f"a whole module ({module})" if module else "Python objects besides weights"
            reason = f"it holds {what}, and loading those could run code: save model.state_dict() alone"
        raise ExportError(f"no weights could be read from {file}: {reason[:300] or type(error).__name__}") from error


def _unsafe(file: Path) -> list[str]:
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # for files of before torch 1.6
        return []


def _sharded(index: Path) -> dict[str, torch.Tensor]:
    """The tensors of all files that an index names."""
    try:
        shards = json.loads(index.read_text())["weight_map"]
        names = sorted(set(map(str, shards.values())))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportError(f"{index} is no index of shards: expected a weight_map") from error
    found: dict[str, torch.Tensor] = {}
    for name in names:
        file = index.parent / Path(name).name
        if not file.is_file():
            raise ExportError(f"{index} names {name}, which is not beside it")
        held = _load(file)
        if not isinstance(held, dict):
            raise ExportError(f"{file} holds a {type(held).__name__}: expected a part of the weights that {index.name} names")
        found |= held
    if missing := shards.keys() - found.keys():
        raise ExportError(f"{index} names {sorted(missing)[0]}, which none of its files has")
    return found


def _entry(file: Path, content: dict, wanted: str | None) -> tuple[str | None, object]:
    """The weights in a file's content, and the name of their entry where there are others too."""
    present = [name for name in (*ENTRIES, *content) if isinstance(content.get(name), dict)]
    present = list(dict.fromkeys(present))
    if wanted is not None:
        if wanted in present:
            return wanted, content[wanted]
        _, inner = _entry(file, content, None)
        prefix, weights = f"{wanted.removesuffix('.')}.", clean_state_dict(inner) if _is_state_dict(inner) else {}
        if under := {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}:
            return wanted, under
        raise ExportError(f"{file} has no weights under {wanted!r}: it has {', '.join(present) or 'a state dict alone'}")
    known = [name for name in present if name in ENTRIES]
    if not known:
        return None, content
    _, inner = _entry(file, content[known[0]], None)  # {"ema": {"module": …}}
    return (known[0] if len(known) > 1 else None), inner


def _arguments(content: dict) -> dict:
    found = content.get("args", content.get("hyper_parameters", {}))
    found = vars(found) if isinstance(found, argparse.Namespace) else dict(found) if isinstance(found, dict) else {}
    if isinstance(arch := content.get("arch"), str):
        found = {"arch": arch} | found
    return {name: value for name, value in found.items() if isinstance(value, (str, int, float, list, tuple))}
