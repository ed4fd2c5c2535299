"""Runs attention, other products of activations and those convolutions of an int8 model that are not in int8 in bf16, with
what lies between them.

Cast one by one, each convolution of a stem would cost two more passes over memory, and the norms and sums after them
would be in fp32: such a model would be slower in int8 than in bf16.
"""

from __future__ import annotations

import torch

from vit_core.graph import CONTIGUOUS, VIEWS, Editor, constant, give_sizes
from vit_core.int8.products import OUTPUT_TYPE, PRODUCT

CONVOLUTION, ATTENTION = "aten::_convolution", "aten::scaled_dot_product_attention"
PRODUCTS = frozenset((ATTENTION, "aten::matmul", "aten::bmm"))  # of activations
SWAP, MEAN = "aten::transpose", "aten::mean"
# Operators that give numbers in the format of those that they read.
ELEMENTWISE = ("add", "mul", "relu", "leaky_relu", "silu", "gelu", "sigmoid", "hardsigmoid", "hardswish", "hardtanh")
OTHERS = ("batch_norm", "group_norm", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "pad", "view")
FOLLOW = frozenset(f"aten::{name}" for name in ELEMENTWISE + OTHERS) | {SWAP, MEAN}


def narrow(editor: Editor, dtype: torch.dtype) -> None:
    """Casts products and convolutions of a frozen fp32 graph to `dtype`, and what reads nothing but numbers that are cast. The
    graph has no operators in place.
    """
    walk = _Walk(editor, dtype)
    for node in list(editor.graph.nodes()):
        walk.visit(node)


class _Walk:
    def __init__(self, editor: Editor, dtype: torch.dtype):
        self.editor, self.dtype = editor, dtype
        self.cast: dict[str, torch._C.Value] = {}  # by the name of the same value in fp32

    def visit(self, node: torch._C.Node) -> None:
        if not self._runs_in_type(node):
            return
        inputs = list(node.inputs())
        read = 3 if node.kind() == ATTENTION else len(inputs)  # its mask may be boolean, and may be fp32
        given = [self._in_type(node, value) for value in inputs[:read]]
        found = self.editor.at(node).call(node.kind(), *given, *inputs[read:])
        give_sizes(node.output(), found)
        # A cast can lay out numbers anew in the same pass over memory.
        wide = self.editor.cast(found, torch.float32, CONTIGUOUS if node.kind() == SWAP else None)
        node.output().replaceAllUsesWith(wide)
        self.cast[wide.debugName()] = found

    def _runs_in_type(self, node: torch._C.Node) -> bool:
        kind, inputs = node.kind(), list(node.inputs())
        tensors = [value for value in inputs if _is_computed(value)]
        if kind == CONVOLUTION:
            return constant(inputs[1]) is not None
        if kind in PRODUCTS:
            return len(tensors) > 1
        if kind == MEAN and constant(inputs[-1]) is not None:
            return False  # it gives a type of its own
        return kind in FOLLOW and bool(tensors) and all(value.debugName() in self.cast for value in tensors)

    def _in_type(self, node: torch._C.Node, value: torch._C.Value) -> torch._C.Value | torch.Tensor:
        """Returns an input of `node` in the type, if it is a tensor."""
        number = constant(value)
        if isinstance(number, torch.Tensor) and number.is_floating_point() and number.dim():
            return number.to(self.dtype)
        if not _is_computed(value):
            return value
        if (name := value.debugName()) not in self.cast:
            self.cast[name] = value if self._gives_type(value) else self.editor.at(node).cast(value, self.dtype)
        return self.cast[name]

    def _gives_type(self, value: torch._C.Value) -> bool:
        """Makes the int8 product that has computed `value` give it in the type, if nothing but products of activations uses it.
        Returns whether it does.
        """
        product = value.node()
        while product.kind() in VIEWS or _scales(product):
            product = product.inputsAt(0).node()
        if product.kind() != PRODUCT or not _readers(product.output()) <= PRODUCTS:
            return False
        product.replaceInput(OUTPUT_TYPE, self.editor.at(product).value(self.dtype))
        return True


def _is_computed(value: torch._C.Value) -> bool:
    """Whether a value is a tensor that is not known before the model runs."""
    return value.type().kind() == "TensorType" and constant(value) is None


def _scales(node: torch._C.Node) -> bool:
    """Whether a node multiplies a tensor by a number."""
    factor = constant(node.inputsAt(1)) if node.kind() == "aten::mul" else None
    return isinstance(factor, int | float) or (isinstance(factor, torch.Tensor) and not factor.dim())


def _readers(value: torch._C.Value) -> set[str]:
    """Returns the kinds of the nodes that use a tensor, also through views of it and multiplied by a number."""
    found = set()
    for user in (use.user for use in value.uses()):
        if user.kind() in VIEWS or _scales(user):
            found |= {kind for output in user.outputs() for kind in _readers(output)}
        elif user.kind() != "aten::size":
            found.add(user.kind())
    return found
