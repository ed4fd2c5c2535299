"""The model's preprocessing as data: timm's evaluation settings, with the user's own in their place."""

from __future__ import annotations

from dataclasses import dataclass

from export.errors import ExportError
from vit_core.settings import CHANNELS, ArchiveError, Preprocessing


@dataclass(frozen=True)
class Overrides:
    """The settings that replace timm's; None keeps timm's."""

    img_size: int | None = None  # height and width of the input
    in_chans: int | None = None  # channels of the input
    interpolation: str | None = None
    crop_pct: float | None = None
    crop_mode: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def resolve_preprocessing(pretrained_cfg: dict, overrides: Overrides, train_size: bool = False) -> Preprocessing:
    """Returns timm's `timm.data.resolve_data_config` for a model, with the overrides.

    As timm's `validate.py` does, it takes the size and crop of testing where they differ from those of training, unless
    `train_size` is set. A model of one channel gets the average of a mean or std for three. Raises ExportError for settings
    that the handler does not support.
    """
    from timm.data import resolve_data_config  # takes seconds; the command line needs `Overrides` alone

    # timm's defaults (ImageNet's mean and std, bicubic, 0.875) for a module without timm in it
    known = pretrained_cfg or {"input_size": (3, 224, 224)}
    config = resolve_data_config({}, pretrained_cfg=known, use_test_size=not train_size)
    changed = {name: value for name, value in vars(overrides).items() if value is not None}
    channels, *size = config["input_size"]
    channels = changed.pop("in_chans", channels)
    if img_size := changed.pop("img_size", None):
        size = [img_size, img_size]
    if channels not in CHANNELS:
        raise ExportError(f"the model takes {channels} channels: the handler supports 1 or 3")
    config |= changed | {"input_size": (channels, *size)}
    for key in ("mean", "std"):
        if channels == 1 and len(config[key]) == 3:
            config[key] = (sum(config[key]) / 3,)
        config[key] = tuple(config[key])
    try:
        return Preprocessing(**config)
    except ArchiveError as error:
        raise ExportError(str(error)) from error


def guessed(overrides: Overrides, resolved: Preprocessing) -> list[str]:
    """Returns a warning that names the defaults for a model without timm in it, except for those that the user has set."""
    values = {
        "img-size": " x ".join(map(str, resolved.input_size[1:])),
        "interpolation": resolved.interpolation,
        "crop-pct": f"{resolved.crop_pct:g}",
        "mean": ", ".join(f"{value:.3g}" for value in resolved.mean),
        "std": ", ".join(f"{value:.3g}" for value in resolved.std),
    }
    taken = [f"--{name} {value}" for name, value in values.items() if getattr(overrides, name.replace("-", "_")) is None]
    return [f"the module does not say what pixels it wants, and gets timm's defaults: {'; '.join(taken)}"] if taken else []
