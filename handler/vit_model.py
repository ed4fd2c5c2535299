"""The traced model on its device: uint8 pixels in, probabilities and embeddings out, whatever becomes of a call."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch

from vit_errors import ServerError
from vit_memory import keep_freed_memory
from vit_pixels import normalize
from vit_precision import DTYPES, fastest

logger = logging.getLogger(__name__)

# Seconds that a worker spends on running in batch sizes before it takes requests; the rest are compiled when they first come.
WARM_UP = 20


class Model:
    """A trace of images of `input_size` (C, H, W) on `device`, in the fastest way there; `mean` and `std` are per channel, of
    pixels in 0..1. The first `classes` of its outputs are logits, the rest is an embedding. The workers of a model that have a
    `folder` in common run it alike."""

    def __init__(
        self,
        trace: torch.jit.ScriptModule,
        device: torch.device,
        precisions: list[str],
        input_size: tuple[int, int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        batch_size: int,
        classes: int,
        folder: Path | None = None,
    ):
        self.device = device
        self._classes = classes
        self._mean, self._std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (mean, std))
        if device.type == "cpu":
            keep_freed_memory()
        self._trace, self.way = fastest(trace, precisions, device, input_size, batch_size, folder)
        self._warm_up(input_size, sorted({batch_size, *_powers_of_two(batch_size)}, reverse=True))

    def _warm_up(self, input_size: tuple[int, int, int], sizes: list[int]) -> None:
        """On a CPU fused kernels are compiled for each of these sizes. On a GPU TorchScript compiles for the first two that
        come a few times, and for all others at once when a third does."""
        end = time.monotonic() + WARM_UP
        for size in sizes:
            for _ in range(1 if self.device.type == "cpu" else 3):
                if time.monotonic() < end:
                    self.outputs(torch.zeros(size, *input_size, dtype=torch.uint8))

    @torch.inference_mode()
    def outputs(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 [N, C, H, W] → float32 on the CPU: class probabilities [N, classes], and beside them the embedding, if any.

        In one call of the trace; where it is fused in one for each power of two in N. Fused kernels are compiled for each batch
        size, and a CPU does as many images a second in small batches as in large ones.
        """
        normalized = normalize(pixels.to(self.device), self._mean, self._std).to(DTYPES[self.way.precision])
        count = len(pixels)
        sizes = [size for size in _powers_of_two(count) if size & count] if self.way.fused else [count]
        found = torch.cat([self._trace(part) for part in normalized.split(sizes)]).float()
        logits, embedding = found.tensor_split([self._classes], dim=1)
        if not embedding.shape[1]:
            return logits.softmax(dim=1).cpu()
        return torch.cat((logits.softmax(dim=1), embedding), dim=1).cpu()

    def outcomes(self, pixels: torch.Tensor) -> list[torch.Tensor | ServerError]:
        """For each image its row of `outputs`, or why there is none.

        Where the GPU has not enough memory for the batch, the halves of it are tried. Raises SystemExit where the GPU itself
        has failed: only a new process gets it back, and TorchServe starts one.
        """
        try:
            return list(self.outputs(pixels))
        except torch.OutOfMemoryError:
            half = len(pixels) // 2
            logger.warning("the GPU has not enough memory for a batch of %d", len(pixels))
        except torch.AcceleratorError as error:
            raise SystemExit(f"the GPU failed: {error}") from error
        except Exception:
            logger.exception("the model failed on a batch of %d", len(pixels))
            return [ServerError(500, "PredictionFailed", "the model failed: the server's log says how")] * len(pixels)
        # Here and not above: an exception that is being handled holds on to the memory of what failed.
        if not half:
            return [ServerError(503, "OutOfMemory", "the GPU has no memory left, not even for one image")]
        torch.cuda.empty_cache()
        return self.outcomes(pixels[:half]) + self.outcomes(pixels[half:])


def _powers_of_two(limit: int) -> list[int]:
    """Those up to `limit`, the largest first."""
    return [1 << power for power in reversed(range(limit.bit_length()))]
