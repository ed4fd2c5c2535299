"""Adds residuals within int8 products: a layer's product is added onto the residual in its memory, without a pass of its own.

oneDNN's product does this for contiguous tensors of equal shape, and checks neither. So the rewrite applies only where the
graph proves it: where the layer reads a norm of the residual and keeps its dimensions, and nothing else reads the residual.
"""

from __future__ import annotations

import torch

from vit_core.graph import CONTIGUOUS, Editor, constant, give_sizes, only_user
from vit_core.int8.products import OUTPUT_TYPE, PRODUCT

NORM = "aten::layer_norm"
# Operators whose output has the dimensions of their first input, except for the last one.
KEEPS = frozenset((PRODUCT, "aten::contiguous", "aten::quantize_per_tensor", "aten::to", "aten::gelu", "aten::linear"))
RESHAPES = frozenset(("aten::reshape", "aten::flatten"))
WRITES = frozenset(("aten::add", "aten::index_select", PRODUCT))
FLOAT = 6  # torch.float32, as a graph has it
ALONE = 13  # the number of inputs of a product that does not add


def add_in_products(editor: Editor) -> int:
    """Rewrites a frozen graph of int8 products, and returns how many of them add now."""
    editor.remove_unused()  # else the operators that products have replaced would read the residual as well
    return sum(_add(editor, node) for node in editor.graph.findAllNodes("aten::add"))


def _add(editor: Editor, node: torch._C.Node) -> bool:
    if len(list(node.inputs())) != 3:  # of two numbers
        return False
    left, right, times = node.inputs()
    residual, added = (left, right) if _gives_numbers(right.node()) else (right, left)
    product = added.node()
    if not _gives_numbers(product) or only_user(added) != node or constant(times) != 1:
        return False
    norm = _norm_before(product)
    if not norm or constant(norm.inputsAt(1)) != [len(constant(product.inputsAt(4)))]:
        return False
    readers = {use.user for use in residual.uses() if use.user.kind() != "aten::size"}
    if not _has_own_memory(residual) or readers != {norm, node}:
        return False
    editor.at(product)
    if residual.node().kind() != PRODUCT:
        residual = editor.call("aten::contiguous", residual, CONTIGUOUS)
    *layer, bias, scale, zero_point, dtype, name, arguments, algorithm = product.inputs()
    output = (bias, scale, zero_point, dtype, 1.0, 0, "sum", 1.0, name, arguments, algorithm)
    together = editor.call(PRODUCT, *layer, residual, *output)
    give_sizes(added, together)
    node.output().replaceAllUsesWith(together)
    return True


def _has_own_memory(value: torch._C.Value) -> bool:
    """Whether an operator has written a tensor into new memory, and the graph shows that nothing else reads it there."""
    while value.node().kind() in RESHAPES and only_user(value.node().inputsAt(0)):
        value = value.node().inputsAt(0)
    return value.node().kind() in WRITES


def _gives_numbers(node: torch._C.Node) -> bool:
    """Whether a node is a product with plain fp32 output."""
    if node.kind() != PRODUCT or len(list(node.inputs())) != ALONE:
        return False
    dtype, name = (constant(node.inputsAt(number)) for number in (OUTPUT_TYPE, OUTPUT_TYPE + 1))
    return (dtype, name) == (FLOAT, "none")


def _norm_before(node: torch._C.Node) -> torch._C.Node | None:
    """Returns the norm whose dimensions a node's output has, except for the last one; None if the graph does not show it."""
    while node.kind() != NORM:
        if node.kind() == "aten::reshape":
            value = _of_one_size(node.inputsAt(1).node())
        elif node.kind() == "aten::set_":  # shows the memory of another tensor
            value = node.inputsAt(1)
        else:
            value = node.inputsAt(0) if node.kind() in KEEPS else None
        if value is None:
            return None
        node = value.node()
    return node


def _of_one_size(sizes: torch._C.Node) -> torch._C.Value | None:
    """Returns the tensor whose sizes make up a list of sizes, except for the last one."""
    if sizes.kind() != "prim::ListConstruct":
        return None
    asked = [value.node() for value in list(sizes.inputs())[:-1]]
    if not asked or any(each.kind() != "aten::size" for each in asked):
        return None
    tensor = asked[0].inputsAt(0)
    places = [(each.inputsAt(0), constant(each.inputsAt(1))) for each in asked]
    return tensor if places == [(tensor, place) for place in range(len(asked))] else None
