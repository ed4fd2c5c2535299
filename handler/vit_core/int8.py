"""A linear layer in int8: how an archive stores it, and how a CPU runs it.

Weights have a scale for each output channel. Activations have 8 bits, with one scale and zero point that the export step has
found, so an answer does not depend on the images that share its batch.

The archive stores plain operators, which run anywhere, in more passes than needed. On a CPU with VNNI or AMX the handler
replaces them by oneDNN's int8 product, which gives the same numbers up to the order of sums. On other CPUs it replaces them by
linear layers in fp32, which have the same weights and do not round activations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vit_core.graph import CONTIGUOUS, Editor, constant, give_sizes, only_user

STEPS = 255  # from the least to the largest number of 8 bits
PRODUCT = "onednn::qlinear_pointwise"
OUTPUT_TYPE = 9  # which of its inputs
PAD = "aten::pad"
MOVES = frozenset(f"aten::{name}" for name in ("roll", "view", "reshape", "permute", "contiguous", "slice")) | {PAD}


class Int8Linear(nn.Module):
    """`linear` with int8 weights in its plain form, which is traced: float32 [..., in_features] → float32 [..., out_features].

    `inverse`, a scalar or [in_features], is the number of steps for an activation of 1; `lowest` is the lowest step; `scale`
    [out_features] is the value of one step of the product. With `rounds` unset, activations stay as they are and only the
    weights are int8: then it has gradients, which an explanation needs.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor,
        inverse: torch.Tensor,
        lowest: int,
        rounds: bool = True,
    ):
        super().__init__()
        self.register_buffer("weight", weight)  # int8 [out_features, in_features]
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)  # [out_features]
        self.register_buffer("inverse", inverse)
        self.lowest, self.rounds = lowest, rounds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = x * self.inverse
        if self.rounds:
            steps = steps.round().clamp(self.lowest, self.lowest + STEPS)
        return F.linear(steps, self.weight.to(x.dtype)) * self.scale + self.bias


def multiplies_int8() -> bool:
    """Whether this CPU has int8 products that do not saturate: VNNI, with AVX512 or without. oneDNN's code for AVX2 alone adds
    pairs of products in 16 bits.
    """
    cpu = torch.cpu.get_capabilities()
    return any(cpu.get(each, False) for each in ("avx512_vnni", "avx_vnni"))


@dataclass(frozen=True)
class _Found:
    """The nodes and numbers of an `Int8Linear` in a frozen graph."""

    product: torch._C.Node
    x: torch._C.Value
    scaled: torch._C.Value  # x * inverse
    steps: torch._C.Value
    out: torch._C.Node  # its last
    inverse: torch.Tensor
    zero_point: int
    weight: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor


def use_products(editor: Editor) -> int:
    """Replaces each `Int8Linear` of a frozen graph by an int8 product, and returns how many there are."""
    found = [each for node in editor.graph.findAllNodes("aten::linear") if (each := _find(node))]
    quantized: dict[str, torch._C.Value] = {}  # by the name of the steps, which several layers may read
    for each in found:
        if (name := each.steps.debugName()) not in quantized:
            quantized[name] = _in_eight_bits(editor, each)
        editor.at(each.product)
        weight = torch.ops.onednn.qlinear_prepack(each.weight.to(torch.int8), None)
        scales = (each.scale, torch.zeros(len(each.scale), dtype=torch.int32), each.bias)
        output = (1.0, 0, torch.float32, "none", [], "")
        product = editor.call(PRODUCT, quantized[name], 1.0, each.zero_point, weight, *scales, *output)
        each.out.output().replaceAllUsesWith(product)
    return len(found)


def use_weights(editor: Editor) -> None:
    """Replaces each `Int8Linear` of a frozen graph by a linear layer in fp32 with its weights, which reads what came before its
    steps.
    """
    for node in editor.graph.findAllNodes("aten::linear"):
        if each := _find(node):
            editor.at(each.product)
            linear = editor.call("aten::linear", each.x, each.weight * each.scale[:, None] * each.inverse, each.bias)
            give_sizes(each.out.output(), linear)
            each.out.output().replaceAllUsesWith(linear)


def _find(product: torch._C.Node) -> _Found | None:
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
    zero_point = -constant(clamp.inputsAt(1))
    return _Found(product, scaled.inputsAt(0), scaled.output(), clamp.output(), plus, inverse, zero_point, weight, scale, bias)


def _in_eight_bits(editor: Editor, found: _Found) -> torch._C.Value:
    """Returns the activations of a layer as uint8: from the product before it, or by one more pass over them."""
    before = found.x.node()
    alone = only_user(found.x) is not None
    if before.kind() == "aten::gelu" and alone and not found.inverse.dim():
        product = before.inputsAt(0).node()
        if product.kind() == PRODUCT and only_user(product.output()):
            return _with_gelu(editor, product, before, found)
    if not found.inverse.dim() and (moves := _moves_since_norm(found.x)):
        return _moved(editor, moves, found)
    step, x = 1.0, found.scaled
    if (
        before.kind() == "aten::layer_norm"
        and alone
        and all(constant(before.inputsAt(number)) is not None for number in (2, 3))
    ):
        x = _scaled_norm(editor, before, found.inverse)
    elif not found.inverse.dim():
        step, x = 1.0 / found.inverse.item(), found.x
    return _quantized(editor.at(found.product), x, step, found.zero_point)


def _quantized(editor: Editor, x: torch._C.Value, step: float, zero_point: int) -> torch._C.Value:
    x = editor.call("aten::contiguous", x, CONTIGUOUS)
    return editor.bytes_of(editor.call("aten::quantize_per_tensor", x, step, zero_point, torch.quint8))


def _moves_since_norm(value: torch._C.Value) -> list[torch._C.Node]:
    """Returns the nodes that have moved the numbers of a norm to where a layer reads them, the first one first: a Swin shifts
    its image and cuts it into windows. Empty if something else has computed them, or reads them too.
    """
    moves = []
    while (node := value.node()).kind() in MOVES and only_user(value) and _keeps_zeros(node):
        moves.insert(0, node)
        value = node.inputsAt(0)
    return moves if value.node().kind() == "aten::layer_norm" else []


def _keeps_zeros(node: torch._C.Node) -> bool:
    """Whether a node, if it pads, pads with zeros."""
    return node.kind() != PAD or [constant(value) for value in list(node.inputs())[2:]] in (["constant", None], ["constant", 0])


def _moved(editor: Editor, moves: list[torch._C.Node], found: _Found) -> torch._C.Value:
    """Moves the numbers of a norm as uint8, in a quarter of the memory."""
    value = _quantized(editor.at(moves[0]), moves[0].inputsAt(0), 1.0 / found.inverse.item(), found.zero_point)
    for node in moves:
        _, *how = node.inputs()
        if node.kind() == PAD:
            how[-1] = float(found.zero_point)  # the step of zero
        moved = editor.at(node).call(node.kind(), value, *how)
        give_sizes(node.output(), moved)
        value = moved
    return value


def _with_gelu(editor: Editor, product: torch._C.Node, gelu: torch._C.Node, found: _Found) -> torch._C.Value:
    """Makes the product before a layer give what the layer reads: its values after GELU, as uint8."""
    editor.at(product)
    output = (1.0 / found.inverse.item(), found.zero_point, torch.uint8, "gelu", [], constant(gelu.inputsAt(1)))
    together = editor.call(PRODUCT, *list(product.inputs())[:7], *output)
    give_sizes(product.output(), together)
    give_sizes(gelu.output(), together)
    return together


def _scaled_norm(editor: Editor, norm: torch._C.Node, inverse: torch.Tensor) -> torch._C.Value:
    """Folds the layer's scale into the norm before it, which saves a pass for the multiplication."""
    values, shape, weight, bias, *rest = norm.inputs()
    editor.at(norm)
    scaled = editor.call("aten::layer_norm", values, shape, constant(weight) * inverse, constant(bias) * inverse, *rest)
    give_sizes(norm.output(), scaled)
    return scaled
