"""The pictures on which the export step runs a model to check it: real photographs, and noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image
from timm.data import create_transform

from vit_core.settings import Preprocessing

PHOTOGRAPHS = Path(__file__).parent / "photographs"
NOISE = 4
BATCH = 4  # in small batches, to save memory with large models


def pictures(preprocessing: Preprocessing) -> Iterator[torch.Tensor]:
    """Returns the photographs as timm prepares them for this model, and noise: float32 [BATCH, C, H, W] each."""
    transform = create_transform(**asdict(preprocessing))
    mode = "RGB" if preprocessing.input_size[0] == 3 else "L"
    photographs = [transform(Image.open(file).convert(mode)) for file in sorted(PHOTOGRAPHS.glob("*.jpg"))]
    yield from torch.stack(photographs).split(BATCH)
    yield torch.randn(NOISE, *preprocessing.input_size, generator=torch.Generator().manual_seed(0))
