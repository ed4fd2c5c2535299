"""The options of the export step."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from export.preprocessing import Overrides
from export.sources.name import ModelName
from vit_core.precision import PRECISIONS
from vit_core.settings import CLASSIFY, Limits, Serving

AUTO = "auto"


@dataclass(frozen=True)
class Options:
    """What to export, and how. Each field is an option of the command line; `--help` says more."""

    model: str
    checkpoint: Path | None = None
    checkpoint_key: str | None = None
    pretrained: bool = True  # with the model's own weights, if there is no checkpoint
    num_classes: int | None = None
    labels: Path | None = None
    text_embeddings: Path | None = None
    logit_scale: float = 100.0  # of CLIP: the largest scale in its training
    logit_bias: float = 0.0
    tasks: tuple[str, ...] = (CLASSIFY,)  # of TASKS
    normalize: bool = False
    preprocessing: Overrides = field(default_factory=Overrides)
    train_size: bool = False
    fast_pixels: bool = False
    explain: bool = True
    model_name: str | None = None
    version: str = "1.0"
    model_store: Path = Path("model_store")
    force: bool = False
    workers: int | None = None
    batch_size: int = Serving.batch_size
    max_batch_delay: int = Serving.max_batch_delay
    response_timeout: int = Serving.response_timeout
    startup_timeout: int = Serving.startup_timeout
    precision: str = AUTO  # or one of PRECISIONS
    calibrate: Path | None = None  # a folder of pictures, for int8
    merge_tokens: int | None = None  # pairs in each block
    head: str | None = None  # one of ACTIVATIONS
    thresholds: str | None = None
    abstain: float | None = None
    top_k: int | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def name(self) -> ModelName:
        return ModelName.parse(self.model)

    @property
    def quantizes(self) -> bool:
        """Whether the archive's trace is in int8 instead of fp32."""
        return self.precision != AUTO and PRECISIONS[self.precision].stored

    @property
    def classifies(self) -> bool:
        return CLASSIFY in self.tasks

    @property
    def served_as(self) -> str:
        return self.model_name or self.name.short

    @property
    def archive(self) -> Path:
        return self.model_store / f"{self.served_as}.mar"
