"""Small models of every family of image classifiers in transformers, and their image processors, saved as transformers does."""

import io
import json
from pathlib import Path

import torch
import transformers
from PIL import Image

from export.pictures import PHOTOGRAPHS

PICTURES = [(PHOTOGRAPHS / name).read_bytes() for name in ("chelsea.jpg", "coffee.jpg", "rocket.jpg")]
# Wider than high: on a square one, squashing and cropping are the same.
_wide = io.BytesIO()
Image.open(io.BytesIO(PICTURES[1])).convert("RGB").crop((0, 60, 380, 250)).save(_wide, "PNG")
PICTURES.append(_wide.getvalue())
SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96, "initializer_range": 0.2}
VIT = {**SMALL, "image_size": 32, "patch_size": 8}
SQUARE = {"size": {"height": 32, "width": 32}}
SQUARE_64 = {"size": {"height": 64, "width": 64}}
CROPPED = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
CROPPED_64 = {"size": {"shortest_edge": 73}, "crop_size": {"height": 64, "width": 64}}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
PYRAMID = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 16, 16], "num_attention_heads": [1, 1, 2, 2], "num_labels": 3}
TOWER = {"vision_config": {**VIT, "projection_dim": 16}, "text_config": {"num_hidden_layers": 1, "vocab_size": 99}}
LEVIT = {
    "image_size": 64,
    "hidden_sizes": [16, 24, 32],
    "num_attention_heads": [1, 2, 2],
    "depths": [1, 1, 1],
    "key_dim": [8] * 3,
}
PERCEIVER = {
    "image_size": 32,
    "num_latents": 8,
    "d_latents": 16,
    "d_model": 32,
    "num_blocks": 1,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 1,
    "initializer_range": 0.5,
}
PERCEIVED = {**SQUARE, "crop_size": {"height": 36, "width": 36}}
# What follows ForImageClassification in the name of a model's class, and the names of the layers that give the classes.
PARTS = ("WithTeacher", "Learned", "Fourier", "ConvProcessing", "")
HEADS = ("classifier", "head.", "dist_head.", "fc.", "final_layer.")
# The class of the model without ForImageClassification and its config's values, its processor's class and values.
FAMILIES = {
    "ViT": (VIT, "ViTImageProcessor", SQUARE),
    "DeiT": (VIT, "DeiTImageProcessor", {"size": {"height": 36, "width": 36}, "crop_size": {"height": 32, "width": 32}}),
    "Beit": ({**VIT, "use_relative_position_bias": True}, "BeitImageProcessor", {**SQUARE, "do_center_crop": False}),
    "Data2VecVision": (VIT, "BeitImageProcessor", {**SQUARE, "do_center_crop": False}),
    "ViTMSN": (VIT, "ViTImageProcessor", SQUARE),
    "Dinov2": (
        {**SMALL, "mlp_ratio": 2, "image_size": 32, "patch_size": 8},
        "BitImageProcessor",
        CROPPED,
    ),
    "Swin": (
        SWIN,
        "ViTImageProcessor",
        SQUARE,
    ),
    "ConvNext": (
        {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 56}, "crop_pct": 0.875},
    ),
    "ConvNextV2": (
        {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 384}, "crop_pct": 0.875},
    ),
    "ResNet": (
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 64}, "crop_pct": 0.875},
    ),
    "RegNet": (
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 8},
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 64}, "crop_pct": 0.875},
    ),
    "MobileViT": (
        {
            "image_size": 64,
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 16, 24, 32, 40, 48],
            "initializer_range": 0.3,
        },
        "MobileViTImageProcessor",
        {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}},
    ),
    "EfficientNet": (
        {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320, "initializer_range": 0.3},
        "EfficientNetImageProcessor",
        {"size": {"height": 64, "width": 64}, "resample": 2, "rescale_offset": False, "include_top": True},
    ),
    "Siglip": ({"vision_config": VIT}, "SiglipImageProcessor", SQUARE),
    "Dinov2WithRegisters": ({**SMALL, "mlp_ratio": 2, "image_size": 32, "patch_size": 8}, "BitImageProcessor", CROPPED),
    "Bit": ({"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_groups": 4}, "BitImageProcessor", CROPPED_64),
    "CLIP": (TOWER, "CLIPImageProcessor", CROPPED),
    "MetaClip2": (TOWER, "CLIPImageProcessor", CROPPED),
    "Cvt": (
        {"embed_dim": [8, 16, 24], "num_heads": [1, 1, 2], "depth": [1, 2, 3], "initializer_range": 0.3},
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 64}},
    ),
    "FocalNet": (
        {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "focal_levels": [1, 1], "focal_windows": [3, 3]},
        "BitImageProcessor",
        CROPPED,
    ),
    "Hiera": (
        {
            "image_size": [64, 64],
            "embed_dim": 8,
            "depths": [1, 1, 1],
            "num_heads": [1, 1, 2],
            "query_stride": [2, 2],
            "masked_unit_size": [4, 4],
            "num_query_pool": 2,
        },
        "BitImageProcessor",
        CROPPED_64,
    ),
    "HGNetV2": (
        {
            "embedding_size": 8,
            "stem_channels": [3, 8, 8],
            "stage_in_channels": [8, 8, 16, 16],
            "stage_mid_channels": [8] * 4,
            "stage_out_channels": [8, 16, 16, 16],
            "hidden_sizes": [8, 16, 16, 16],
            "depths": [1] * 4,
            "stage_num_blocks": [1] * 4,
            "stage_numb_of_layers": [1] * 4,
        },
        "BitImageProcessor",
        CROPPED_64,
    ),
    "IJepa": (VIT, "ViTImageProcessor", SQUARE),
    "SwiftFormer": ({"depths": [1] * 4, "embed_dims": [8, 16, 16, 24]}, "ViTImageProcessor", SQUARE_64),
    "Swinv2": (SWIN, "ViTImageProcessor", SQUARE),
    "DonutSwin": (SWIN, "ViTImageProcessor", SQUARE),
    "MobileNetV1": ({"depth_multiplier": 0.25}, "MobileNetV1ImageProcessor", CROPPED_64),
    "MobileNetV2": ({"depth_multiplier": 0.25}, "MobileNetV2ImageProcessor", CROPPED_64),
    "MobileViTV2": (
        {"width_multiplier": 0.25, "image_size": 64, "n_attn_blocks": [1, 1, 1]},
        "MobileViTImageProcessor",
        CROPPED_64,
    ),
    "Levit": (LEVIT, "LevitImageProcessor", {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}),
    "LevitWithTeacher": (LEVIT, "LevitImageProcessor", {"size": {"height": 64, "width": 64}, "do_center_crop": False}),
    "PoolFormer": (
        {"depths": [1] * 4, "hidden_sizes": [8, 8, 16, 16]},
        "PoolFormerImageProcessor",
        {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}},
    ),
    "Pvt": ({**PYRAMID, "image_size": 64}, "PvtImageProcessor", SQUARE_64),
    "PvtV2": ({**PYRAMID, "image_size": 64}, "PvtImageProcessor", SQUARE_64),
    "Segformer": ({**PYRAMID, "decoder_hidden_size": 16}, "SegformerImageProcessor", SQUARE_64),
    "TextNet": (
        {
            "stem_out_channels": 8,
            "hidden_sizes": [8] * 5,
            "conv_layer_kernel_sizes": [[[3, 3]]] * 4,
            "conv_layer_strides": [[2]] * 4,
        },
        "ViTImageProcessor",
        SQUARE_64,
    ),
    "PerceiverLearned": (PERCEIVER, "PerceiverImageProcessor", PERCEIVED),
    "PerceiverFourier": (PERCEIVER, "PerceiverImageProcessor", PERCEIVED),
    "PerceiverConvProcessing": (PERCEIVER, "PerceiverImageProcessor", PERCEIVED),
}


@torch.inference_mode()
def logits_of(model, processor) -> torch.Tensor:
    """[pictures, classes], as transformers' own processor and model have them."""
    images = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in PICTURES]
    return model(pixel_values=processor(images, return_tensors="pt")["pixel_values"]).logits


def saved(folder: Path, family: str, **config):
    """A small model of random weights that differ enough for the answers to differ, and its processor."""
    values, processor_name, processing = FAMILIES[family]
    torch.manual_seed(0)
    labels = {0: "cat", 1: "dog", 2: "owl"}
    name, part = next((family.removesuffix(part), part) for part in PARTS if family.endswith(part))
    config = getattr(transformers, f"{name}Config")(**{**values, "id2label": labels, **config})
    model = getattr(transformers, f"{name}ForImageClassification{part}")(config).eval()
    # The one that resizes with Pillow, as the handler does. Its other one resizes tensors: some pixels are a 255th off.
    processor = getattr(transformers, f"{processor_name}Pil")(**processing)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 4:  # what a convolution of transformers' own random weights leaves of a picture vanishes
                torch.nn.init.kaiming_normal_(parameter)
        heads = [(name, each) for name, each in model.named_parameters() if any(head in name for head in HEADS)]
        scale = 0.5 / logits_of(model, processor).std(0).mean()
        for _, parameter in heads:
            parameter.mul_(scale)
        middle = logits_of(model, processor).mean(0)
        for name, parameter in heads:
            if name.endswith("bias") and parameter.shape == middle.shape:
                parameter.sub_(middle)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor, labels


def edited(folder: Path, name: str, **changes) -> None:
    content = json.loads((folder / name).read_text()) | changes
    (folder / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
