"""Runs linear layers in int8 by oneDNN's products."""

from __future__ import annotations

import torch

from vit_core.graph import CONTIGUOUS, Editor, constant, give_sizes, only_user
from vit_core.int8.found import LINEAR, Found, find
from vit_core.int8.steps import MOVES, move, moves_before, quantized

PRODUCT = "onednn::qlinear_pointwise"
LAYER, OUTPUT_TYPE = 7, 9  # which of its inputs: the first that say what it gives, and the type
RELU = "aten::relu"


def multiplies_int8() -> bool:
    """Whether this CPU has int8 products that do not saturate: VNNI, with AVX512 or without. oneDNN's code for AVX2 alone adds
    pairs of products in 16 bits.
    """
    cpu = torch.cpu.get_capabilities()
    return any(cpu.get(each, False) for each in ("avx512_vnni", "avx_vnni"))


def use_products(editor: Editor) -> int:
    """Replaces each `Int8Linear` of a frozen graph by an int8 product, and returns how many there are."""
    found = find(editor, LINEAR)
    read: dict[str, torch._C.Value] = {}  # by the name of the steps, which several layers may read
    for each in found:
        if (name := each.steps.debugName()) not in read:
            read[name] = _in_eight_bits(editor, each)
        each.out.output().replaceAllUsesWith(multiply(editor.at(each.product), each, read[name]))
    return len(found)


def multiply(editor: Editor, found: Found, steps: torch._C.Value) -> torch._C.Value:
    """Returns the product of steps, uint8 [..., in] and contiguous, with a layer's weights: float32 [..., out]."""
    weight = torch.ops.onednn.qlinear_prepack(found.weight.to(torch.int8), None)
    scales = (found.scale, torch.zeros(len(found.scale), dtype=torch.int32), found.bias)
    output = (1.0, 0, torch.float32, "none", [], "")
    return editor.call(PRODUCT, steps, 1.0, found.zero_point, weight, *scales, *output)


def _in_eight_bits(editor: Editor, found: Found) -> torch._C.Value:
    """Returns the activations of a layer as uint8: from the product before it, or by one more pass over them."""
    if not found.inverse.dim():
        if steps := steps_from_product(editor, found.x, found):
            return editor.at(found.product).call("aten::contiguous", steps, CONTIGUOUS)
        if moves := _moves_since_norm(found.x):
            steps = quantized(editor.at(moves[0]), moves[0].inputsAt(0), found.step, found.zero_point)
            return move(editor, moves, steps, found.zero_point)
    step, x, before = 1.0, found.scaled, found.x.node()
    if (
        before.kind() == "aten::layer_norm"
        and only_user(found.x)
        and all(constant(before.inputsAt(number)) is not None for number in (2, 3))
    ):
        x = _scaled_norm(editor, before, found.inverse)
    elif not found.inverse.dim():
        step, x = found.step, found.x
    return quantized(editor.at(found.product), x, step, found.zero_point)


def steps_from_product(editor: Editor, x: torch._C.Value, found: Found) -> torch._C.Value | None:
    """Makes the int8 product that has computed `x` give what a layer reads: its values, after GELU or ReLU, as uint8. Returns
    None if something else has computed them, or reads them, too.
    """
    after, last = ("none", [], ""), x
    if x.node().kind() == "aten::gelu":
        after, last = ("gelu", [], constant(x.node().inputsAt(1))), x.node().inputsAt(0)
    elif x.node().kind() == RELU and not found.zero_point:  # the lowest step is that of zero
        last = x.node().inputsAt(0)
    view = last.node() if last.node().kind() == "aten::permute" else None
    product = view.inputsAt(0).node() if view else last.node()
    if product.kind() != PRODUCT or not all(map(only_user, (x, last, product.output()))):
        return None
    layer = list(product.inputs())[:LAYER]
    steps = editor.at(product).call(PRODUCT, *layer, found.step, found.zero_point, torch.uint8, *after)
    give_sizes(product.output(), steps)
    if view:
        steps = editor.call("aten::permute", steps, constant(view.inputsAt(1)))
        give_sizes(last, steps)
    give_sizes(x, steps)
    return steps


def _moves_since_norm(value: torch._C.Value) -> list[torch._C.Node]:
    """Returns the nodes that have moved the numbers of a norm to where a layer reads them: a Swin shifts its image and cuts it
    into windows. Empty if something else has computed them, or reads them too.
    """
    moves = moves_before(value, MOVES)
    return moves if moves and moves[0].inputsAt(0).node().kind() == "aten::layer_norm" else []


def _scaled_norm(editor: Editor, norm: torch._C.Node, inverse: torch.Tensor) -> torch._C.Value:
    """Folds the layer's scale into the norm before it, which saves a pass for the multiplication."""
    values, shape, weight, bias, *rest = norm.inputs()
    editor.at(norm)
    scaled = editor.call("aten::layer_norm", values, shape, constant(weight) * inverse, constant(bias) * inverse, *rest)
    give_sizes(norm.output(), scaled)
    return scaled
