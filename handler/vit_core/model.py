"""Runs the traced model on its device: uint8 pixels in, scores and embeddings out, and an outcome for each image if a call
fails.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass

import torch

from vit_core.errors import ServerError
from vit_core.head import scores
from vit_core.memory import keep_freed_memory
from vit_core.pixels import normalize
from vit_core.precision import PRECISIONS
from vit_core.settings import Settings
from vit_core.way import COMPILED, is_brief, take_way

logger = logging.getLogger(__name__)

NOT_FINITE = ServerError(500, "NotFinite", "the model gave a number that is not finite for this image")
# Seconds that a worker spends on compiling for batch sizes before it takes requests. It compiles for the others at first use.
WARM_UP = 20
# A brief model that is fused is compiled for each number of images up to this one, in 15 ms each. Two calls of it, for three
# images, take a third longer than one.
EACH_SIZE = 16


@dataclass(frozen=True)
class Outputs:
    """The model's outputs for a batch, float32 on the CPU; or for one image, without the first dimension."""

    logits: torch.Tensor  # [N, classes], before the activation of the head
    scores: torch.Tensor  # [N, classes], after it
    embedding: torch.Tensor  # [N, features]; no features where the archive does not embed

    def __getitem__(self, index: int) -> Outputs:
        return Outputs(self.logits[index], self.scores[index], self.embedding[index])


class Model:
    """A trace on `device`, run by the rules of `way` with up to `threads` threads.

    The first `classes` outputs are logits, the rest is an embedding.
    """

    def __init__(
        self,
        trace: torch.jit.ScriptModule,
        settings: Settings,
        classes: int,
        device: torch.device,
        batch_size: int,
        threads: int,
    ):
        self.device = device
        self._classes = classes
        self._head = settings.head
        self._mean, self._std = (
            torch.tensor(values, device=device).view(-1, 1, 1)
            for values in (settings.preprocessing.mean, settings.preprocessing.std)
        )
        if device.type == "cpu":
            keep_freed_memory()
            # A Swin's mask leaves attention of e^-100, which is below the least normal number. Intel's cores multiply such
            # numbers forty times slower than others. torch's threads take this over, as they start after it.
            torch.set_flush_denormal(True)
        self._trace, self.way = take_way(trace, settings, device, threads)
        self._dtype = PRECISIONS[self.way.precision].dtype
        self._brief = is_brief(settings)
        sizes = {batch_size, *_powers_of_two(batch_size)}
        if self.way.fused:
            sizes |= set(range(1, min(self._most_at_once, batch_size)))
        self._warm_up(settings.preprocessing.input_size, sorted(sizes, reverse=True))

    def _warm_up(self, input_size: tuple[int, int, int], sizes: list[int]) -> None:
        """Compiles the model before the first request.

        On a CPU fused kernels are compiled for each of these batch sizes. On a GPU TorchScript compiles for the first two sizes
        that come a few times, and for all others at once when a third one does.
        """
        end = time.monotonic() + WARM_UP
        for size in sizes:
            for _ in range(1 if self.device.type == "cpu" else COMPILED):
                if time.monotonic() < end:
                    self.outputs(torch.zeros(size, *input_size, dtype=torch.uint8))

    @property
    def _most_at_once(self) -> int:
        """The number of images up to which each number of them is one call of the trace."""
        if not self.way.fused:
            return sys.maxsize
        return EACH_SIZE if self._brief else 1

    @torch.inference_mode()
    def outputs(self, pixels: torch.Tensor) -> Outputs:
        """Returns the model's outputs for uint8 pixels [N, C, H, W].

        The trace is called once, or, if it is fused, once for each power of two in N, and for what a brief model takes at once.
        Fused kernels are compiled for each batch size, and a CPU processes as many images a second in small batches as in large
        ones, unless the model is brief.
        """
        normalized = normalize(pixels.to(self.device), self._mean, self._std).to(self._dtype)
        parts = normalized.split(_parts(len(pixels), self._most_at_once))
        found = torch.cat([self._trace(part) for part in parts]).float().cpu()
        logits, embedding = found.tensor_split([self._classes], dim=1)
        return Outputs(logits, scores(logits, self._head), embedding)

    def outcomes(self, pixels: torch.Tensor) -> list[Outputs | ServerError]:
        """Returns for each image its part of `outputs`, or the error in its place.

        If the GPU has not enough memory for the batch, its halves are tried. Raises SystemExit if the GPU itself has failed:
        only a new process can use it again, and TorchServe starts one.
        """
        try:
            outputs = self.outputs(pixels)
            finite = outputs.logits.isfinite().all(1) & outputs.embedding.isfinite().all(1)
            if not finite.all():
                logger.error("the model gave numbers that are not finite for %d of %d images", (~finite).sum(), len(pixels))
            return [outputs[index] if good else NOT_FINITE for index, good in enumerate(finite.tolist())]
        except torch.OutOfMemoryError:
            half = len(pixels) // 2
            logger.warning("the GPU has not enough memory for a batch of %d", len(pixels))
        except torch.AcceleratorError as error:
            raise SystemExit(f"the GPU failed: {error}") from error
        except Exception:
            logger.exception("the model failed on a batch of %d", len(pixels))
            return [ServerError(500, "PredictionFailed", "the model failed: the server's log says how")] * len(pixels)
        # Outside the handlers above: an exception that is being handled keeps the memory of the failed call alive.
        if not half:
            return [ServerError(503, "OutOfMemory", "the GPU has no memory left, not even for one image")]
        torch.cuda.empty_cache()
        return self.outcomes(pixels[:half]) + self.outcomes(pixels[half:])


def _parts(count: int, most_at_once: int) -> list[int]:
    """Splits `count` images into powers of two, the largest first, until those that are left are at most `most_at_once`."""
    parts = []
    while count > most_at_once:
        parts.append(1 << (count.bit_length() - 1))
        count -= parts[-1]
    return [*parts, count] if count else parts


def _powers_of_two(limit: int) -> list[int]:
    """Returns the powers of two up to `limit`, the largest first."""
    return [1 << power for power in reversed(range(limit.bit_length()))]
