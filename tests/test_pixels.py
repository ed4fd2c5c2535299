"""The handler's pixels against timm's evaluation transform, which every timm model was measured with."""

import io
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import create_transform

from vit_core.image import Deadline, decode
from vit_core.pixels import least_edge, normalize, resize_and_crop
from vit_core.settings import BORDER, CENTER, INTERPOLATIONS, SQUASH, Limits, Preprocessing

VIT = Preprocessing((3, 224, 224), "bicubic", 0.9, "center", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def timm_pixels(image: Image.Image, preprocessing: Preprocessing) -> torch.Tensor:
    return create_transform(**asdict(preprocessing), normalize=False)(image)


def noise(height: int, width: int, seed: int, channels: int = 3) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels == 3 else pixels[..., 0])


preprocessings = st.builds(
    lambda channels, height, width, interpolation, crop_pct, crop_mode: Preprocessing(
        (channels, height, width), interpolation, crop_pct, crop_mode, (0.485, 0.456, 0.406)[:channels], (0.2,) * channels
    ),
    channels=st.sampled_from([1, 3]),
    height=st.integers(8, 64),
    width=st.integers(8, 64),
    interpolation=st.sampled_from(INTERPOLATIONS),
    crop_pct=st.sampled_from([0.5, 0.875, 0.9, 0.95, 1.0, 1.2]),
    crop_mode=st.sampled_from([CENTER, SQUASH, BORDER]),
)


def plain(size: tuple[int, int], interpolation: str, crop_pct: float) -> Preprocessing:
    return Preprocessing((3, *size), interpolation, crop_pct, "center", (0.5,) * 3, (0.5,) * 3)


# Each is some 255ths off if only the crop is resampled: exact halves, rounded twice;
@example(preprocessing=plain((38, 8), "bilinear", 0.875), height=38, width=38, seed=0, square=False)
# Pillow resizes the whole row by row first, but a crop of it column by column.
@example(preprocessing=plain((27, 30), "bicubic", 0.5), height=192, width=110, seed=0, square=False)
@settings(max_examples=400)
@given(
    preprocessing=preprocessings,
    height=st.integers(8, 400),
    width=st.integers(8, 400),
    seed=st.integers(0, 99),
    square=st.booleans(),
)
def test_every_image_is_resized_and_cropped_as_timm_does(preprocessing, height, width, seed, square):
    if square:
        channels, size, _ = preprocessing.input_size
        preprocessing = Preprocessing(**{**asdict(preprocessing), "input_size": (channels, size, size)})
    image = noise(height, width, seed, preprocessing.input_size[0])
    assume(max(height, width) < 8 * min(height, width))  # timm rounds the short edge of longer ones to no pixels, and fails
    assert torch.equal(resize_and_crop(image, preprocessing), timm_pixels(image, preprocessing))


@pytest.mark.parametrize("photo", load_sample_images().images, ids=load_sample_images().filenames)
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_photographs_are_resized_and_cropped_as_timm_does(photo, crop_mode):
    preprocessing = Preprocessing(**{**asdict(VIT), "crop_mode": crop_mode})
    image = Image.fromarray(photo)
    assert torch.equal(resize_and_crop(image, preprocessing), timm_pixels(image, preprocessing))


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (5000, 7)])
def test_extreme_shapes_are_answered(size):
    for crop_mode in ("center", "squash", "border"):
        preprocessing = Preprocessing(**{**asdict(VIT), "crop_mode": crop_mode})
        assert resize_and_crop(noise(*size, seed=0), preprocessing).shape == (3, 224, 224)


def test_normalize_equals_timms():
    image = noise(300, 200, seed=1)
    preprocessing = Preprocessing(**{**asdict(VIT), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)})
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    expected = create_transform(**asdict(preprocessing))(image)
    pixels = timm_pixels(image, preprocessing)
    torch.testing.assert_close(normalize(pixels[None], mean, std)[0], expected, rtol=0, atol=1e-6)


# --- --fast-pixels ---


@settings(max_examples=200)
@given(preprocessing=preprocessings, height=st.integers(8, 400), width=st.integers(8, 400), seed=st.integers(0, 99))
def test_fast_pixels_of_noise_are_timms_to_two_255ths(preprocessing, height, width, seed):
    image = noise(height, width, seed, preprocessing.input_size[0])
    assume(max(height, width) < 8 * min(height, width))
    actual, expected = resize_and_crop(image, preprocessing, fast=True), timm_pixels(image, preprocessing)
    assert actual.shape == expected.shape and actual.dtype == torch.uint8
    assert (actual.int() - expected.int()).abs().max() <= 2


@pytest.mark.parametrize("photo", load_sample_images().images, ids=load_sample_images().filenames)
def test_fast_pixels_of_photographs_are_timms_to_a_255th(photo):
    image = Image.fromarray(photo)
    actual, expected = resize_and_crop(image, VIT, fast=True), timm_pixels(image, VIT)
    assert actual.shape == expected.shape and actual.dtype == torch.uint8
    assert (actual.int() - expected.int()).abs().max() == 1  # not 0: torch has resized it


@pytest.mark.parametrize("photo", load_sample_images().images, ids=load_sample_images().filenames)
def test_a_large_jpeg_is_decoded_small_and_stays_near(photo):
    buffer = io.BytesIO()
    Image.fromarray(photo).resize((4496, 3000), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=90)
    limits = Limits(max_bytes=10**8, max_pixels=10**8, max_images=1, max_decode_seconds=60)
    image = decode(buffer.getvalue(), 3, limits, Deadline(60), least_edge(VIT))
    assert image.size == (4496 // 4, 3000 // 4)
    difference = (resize_and_crop(image, VIT, fast=True).int() - timm_pixels(Image.open(buffer), VIT).int()).abs()
    assert difference.float().mean() < 0.5 and difference.max() <= 4
