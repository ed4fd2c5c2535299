"""Converts the samples of a TIFF from its bytes, of any depth, byte order and arrangement, to a picture of 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vit_core.samples import black_and_white, extremes, row_bands, scaled
from vit_core.transparency import without_data_as_alpha

CMYK, ASSOCIATED, UNASSOCIATED = 5, 1, 2
HORIZONTAL, FLOATING = 2, 3


@dataclass(frozen=True)
class Layout:
    """The meaning of a TIFF's samples, and their arrangement."""

    width: int
    height: int
    samples: int  # of a pixel
    bits: int  # of a sample
    kind: str  # numpy's: u, i or f
    photometric: int
    extra: tuple[int, ...]  # the meaning of each sample that is not a colour
    planar: bool  # whether all first samples lie together, then all second ones
    order: str  # of the bytes of a sample: < or >
    predictor: int
    used_bits: int  # bits of the largest value, if the file gives it; else 0
    tile_width: int

    @property
    def colours(self) -> int:
        """The number of a pixel's samples that are its colour, for the supported kinds."""
        return {2: 3, CMYK: 4}.get(self.photometric, 1)

    @property
    def alpha(self) -> int | None:
        """The index of the sample that gives the opacity."""
        found = self.extra[:1] in ((ASSOCIATED,), (UNASSOCIATED,)) and self.photometric != CMYK
        return self.colours if found and self.samples > self.colours else None

    def row_bytes(self, width: int) -> int:
        """Returns the bytes of a row of `width` pixels in one plane."""
        return (width * self._together * self.bits + 7) // 8

    def needed_planes(self) -> tuple[int | None, ...]:
        """The planes that the picture needs; None if all samples lie in one."""
        return tuple(self._wanted()) if self.planar else (None,)

    @property
    def _together(self) -> int:
        return 1 if self.planar else self.samples

    def _wanted(self) -> list[int]:
        return [*range(self.colours), *([] if self.alpha is None else [self.alpha])]

    def rows(self, planes: tuple[Image.Image, ...], rows: slice) -> np.ndarray:
        """Returns the samples of some rows, the colour first and then the alpha: [rows, width, wanted]."""
        bands = [self._samples(np.asarray(plane.crop((0, rows.start, plane.width, rows.stop)))) for plane in planes]
        return np.concatenate(bands, axis=2) if self.planar else bands[0][..., self._wanted()]

    def _samples(self, raw: np.ndarray) -> np.ndarray:
        """Converts uint8 [rows, bytes] to samples [rows, width, samples of a plane]."""
        pieces, together, size = [], self._together, self.row_bytes(self.tile_width)
        for start in range(0, raw.shape[1], size):  # a predictor starts over with each tile
            piece = raw[:, start : start + size]
            if self.predictor == FLOATING:
                piece = np.cumsum(piece.reshape(len(piece), -1, together), axis=1, dtype=np.uint8).reshape(len(piece), -1)
                # The first bytes of all samples lie together, then the second ones, the most significant first.
                numbers = np.ascontiguousarray(piece.reshape(len(piece), self.bits // 8, -1).transpose(0, 2, 1))
                values = numbers.view(f">f{self.bits // 8}")[..., 0].astype(f"f{self.bits // 8}")
            else:
                values = self._numbers(piece, self.tile_width * together)
            values = values.reshape(len(raw), -1, together)
            pieces.append(np.cumsum(values, axis=1, dtype=values.dtype) if self.predictor == HORIZONTAL else values)
        return np.concatenate(pieces, axis=1)[:, : self.width]

    def _numbers(self, raw: np.ndarray, count: int) -> np.ndarray:
        """Converts uint8 [rows, bytes] to [rows, count] of this kind."""
        if self.bits in (8, 16, 32, 64):
            return (
                np.ascontiguousarray(raw)
                .view(f"{self.order}{self.kind}{self.bits // 8}")
                .astype(f"{self.kind}{self.bits // 8}")
            )
        # Other numbers of bits are packed without gaps, the most significant first.
        at = np.arange(count) * self.bits
        raw = np.pad(raw, ((0, 0), (0, 3)))
        word = np.zeros((len(raw), count), np.uint32)
        for byte in range(4):
            word = word << 8 | raw[:, (at >> 3) + byte]
        found = word >> (32 - self.bits - (at & 7)).astype(np.uint32) & np.uint32(2**self.bits - 1)
        return found.astype(np.uint16 if self.bits <= 16 else np.uint32)


def check(layout: Layout) -> None:
    """Raises ValueError for samples of an unsupported kind."""
    whole = layout.bits in (8, 16, 32, 64)
    if not (whole or (layout.kind == "u" and layout.bits < 24)) or (layout.kind == "f" and layout.bits == 8):
        kind = {"u": "unsigned", "i": "signed", "f": "floating"}[layout.kind]
        raise ValueError(f"its samples are {kind} numbers of {layout.bits} bits")
    if layout.predictor not in (1, HORIZONTAL, FLOATING) or (layout.predictor != 1 and not whole):
        raise ValueError("its predictor does not go with its samples")
    if layout.predictor == FLOATING and layout.kind != "f":
        raise ValueError("its predictor does not go with its samples")


def picture(layout: Layout, planes: tuple[Image.Image, ...]) -> Image.Image:
    """Returns the picture in `planes`, whose pixels are the bytes of the rows, in mode L, LA, RGB, RGBA or CMYK."""
    samples = layout.colours + (layout.alpha is not None)
    pixels = np.empty((layout.height, layout.width, samples), np.uint8)
    for which in (slice(0, layout.colours), slice(layout.colours, samples)):
        if which.start == samples:
            continue
        # Up to 16 bits, white is usually known without reading the values.
        known = layout.kind == "u" and layout.bits <= 16 and not layout.used_bits
        low, high = (
            (0, 2**layout.bits - 1) if known else extremes(layout.rows(planes, rows)[..., which] for rows in _bands(layout))
        )
        black, white = black_and_white(layout.kind, layout.bits, low, high, layout.used_bits)
        # Colours of 16 bits are the first byte of each sample, as Pillow takes them where it can.
        first_byte = samples > 1 and layout.bits == 16 and (black, white) == (0, 65535)
        for rows in _bands(layout):
            band = layout.rows(planes, rows)[..., which]
            pixels[rows, :, which] = band >> 8 if first_byte else scaled(band, black, white)
    if layout.photometric == 0:
        pixels[..., 0] = 255 - pixels[..., 0]
    if samples == 1:
        return Image.fromarray(pixels[..., 0])
    if layout.alpha is None:
        return Image.fromarray(pixels, mode="CMYK" if layout.photometric == CMYK else None)
    image = Image.fromarray(pixels)
    if layout.extra[0] == UNASSOCIATED:
        return without_data_as_alpha(image)
    multiplied = {"LA": "La", "RGBA": "RGBa"}[image.mode]
    return Image.frombytes(multiplied, image.size, image.tobytes()).convert(image.mode)


def _bands(layout: Layout) -> Iterator[slice]:
    return row_bands(layout.height, layout.width * layout.samples)
