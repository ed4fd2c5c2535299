"""A model of timm's: by a name from `timm.list_models()`, from the Hugging Face hub, or from a folder that timm saved."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import timm
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from torch import nn

from export.errors import ExportError
from export.options import Options
from export.preprocessing import resolve_preprocessing
from export.sources.checkpoint import check_architecture, differing_pixels, load_checkpoint
from export.sources.checkpoint_file import Checkpoint, read_checkpoint
from export.sources.classifier import Classifier
from export.sources.clip import Tower, projects, zero_shot
from export.sources.hints import WEIGHTS, meant
from export.sources.hub import PREFIX, go_offline_without_network
from export.sources.name import Kind, ModelName

RANDOM = "random"  # the origin of the weights if the source has none


def timm_classifier(options: Options) -> Classifier:
    """Raises ExportError: see `create_classifier`."""
    name, classifies = options.name, options.classifies
    checkpoint = read_checkpoint(options.checkpoint, options.checkpoint_key) if options.checkpoint else None
    _check_exists(name, with_weights=options.pretrained and checkpoint is None)
    if options.pretrained and checkpoint is None and not name.is_local:
        go_offline_without_network()
    try:
        # timm's own `checkpoint_path` would first download the pretrained weights that the checkpoint replaces.
        module = _create(options)
    except Exception as error:
        raise _creation_error(options.model, error) from error
    config = module.pretrained_cfg
    said = []
    if checkpoint is not None:
        check_architecture(checkpoint, config.get("architecture", ""))
        said += load_checkpoint(module, checkpoint, head=config.get("classifier"), fit_head=options.num_classes is None)
    elif classifies and options.pretrained and module.num_classes != config["num_classes"]:
        raise ExportError(
            f"{options.model} is pretrained for {config['num_classes']} classes, and a head of {module.num_classes} would be "
            "random: give --checkpoint FILE with trained weights, or --no-pretrained"
        )
    module = _as_asked(module, options)
    if classifies and not module.num_classes:
        raise ExportError(
            f"{options.model} has no classifier head: give --checkpoint FILE with one, --task embed, or --num-classes and "
            "--no-pretrained"
        )
    preprocessing = resolve_preprocessing(config, options.preprocessing, options.train_size)
    said += differing_pixels(checkpoint, preprocessing) if checkpoint else []
    weights = _weights(options, config, checkpoint)
    if weights == RANDOM:
        said.append("the weights are random: --checkpoint FILE gives trained ones")
    return Classifier(module.eval(), module.num_classes, config, preprocessing, weights, warnings=tuple(said))


def _as_asked(module: nn.Module, options: Options) -> nn.Module:
    """The model itself, or one around it if it is a tower of CLIP's kind. Raises ExportError where that cannot classify."""
    if options.text_embeddings:
        return zero_shot(module, options)
    if not projects(module):
        return module
    if options.classifies and not options.labels:
        raise ExportError(
            f"{options.model} is an image tower of CLIP's kind: its {module.num_classes} outputs are an embedding, no classes. "
            "Give --task embed for that, or --classes FILE --text-embeddings FILE for classes made from texts"
        )
    return module if options.classifies else Tower(module)


def _weights(options: Options, pretrained_cfg: dict, checkpoint: Checkpoint | None) -> str:
    if checkpoint is not None:
        return checkpoint.description
    if options.name.is_local:
        return "its own"
    return f"pretrained, {pretrained_cfg.get('hf_hub_id') or options.model}" if options.pretrained else RANDOM


def _create(options: Options) -> nn.Module:
    """timm resamples pretrained position embeddings to another img_size."""
    arguments = {
        "pretrained": options.pretrained and options.checkpoint is None,
        "num_classes": options.num_classes,
        "in_chans": options.preprocessing.in_chans,
    }
    try:
        return timm.create_model(options.model, img_size=options.preprocessing.img_size, **arguments)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return timm.create_model(options.model, **arguments)  # a convolutional net takes any size


def _check_exists(name: ModelName, with_weights: bool) -> None:
    """Raises ExportError for a folder without a model in it, or without its weights, and for a name that timm does not know."""
    if name.kind == Kind.FOLDER:
        if not (name.path / "config.json").is_file():
            raise ExportError(f"{name.path} holds no timm model: expected config.json and model.safetensors in that folder")
        if with_weights and not any(each.suffix in WEIGHTS for each in name.path.iterdir()):
            raise ExportError(
                f"{name.path} holds config.json and no weights: put model.safetensors beside it, or give --checkpoint FILE, or "
                "--no-pretrained for random weights"
            )
    unknown = name.kind == Kind.TIMM and not timm.is_model(name.given)
    elsewhere = name.kind == Kind.HUB and not name.given.startswith((PREFIX, "hf_hub:"))  # as timm has it
    # timm takes the part behind a dot for the name of its weights, be it "pth".
    if unknown or elsewhere or (name.kind == Kind.TIMM and Path(name.given).suffix in WEIGHTS):
        raise ExportError(f"timm has no model named {name.given!r}{meant(name.given, timm.list_models())}")


def _creation_error(name: str, error: Exception) -> ExportError:
    """What went wrong in `timm.create_model`, in one line. timm and the hub raise whatever their libraries raise."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled)):
        return ExportError(
            f"the pretrained weights of {name} are not in the cache, and {huggingface_hub.constants.ENDPOINT} cannot be "
            "reached: connect to the network, or give --checkpoint FILE, or --no-pretrained for random weights"
        )
    return ExportError(f"timm could not create {name}: {reason}")
