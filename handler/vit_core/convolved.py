"""Runs the convolutions of an int8 model in bf16, and with them what lies between them.

Cast one by one, each convolution of a hybrid's stem would cost two more passes over memory, and the norms and sums after them
would be in fp32: such a model would be slower in int8 than in bf16.
"""

from __future__ import annotations

from typing import Any

import torch

from vit_core.graph import Editor, constant, give_sizes

CONVOLUTION = "aten::_convolution"
# Operators that give numbers in the format of those that they read.
BETWEEN = frozenset(
    f"aten::{name}"
    for name in ("relu", "silu", "gelu", "hardswish", "hardsigmoid", "hardtanh", "leaky_relu", "sigmoid", "add", "mul", "mean")
) | {f"aten::{name}" for name in ("batch_norm", "group_norm", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "pad")}


def convolve_in(editor: Editor, dtype: torch.dtype) -> None:
    """Casts the convolutions of a frozen fp32 graph to `dtype`, and what reads nothing but numbers that are cast already."""
    torch._C._jit_pass_remove_mutation(editor.graph)  # relu_ would change a cast copy alone
    cast: dict[str, torch._C.Value] = {}  # by the name of the same value in fp32
    for node in list(editor.graph.nodes()):
        inputs = list(node.inputs())
        known = [constant(value) for value in inputs]
        convolves = node.kind() == CONVOLUTION and known[1] is not None
        if not convolves and not (node.kind() in BETWEEN and _reads_cast(inputs, known, cast)):
            continue
        editor.at(node)
        given = [_in_type(value, number, cast, dtype) for value, number in zip(inputs, known, strict=True)]
        if convolves and inputs[0].debugName() not in cast:
            given[0] = editor.cast(inputs[0], dtype)
        found = editor.call(node.kind(), *given)
        give_sizes(node.output(), found)
        wide = editor.cast(found, torch.float32)
        node.output().replaceAllUsesWith(wide)
        cast[wide.debugName()] = found


def _reads_cast(inputs: list[torch._C.Value], known: list, cast: dict[str, torch._C.Value]) -> bool:
    """Whether a node reads tensors that are not constants, and all of them have been cast."""
    tensors = [value for value, number in zip(inputs, known, strict=True) if number is None and _is_tensor(value)]
    return bool(tensors) and all(value.debugName() in cast for value in tensors)


def _in_type(value: torch._C.Value, number: Any, cast: dict[str, torch._C.Value], dtype: torch.dtype) -> Any:
    if isinstance(number, torch.Tensor) and number.is_floating_point():
        return number.to(dtype)
    return cast.get(value.debugName(), value)


def _is_tensor(value: torch._C.Value) -> bool:
    return value.type().kind() == "TensorType"
