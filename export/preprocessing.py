"""The pixels that a model wants, as data: timm's evaluation preprocessing, with what the user sets otherwise."""

from __future__ import annotations

from export.errors import ExportError

# timm also knows nearest and box: no model asks for them, and their steps cannot be cut out of the whole to 1/255.
INTERPOLATIONS = ("bilinear", "bicubic", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")
CHANNELS = (1, 3)


def resolve_preprocessing(pretrained_cfg: dict, overrides: dict) -> dict:
    """input_size, interpolation, crop_pct, crop_mode, mean and std as `timm.data.resolve_data_config` has them.

    `overrides` sets any of them, None leaves one as it is; img_size and in_chans set parts of input_size. A model of one
    channel gets the average of a mean or std that is given for three.
    Raises ExportError for what the handler cannot do.
    """
    from timm.data import resolve_data_config  # takes seconds; the command line needs the constants alone

    overrides = {key: value for key, value in overrides.items() if value is not None}
    # timm's defaults (ImageNet's mean and std, bicubic, 0.875) for a module without timm in it
    config = resolve_data_config({}, pretrained_cfg=pretrained_cfg or {"input_size": (3, 224, 224)})
    channels, *size = config["input_size"]
    channels = overrides.pop("in_chans", channels)
    if img_size := overrides.pop("img_size", None):
        size = [img_size, img_size]
    if channels not in CHANNELS:
        raise ExportError(f"the model takes {channels} channels: the handler reads images of 1 or 3")
    config |= overrides | {"input_size": (channels, *size)}
    for key in ("mean", "std"):
        if channels == 1 and len(config[key]) == 3:
            config[key] = (sum(config[key]) / 3,)
        if len(config[key]) != channels:
            raise ExportError(f"{key} has {len(config[key])} values, but the model takes {channels} channels")
    for key, known in (("interpolation", INTERPOLATIONS), ("crop_mode", CROP_MODES)):
        if config[key] not in known:
            raise ExportError(f"the model asks for {key} {config[key]!r}: the handler knows {', '.join(known)}")
    return {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}
