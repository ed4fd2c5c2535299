"""What the handler makes of a picture, and samples for pictures that hypothesis draws."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from vit_core.image import Deadline, decode
from vit_core.settings import Limits

LIMITS = Limits(max_bytes=2_000_000, max_pixels=1_000_000)
FEW = settings(max_examples=60)
RAMP = np.arange(256).reshape(16, 16, 1)
RGB = np.random.default_rng(3).integers(0, 256, (12, 17, 3)).astype(np.uint8)


def pixels(data: bytes, channels: int = 3) -> np.ndarray:
    return np.asarray(decode(data, channels, LIMITS, Deadline(5)))


def ramp(data: bytes) -> list[int]:
    return pixels(data, 1).reshape(-1).tolist()


def drawn(draw, bits: int, bands: int) -> np.ndarray:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    seed = draw(st.integers(0, 2**32 - 1))
    values = np.random.default_rng(seed).integers(0, 2**bits, (height, width, bands), np.uint64)
    return values.astype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)
