"""A folder as Hugging Face Transformers saves an image classifier.

A ViT or a DeiT becomes the timm model that computes the same, and transformers itself is not needed; others are traced from
transformers. The folder holds `config.json`, `model.safetensors` (or `pytorch_model.bin`, or shards with an index) and
`preprocessor_config.json`.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import timm
import torch
from timm.layers import QuickGELU
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from export.errors import ExportError
from export.options import Options
from export.preprocessing import resolve_preprocessing
from export.sources.checkpoint import load_checkpoint, load_state_dict_strictly
from export.sources.checkpoint_file import read_checkpoint
from export.sources.classifier import Classifier
from export.sources.hub import WEIGHTS
from export.sources.transformers_model import BlueFirst, check_inputs, load_with_transformers
from export.sources.transformers_pixels import pixels_of

ACTIVATIONS = {
    "gelu": nn.GELU,
    "gelu_new": functools.partial(nn.GELU, approximate="tanh"),
    "gelu_pytorch_tanh": functools.partial(nn.GELU, approximate="tanh"),
    "quick_gelu": QuickGELU,
    "relu": nn.ReLU,
}
WRAPPER = "TimmWrapperForImageClassification"  # transformers' class around a timm model
ARCHITECTURES = ("ViTForImageClassification", "DeiTForImageClassification", "DeiTForImageClassificationWithTeacher")

# transformers' name → timm's, by prefix and by part of a block. Query, key and value are one matrix in timm.
PARTS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
BLOCK_PARTS = {
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
}


def is_transformers_folder(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and "architectures" in config


def transformers_classifier(options: Options, folder: Path, weights: str) -> Classifier:
    """The model of such a folder, whose weights are described so. Raises ExportError: see `load_transformers_folder`."""
    changes = options.preprocessing
    if options.num_classes or options.checkpoint or changes.img_size or changes.in_chans:
        raise ExportError(
            f"{options.model} was saved by transformers: its weights, classes and image size are those in the folder"
        )
    module, config = load_transformers_folder(folder)
    return Classifier(
        module.eval(), module.num_classes, config, resolve_preprocessing(config, changes), weights, config.get("problem_type")
    )


def load_transformers_folder(folder: Path) -> tuple[nn.Module, dict]:
    """The model in `folder`, and its preprocessing and labels in the form of timm's `pretrained_cfg`.

    Raises ExportError for another architecture, a missing file, or a setting that has no counterpart here.
    """
    try:
        return _load(folder)
    except KeyError as error:
        raise ExportError(f"{folder} lacks the setting {error} in config.json or preprocessor_config.json") from error
    except (TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ExportError(
            f"{folder} has settings of another kind than transformers saves (config.json, preprocessor_config.json): {reason}"
        ) from error


def _load(folder: Path) -> tuple[nn.Module, dict]:
    config = _read_json(folder / "config.json")
    architecture = config["architectures"][0]
    if architecture == WRAPPER:
        return _wrapped(folder, config)
    if "ForImageClassification" not in architecture:
        raise ExportError(f"{folder} holds a {architecture}: of transformers' models, image classifiers can be exported")
    check_inputs(folder, config.get("model_type"))
    labels = _labels(config)
    pixels = pixels_of(folder, _processor(folder), config.get("num_channels", 3), config.get("model_type", ""))
    described = pixels.config | {"label_names": labels, "problem_type": config.get("problem_type")}
    if architecture in ARCHITECTURES:
        module = _timms(folder, config, architecture, len(labels))
    else:
        module = load_with_transformers(folder)
    return (BlueFirst(module) if pixels.is_bgr else module), described


def _labels(config: dict) -> list[str]:
    """The labels by class index. transformers leaves out the names of two classes where they are its own."""
    if (names := config.get("id2label")) is None:
        return [f"LABEL_{index}" for index in range(config.get("num_labels") or 2)]
    return [label for _, label in sorted((int(index), label) for index, label in names.items())]


def _processor(folder: Path) -> dict:
    """The settings of the image processor: where a processor of several parts was saved, they are within its own."""
    whole = folder / "processor_config.json"
    if whole.is_file() and (settings := _read_json(whole).get("image_processor")) is not None:
        return settings
    return _read_json(folder / "preprocessor_config.json")


def _timms(folder: Path, config: dict, architecture: str, classes: int) -> nn.Module:
    """The timm model that computes what this ViT or DeiT does, with its weights."""
    if config["hidden_act"] not in ACTIVATIONS:
        raise ExportError(f"{folder} has the activation {config['hidden_act']!r}: expected {', '.join(ACTIVATIONS)}")
    options = {
        "img_size": config["image_size"],
        "patch_size": config["patch_size"],
        "in_chans": config["num_channels"],
        "num_classes": classes,
        "embed_dim": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "mlp_ratio": (config["intermediate_size"] + 0.5) / config["hidden_size"],  # timm truncates the product
        "qkv_bias": config.get("qkv_bias", True),
        "norm_layer": functools.partial(nn.LayerNorm, eps=config["layer_norm_eps"]),
        "act_layer": ACTIVATIONS[config["hidden_act"]],
    }
    distilled = architecture.endswith("WithTeacher")
    if distilled:
        module = VisionTransformerDistilled(**options)
    else:  # a DeiT without its teacher's head keeps the token, which is what timm calls a register
        module = VisionTransformer(**options, reg_tokens=int(architecture.startswith("DeiT")))
    checkpoint = read_checkpoint(_weights(folder))
    load_state_dict_strictly(module, _renamed(checkpoint.state_dict, distilled), checkpoint.file)
    return module


def _wrapped(folder: Path, config: dict) -> tuple[nn.Module, dict]:
    """timm's own model, which transformers has wrapped, and its `pretrained_cfg`."""
    classes = config["num_classes"]
    try:
        module = timm.create_model(config["architecture"], num_classes=classes, **(config.get("model_args") or {}))
    except Exception as error:  # whatever timm's models raise
        raise ExportError(f"timm could not create the {config['architecture']} of {folder}: {error}") from error
    if left_out := load_checkpoint(module, read_checkpoint(_weights(folder))):
        raise ExportError(left_out[0])
    described = {**module.pretrained_cfg, **(config.get("pretrained_cfg") or {}), "problem_type": config.get("problem_type")}
    names = config.get("label_names") or described.get("label_names")
    return module, described | {"label_names": names if names and len(names) == classes else None}


def _weights(folder: Path) -> Path:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise ExportError(f"{folder} holds no model.safetensors")


def _renamed(state_dict: dict[str, torch.Tensor], distilled: bool) -> dict[str, torch.Tensor]:
    """transformers' weights by timm's names."""
    heads = {"cls_classifier": "head", "distillation_classifier": "head_dist"} if distilled else {"classifier": "head"}
    renamed = {}
    for key, value in state_dict.items():
        name, _, kind = key.rpartition(".")
        part = key.split(".", 1)[1]  # without the prefix vit. or deit.
        if name in heads:
            renamed[f"{heads[name]}.{kind}"] = value
        elif part.startswith("encoder.layer."):
            number, within = part.removeprefix("encoder.layer.").split(".", 1)
            if within == f"attention.attention.query.{kind}":
                qkv = [state_dict[key.replace(".query.", f".{each}.")] for each in ("query", "key", "value")]
                renamed[f"blocks.{number}.attn.qkv.{kind}"] = torch.cat(qkv)
            elif not within.startswith("attention.attention."):
                renamed[f"blocks.{number}.{BLOCK_PARTS.get(within.removesuffix(f'.{kind}'), within)}.{kind}"] = value
        elif part in PARTS:
            renamed[PARTS[part]] = value
        else:
            renamed[f"{PARTS.get(part.removesuffix(f'.{kind}'), name)}.{kind}"] = value
    if not distilled and "dist_token" in renamed:
        renamed["reg_token"] = renamed.pop("dist_token")
    return renamed


def _read_json(file: Path) -> dict:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ExportError(f"{file} could not be read: {error}") from error
