"""Measures how close to fp32 the model stays in each precision that the handler may choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from export import options
from export.errors import ExportError
from vit_core import precision
from vit_core.head import scores
from vit_core.precision import FALLBACK, PRECISIONS, Precision
from vit_core.settings import SOFTMAX, Head

# Of a probability, or relative to the largest score. A precision with a larger difference is never picked automatically.
TOLERANCE = 0.05
LEAST_COSINE = 0.99  # the same for embeddings, whose directions are compared
# A picture agrees if fp32 gives the class that is found at most this less than its own; scores that are no probabilities of
# classes that exclude each other, if none is further off than twice of this; an embedding, if its cosine is at least this.
TIE, AGREEING_COSINE = 0.05, 0.97


@dataclass(frozen=True)
class Agreement:
    """The agreement of one precision with fp32, over this many pictures."""

    images: int
    agreement: float  # share of the images that agree, where near ties count as agreement
    top1_agreement: float | None  # share of the images with the same most probable class; None without classes
    mean_kl: float | None  # Kullback-Leibler divergence from fp32's probabilities, in nats; None without a softmax
    largest_score_difference: float | None
    least_cosine: float | None  # between an image's two embeddings; None without embeddings

    @property
    def near(self) -> bool:
        """Whether this precision is close enough to be picked automatically."""
        probabilities = self.largest_score_difference is None or self.largest_score_difference <= TOLERANCE
        return probabilities and (self.least_cosine is None or self.least_cosine >= LEAST_COSINE)


def choose_precisions(
    wanted: str,
    traced: torch.jit.ScriptModule,
    pictures: list[torch.Tensor],
    expected: torch.Tensor,
    classes: int,
    head: Head,
    step: Callable[[str], None],
) -> tuple[tuple[str, ...], dict[str, Agreement | str]]:
    """Returns the precisions that the handler may choose from, the most wanted first; and the agreement of each that was
    measured, or the reason why there is none.

    `wanted` is auto, or the one to use; `traced` goes into the archive; `expected` [pictures, outputs] are the outputs of the
    eager fp32 model for the `pictures`. The first `classes` outputs are logits, the rest is an embedding. Raises ExportError if
    the precision to use does not run, or its outputs are not finite.
    """
    if wanted == FALLBACK:
        return (FALLBACK,), {}
    measured: dict[str, Agreement | str] = {}
    for name in precision.AUTO if wanted == options.AUTO else [wanted]:
        step(f"comparing {name} with fp32")
        try:
            measured[name] = _in_precision(traced, PRECISIONS[name], pictures, expected, classes, head)
        except ExportError as error:
            if wanted != options.AUTO:
                raise ExportError(f"this model cannot be served in {name}: {error}") from error
            measured[name] = str(error)
    if wanted != options.AUTO:
        return (wanted,), measured
    near = [name for name, found in measured.items() if isinstance(found, Agreement) and found.near]
    return (*near, FALLBACK), measured


def recorded(agreement: Agreement | str) -> dict:
    """Returns an agreement as the archive's record has it."""
    if isinstance(agreement, str):
        return {"error": agreement}
    return {name: value for name, value in asdict(agreement).items() if value is not None}


def compare(actual: torch.Tensor, expected: torch.Tensor, classes: int, head: Head) -> Agreement:
    """Compares `actual` [pictures, outputs] with fp32's outputs. Raises ExportError for numbers that are not finite."""
    if not actual.isfinite().all():
        raise ExportError("its numbers overflow")
    agree = torch.ones(len(expected), dtype=torch.bool)
    top1 = kl = difference = cosine = None
    # Rounded, since the last digits depend on how a CPU orders its sums, and the archive should not.
    if classes:
        found, wanted = (scores(outputs[:, :classes], head) for outputs in (actual, expected))
        scale = 1.0 if head.gives_probabilities else max(1.0, wanted.abs().max().item())
        differences = (found - wanted).abs().amax(1) / scale
        top1 = round((found.argmax(1) == wanted.argmax(1)).float().mean().item(), 4)
        difference = round(differences.max().item(), 4)
        if head.activation == SOFTMAX:
            agree &= wanted.gather(1, found.argmax(1, keepdim=True))[:, 0] >= wanted.amax(1) - TIE
            logs = ((outputs[:, :classes] / head.temperature).log_softmax(1) for outputs in (actual, expected))
            kl = round(torch.nn.functional.kl_div(*logs, reduction="batchmean", log_target=True).item(), 4)
        else:
            agree &= differences <= 2 * TIE
    if actual.shape[1] > classes:
        cosines = torch.cosine_similarity(actual[:, classes:], expected[:, classes:])
        agree &= cosines >= AGREEING_COSINE
        cosine = round(cosines.min().item(), 4)
    return Agreement(len(expected), round(agree.float().mean().item(), 4), top1, kl, difference, cosine)


def _in_precision(
    traced: torch.jit.ScriptModule,
    in_precision: Precision,
    pictures: list[torch.Tensor],
    expected: torch.Tensor,
    classes: int,
    head: Head,
) -> Agreement:
    try:
        actual = run(in_precision.cast(traced), in_precision.dtype, pictures)
    except Exception as error:  # any operator may lack support for this type
        reason = str(error).strip().splitlines()[-1]
        raise ExportError(f"it fails with {reason[:200]}") from error
    return compare(actual, expected, classes, head)


@torch.inference_mode()
def run(model: nn.Module | torch.jit.ScriptModule, dtype: torch.dtype, batches: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the outputs, float32 [pictures, outputs], of a model whose inputs and outputs are `dtype`."""
    return torch.cat([model(batch.to(dtype)).float() for batch in batches])
