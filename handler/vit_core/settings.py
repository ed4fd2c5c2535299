"""The contract of an archive: what the export step decides and the handler follows.

`Settings` is the section `handler` of an archive's `model-config.yaml`; `Serving` is the rest of that file, which TorchServe
reads. Each setting is named here and nowhere else: the export step fills in these classes, the handler reads them, and the
names in the file are the names of the fields. This module imports neither torch nor TorchServe.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from vit_core.mapping import LATER, ArchiveError, from_dict, to_dict
from vit_core.precision import PRECISIONS

# Increases when handlers can no longer read the archives of older ones. The first archives have no format.
FORMAT = 2

CLASSIFY, EMBED = TASKS = ("classify", "embed")
# Two are transformers'. CENTER_FLOOR: where the middle is half a pixel off, a crop starts at the pixel before it (timm's at the
# even one of the two), and so does a border (timm's at the one after). CROP_FIRST: a square is cropped, then it is resized.
CENTER, SQUASH, BORDER, CENTER_FLOOR, CROP_FIRST = CROP_MODES = ("center", "squash", "border", "center_floor", "crop_first")
# timm also knows nearest and box: no model asks for them, and their steps cannot be cut out of the whole to 1/255.
INTERPOLATIONS = ("bilinear", "bicubic", "hamming", "lanczos")
CHANNELS = (1, 3)
LEAST_CROP, MOST_CROP = 0.1, 2  # an image is resized to the input's edge divided by this share, in memory
LEAST_STD = 1e-6  # pixels are divided by it in float32
GRADIENT, ROLLOUT = METHODS = ("gradient", "rollout")
SOFTMAX, SIGMOID, NONE = ACTIVATIONS = ("softmax", "sigmoid", "none")
UNKNOWN = "unknown"  # the label of an answer that abstains


def _check(name: str, value: object, known: tuple) -> None:
    if value not in known:
        raise ArchiveError(f"{name} is {value!r}: the handler knows {', '.join(map(str, known))}")


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ArchiveError(f"{name} is {value}: expected at least 1")


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes pixels: the fields of `timm.data.resolve_model_data_config`."""

    input_size: tuple[int, int, int]  # channels (1 or 3), height, width
    interpolation: str  # one of INTERPOLATIONS
    crop_pct: float  # the share of the resized edge that the crop keeps; CROP_FIRST: of the image's shortest edge
    crop_mode: str  # one of CROP_MODES
    mean: tuple[float, ...]  # for each channel, of pixels in 0..1
    std: tuple[float, ...]

    def __post_init__(self):
        _check("channels", self.input_size[0], CHANNELS)
        _check_positive("the input's size", min(self.input_size))
        _check("interpolation", self.interpolation, INTERPOLATIONS)
        _check("crop_mode", self.crop_mode, CROP_MODES)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.input_size[0]:
                raise ArchiveError(f"{name} has {len(values)} values, but the model takes {self.input_size[0]} channels")
            if not all(abs(value) < 1 / LEAST_STD for value in values) or (name == "std" and min(values) < LEAST_STD):
                raise ArchiveError(f"{name} is {', '.join(map(str, values))}: expected numbers{' above 0' * (name == 'std')}")
        if not LEAST_CROP <= self.crop_pct <= MOST_CROP:
            raise ArchiveError(f"crop_pct is {self.crop_pct}: expected {LEAST_CROP} to {MOST_CROP}, 1 for no crop")


@dataclass(frozen=True)
class Limits:
    """The most that a request may ask for. The handler refuses more with 413."""

    max_bytes: int = field(default=20_000_000, metadata={"of": "the bytes of an image file"})
    max_pixels: int = field(default=50_000_000, metadata={"of": "the pixels of an image"})
    max_images: int = field(default=32, metadata={"of": "the images in one request"})
    max_decode_seconds: int = field(default=5, metadata={"of": "the seconds of decoding for the images of one request"})
    # An explanation takes as long as a dozen predictions, and those that share its batch wait for it.
    max_explanations: int = field(default=4, metadata={"of": "the images in one request for explanations"})
    max_explain_seconds: int = field(default=20, metadata={"of": "the seconds in which explanations of one batch are begun"})


@dataclass(frozen=True)
class Head:
    """The meaning of the model's logits, and which classes an answer contains."""

    # SOFTMAX: probabilities of classes that exclude each other; SIGMOID: one of each class by itself; NONE: scores as they are
    activation: str = SOFTMAX
    top_k: int = 5  # labels in an answer, unless a request says otherwise
    thresholds: tuple[float, ...] | None = None  # by class: an answer has the labels that reach their threshold
    # The outputs are divided by it (Guo et al., On Calibration of Modern Neural Networks, 2017).
    temperature: float = field(default=1.0, metadata=LATER)
    abstain: float | None = None  # SOFTMAX: the answer is UNKNOWN if the most probable label has a lower probability

    def __post_init__(self):
        _check("activation", self.activation, ACTIVATIONS)
        _check_positive("top_k", self.top_k)
        if not 0 < self.temperature < math.inf:
            raise ArchiveError(f"temperature is {self.temperature}: expected a finite number above 0")
        if self.temperature != 1 and not self.gives_probabilities:
            raise ArchiveError(f"temperature is {self.temperature}: the head {self.activation} has no probabilities")
        if self.abstain is not None and not (self.activation == SOFTMAX and 0 < self.abstain <= 1):
            raise ArchiveError(f"abstain is {self.abstain}: expected a probability above 0, and the head {SOFTMAX}")

    @property
    def gives_probabilities(self) -> bool:
        return self.activation != NONE


@dataclass(frozen=True)
class Embedding:
    """How the features before the classifier become an embedding."""

    normalize: bool = False  # to length 1 (L2)


@dataclass(frozen=True)
class Explanations:
    """How the model's answers can be explained; or, as a clause, why they are `unavailable`."""

    methods: tuple[str, ...] = ()  # of METHODS, the default first
    grid: tuple[int, int] | None = None  # rows and columns of patches
    prefix_tokens: int = 0  # tokens before the patches
    answer_tokens: tuple[int, ...] = ()  # the tokens that the answer is read from; none: it is read from all patches
    unavailable: str | None = None

    def __post_init__(self):
        for method in self.methods:
            _check("method", method, METHODS)


@dataclass(frozen=True)
class Settings:
    """Everything that the handler needs to know about a model, except for its trace and its labels."""

    preprocessing: Preprocessing
    precisions: tuple[str, ...]  # in which the model may run (see precision.py), the preferred one first
    flops: int  # floating-point operations for one image; a multiplication with an addition is two
    explanations: Explanations
    tasks: tuple[str, ...] = (CLASSIFY,)  # of TASKS; the first is the default
    head: Head = Head()
    embedding: Embedding = Embedding()
    limits: Limits = Limits()
    fast_pixels: bool = False  # preprocessing that takes less time, with pixels that differ from timm's by some 255ths
    format: int = FORMAT

    def __post_init__(self):
        for task in self.tasks:
            _check("task", task, TASKS)
        if not self.tasks or not self.precisions or isinstance(self.precisions, str):
            raise ArchiveError("tasks and precisions should be lists with something in them")
        for precision in self.precisions:
            _check("precision", precision, tuple(PRECISIONS))

    def to_dict(self) -> dict[str, Any]:
        return to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Settings:
        """Raises ArchiveError for another format, and names a setting that is missing, unknown, or has an unsupported value."""
        if not isinstance(data, Mapping):
            raise ArchiveError(f"the handler's settings should be a mapping, not {type(data).__name__}")
        if (found := data.get("format", 1)) != FORMAT:
            older = found < FORMAT if isinstance(found, int) else False
            what = "export the model again" if older else "use the handler of the version that exported it, or a newer one"
            raise ArchiveError(f"the archive's settings have format {found}, and this handler reads format {FORMAT}: {what}")
        return from_dict(cls, data, "the handler's settings")

    def run_in(self, precision: str) -> Settings:
        """Returns these settings with `precision` alone. Raises ArchiveError if the trace cannot be cast to it."""
        _check("precision", precision, tuple(PRECISIONS))
        stored = {name for name in self.precisions if PRECISIONS[name].stored}
        if precision not in stored and (stored or PRECISIONS[precision].stored):
            why = f"its trace is stored in {min(stored)}" if stored else f"export it with --precision {precision}"
            raise ArchiveError(f"this archive cannot be run in {precision}: {why}")
        return replace(self, precisions=(precision,))


@dataclass(frozen=True)
class Serving:
    """TorchServe's own settings of a model. In the file they have TorchServe's names: `minWorkers` for `min_workers`."""

    min_workers: int = 1
    max_workers: int = 24  # the most that start by default: three for each of eight GPUs
    batch_size: int = 8
    max_batch_delay: int = 1  # milliseconds that a request waits for others; TorchServe takes 0 to mean 100
    response_timeout: int = 120  # seconds
    startup_timeout: int = 120  # seconds
    device_type: str | None = None  # cpu: TorchServe gives the workers no GPU

    def to_dict(self) -> dict[str, Any]:
        return {_camel(name): value for name, value in to_dict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Serving:
        """Ignores TorchServe's other settings, which a user may have added."""
        known = {_camel(each.name): each.name for each in fields(cls)}
        found = from_dict(cls, {known[name]: value for name, value in data.items() if name in known}, "TorchServe's settings")
        _check_positive("batchSize", found.batch_size)
        return found


def _camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda match: match[1].upper(), name)
