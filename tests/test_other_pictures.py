"""What a person sees in a picture is what comes out: BMP, PGM and PFM, and what timm reads well."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.made import bmp, encoded
from tests.seen import FEW, RAMP, RGB, pixels, ramp

# --- the others ---


@pytest.mark.parametrize("alpha", [0, 255])
def test_a_bmp_whose_alpha_is_empty_is_opaque(alpha):
    assert np.array_equal(pixels(bmp(RGB, alpha)), RGB)


def test_a_bmp_whose_alpha_is_used_is_laid_over_white():
    alpha = np.where(np.arange(12 * 17).reshape(12, 17) % 2, 255, 0)
    assert np.array_equal(pixels(bmp(RGB, alpha)), np.where(alpha[..., None] == 255, RGB, 255))


@FEW
@given(
    st.sampled_from([1, 3]),
    st.sampled_from([1, 100, 254, 1023, 4095, 65535]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([b" ", b"\n# a comment\n"]),
)
def test_a_pgm_or_ppm_is_scaled_by_its_largest_value(bands, largest, seed, gap):
    samples = np.random.default_rng(seed).integers(0, largest + 1, (7, 9, bands))
    header = gap.join((b"P5" if bands == 1 else b"P6", b"9", b"7", b"%d\n" % largest))
    file = header + samples.astype(">u2" if largest > 255 else "u1").tobytes()
    assert np.array_equal(pixels(file, bands).reshape(7, 9, bands), np.rint(samples / largest * 255))


def test_a_dark_pgm_stays_dark():
    assert set(ramp(b"P5\n16 16\n65535\n" + RAMP.astype(">u2").tobytes())) == {0, 1}
    plain = b"P2\n16 16\n65535\n" + b" ".join(b"%d" % value for value in RAMP.reshape(-1))
    assert set(ramp(plain)) == {0, 1}


@pytest.mark.parametrize("order", "<>")
def test_a_pfm_of_floats_is_grey_from_0_to_1(order):
    values = (RAMP[::-1] / 255).astype(order + "f4").tobytes()
    assert ramp(b"Pf\n16 16\n%s1.0\n" % (b"-" if order == "<" else b"") + values) == list(range(256))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_what_timm_reads_well_is_as_timm_reads_it(format, mode):
    file = encoded(Image.fromarray(RGB).resize((90, 70)).convert(mode), format)
    for channels, wanted in ((3, "RGB"), (1, "L")):
        assert np.array_equal(pixels(file, channels), np.asarray(Image.open(io.BytesIO(file)).convert(wanted)))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma", "group4"])
def test_a_packed_tiff_is_as_timm_reads_it(compression):
    image = Image.fromarray(RGB).resize((90, 70)).convert("1" if compression == "group4" else "RGB")
    file = encoded(image, "TIFF", compression=compression)
    assert np.array_equal(pixels(file), np.asarray(Image.open(io.BytesIO(file)).convert("RGB")))


def test_the_transparent_colour_of_a_gifs_first_frame_is_white_and_its_later_frames_are_not_seen():
    first = Image.new("P", (8, 8), 1)
    first.putpalette([0, 0, 0, 200, 0, 0])
    first.paste(0, (0, 0, 4, 8))
    file = encoded(
        first, "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")], transparency=0, comment=b"x" * 900
    )
    assert pixels(file)[0, 0].tolist() == [255, 255, 255]
    assert pixels(file)[0, 7].tolist() == [200, 0, 0]
