"""Replaces the products of a frozen model by oneDNN's, with weights that are laid out for the CPU once.

torch's own `linear` uses MKL in fp32, which runs at less than half of oneDNN's rate on AMD, and in bf16 it lays out the weights
anew in each call.
"""

from __future__ import annotations

import torch

from vit_core import int8
from vit_core.convolved import convolve_in
from vit_core.graph import CONTIGUOUS, Editor, constant, give_sizes, only_user, source, users
from vit_core.residual import add_in_products

ATTENTION = "aten::scaled_dot_product_attention"


def pack_int8(model: torch.jit.ScriptModule, between: torch.dtype) -> int:
    """Rewrites a frozen model in place, and returns how many int8 products it has.

    Its int8 layers become int8 products, which add residuals where they can. Attention, convolutions with what lies between
    them, and the other linear layers run in `between`. The rest, norms and residuals, stays in fp32.
    """
    editor = Editor(model)
    count = int8.use_products(editor)
    if between != torch.float32:
        _attend_in(editor, between)
        convolve_in(editor, between)
    add_in_products(editor)
    _pack_linear(editor, between)
    editor.remove_unused()
    return count


def unpack_int8(model: torch.jit.ScriptModule) -> None:
    """Rewrites a frozen model in place for a CPU that does not multiply int8: its int8 layers become linear layers in fp32."""
    editor = Editor(model)
    int8.use_weights(editor)
    editor.remove_unused()


def pack(model: torch.jit.ScriptModule, dtype: torch.dtype) -> None:
    """Rewrites a frozen model in `dtype`, float32 or bfloat16, in place: its linear layers become oneDNN's products."""
    editor = Editor(model)
    _pack_linear(editor, dtype)
    editor.remove_unused()


def _attend_in(editor: Editor, dtype: torch.dtype) -> None:
    for node in editor.graph.findAllNodes(ATTENTION):
        queries, keys, values, mask, *rest = node.inputs()
        cast = [_in_type(editor, node, value, dtype) for value in (queries, keys, values)]
        editor.at(node)
        if mask.type().kind() != "NoneType":
            mask = editor.cast(mask, dtype)
        attended, last = editor.call(ATTENTION, *cast, mask, *rest), node
        give_sizes(node.output(), attended)
        if (user := only_user(node.output())) and user.kind() == "aten::transpose":
            last = user  # so that the cast also changes the layout, in the same pass over memory
            attended = editor.at(last).call(last.kind(), attended, *list(last.inputs())[1:])
        last.output().replaceAllUsesWith(editor.cast(attended, torch.float32, CONTIGUOUS))


def _in_type(editor: Editor, node: torch._C.Node, value: torch._C.Value, dtype: torch.dtype) -> torch._C.Value:
    """Returns an input of attention in `dtype`. The product that computed it gives that type if only attention uses it."""
    product = source(value)
    if product.kind() != int8.PRODUCT or {user.kind() for user in users(product.output())} != {ATTENTION}:
        return editor.at(node).cast(value, dtype)
    product.replaceInput(int8.OUTPUT_TYPE, editor.at(product).value(dtype))
    return value


def _pack_linear(editor: Editor, dtype: torch.dtype) -> None:
    """Replaces the linear layers that are left, and the GELU after them. Casts their inputs if the model is in another type."""
    for node in editor.graph.findAllNodes("aten::linear"):
        x, weight, bias = node.inputs()
        if (numbers := constant(weight)) is None or (bias.type().kind() != "NoneType" and constant(bias) is None):
            continue
        last, after = node, ("none", [], "")
        if (user := only_user(node.output())) and user.kind() == "aten::gelu":
            last, after = user, ("gelu", [], constant(user.inputsAt(1)))
        editor.at(node)
        mixed = numbers.dtype != dtype
        packed = torch.ops.mkldnn._reorder_linear_weight(numbers.to(dtype))
        bias = bias if constant(bias) is None else constant(bias).to(dtype)
        product = editor.call("mkldnn::_linear_pointwise", editor.cast(x, dtype) if mixed else x, packed, bias, *after)
        give_sizes(node.output(), product)
        last.output().replaceAllUsesWith(editor.cast(product, numbers.dtype) if mixed else product)
