"""From a model's name to the eager model, with everything that serving it needs to know, as data."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import timm
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from torch import nn

from export.checkpoint import load_checkpoint
from export.errors import ExportError
from export.own_module import backbone_config, count_classes, create_own_module, is_own_module
from export.preprocessing import resolve_preprocessing
from export.transformers_folder import is_transformers_folder, load_transformers_folder

LOCAL = "local-dir:"


@dataclass(frozen=True)
class Classifier:
    """An eager model in evaluation mode, and the pixels and classes that it has."""

    module: nn.Module
    num_classes: int
    pretrained_cfg: dict  # timm's own record of the model; empty for a module without timm in it
    preprocessing: dict  # input_size, interpolation, crop_pct, crop_mode, mean, std: timm's evaluation transform

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())


def create_classifier(
    name: str,
    pretrained: bool,
    num_classes: int | None,
    checkpoint: Path | None,
    preprocessing: dict,
    classifies: bool = True,
) -> Classifier:
    """The model `name`: a name from `timm.list_models()`, an `hf-hub:` name, a `local-dir:` folder that timm or transformers
    saved, or `file.py:callable`.

    Its weights come from `checkpoint` if that is given, else from the model's own pretrained ones, else they are random.
    `preprocessing` holds what is to be other than timm's: see `resolve_preprocessing`.
    Raises ExportError for an unknown name, weights that cannot be had or do not fit, and a model that is no classifier where it
    `classifies`: embeddings need no head.
    """
    if name.startswith(LOCAL) and is_transformers_folder(folder := Path(name.removeprefix(LOCAL))):
        return _transformers_classifier(folder, num_classes, checkpoint, preprocessing)
    if is_own_module(name):
        return _own_classifier(name, num_classes, checkpoint, preprocessing)
    return _timm_classifier(name, pretrained, num_classes, checkpoint, preprocessing, classifies)


def _transformers_classifier(folder: Path, num_classes: int | None, checkpoint: Path | None, preprocessing: dict) -> Classifier:
    if num_classes or checkpoint or preprocessing.get("img_size") or preprocessing.get("in_chans"):
        raise ExportError(f"{folder} was saved by transformers: its weights, classes and image size are those in the folder")
    module, config = load_transformers_folder(folder)
    return Classifier(module.eval(), module.num_classes, config, resolve_preprocessing(config, preprocessing))


def _own_classifier(name: str, num_classes: int | None, checkpoint: Path | None, preprocessing: dict) -> Classifier:
    module = create_own_module(name).eval()
    if checkpoint is not None:
        load_checkpoint(module, checkpoint)
    config = backbone_config(module)
    resolved = resolve_preprocessing(config, preprocessing)
    counted = count_classes(name, module, resolved["input_size"])
    if num_classes not in (None, counted):
        raise ExportError(f"{name} has {counted} classes, not the {num_classes} of --num-classes")
    return Classifier(module, counted, {}, resolved)


def _timm_classifier(
    name: str,
    pretrained: bool,
    num_classes: int | None,
    checkpoint: Path | None,
    preprocessing: dict,
    classifies: bool,
) -> Classifier:
    _check_exists(name)
    if not sys.stderr.isatty():
        huggingface_hub.utils.disable_progress_bars()
    if pretrained and checkpoint is None and not name.startswith(LOCAL):
        _go_offline_without_network()
    try:
        # timm's own `checkpoint_path` would first download the pretrained weights that the checkpoint replaces.
        module = _create(name, pretrained and checkpoint is None, num_classes, preprocessing)
    except Exception as error:
        raise _creation_error(name, error) from error
    config = module.pretrained_cfg
    if checkpoint is not None:
        load_checkpoint(module, checkpoint, head=config.get("classifier"), fit_head=num_classes is None)
    elif classifies and pretrained and module.num_classes != config["num_classes"]:
        raise ExportError(
            f"{name} is pretrained for {config['num_classes']} classes, and a head of {module.num_classes} would be random: "
            "give --checkpoint FILE with trained weights, or --no-pretrained"
        )
    if classifies and not module.num_classes:
        raise ExportError(
            f"{name} has no classifier head: give --checkpoint FILE with one, or --num-classes and --no-pretrained"
        )
    return Classifier(module.eval(), module.num_classes, config, resolve_preprocessing(config, preprocessing))


def _create(name: str, pretrained: bool, num_classes: int | None, preprocessing: dict) -> nn.Module:
    """timm resamples pretrained position embeddings to another img_size."""
    options = {"pretrained": pretrained, "num_classes": num_classes, "in_chans": preprocessing.get("in_chans")}
    try:
        return timm.create_model(name, img_size=preprocessing.get("img_size"), **options)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return timm.create_model(name, **options)  # a convolutional net: it takes any size as it is


def _check_exists(name: str) -> None:
    """Raises ExportError for a folder without a model in it, and for a name that timm does not know."""
    if name.startswith(LOCAL):
        folder = Path(name.removeprefix(LOCAL))
        if not (folder / "config.json").is_file():
            raise ExportError(f"{folder} holds no timm model: expected config.json and model.safetensors in that folder")
    elif ":" not in name and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ": see timm.list_models()"
        raise ExportError(f"timm has no model named {name!r}{hint}")


def _go_offline_without_network() -> None:
    """Where the hub cannot be reached, has its library look in its cache alone: it would retry for most of a minute."""
    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=10)
    except Exception:  # of whichever HTTP library the hub's uses
        huggingface_hub.constants.HF_HUB_OFFLINE = True


def _creation_error(name: str, error: Exception) -> ExportError:
    """What went wrong in `timm.create_model`, in one line. timm and the hub raise whatever their libraries raise."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled)):
        return ExportError(
            f"the pretrained weights of {name} are not in the cache, and {huggingface_hub.constants.ENDPOINT} cannot be "
            "reached: connect to the network, or give --checkpoint FILE, or --no-pretrained for random weights"
        )
    return ExportError(f"timm could not create {name}: {reason}")
