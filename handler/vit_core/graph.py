"""Edits the graph of a frozen TorchScript model by patterns, or node by node, as patterns cannot fold numbers into weights."""

from __future__ import annotations

from typing import Any

import torch

# Operators that show a tensor in another form, in the same number format.
VIEWS = frozenset(
    f"aten::{name}"
    for name in ("reshape", "view", "permute", "transpose", "unbind", "select", "slice", "unflatten", "flatten", "squeeze")
) | {"aten::unsqueeze", "aten::chunk", "aten::split", "aten::contiguous", "aten::expand", "prim::ListUnpack"}
CONTIGUOUS = 0  # torch.contiguous_format, which a graph takes as a number only
TENSOR, INTEGER, BOOLEAN = (getattr(torch._C, f"{name}Type").get() for name in ("Tensor", "Int", "Bool"))
INTEGERS = torch._C.ListType.ofInts()
_SCALARS = torch._C.ListType(torch._C.OptionalType(torch._C.NumberType.get()))  # Scalar?[]: no script can write it


class Editor:
    """Inserts nodes before the node that it is at. It keeps the model alive, because a graph is freed with its model."""

    def __init__(self, model: torch.jit.ScriptModule):
        self.model = model
        self.graph = model.graph
        self._place: torch._C.Node | None = None

    def at(self, node: torch._C.Node) -> Editor:
        self._place = node
        self.graph.setInsertPoint(node)
        return self

    def call(self, kind: str, *inputs: Any, gives: torch._C.JitType = TENSOR) -> torch._C.Value:
        """Inserts a node and returns its output. Inputs are values of the graph, or become constants; `[]` is an empty
        Scalar?[].
        """
        node = self.graph.create(kind, [self.value(each) for each in inputs], 1).insertBefore(self._place)
        node.output().setType(gives)
        return node.output()

    def cast(self, value: torch._C.Value, dtype: torch.dtype, layout: int | None = None) -> torch._C.Value:
        return self.call("aten::to", value, dtype, False, False, layout)

    def bytes_of(self, quantized: torch._C.Value) -> torch._C.Value:
        """Returns a contiguous quantized tensor's integers, in its memory: torch's `int_repr` copies them, which takes four
        times as long as quantizing.
        """
        size, stride = (self.call(f"aten::{name}", quantized, gives=INTEGERS) for name in ("size", "stride"))
        empty = self.call("aten::empty", [0], torch.uint8, None, None, None, None)
        return self.call("aten::set_", empty, quantized, 0, size, stride)

    def value(self, given: Any) -> torch._C.Value:
        """Returns `given` as a value of the graph."""
        if isinstance(given, torch._C.Value):
            return given
        if isinstance(given, torch.Tensor) and given.is_mkldnn:
            node = self.graph.create("prim::ConstantMKLDNNTensor", [], 1)
            node.t_("value", given)
        elif given == [] and isinstance(given, list):
            node = self.graph.create("prim::ListConstruct", [], 1)
            node.output().setType(_SCALARS)
        else:
            return self.graph.insertConstant(given)
        return node.insertBefore(self._place).output()

    def remove_unused(self) -> None:
        """Removes the nodes that nothing uses any more, and with them the old weights."""
        # A graph keeps its insert point. If that node were removed, the next rewrite would write into freed memory.
        self.graph.setInsertPoint(self.graph.return_node())
        torch._C._jit_pass_dce(self.graph)
        self.graph.lint()


def rewrite(model: torch.jit.ScriptModule, pattern: str, replacement: str) -> None:
    """Replaces what looks like `pattern`, a TorchScript graph in words, in the graph of a frozen `model`."""
    torch._C._jit_pass_custom_pattern_based_rewrite_graph(pattern, replacement, model.graph)


def constant(value: torch._C.Value) -> Any:
    """Returns the value of a constant; None if it is not known before the model runs."""
    return value.toIValue() if value.node().kind() == "prim::Constant" else None


def only_user(value: torch._C.Value) -> torch._C.Node | None:
    """Returns the one node that uses the numbers of a tensor; None if there are several, or none. A node that asks for its size
    does not count.
    """
    users = [use.user for use in value.uses() if use.user.kind() != "aten::size"]
    return users[0] if len(users) == 1 else None


def give_sizes(old: torch._C.Value, new: torch._C.Value) -> None:
    """Makes the nodes that ask `old` for its size ask `new`, which has the same shape, so that `old` is not computed for its
    size alone.
    """
    for user in (use.user for use in old.uses()):
        if user.kind() == "aten::size":
            user.replaceInput(0, new)
