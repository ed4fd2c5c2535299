"""Finds layers in int8 in a frozen graph."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from vit_core.graph import Editor, constant, give_sizes, only_user

LINEAR, CONVOLUTION, BATCH_NORM = "aten::linear", "aten::_convolution", "aten::batch_norm"


@dataclass(frozen=True)
class Found:
    """The nodes and numbers of an `Int8Layer` in a frozen graph."""

    product: torch._C.Node
    x: torch._C.Value
    scaled: torch._C.Value  # x * inverse
    steps: torch._C.Value
    out: torch._C.Node  # its last
    inverse: torch.Tensor
    zero_point: int
    weight: torch.Tensor  # [out, ...]
    scale: torch.Tensor  # [out]
    bias: torch.Tensor  # [out]

    @property
    def step(self) -> float:
        """The activation of one step, where all channels have the same."""
        return 1.0 / self.inverse.item()

    def per_output(self, values: torch.Tensor) -> torch.Tensor:
        """Returns [out] in the dimensions of the weights."""
        return values.reshape(-1, *[1] * (self.weight.dim() - 1))


def find(editor: Editor, kind: str) -> list[Found]:
    """Returns the int8 layers whose product is of this kind, `LINEAR` or `CONVOLUTION`, in the order of the graph."""
    return [each for node in editor.graph.findAllNodes(kind) if (each := _find(node))]


def use_weights(editor: Editor) -> None:
    """Replaces each int8 layer of a frozen graph by one in fp32 with its weights, which reads what came before its steps."""
    for each in (*find(editor, LINEAR), *find(editor, CONVOLUTION)):
        _, _, _, *options = each.product.inputs()
        weight = each.weight * each.per_output(each.scale) * each.inverse
        layer = editor.at(each.product).call(each.product.kind(), each.x, weight, each.bias, *options)
        give_sizes(each.out.output(), layer)
        each.out.output().replaceAllUsesWith(layer)


def _find(product: torch._C.Node) -> Found | None:
    chain = [product.inputsAt(0).node()]
    for kind in ("aten::clamp", "aten::round", "aten::mul"):
        if chain[-1].kind() != kind:
            return None
        chain.append(chain[-1].inputsAt(0).node())
    clamp, _, scaled = chain[:3]
    times = only_user(product.output())
    plus = times and only_user(times.output())
    if not plus or (times.kind(), plus.kind()) != ("aten::mul", "aten::add"):
        return None
    numbers = [constant(value) for value in (scaled.inputsAt(1), product.inputsAt(1), times.inputsAt(1), plus.inputsAt(1))]
    inverse, weight, scale, bias = numbers
    scale, bias, zero_point = scale.flatten(), bias.flatten(), -constant(clamp.inputsAt(1))
    values = (product, scaled.inputsAt(0), scaled.output(), clamp.output(), plus, inverse, zero_point, weight, scale, bias)
    return _with_batch_norm(Found(*values))


def _with_batch_norm(found: Found) -> Found:
    """Takes the batch norm after a convolution into its scale and bias: freezing does so for a plain convolution alone."""
    norm = only_user(found.out.output())
    if not norm or norm.kind() != BATCH_NORM:
        return found
    *numbers, _, _, eps, _ = [constant(value) for value in list(norm.inputs())[1:]]
    weight, bias, mean, variance = numbers
    factor = (variance + eps).rsqrt() * (1 if weight is None else weight)
    bias = (found.bias - mean) * factor + (0 if bias is None else bias)
    return replace(found, out=norm, scale=found.scale * factor, bias=bias)
