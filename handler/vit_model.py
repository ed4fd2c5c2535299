"""The traced model on its device: uint8 pixels in, probabilities out, whatever becomes of a call."""

from __future__ import annotations

import logging

import torch

from vit_errors import ServerError
from vit_pixels import normalize
from vit_precision import DTYPES, cast

logger = logging.getLogger(__name__)


class Model:
    """A trace on `device` in `precision`; `mean` and `std` are per channel, of pixels in 0..1."""

    def __init__(self, trace: torch.jit.ScriptModule, device: torch.device, precision: str, mean: tuple, std: tuple):
        self.device, self.precision = device, precision
        self._trace = cast(trace, precision)
        self._mean, self._std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (mean, std))

    @torch.inference_mode()
    def probabilities(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 [N, C, H, W] → class probabilities [N, classes] float32 on the CPU, in one call of the trace."""
        normalized = normalize(pixels.to(self.device), self._mean, self._std)
        return self._trace(normalized.to(DTYPES[self.precision])).float().softmax(dim=-1).cpu()

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
