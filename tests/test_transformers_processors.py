"""The settings of transformers' image processors mean the pixels that they mean to transformers, or are refused."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from export.errors import ExportError
from export.pictures import PHOTOGRAPHS
from export.preprocessing import Overrides, resolve_preprocessing
from export.sources.transformers_pixels import pixels_of
from export.sources.transformers_processors import OTHERS, PROCESSORS
from vit_core.pixels import normalize, resize_and_crop

FOLDER = Path("folder")
_coffee = Image.open(PHOTOGRAPHS / "coffee.jpg").convert("RGB")
# Longer edges that leave one, two and three pixels more than a multiple of four, where a crop's middle may be another.
PHOTOS = [_coffee.resize(size) for size in ((300, 200), (143, 97), (97, 145), (355, 61), (100, 101), (50, 51))]
NORMALIZED = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}

# By model type; timm's wrapper has timm's own pixels.
CLASSIFIERS = {
    model_type: next(iter(classes.values())).removesuffix("Pil").removesuffix("ImageProcessor")
    for model_type, classes in IMAGE_PROCESSOR_MAPPING_NAMES.items()
    if model_type in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES and model_type != "timm_wrapper"
}


def processor(kind: str, settings: dict):
    return getattr(transformers, f"{kind}ImageProcessorPil")(**settings)


def check(kind: str, settings: dict, **said):
    """The pixels of `settings`, as a file says them, are those of transformers' processor."""
    written = json.loads(json.dumps(settings | (said or {"image_processor_type": f"{kind}ImageProcessor"})))
    pixels = pixels_of(FOLDER, written, 3, "")
    preprocessing = resolve_preprocessing(pixels.config, Overrides())
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    for photo in PHOTOS:
        actual = normalize(resize_and_crop(photo, preprocessing)[None], mean, std)[0]
        (expected,) = processor(kind, settings)(photo, return_tensors="pt")["pixel_values"].float()
        torch.testing.assert_close(actual.flip(0) if pixels.is_bgr else actual, expected, rtol=1e-4, atol=1e-4)


def test_every_processor_of_an_image_classifier_is_known_or_refused():
    assert set(CLASSIFIERS.values()) <= PROCESSORS.keys() | OTHERS.keys()
    known = {model_type: kind for model_type, kind in CLASSIFIERS.items() if kind in PROCESSORS}
    assert {model_type: kind for kind, known in PROCESSORS.items() for model_type in known.model_types} == known


@pytest.mark.parametrize("kind", PROCESSORS)
def test_what_a_processor_assumes_is_what_transformers_does(kind):
    assumed = {**PROCESSORS[kind].defaults, "default_to_square": PROCESSORS[kind].square}
    assumed.pop("do_resize_and_center_crop", None)  # of an older transformers: today both are done anyway
    theirs = {key: getattr(getattr(transformers, f"{kind}ImageProcessorPil"), key) for key in assumed}
    if "crop_size" in theirs:
        theirs["crop_size"] = theirs["crop_size"]["height"]
    assert assumed == {key: value or False for key, value in theirs.items()}  # null is off


@pytest.mark.parametrize("kind", PROCESSORS)
def test_the_pixels_of_the_defaults_are_the_processors(kind):
    check(kind, {key: value for key, value in processor(kind, {}).to_dict().items() if key != "image_processor_type"})


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Bit", {"size": 56, "crop_size": 49}),  # neither the crop nor that there is one is said
        ("CLIP", {"size": {"shortest_edge": 56}, "crop_size": [48, 48], "do_center_crop": True}),
        ("CLIP", {"size": {"height": 57, "width": 57}, "crop_size": 56}),
        ("ViT", {"size": [32, 48]}),
        ("ViT", {"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": 33}),
        ("ViT", {"size": 36, "default_to_square": False, "do_center_crop": True, "crop_size": 33}),
        ("ViT", {"size": 36, "do_center_crop": None, "crop_size": 33}),  # null is off
        ("Siglip", {"size": 36, "do_center_crop": True, "crop_size": 36}),
        ("DeiT", {"size": 36, "crop_size": 32}),
        ("DeiT", {"size": 36, "crop_size": 38}),  # a black border
        ("DeiT", {"size": 56, "crop_size": 36}),  # 36 / (36 / 56) is 55.99…
        ("MobileNetV1", {"size": 36, "crop_size": 31}),
        ("MobileNetV2", {"size": {"shortest_edge": 73}, "crop_size": {"height": 64, "width": 64}, "do_reduce_labels": True}),
        ("MobileViT", {"size": 73, "crop_size": 64}),
        ("MobileViT", {"size": 73, "crop_size": 64, "do_flip_channel_order": False}),
        ("MobileViT", {"size": 56, "crop_size": 64}),
        ("ConvNext", {"size": 61}),
        ("ConvNext", {"size": {"shortest_edge": 384}, "crop_pct": 0.5}),
        ("PoolFormer", {"size": 64, "crop_size": 64}),
        ("PoolFormer", {"size": {"height": 64, "width": 64}, "crop_size": 64, "crop_pct": 0.95}),
        ("PoolFormer", {"size": {"height": 32, "width": 64}, "do_center_crop": False}),
        ("PoolFormer", {"size": 224, "do_resize_and_center_crop": True}),
        ("Levit", {"size": 61, "crop_size": 61}),
        ("Levit", {"size": {"height": 64, "width": 32}, "do_center_crop": False}),
        ("Perceiver", {"size": 56, "crop_size": 61}),
        ("Perceiver", {"size": {"height": 56, "width": 48}, "do_center_crop": False}),
        ("Segformer", {"size": 48, "do_center_crop": False}),
        ("Pvt", {"size": 48, "do_normalize": False}),
        ("Pvt", {"size": 48, "do_rescale": False}),
        ("Pvt", {"size": 48, "do_rescale": False, "do_normalize": False}),
        ("Pvt", {"size": 48, "rescale_factor": 1 / 127.5, "image_mean": 0.5, "image_std": 0.5}),
        ("EfficientNet", {"size": 48}),  # include_top is not said
        ("EfficientNet", {"size": 48, "rescale_offset": True, "rescale_factor": 1 / 127.5}),
        ("EfficientNet", {"size": 48, "do_normalize": False}),
        ("EfficientNet", {"size": 48, "do_rescale": False, "rescale_offset": True, "include_top": False}),
    ],
    ids=str,
)
def test_the_pixels_are_the_processors(kind, settings):
    check(kind, NORMALIZED | {"resample": 3} | settings)


def test_an_old_file_names_a_feature_extractor():
    check("Levit", {**NORMALIZED, "size": 64, "crop_size": 64}, feature_extractor_type="LevitFeatureExtractor")


def test_a_file_without_a_name_is_of_the_models_own_processor():
    said = {**NORMALIZED, "size": 64}
    assert pixels_of(FOLDER, said, 3, "resnet") == pixels_of(FOLDER, {**said, "feature_extractor_type": "ConvNext"}, 3, "")
    with pytest.raises(ExportError, match="names no image_processor_type"):
        pixels_of(FOLDER, said, 3, "hgnet_v2")


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("ViT", {"size": 32, "do_flip_channel_order": True}, "asks for do_flip_channel_order"),
        ("ViT", {"size": 32, "do_resize": None}, "do_resize off"),
        ("ViT", {"size": 32, "rescale_factor": 0}, "rescale_factor 0"),
        ("ViT", {"size": {"height": 32.5, "width": 32}}, "asks for the size"),
        ("ViT", {"size": [32]}, "asks for the size"),
        ("Siglip", {"size": 36}, "crops nothing"),
        ("CLIP", {"size": 36, "crop_size": {"shortest_edge": 32}}, "asks for the crop_size"),
        ("CLIP", {"size": 36, "use_square_size": True}, "asks for use_square_size"),
        ("CLIP", {"size": 36, "crop_size": [32, 31]}, "one share of both edges"),
        ("DeiT", {"size": 35, "crop_size": 32}, "a pixel beside it"),
        ("DeiT", {"size": 35, "crop_size": 38}, "a pixel beside it"),
        ("ConvNext", {"size": {"height": 56, "width": 56}}, "needs its shortest_edge"),
        ("ConvNext", {"size": 56, "do_center_crop": True}, "its crop is that of crop_pct"),
        ("ConvNext", {"size": 56, "crop_pct": 0}, "crop_pct 0"),
        ("MobileViT", {"size": 56, "do_normalize": True}, "it never normalizes"),
        ("Segformer", {"size": 56, "do_center_crop": True}, "it never crops"),
        ("Perceiver", {"size": [56, 48], "crop_size": 64}, "one share of the shortest edge"),
        ("Perceiver", {"size": 56, "crop_size": 48}, "one share of the shortest edge"),
        ("PPLCNet", {"size": 56}, "rounds the longer edge"),
        ("TextNet", {"size": 64}, "rounds both edges up"),
        ("Donut", {"size": [64, 64]}, "makes a thumbnail"),
    ],
    ids=str,
)
def test_what_has_no_counterpart_is_refused(kind, settings, message):
    with pytest.raises(ExportError, match=message):
        pixels_of(FOLDER, {**NORMALIZED, "image_processor_type": f"{kind}ImageProcessor", **settings}, 3, "")
