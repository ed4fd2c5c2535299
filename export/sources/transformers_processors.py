"""The image processors of transformers' image classifiers, as data: what each assumes, acts upon, and means by a size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vit_core.settings import CENTER_FLOOR, SQUASH

BILINEAR, BICUBIC = 2, 3  # as PIL.Image.Resampling numbers them
WARPED_FROM = 384  # pixels of the edge from which ConvNeXt's processor squashes, and crops nothing


@dataclass(frozen=True)
class Resize:
    """What an image is resized to."""

    height: int
    width: int
    mode: str  # SQUASH to both, or CENTER_FLOOR: the shortest edge alone, which both are then
    crop: tuple[int, int] | None = None  # that belongs to the resizing

    @property
    def edges(self) -> tuple[int, int]:
        return self.height, self.width


@dataclass(frozen=True)
class Processor:
    """The rules of one processor."""

    # Defaults. Of the settings that not all processors have, this processor acts on those that are listed here.
    defaults: dict[str, object]
    square: bool = True  # a size of one number is both edges, else the shortest one
    # The size that it resizes to, for the size in its settings; None: it fails for such a size.
    resize: Callable[[Resize, dict], Resize | None] = lambda size, settings: size
    crops_first: bool = False  # the crop is of the image, and the size is a share of the crop_size
    refused: dict[str, str] = field(default_factory=dict)  # settings that are refused if on, with the reason
    model_types: tuple[str, ...] = ()  # model types whose folders may leave it out


def _levit(size: Resize, settings: dict) -> Resize:
    if size.mode == SQUASH:
        return size
    edge = int(256 / 224 * size.height)
    return Resize(edge, edge, CENTER_FLOOR)


def _poolformer(size: Resize, settings: dict) -> Resize:
    height, width = (int(edge / settings["crop_pct"]) for edge in size.edges)
    return Resize(height, width, CENTER_FLOOR if size.height == size.width else SQUASH)


def _convnext(size: Resize, settings: dict) -> Resize | None:
    if size.mode == SQUASH:
        return None
    if size.height >= WARPED_FROM:
        return Resize(size.height, size.width, SQUASH)
    edge = int(size.height / settings["crop_pct"])
    return Resize(edge, edge, CENTER_FLOOR, crop=size.edges)


CROPPED = {"do_center_crop": True, "crop_size": 224}

PROCESSORS = {
    "ViT": Processor({"resample": BILINEAR}, model_types=("vit", "dinat", "ijepa", "swiftformer", "swin", "swinv2", "vit_msn")),
    "DeiT": Processor({"resample": BICUBIC, **CROPPED}, model_types=("deit",)),
    "Beit": Processor({"resample": BICUBIC, "crop_size": 224}, model_types=("beit", "data2vec-vision")),
    "Pvt": Processor({"resample": BICUBIC}, model_types=("pvt", "pvt_v2")),
    "Siglip": Processor({"resample": BICUBIC}, square=False, model_types=("siglip",)),
    "Bit": Processor({"resample": BICUBIC, **CROPPED}, square=False, model_types=("bit", "dinov2", "focalnet", "hiera")),
    "CLIP": Processor({"resample": BICUBIC, **CROPPED}, square=False, model_types=("clip", "metaclip_2")),
    "MobileNetV1": Processor({"resample": BILINEAR, **CROPPED}, square=False, model_types=("mobilenet_v1",)),
    "MobileNetV2": Processor({"resample": BILINEAR, **CROPPED}, square=False, model_types=("mobilenet_v2",)),
    "MobileViT": Processor(
        {"resample": BICUBIC, "do_center_crop": True, "crop_size": 256, "do_flip_channel_order": True, "do_normalize": False},
        square=False,
        refused={"do_normalize": "it never normalizes"},
        model_types=("mobilevit", "mobilevitv2"),
    ),
    "EfficientNet": Processor(
        {"resample": BICUBIC, "crop_size": 289, "rescale_offset": False, "include_top": True}, model_types=("efficientnet",)
    ),
    "ConvNext": Processor(
        {"resample": BICUBIC, "crop_pct": 224 / 256},
        square=False,
        resize=_convnext,
        refused={"do_center_crop": "its crop is that of crop_pct"},
        model_types=("convnext", "convnextv2", "cvt", "regnet", "resnet"),
    ),
    "PoolFormer": Processor(
        {"resample": BICUBIC, "crop_pct": 0.9, "do_resize_and_center_crop": True, **CROPPED},
        square=False,
        resize=_poolformer,
        model_types=("poolformer",),
    ),
    "Levit": Processor({"resample": BICUBIC, **CROPPED}, square=False, resize=_levit, model_types=("levit",)),
    "Segformer": Processor({"resample": BILINEAR}, refused={"do_center_crop": "it never crops"}, model_types=("segformer",)),
    "Perceiver": Processor(
        {"resample": BICUBIC, "do_center_crop": True, "crop_size": 256}, crops_first=True, model_types=("perceiver",)
    ),
}

# Processors of other image classifiers, and what they do to an image.
OTHERS = {
    "Donut": "makes a thumbnail of the image and pads it",
    "Gemma3": "cuts a long image into several",
    "ImageGPT": "makes numbers of clusters of the colours",
    "PPLCNet": "rounds the longer edge to the nearest pixel",
    "Siglip2": "cuts the image into patches, as many as its shape asks for",
    "TextNet": "rounds both edges up to a multiple of size_divisor",
}
