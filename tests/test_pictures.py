"""What a person sees in a picture is what comes out: depths, signs, byte orders, colour keys, alpha."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.made import chunk, png, tiff
from tests.seen import FEW, RAMP, RGB, drawn, pixels, ramp
from vit_core.errors import InputError

# --- TIFF ---


@FEW
@given(st.data())
def test_a_tiff_of_any_depth_and_arrangement_has_its_samples_scaled(data):
    draw = data.draw
    bands, planar = draw(st.sampled_from([(1, False), (3, True), (4, True)])) if draw(st.booleans()) else (1, False)
    bits = draw(st.sampled_from([8, 16] if bands > 1 else [2, 4, 8, 10, 12, 14, 16]))
    samples = drawn(draw, bits, bands)
    inverted = bands == 1 and draw(st.booleans())
    layout = draw(st.sampled_from([{}, {"strip": 5}, {"tile": 16}]))
    deflate = draw(st.booleans())
    predictor = draw(st.sampled_from([1, 2])) if deflate and bits in (8, 16) else 1
    file = tiff(
        samples,
        bits,
        draw(st.sampled_from("<>")),
        2 if bands > 1 else 1 - inverted,
        planar,
        deflate=deflate,
        predictor=predictor,
        **layout,
        **({"t338": [0]} if bands == 4 else {}),
    )
    if bands == 1:
        expected = np.floor(samples[..., 0] * 255.0 / (2**bits - 1) + 0.5)
        expected = 255 - expected if inverted else expected
        assert np.array_equal(pixels(file, 1), expected)
    else:
        assert np.array_equal(pixels(file), samples[..., :3] >> (bits - 8))


@FEW
@given(st.data())
def test_floats_and_numbers_with_a_sign_are_scaled_or_stretched(data):
    draw = data.draw
    kind = draw(st.sampled_from(["i2", "i4", "f2", "f4", "f8"]))
    low, high = draw(st.sampled_from([(0, 1), (0, 200), (-100, 100), (0, 30_000)]))
    seed = draw(st.integers(0, 2**32 - 1))
    samples = np.random.default_rng(seed).uniform(low, high, (9, draw(st.integers(1, 40)), 1)).astype(kind)
    layout = draw(st.sampled_from([{}, {"strip": 4}, {"tile": 16}, {"deflate": True}]))
    if kind != "f2" and draw(st.booleans()):
        layout = {**layout, "deflate": True, "predictor": 3 if kind[0] == "f" else 2}
    inverted = draw(st.booleans())
    file = tiff(samples, order=draw(st.sampled_from("<>")), photometric=1 - inverted, **layout)
    values = samples[..., 0].astype(np.float64)
    whites = {"f": (1, 255, 65535), "i2": (255, 32767), "i4": (255, 65535, 2**31 - 1)}
    black, white = values.min(), values.max()
    if black >= 0:
        black, white = 0, next(each for each in whites.get(kind, whites["f"]) if white <= each)
    expected = (values - black) * 255 / (white - black) if white > black else np.zeros(values.shape)
    actual = pixels(file, 1).astype(float)
    assert np.abs((255 - actual if inverted else actual) - expected).max() <= 0.51


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("largest", [255, 65535, 2**32 - 1])
def test_white_of_32_bits_is_the_first_that_no_value_is_above(order, largest):
    samples = (RAMP.astype(np.uint64) * largest // 255).astype(np.uint32)
    assert ramp(tiff(samples, order=order)) == list(range(256))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("used", [10, 12, 14])
@pytest.mark.parametrize("photometric", [0, 1, 2])
def test_a_tiff_may_say_that_it_uses_fewer_bits(order, used, photometric):
    samples = np.round(RAMP * ((2**used - 1) / 255)).astype(np.uint16)
    samples = np.repeat(samples, 3, axis=2) if photometric == 2 else samples
    file = tiff(samples, order=order, photometric=photometric, t281=[2**used - 1])
    assert ramp(file) == (list(range(255, -1, -1)) if photometric == 0 else list(range(256)))


def test_a_tiff_that_has_more_than_the_largest_value_it_names_is_scaled_by_its_bits():
    assert ramp(tiff((RAMP * 257).astype(np.uint16), t281=[4095])) == list(range(256))


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cmyk_in_a_tiff_is_pillows(dtype, planar):
    samples = np.concatenate([RGB, RGB[..., :1]], axis=2)
    expected = np.asarray(Image.fromarray(samples, "CMYK").convert("RGB"))
    file = tiff(samples.astype(dtype) * (257 if dtype == np.uint16 else 1), photometric=5, planar=planar)
    assert np.array_equal(pixels(file), expected)


BAND = np.random.default_rng(4).integers(0, 256, (12, 17, 1)).astype(np.uint8)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("kind", [0, 2])
@pytest.mark.parametrize("band", [BAND, np.full_like(BAND, 40), np.zeros_like(BAND)], ids=["noise", "even", "empty"])
def test_a_band_of_data_beside_rgb_is_no_coverage(band, kind, planar):
    file = tiff(np.concatenate([RGB, band], axis=2), photometric=2, planar=planar, t338=[kind])
    assert np.array_equal(pixels(file), RGB)


def test_bands_of_data_beside_grey_and_beside_many_are_no_coverage():
    assert np.array_equal(pixels(tiff(np.concatenate([BAND, BAND], axis=2), t338=[2]), 1), BAND[..., 0])
    seven = np.concatenate([RGB, *[BAND] * 4], axis=2)
    assert np.array_equal(pixels(tiff(seven, photometric=2, t338=[0, 0, 0, 0])), RGB)


@pytest.mark.parametrize("planar", [False, True])
def test_a_coverage_in_a_tiff_is_laid_over_white(planar):
    alpha = np.where(np.arange(12 * 17).reshape(12, 17, 1) % 3, 255, 0).astype(np.uint8)
    expected = np.where(alpha == 255, RGB, 255)
    straight = tiff(np.concatenate([RGB, alpha], axis=2), photometric=2, planar=planar, t338=[2])
    multiplied = tiff(np.concatenate([RGB & alpha, alpha], axis=2), photometric=2, planar=planar, t338=[1])
    assert np.array_equal(pixels(straight), expected)
    assert np.array_equal(pixels(multiplied), expected)


def test_colours_that_are_multiplied_by_their_coverage_are_not_multiplied_again():
    half = np.concatenate([np.full((4, 4, 3), 100), np.full((4, 4, 1), 128)], axis=2).astype(np.uint8)
    assert np.abs(pixels(tiff(half, photometric=2, t338=[1])).astype(int) - (100 + 255 - 128)).max() <= 1


def test_an_unusual_kind_of_tiff_is_refused_by_name():
    with pytest.raises(InputError, match="unsigned numbers of 24 bits"):
        pixels(tiff(RAMP.astype(np.uint32), bits=24))


# --- PNG ---


@FEW
@given(st.data())
def test_a_pngs_colour_key_makes_its_pixels_white_and_no_others(data):
    draw = data.draw
    bands = draw(st.sampled_from([1, 3]))
    depth = draw(st.sampled_from([1, 2, 4, 8, 16] if bands == 1 else [8, 16]))
    few = draw(st.integers(2, 5))  # values, so that some pixels have the colour
    seed = draw(st.integers(0, 2**32 - 1))
    values = np.random.default_rng(seed).integers(0, 2**depth, few)
    samples = np.random.default_rng(seed + 1).choice(values, (9, 11, bands))
    key = samples[draw(st.integers(0, 8)), draw(st.integers(0, 10))]
    file = png(samples, depth, chunk(b"tRNS", struct.pack(f">{bands}H", *key)))
    if depth == 16:
        expected = samples >> 8 if bands == 3 else np.floor(samples / 257 + 0.5)
    else:
        expected = samples * (255 // (2**depth - 1))
    expected = np.where((samples == key).all(axis=2, keepdims=True), 255, expected)
    assert np.array_equal(pixels(file, bands).reshape(9, 11, bands), expected)


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("used", [9, 10, 12, 14])
def test_a_png_may_say_that_it_uses_fewer_bits(bands, used):
    samples = np.repeat(np.round(RAMP * ((2**used - 1) / 255)), bands, axis=2).astype(np.uint16)
    if bands in (2, 4):
        samples[..., -1] = 2**used - 1
    assert ramp(png(samples, 16, chunk(b"sBIT", bytes([used] * bands)))) == list(range(256))


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_a_png_that_uses_all_its_bits_whatever_it_says_is_as_without_that(bands):
    samples = np.repeat(RAMP * 257, bands, axis=2)
    samples[..., 3:] = 65535
    assert ramp(png(samples, 16, chunk(b"sBIT", bytes([12] * bands)))) == list(range(256))


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"tEXt", b"iCCP", b"eXIf", b"prVt"])
@pytest.mark.parametrize("after", [False, True])
def test_what_is_no_pixel_in_a_png_does_not_matter(kind, after):
    large = zlib.compress(bytes(3_000_000))
    content = {b"iTXt": b"a\0\1\0\0\0" + large, b"tEXt": b"a\0" + bytes(1_500_000)}.get(kind, b"a\0\0" + large)
    extra = chunk(kind, content)
    assert np.array_equal(pixels(png(RGB, 8, *((b"", extra) if after else (extra,)))), RGB)
