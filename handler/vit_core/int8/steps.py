"""Writes activations in 8 bits, as an int8 layer reads them."""

from __future__ import annotations

import torch

from vit_core.graph import CONTIGUOUS, Editor, constant, give_sizes, only_user

PAD = "aten::pad"
CHANNELS_LAST, CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]  # what `permute` takes
MOVES = frozenset(f"aten::{name}" for name in ("roll", "view", "reshape", "permute", "contiguous", "slice")) | {PAD}


def quantized(editor: Editor, x: torch._C.Value, step: float, zero_point: int, channels_last: bool = False) -> torch._C.Value:
    """Returns x as uint8, where the editor is. `channels_last` is how an image [N, C, H, W] then lies in memory."""
    if channels_last:
        x = editor.call("aten::permute", x, CHANNELS_LAST)
    x = editor.call("aten::contiguous", x, CONTIGUOUS)
    steps = editor.bytes_of(editor.call("aten::quantize_per_tensor", x, step, zero_point, torch.quint8))
    return editor.call("aten::permute", steps, CHANNELS_FIRST) if channels_last else steps


def move(editor: Editor, moves: list[torch._C.Node], steps: torch._C.Value, zero_point: int) -> torch._C.Value:
    """Returns steps as these nodes move the numbers that they stand for, the first one first. It takes a quarter of the memory
    that the numbers take.
    """
    for node in moves:
        _, *how = node.inputs()
        if node.kind() == PAD:
            how[-1] = float(zero_point)  # the step of zero
        moved = editor.at(node).call(node.kind(), steps, *how)
        give_sizes(node.output(), moved)
        steps = moved
    return steps


def moves_before(value: torch._C.Value, kinds: frozenset[str]) -> list[torch._C.Node]:
    """Returns the nodes of these kinds that have moved the numbers of a tensor to where they are, the first one first; not
    those before a tensor that something else reads, too.
    """
    moves = []
    while (node := value.node()).kind() in kinds and only_user(value) and _keeps_zeros(node):
        moves.insert(0, node)
        value = node.inputsAt(0)
    return moves


def _keeps_zeros(node: torch._C.Node) -> bool:
    """Whether a node, if it pads, pads with zeros."""
    return node.kind() != PAD or [constant(value) for value in list(node.inputs())[2:]] in (["constant", None], ["constant", 0])
