"""The traced model on its device: uint8 pixels in, probabilities out, whatever becomes of a call."""

from __future__ import annotations

import logging
import time

import torch

from vit_errors import ServerError
from vit_pixels import normalize
from vit_precision import DTYPES, fastest

logger = logging.getLogger(__name__)

# Seconds that a worker spends on running in batch sizes before it takes requests; the rest are compiled when they first come.
WARM_UP = 20


class Model:
    """A trace of images of `input_size` (C, H, W) on `device`, in the fastest way there; `mean` and `std` are per channel, of
    pixels in 0..1."""

    def __init__(
        self,
        trace: torch.jit.ScriptModule,
        device: torch.device,
        precisions: list[str],
        input_size: tuple[int, int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        batch_size: int,
    ):
        self.device = device
        self._mean, self._std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (mean, std))
        self._trace, self.way = fastest(trace, precisions, device, input_size, batch_size)
        # Fused kernels are compiled for each batch size: there are fewer of those, and what is between two is padded.
        sizes = _few_sizes(batch_size) if self.way.fused else range(1, batch_size + 1)
        self._padded = {size: min(each for each in sizes if each >= size) for size in range(1, batch_size + 1)}
        self._warm_up(input_size, sizes if self.way.fused else [batch_size, 1])

    def _warm_up(self, input_size: tuple[int, int, int], sizes: list[int]) -> None:
        end = time.monotonic() + WARM_UP
        # TorchScript profiles two calls and then compiles; on a CPU it has done so when the ways were tried.
        for size in sorted(sizes, reverse=True) * (1 if self.device.type == "cpu" else 3):
            if time.monotonic() < end:
                self.probabilities(torch.zeros(size, *input_size, dtype=torch.uint8))

    @torch.inference_mode()
    def probabilities(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 [N, C, H, W] → class probabilities [N, classes] float32 on the CPU, in one call of the trace."""
        normalized = normalize(pixels.to(self.device), self._mean, self._std).to(DTYPES[self.way.precision])
        if missing := self._padded[len(pixels)] - len(pixels):
            normalized = torch.cat([normalized, normalized.new_zeros(missing, *normalized.shape[1:])])
        return self._trace(normalized)[: len(pixels)].float().softmax(dim=-1).cpu()

    def outcomes(self, pixels: torch.Tensor) -> list[torch.Tensor | ServerError]:
        """For each image its probabilities [classes], or why there are none.

        Where the GPU has not enough memory for the batch, the halves of it are tried. Raises SystemExit where the GPU itself
        has failed: only a new process gets it back, and TorchServe starts one.
        """
        try:
            return list(self.probabilities(pixels))
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


def _few_sizes(batch_size: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, 16, … up to `batch_size`: padding to the next one adds a third at most."""
    sizes = {size for power in range(batch_size.bit_length()) for size in (2**power, 3 * 2**power)}
    return sorted({size for size in sizes if size < batch_size} | {batch_size})
