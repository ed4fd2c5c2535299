"""A model's linear layers and convolutions in int8, for CPUs: post-training quantization with scales that do not depend on the
batch.

Weights have a scale for each output channel. Activations have one scale and zero point for a layer, found on pictures: the clip
of their range, and the strength of smoothing, that leave the layer's own output nearest to fp32's on a sample. Smoothing
(Xiao et al., SmoothQuant, ICML 2023) moves the outliers of single channels, which trained transformers have, into the weights,
with the same product in exact numbers. It is tried where a norm comes before, into whose weights the handler puts it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from export.errors import ExportError
from export.ranges import Cut, Layer, Seen, cut_of
from vit_core.int8.layers import STEPS, Int8Conv2d, Int8Layer, Int8Linear

LARGEST = 127  # of a weight
CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)  # shares of the observed range
SMOOTHING = (0.0, 0.25, 0.5, 0.75)  # shares of an outlier that go into the weights
SHARES_LEFT = (0.0, 0.125, 0.25, 0.5)  # shares of the layers that stay in fp32, those with the largest loss first
LEAST_AGREEMENT = 0.97  # share of the pictures


@dataclass(frozen=True)
class Scales:
    """How a group of layers with the same input is quantized."""

    seen: Seen
    smoothing: torch.Tensor  # [in_features], or a scalar: activations are divided by it, and weights multiplied
    step: float  # of the activations
    zero_point: int
    noise: float  # norm of the error of the output on the sample, relative to the norm of the output


def find_scales(seen: Seen) -> Scales:
    """Returns the scales for which the layers' output on the sample has the least error."""
    sampled = [(torch.cat(rows), _weights(seen, cut)) for cut, rows in seen.rows.items()]
    expected = [rows @ weight.T for rows, weight in sampled]
    size = sum(each.square().sum() for each in expected).clamp_min(1e-20)
    best: Scales | None = None
    for strength in SMOOTHING if seen.after_norm else SMOOTHING[:1]:
        smoothing = _smoothing(seen, sampled[0][1], strength)
        smoothed = [(rows / smoothing, _rounded(weight * smoothing).T) for rows, weight in sampled]
        low, high = ((bound / smoothing) for bound in (seen.low, seen.high))
        low, high = min(low.min().item(), 0.0), max(high.max().item(), 1e-6)
        for clip in CLIPS:
            step = (high - low) * clip / STEPS
            zero_point = min(STEPS, max(0, round(-low * clip / step)))
            error = torch.tensor(0.0)
            for (rows, weight), output in zip(smoothed, expected, strict=True):
                steps = rows.div(step).round_().clamp_(-zero_point, STEPS - zero_point)
                error += (steps.mul_(step) @ weight).sub_(output).square_().sum()
            noise = (error / size).sqrt().item()
            if best is None or noise < best.noise:
                best = Scales(seen, smoothing, step, zero_point, noise)
    return best


def quantize_weight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantizes [out, in] to int8 [out, in], and returns the value of one step in each row, [out]."""
    scale = weight.abs().amax(1).clamp_min(1e-12).div(LARGEST)
    return weight.div(scale[:, None]).round().to(torch.int8), scale


@torch.no_grad()
def quantize(module: nn.Module, scales: list[Scales]) -> nn.Module:
    """Returns a copy of `module` with the layers of these scales in int8."""
    quantized = copy.deepcopy(module)
    for each in scales:
        for name, layer in zip(each.seen.names, each.seen.layers, strict=True):
            parent, _, own = name.rpartition(".")
            setattr(quantized.get_submodule(parent), own, _int8(layer, each))
    return quantized


def quantize_until_near(
    module: nn.Module, scales: list[Scales], agreement: Callable[[nn.Module], float]
) -> tuple[nn.Module, list[str]]:
    """Quantizes as many layers as the required agreement allows. Returns the model, and the names of the layers that are left
    out.

    Raises ExportError if leaving out half of them is not enough.
    """
    ordered = sorted(scales, key=lambda each: each.noise)
    for share in SHARES_LEFT:
        kept = ordered[: len(ordered) - round(share * len(ordered))]
        quantized = quantize(module, kept)
        found = agreement(quantized)
        if found >= LEAST_AGREEMENT:
            return quantized, sorted(name for each in ordered[len(kept) :] for name in each.seen.names)
    raise ExportError(
        f"in int8 this model agrees with fp32 on {found:.0%} of the pictures that were kept from calibration, even with half "
        f"of its layers in fp32: at least {LEAST_AGREEMENT:.0%} is required"
    )


def _smoothing(seen: Seen, weight: torch.Tensor, strength: float) -> torch.Tensor:
    if not strength:
        return torch.tensor(1.0)
    activations = torch.maximum(seen.high, -seen.low).clamp_min(1e-5)
    smoothing = activations.pow(strength) / weight.abs().amax(0).clamp_min(1e-5).pow(1 - strength)
    return smoothing / smoothing.log().mean().exp()


def _weights(seen: Seen, cut: Cut) -> torch.Tensor:
    """Returns the weights of the layers that cut their input so, [out, numbers of an output]."""
    return torch.cat([layer.weight.detach().float().flatten(1) for layer in seen.layers if cut_of(layer) == cut])


def _rounded(weight: torch.Tensor) -> torch.Tensor:
    integers, scale = quantize_weight(weight)
    return integers.float() * scale[:, None]


def _int8(layer: Layer, scales: Scales) -> Int8Layer:
    weight, scale = quantize_weight(layer.weight.detach().flatten(1) * scales.smoothing)
    bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach().clone()
    inverse = 1 / (scales.smoothing * scales.step)
    numbers = (weight.reshape_as(layer.weight), scale * scales.step, bias, inverse, -scales.zero_point)
    if isinstance(layer, nn.Linear):
        return Int8Linear(*numbers)
    return Int8Conv2d(*numbers, stride=layer.stride, padding=layer.padding, dilation=layer.dilation)
