"""Defines what the archive's trace computes: the outputs for its tasks, and what explanations are made from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from export.errors import ExportError
from vit_core.int8.layers import Int8Layer
from vit_core.settings import CLASSIFY, EMBED, GRADIENT, ROLLOUT, Explanations


class Served(nn.Module):
    """A timm model with one output for each image: [N, classes] logits, [N, features] embedding, or both side by side from one
    pass.

    Its second method, `explain`, is for explanations. The embedding is timm's `forward_head(forward_features(x),
    pre_logits=True)`.
    """

    def __init__(self, model: nn.Module, tasks: tuple[str, ...]):
        super().__init__()
        self.model = model
        self.tasks = tasks

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        if EMBED not in self.tasks:
            return self.model(pixels)
        features = self.model.forward_features(pixels)
        embedding = self.model.forward_head(features, pre_logits=True)
        if CLASSIFY not in self.tasks:
            return embedding
        return torch.cat((self.model.forward_head(features), embedding), dim=1)

    def explain(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns what explanations need, as one graph for gradients: the logits, the last features, and the attention of each
        layer.

        They are [N, classes], [N, tokens, channels] or [N, channels, rows, columns], and [N, heads, tokens, tokens] for each
        layer whose attention is over all tokens, the first layer first.
        """
        with _seen_attention(self.model) as attention:
            features = self.model.forward_features(pixels)
        tokens = features.shape[1]
        whole = features.dim() == 3 and all(each.shape[2:] == (tokens, tokens) for each in attention)
        if features.dim() == 4 and getattr(self.model, "output_fmt", "") == "NHWC":
            features = features.permute(0, 3, 1, 2)  # and back, so that gradients pass
            logits = self.model.forward_head(features.permute(0, 2, 3, 1))
        else:
            logits = self.model.forward_head(features)
        return (logits, features, *attention) if whole else (logits, features)


def served(model: nn.Module, tasks: tuple[str, ...]) -> Served:
    """Raises ExportError if an embedding is asked for and the model has none."""
    if EMBED in tasks and not hasattr(model, "forward_head"):
        raise ExportError("--task embed needs a timm model: this one has no forward_features and forward_head")
    return Served(model, tasks)


@torch.no_grad()
def explanations(module: Served, input_size: tuple[int, int, int]) -> Explanations:
    """Returns how the handler can explain this model, or why it cannot."""
    model = module.model
    if CLASSIFY not in module.tasks:
        return Explanations(unavailable="the archive was exported to embed alone: it has no classes to explain")
    if not hasattr(model, "forward_features") or not hasattr(model, "forward_head"):
        return Explanations(
            unavailable="the model is none of timm's: which of its layers are features of the image is not known"
        )
    pixels = torch.randn(1, *input_size, generator=torch.Generator().manual_seed(0))
    expected = module(pixels)[:, : getattr(model, "num_classes", None)]
    try:
        logits, features, *attention = module.explain(pixels)
    except Exception as error:  # the model's layers may raise anything
        return Explanations(unavailable=f"the model's features cannot be had: {str(error).strip().splitlines()[-1][:200]}")
    if logits.shape != expected.shape or not torch.allclose(logits, expected, rtol=1e-3, atol=1e-3):
        return Explanations(
            unavailable="the model's answer is not forward_head(forward_features(x)): what is in between is not known"
        )
    if features.dim() == 4:
        return Explanations((GRADIENT,), tuple(features.shape[2:]))
    prefix = getattr(model, "num_prefix_tokens", 0)
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if features.dim() != 3 or grid is None or grid[0] * grid[1] + prefix != features.shape[1]:
        return Explanations(unavailable=f"the model's features, {list(features.shape[1:])}, are no grid of patches")
    if not attention:
        return Explanations(
            unavailable="its attention is not over all patches, and its features are tokens that it may have mixed"
        )
    return Explanations((GRADIENT, ROLLOUT), tuple(grid), prefix, _answer_tokens(model, prefix))


def _answer_tokens(model: nn.Module, prefix_tokens: int) -> tuple[int, ...]:
    """Returns the tokens that a timm model's head reads; none if it reads all patches alike."""
    if prefix_tokens == 0 or getattr(model, "global_pool", "") != "token":
        return ()
    return (0, 1) if hasattr(model, "dist_token") else (0,)  # a distilled model averages two heads, one for each


@contextlib.contextmanager
def _seen_attention(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collects the attention weights of each layer that runs meanwhile, the first layer first. It spells attention out, since
    torch's own does not return the weights.
    """
    seen: list[torch.Tensor] = []
    layers = [layer for layer in model.modules() if hasattr(layer, "fused_attn") and hasattr(layer, "attn_drop")]
    int8 = [layer for layer in model.modules() if isinstance(layer, Int8Layer)]
    fused = [layer.fused_attn for layer in layers]
    hooks = [layer.attn_drop.register_forward_hook(lambda layer, inputs, output: seen.append(output)) for layer in layers]
    try:
        for layer in layers:
            layer.fused_attn = False
        for layer in int8:  # rounded activations have no gradients
            layer.rounds = False
        yield seen
    finally:
        for layer, hook, value in zip(layers, hooks, fused, strict=True):
            layer.fused_attn = value
            hook.remove()
        for layer in int8:
            layer.rounds = True
