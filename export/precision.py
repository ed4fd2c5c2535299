"""How near to fp32 the model stays in each precision that the handler may run it in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import nn

from export import options
from export.errors import ExportError
from export.int8 import quantize
from vit_core import precision
from vit_core.head import scores
from vit_core.precision import FALLBACK, PRECISIONS, Precision
from vit_core.settings import Head

# Of a probability, or of the largest score where there are none: a precision that is further off is not picked by itself.
TOLERANCE = 0.05
LEAST_COSINE = 0.99  # the same for embeddings, which are compared by their direction
# Precisions that are not a cast of the trace, but another module in its place: (module, input size) → module.
CONVERSIONS = {"int8": quantize}


@dataclass(frozen=True)
class Agreement:
    """One precision beside fp32, over the photographs and as many pictures of noise as make `images`."""

    images: int
    top1_agreement: float | None  # share of the images with the same most probable class; None without classes
    largest_score_difference: float | None
    least_cosine: float | None  # between an image's two embeddings; None without embeddings

    @property
    def near(self) -> bool:
        """Whether this precision may be picked by itself."""
        probabilities = self.largest_score_difference is None or self.largest_score_difference <= TOLERANCE
        return probabilities and (self.least_cosine is None or self.least_cosine >= LEAST_COSINE)


def convert(module: nn.Module, wanted: str, input_size: tuple[int, int, int]) -> nn.Module | None:
    """The module that is traced in the place of `module`, for the precision that the user wants; None: that one itself."""
    return CONVERSIONS[wanted](module, input_size) if wanted in CONVERSIONS else None


def choose_precisions(
    wanted: str,
    traced: torch.jit.ScriptModule,
    pictures: list[torch.Tensor],
    expected: torch.Tensor,
    classes: int,
    head: Head,
    step: Callable[[str], None],
) -> tuple[tuple[str, ...], dict[str, Agreement | str]]:
    """The precisions for the handler to choose from, the most wanted first; and the agreement of each that was measured, or
    why there is none.

    `wanted` is auto, or the one to be used; `traced` goes into the archive; `expected` [pictures, outputs] is what the eager
    fp32 model gives for the `pictures`. The first `classes` of the outputs are logits, the rest is an embedding.
    Raises ExportError where the one to be used does not run, or gives what are no numbers.
    """
    if wanted == FALLBACK:
        return (FALLBACK,), {}
    measured: dict[str, Agreement | str] = {}
    for name in precision.AUTO if wanted == options.AUTO else [wanted]:
        step(f"comparing {name} with fp32")
        try:
            measured[name] = _agreement(traced, PRECISIONS[name], pictures, expected, classes, head)
        except ExportError as error:
            if wanted != options.AUTO:
                raise ExportError(f"this model cannot be served in {name}: {error}") from error
            measured[name] = str(error)
    if wanted != options.AUTO:
        return (wanted,), measured
    near = [name for name, found in measured.items() if isinstance(found, Agreement) and found.near]
    return (*near, FALLBACK), measured


def recorded(agreement: Agreement | str) -> dict:
    """An agreement for the archive's record."""
    if isinstance(agreement, str):
        return {"error": agreement}
    return {name: value for name, value in asdict(agreement).items() if value is not None}


def _agreement(
    traced: torch.jit.ScriptModule,
    in_precision: Precision,
    pictures: list[torch.Tensor],
    expected: torch.Tensor,
    classes: int,
    head: Head,
) -> Agreement:
    try:
        actual = _outputs(in_precision.cast(traced), in_precision.dtype, pictures)
    except Exception as error:  # whatever operator it is that does not take this type
        reason = str(error).strip().splitlines()[-1]
        raise ExportError(f"it fails with {reason[:200]}") from error
    if not actual.isfinite().all():
        raise ExportError("its numbers overflow")
    top1 = difference = cosine = None
    # Rounded, since the last digits depend on how a CPU orders its sums, and the archive should not.
    if classes:
        found = [scores(outputs[:, :classes], head) for outputs in (actual, expected)]
        scale = 1.0 if head.gives_probabilities else max(1.0, found[1].abs().max().item())
        top1 = round(torch.eq(*(each.argmax(1) for each in found)).float().mean().item(), 4)
        difference = round(torch.sub(*found).abs().max().item() / scale, 4)
    if actual.shape[1] > classes:
        cosine = round(torch.cosine_similarity(actual[:, classes:], expected[:, classes:]).min().item(), 4)
    return Agreement(len(expected), top1, difference, cosine)


@torch.inference_mode()
def _outputs(model: nn.Module | torch.jit.ScriptModule, dtype: torch.dtype, batches: list) -> torch.Tensor:
    return torch.cat([model(batch.to(dtype)).float() for batch in batches])
