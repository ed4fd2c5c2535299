"""The pixels that most of timm's ViTs want, where no model is run."""

from vit_core.settings import CENTER, Preprocessing

VIT = Preprocessing(
    input_size=(3, 224, 224),
    interpolation="bicubic",
    crop_pct=0.9,
    crop_mode=CENTER,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
