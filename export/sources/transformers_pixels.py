"""transformers' image processors as timm's evaluation preprocessing: a setting has its counterpart, or is refused by name."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from export.errors import ExportError
from vit_core.settings import CENTER, SQUASH

RESAMPLING = {1: "lanczos", 2: "bilinear", 3: "bicubic", 5: "hamming"}  # PIL.Image.Resampling, but for nearest and box
ALWAYS = ("do_resize", "do_normalize", "do_rescale")  # the handler does these for every model
HANDLED = (*ALWAYS, "do_center_crop", "do_convert_rgb", "do_flip_channel_order")
# Processors whose rules are known, and how each means a size that is one number: both edges, or the shortest one.
SQUARE_SIZES = {"ViT": True, "DeiT": True, "Beit": True, "Siglip": True, "EfficientNet": True}
SQUARE_SIZES |= {"Bit": False, "CLIP": False, "ConvNext": False, "MobileViT": False}
CROPS_A_SHARE = "ConvNext"  # the only one of these with `crop_pct`
WARPED_FROM = 384  # pixels of the edge from which ConvNeXt's processor squashes, and crops nothing


@dataclass(frozen=True)
class Pixels:
    """What a processor makes of an image."""

    config: dict  # in the form of timm's `pretrained_cfg`
    is_bgr: bool = False  # the model takes blue first, which the handler does not: the model is told


def pixels_of(folder: Path, processor: dict, channels: int, model_type: str) -> Pixels:
    """Raises ExportError for a processor or a setting without a counterpart, KeyError for a setting that is missing.

    The same settings mean other pixels in other processors. Old folders do not name theirs: it is then a ViT's or DeiT's own.
    """
    named = processor.get("image_processor_type") or processor.get("feature_extractor_type")
    kind = re.sub(
        r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$", "", named or {"vit": "ViT", "deit": "DeiT"}.get(model_type, "")
    )
    if kind not in SQUARE_SIZES:
        raise ExportError(
            f"{folder} has the processor {named or 'of an unnamed kind'}: known are those of {', '.join(SQUARE_SIZES)}"
        )
    if processor.get("crop_pct") is not None and kind != CROPS_A_SHARE:
        raise ExportError(f"{folder} asks for crop_pct, which the {named} has rules of its own for")
    for key in ALWAYS:
        if not processor.get(key, True):
            raise ExportError(f"{folder} asks for images with {key} off: the handler always resizes and normalises")
    if other := next((key for key, value in processor.items() if key.startswith("do_") and value and key not in HANDLED), None):
        raise ExportError(f"{folder} asks for {other}, which the handler does not do")
    if processor["resample"] not in RESAMPLING:
        raise ExportError(f"{folder} asks for resample {processor['resample']}: the handler knows {RESAMPLING}")
    mean, std = _normalization(folder, processor, channels)
    return Pixels(
        {
            **_sizes(folder, processor, channels, SQUARE_SIZES[kind]),
            "interpolation": RESAMPLING[processor["resample"]],
            "mean": mean,
            "std": std,
        },
        processor.get("do_flip_channel_order", False),
    )


def _normalization(folder: Path, processor: dict, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of pixels in 0..1: (pixel / 255 - mean) / std is what the processor gives."""
    factor, offset = processor.get("rescale_factor", 1 / 255), 1.0 if processor.get("rescale_offset") else 0.0
    if not offset and not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        raise ExportError(f"{folder} asks for rescale_factor {factor}: the handler divides by 255")
    if "do_flip_channel_order" in processor and "do_normalize" not in processor:
        mean, std = (0.0,) * channels, (1.0,) * channels  # such processors know no normalization
    else:
        mean, std = tuple(processor["image_mean"]), tuple(processor["image_std"])
    scale = 255 * factor
    again = std if processor.get("include_top") else (1.0,) * len(std)  # EfficientNet's divides by std twice
    return (
        tuple((value + offset) / scale for value in mean),
        tuple(value * once / scale for value, once in zip(std, again, strict=True)),
    )


def _sizes(folder: Path, processor: dict, channels: int, square: bool) -> dict:
    size, crop_mode = _size(folder, processor["size"], square)
    if (crop_pct := processor.get("crop_pct")) is not None:
        crop = size
        if size[0] >= WARPED_FROM:
            crop_pct, crop_mode = 1.0, SQUASH
    else:
        crop = _size(folder, processor["crop_size"], square=True)[0] if processor.get("do_center_crop") else size
        crop_pct = crop[0] / size[0]
        if [math.floor(edge / crop_pct) for edge in crop] != list(size):
            raise ExportError(f"{folder} resizes to {size} and crops {crop}: the handler keeps one share of both edges")
        if crop_mode == CENTER and not processor.get("do_center_crop"):
            raise ExportError(f"{folder} resizes the shortest edge and crops nothing: the model would get images of any size")
    return {"input_size": (channels, *crop), "crop_pct": crop_pct, "crop_mode": crop_mode}


def _size(folder: Path, size: dict | int, square: bool) -> tuple[tuple[int, int], str]:
    """Height and width, and the crop mode that resizes to them: SQUASH to both, CENTER for the shortest edge alone.

    A single number is both if `square`, else the shortest edge.
    """
    if isinstance(size, int):
        return (size, size), SQUASH if square else CENTER
    if set(size) == {"shortest_edge"}:
        return (size["shortest_edge"], size["shortest_edge"]), CENTER
    if set(size) == {"height", "width"}:
        return (size["height"], size["width"]), SQUASH
    raise ExportError(f"{folder} asks for the size {size}: the handler knows height and width, or shortest_edge")
