"""transformers' image processors as timm's evaluation preprocessing: a setting has its counterpart, or is refused by name."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from export.errors import ExportError
from export.sources.transformers_processors import OTHERS, PROCESSORS, Resize
from vit_core.settings import CENTER_FLOOR, CROP_FIRST, SQUASH

RESAMPLING = {1: "lanczos", 2: "bilinear", 3: "bicubic", 5: "hamming"}  # PIL.Image.Resampling, except for nearest and box
# Settings of the processors of image classifiers: each has a counterpart here, or changes no pixel of an RGB image.
SHARED = ("do_resize", "do_rescale", "do_normalize", "do_center_crop", "do_convert_rgb", "do_reduce_labels")
DEFAULTS = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}  # of them all
# Settings of single processors, which the others ignore.
SPECIAL = ("crop_pct", "include_top", "rescale_offset", "size_divisor", "resize_short", "use_square_size")


@dataclass(frozen=True)
class Pixels:
    """What a processor makes of an image."""

    config: dict  # in the form of timm's `pretrained_cfg`
    is_bgr: bool = False  # the model takes blue first, which the handler does not: the model is told


def pixels_of(folder: Path, said: dict, channels: int, model_type: str) -> Pixels:
    """The pixels of the processor in `folder`, whose settings are `said`.

    Raises ExportError for a processor or a setting without a counterpart, KeyError for a setting that is missing. The same
    settings mean other pixels in other processors. Old folders do not name theirs: it is then that of the model's type.
    """
    kind = _kind(folder, said, model_type)
    processor = PROCESSORS[kind]
    for key, value in said.items():
        other = (key.startswith("do_") and key not in SHARED) or key in SPECIAL
        if other and value and key not in processor.defaults:
            raise ExportError(f"{folder} asks for {key}, which the handler does not do for a {kind} processor")
    settings = {**DEFAULTS, "default_to_square": processor.square, **processor.defaults, **said}
    # null means off, or lacks the value that is needed.
    settings = {key: value for key, value in settings.items() if value is not None}
    for key, reason in processor.refused.items():
        if settings.get(key):
            raise ExportError(f"{folder} asks for {key} of a {kind} processor: {reason}")
    if not settings.get("do_resize"):
        raise ExportError(f"{folder} asks for images with do_resize off: the handler always resizes")
    if settings["resample"] not in RESAMPLING:
        raise ExportError(f"{folder} asks for resample {settings['resample']}: the handler knows {RESAMPLING}")
    mean, std = _normalization(folder, settings, channels)
    return Pixels(
        {
            **_sizes(folder, kind, settings, channels),
            "interpolation": RESAMPLING[settings["resample"]],
            "mean": mean,
            "std": std,
        },
        bool(settings.get("do_flip_channel_order")),
    )


def _kind(folder: Path, said: dict, model_type: str) -> str:
    """The name of the processor in PROCESSORS."""
    named = said.get("image_processor_type") or said.get("feature_extractor_type")
    if not named:
        unnamed = [kind for kind, processor in PROCESSORS.items() if model_type in processor.model_types]
        if not unnamed:
            raise ExportError(f"{folder} names no image_processor_type, and its model is of no type that has one of its own")
        return unnamed[0]
    kind = re.sub(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$", "", str(named))
    if kind in OTHERS:
        raise ExportError(f"{folder} has the processor {named}: it {OTHERS[kind]}, for which the handler has no rule")
    if kind not in PROCESSORS:
        raise ExportError(f"{folder} has the processor {named}: known are those of {', '.join(PROCESSORS)}")
    return kind


def _normalization(folder: Path, settings: dict, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of pixels in 0..1: (pixel / 255 - mean) / std is what the processor gives."""

    def values(key: str) -> tuple[float, ...]:
        value = settings[key]
        return (value,) * channels if isinstance(value, (int, float)) else tuple(value)

    rescales = settings.get("do_rescale")
    factor = settings["rescale_factor"] if rescales else 1.0
    if factor <= 0:
        raise ExportError(f"{folder} asks for rescale_factor {factor}: expected a number above 0")
    offset = 1.0 if rescales and settings.get("rescale_offset") else 0.0
    nothing = ((0.0,) * channels, (1.0,) * channels)
    mean, std = (values("image_mean"), values("image_std")) if settings.get("do_normalize") else nothing
    again = values("image_std") if settings.get("include_top") else (1.0,) * len(std)  # EfficientNet's divides by std twice
    scale = 255 * factor
    return (
        tuple((value + offset) / scale for value in mean),
        tuple(value * once / scale for value, once in zip(std, again, strict=True)),
    )


def _sizes(folder: Path, kind: str, settings: dict, channels: int) -> dict:
    """What is resized and cropped. The handler knows the crop, and the one share that it is of both resized edges."""
    processor = PROCESSORS[kind]
    size, crop = _size(folder, "size", settings["size"], settings.get("default_to_square")), None
    if settings.get("do_center_crop"):
        crop = _size(folder, "crop_size", settings["crop_size"], square=True)
        if crop.mode != SQUASH:
            raise ExportError(f"{folder} asks for the crop_size {settings['crop_size']}: expected height and width")
    if not settings.get("crop_pct", 1.0) > 0:
        raise ExportError(f"{folder} asks for crop_pct {settings['crop_pct']}: expected a number above 0")
    if crop and processor.crops_first:
        share = size.height / crop.height
        if size.mode != SQUASH or share != size.width / crop.width or share > 1:
            raise ExportError(
                f"{folder} crops {size.edges} of {crop.edges} at first: the handler keeps one share of the shortest edge"
            )
        return {"input_size": (channels, *size.edges), "crop_pct": share, "crop_mode": CROP_FIRST}
    resize = processor.resize(size, settings)
    if resize is None:
        raise ExportError(f"{folder} asks for the size {settings['size']}: a {kind} processor needs its shortest_edge")
    kept = crop.edges if crop else resize.crop
    if kept is None and resize.mode == CENTER_FLOOR:
        raise ExportError(f"{folder} resizes the shortest edge and crops nothing: the model would get images of any size")
    kept = kept or resize.edges
    asked = f"{folder} resizes to {resize.edges} and crops {kept}"
    # A shortest edge makes images of any shape: for them there is a mode that crops as transformers does. SQUASH does as timm.
    if resize.mode == SQUASH and not all(_alike(edge - part) for edge, part in zip(resize.edges, kept, strict=True)):
        raise ExportError(f"{asked}: the handler's crop would be a pixel beside it")
    if (share := _share(kept, resize.edges)) is None:
        raise ExportError(f"{asked}: the handler keeps one share of both edges")
    return {"input_size": (channels, *kept), "crop_pct": share, "crop_mode": resize.mode}


def _alike(cut: int) -> bool:
    """Whether timm and transformers have the same middle where so many pixels are cut off, or added if it is negative."""
    return cut % 2 == 0 or (cut > 0 and cut % 4 == 1)


def _share(crop: tuple[int, int], resized: tuple[int, int]) -> float | None:
    """The `crop_pct` by which the handler finds `resized` again: it divides the crop, and truncates. None: there is none."""
    share = min(kept / edge for kept, edge in zip(crop, resized, strict=True))
    # The quotient is rounded: a little below it, the division gives the edge or a little more.
    for each in (share, math.nextafter(share, 0)):
        if [math.floor(kept / each) for kept in crop] == list(resized):
            return each
    return None


def _size(folder: Path, key: str, size: object, square: bool | None) -> Resize:
    """The edges that a `size` or `crop_size` asks for. A single number is both if `square`, else the shortest one."""
    if isinstance(size, list):
        size = dict(zip(("height", "width"), size, strict=False)) if len(size) == 2 else {}
    elif not isinstance(size, dict):
        size = {"height": size, "width": size} if square else {"shortest_edge": size}
    if all(type(edge) is int and edge > 0 for edge in size.values()):
        if set(size) == {"shortest_edge"}:
            return Resize(size["shortest_edge"], size["shortest_edge"], CENTER_FLOOR)
        if set(size) == {"height", "width"}:
            return Resize(size["height"], size["width"], SQUASH)
    raise ExportError(f"{folder} asks for the {key} {size}: the handler knows height and width, or shortest_edge, in pixels")
