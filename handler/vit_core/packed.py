"""Replaces the products of a frozen model by oneDNN's, with weights that are laid out for the CPU once.

torch's own `linear` uses MKL in fp32, which runs at less than half of oneDNN's rate on AMD, and in bf16 it lays out the weights
anew in each call.
"""

from __future__ import annotations

import torch

from vit_core.graph import Editor, constant, give_sizes, only_user
from vit_core.int8.convolutions import use_convolutions
from vit_core.int8.found import use_weights
from vit_core.int8.products import use_products
from vit_core.narrow import narrow
from vit_core.residual import add_in_products


def pack_int8(model: torch.jit.ScriptModule, between: torch.dtype) -> int:
    """Rewrites a model in place that is frozen with its numbers as they are, and returns how many int8 products it has.

    Its int8 layers become int8 products, which add residuals where they can. Attention and the other layers run in
    `between`. The rest, norms and residuals, stays in fp32.
    """
    editor = _for_int8(model)
    count = use_products(editor) + use_convolutions(editor)
    if between != torch.float32:
        narrow(editor, between)
    add_in_products(editor)
    _pack_linear(editor, between)
    editor.remove_unused()
    torch.jit.run_frozen_optimizations(model)
    return count


def unpack_int8(model: torch.jit.ScriptModule) -> None:
    """The same for a CPU that does not multiply int8: its int8 layers become layers in fp32."""
    editor = _for_int8(model)
    use_weights(editor)
    editor.remove_unused()
    torch.jit.run_frozen_optimizations(model)


def _for_int8(model: torch.jit.ScriptModule) -> Editor:
    """Brings a model into the form in which int8 layers are found. Freezing with numbers optimized would fold the factor by
    which a layer multiplies what it reads into a convolution before it: only batch norms are folded here.
    """
    torch._C._jit_pass_fold_frozen_conv_bn(model.graph)
    # Operators in place: a cast copy would be changed alone, and what several layers read be computed for each of them.
    torch._C._jit_pass_remove_mutation(model.graph)
    torch._C._jit_pass_cse(model.graph)
    return Editor(model)


def pack(model: torch.jit.ScriptModule, dtype: torch.dtype) -> None:
    """Rewrites a frozen model in `dtype`, float32 or bfloat16, in place: its linear layers become oneDNN's products."""
    editor = Editor(model)
    _pack_linear(editor, dtype)
    editor.remove_unused()


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
