"""Which parts of an image an answer comes from: a relevance for each patch, from the archive's trace alone.

Two methods, both of the literature, with one way to use them for every model:

`gradient` explains one class. In a model with attention over all patches it is the rule of Chefer, Gur and Wolf (Generic
Attention-model Explainability, ICCV 2021): from the class token, or from all patches where they are pooled, each layer passes
relevance on by its attention weights times their gradients, where positive, averaged over the heads. In others (ConvNeXt,
ResNet, Swin) it is HiResCAM (Draelos and Carin, 2020): the last features times their gradients, which is Grad-CAM without its
averaging of gradients, and exact where the head is pooling and a linear layer. It is no method for tokens that attention has
mixed: on the digits example white over the six patches that it finds costs a class 0.26 of its probability, as random ones do,
and over those that the rule for attention finds 0.77 (tests/test_explain.py).

`rollout` needs no class: attention rollout (Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from vit_core.errors import InputError, ServerError
from vit_core.head import scores
from vit_core.pixels import normalize
from vit_core.request import Request
from vit_core.settings import ROLLOUT, Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Explanation:
    """What one image's score for one class comes from."""

    method: str
    target: int  # index of the class
    score: float  # of the class, after the activation of the head: in most cases a probability
    relevance: torch.Tensor  # [rows, columns] of patches, from 0, the least in this image, to 1, the most
    pixels: torch.Tensor  # uint8 [C, H, W]: the image as the model saw it


class Explainer:
    """Explains answers with the method `explain` of the trace in `file`, in fp32 on `device`.

    The trace is loaded for the first explanation, so a worker that makes none spends neither memory nor time on it.
    """

    def __init__(self, file: Path, device: torch.device, settings: Settings):
        self._settings = settings.explanations
        self._head = settings.head
        self._file, self._device = file, device
        self._mean, self._std = (
            torch.tensor(values, device=device).view(-1, 1, 1)
            for values in (settings.preprocessing.mean, settings.preprocessing.std)
        )
        self._trace: torch.jit.ScriptModule | None = None

    def method(self, request: Request) -> str:
        """Returns the method for this request. Raises ServerError 501 if this model cannot be explained, and InputError 400 if
        it does not support the method that the request names.
        """
        if self._settings.unavailable:
            raise ServerError(501, "NotExplainable", f"this archive gives no explanations: {self._settings.unavailable}")
        methods = self._settings.methods
        if request.method not in (None, *methods):
            known = " or ".join(methods)
            raise InputError(400, "BadOption", f"method should be {known} for this model, not {request.method[:50]!r}")
        return request.method or methods[0]

    def outcome(self, pixels: torch.Tensor, target: int | None, method: str) -> Explanation | ServerError:
        """Runs `explain`, or returns the error: a failure in the model must not fail the other requests of the batch."""
        try:
            return self.explain(pixels, target, method)
        except torch.OutOfMemoryError:
            return ServerError(503, "OutOfMemory", "the GPU has no memory left for the gradients of one image")
        except torch.AcceleratorError as error:
            raise SystemExit(f"the GPU failed: {error}") from error
        except Exception:
            logger.exception("an explanation failed")
            return ServerError(500, "ExplanationFailed", "the explanation failed: the server's log says how")

    def explain(self, pixels: torch.Tensor, target: int | None, method: str) -> Explanation:
        """Explains the class `target`, or the class with the highest score, for uint8 pixels [C, H, W]."""
        # Without TorchScript's optimizations: they compile for minutes, and explanations are rare.
        with torch.inference_mode(False), torch.enable_grad(), torch.jit.optimized_execution(False):
            normalized = normalize(pixels[None].to(self._device), self._mean, self._std).requires_grad_()
            logits, features, *attention = self._loaded().explain(normalized)
            found = scores(logits.detach()[0], self._head)
            target = int(found.argmax()) if target is None else target
            if method == ROLLOUT:
                relevance = self._through(attention, _rolled_out)
            else:
                gradients = torch.autograd.grad(logits[0, target], [features, *attention])
                if attention:
                    relevance = self._through(zip(attention, gradients[1:], strict=True), lambda each: _weighted(*each))
                else:
                    relevance = (features * gradients[0]).sum(1).flatten()
        patches = relevance.detach()[self._settings.prefix_tokens :].clamp_min(0)
        if not (patches.isfinite().all() and found[target].isfinite()):
            raise ArithmeticError("the explanation has numbers that are not finite")
        low, high = patches.aminmax()
        patches = ((patches - low) / (high - low).clamp_min(1e-12)).view(self._settings.grid).cpu()
        return Explanation(method, target, found[target].item(), patches, pixels)

    def _loaded(self) -> torch.jit.ScriptModule:
        if self._trace is None:
            self._trace = torch.jit.load(self._file, map_location=self._device).eval()
            for parameter in self._trace.parameters():
                parameter.requires_grad_(False)
        return self._trace

    def _through(self, layers: Iterable, passes: Callable[..., torch.Tensor]) -> torch.Tensor:
        """Passes relevance [tokens] back from the tokens of the last layer, which the answer is read from, to those of the
        first layer.

        `passes` turns each of `layers`, in the order of the model, into the share of a token's relevance that goes to each
        token before it.
        """
        matrices = [passes(layer) for layer in layers]
        relevance = torch.zeros(len(matrices[0]), device=self._device)
        relevance[list(self._settings.answer_tokens) or slice(self._settings.prefix_tokens, None)] = 1
        for matrix in reversed(matrices):
            relevance = relevance @ matrix
        return relevance


def _weighted(weights: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Combines attention weights [1, heads, tokens, tokens] with their gradients → [tokens, tokens], plus the residual
    connection.
    """
    mean = (weights.detach() * gradients)[0].clamp_min(0).mean(0)
    return mean + torch.eye(len(mean), device=mean.device)


def _rolled_out(weights: torch.Tensor) -> torch.Tensor:
    """Averages attention weights [1, heads, tokens, tokens] → [tokens, tokens], half of which is the residual connection."""
    mean = weights.detach()[0].mean(0)
    return (mean + torch.eye(len(mean), device=mean.device)) / 2
