"""Runs convolutions in int8: patches in 8 bits, with the channels last, times weights.

oneDNN has convolutions in int8, too. In torch 2.11, with AMX, those of some shapes give other numbers, and one run ended with
corrupted memory; without AMX they may lay out their weights anew in each call. The products are exact, and cutting an image
into patches takes a twentieth of a hybrid's time.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from vit_core.graph import BOOLEAN, CONTIGUOUS, INTEGER, Editor, constant, give_sizes, only_user
from vit_core.int8.found import CONVOLUTION, Found, find
from vit_core.int8.products import PRODUCT, RELU, multiply, steps_from_product
from vit_core.int8.steps import CHANNELS_FIRST, CHANNELS_LAST, PAD, move, moves_before, quantized

ADD, GROUP_NORM, PERMUTE = "aten::add", "aten::group_norm", "aten::permute"
WIDE_GROUP = 8  # channels: a vector of AVX2
LARGE_IMAGE = 1024  # pixels, from which on torch's norm goes over the rows of an image
CHANNELS_LAST_FORMAT = 2  # torch.channels_last, which a graph takes as a number only
LAST = torch.iinfo(torch.int64).max  # the end of a slice


def use_convolutions(editor: Editor) -> int:
    """Replaces each `Int8Conv2d` of a frozen graph by an int8 product, and returns how many there are."""
    found = find(editor, CONVOLUTION)
    read: dict[str, torch._C.Value] = {}  # by the name of the steps, which several layers may read
    for each in found:
        if (name := each.steps.debugName()) not in read:
            read[name] = _in_eight_bits(editor, each)
        patches = _patches(editor.at(each.product), each, read[name])
        rows = replace(each, weight=each.weight.permute(0, 2, 3, 1).flatten(1))
        layer = editor.call(PERMUTE, multiply(editor, rows, patches), CHANNELS_FIRST)
        give_sizes(each.out.output(), layer)
        each.out.output().replaceAllUsesWith(layer)
        _lay_out_for_group_norms(editor, layer, len(each.scale))
    if found:
        _add_with_relu(editor)
    return len(found)


def _patches(editor: Editor, found: Found, steps: torch._C.Value) -> torch._C.Value:
    """Returns the patches of an image [N, C, H, W] as [N, H', W', height * width * C], without gaps in memory."""
    kernel = found.weight.shape[2:]
    stride, padding, dilation = (constant(value) for value in list(found.product.inputs())[3:6])
    if any(padding):
        beside = [pad for pad in reversed(padding) for _ in range(2)]
        steps = editor.call(PAD, steps, beside, "constant", float(found.zero_point))  # the step of zero
    pixels = editor.call(PERMUTE, steps, CHANNELS_LAST)
    if kernel == (1, 1) and stride == [1, 1]:
        return editor.call("aten::contiguous", pixels, CONTIGUOUS)
    for axis, (size, step, apart) in enumerate(zip(kernel, stride, dilation, strict=True), 1):
        pixels = editor.call("aten::unfold", pixels, axis, apart * (size - 1) + 1, step)
        if apart > 1:
            pixels = editor.call("aten::slice", pixels, -1, 0, LAST, apart)
    patches = editor.call("aten::contiguous", editor.call(PERMUTE, pixels, [0, 1, 2, 4, 5, 3]), CONTIGUOUS)
    return editor.call("aten::flatten", patches, 3, -1)


def _in_eight_bits(editor: Editor, found: Found) -> torch._C.Value:
    """Returns the activations of a layer as uint8: from the layer before it, or by one more pass over them."""
    moves = moves_before(found.x, frozenset((PAD,)))
    x, place = (moves[0].inputsAt(0), moves[0]) if moves else (found.x, found.product)
    steps = steps_from_product(editor, x, found)
    if steps is None:
        if x.node().kind() == RELU and only_user(x) and not found.zero_point:
            x = x.node().inputsAt(0)  # the lowest step is that of zero
        steps = quantized(editor.at(place), x, found.step, found.zero_point, channels_last=True)
    return move(editor, moves, steps, found.zero_point)


def _add_with_relu(editor: Editor) -> None:
    """Makes a sum of what a convolution gives and the ReLU after it one pass. oneDNN's fusion would take such a pair of images
    with the channels last, and compute them one number at a time.
    """
    for node in editor.graph.findAllNodes(RELU):
        add = node.inputsAt(0).node()
        if add.kind() == ADD and only_user(node.inputsAt(0)) and any(map(_is_image, list(add.inputs())[:2])):
            both = editor.at(node).call("aten::_add_relu", *add.inputs())
            give_sizes(node.output(), both)
            node.output().replaceAllUsesWith(both)


def _is_image(value: torch._C.Value) -> bool:
    """Whether a convolution has computed a tensor, or the norm after it."""
    node = value.node()
    while node.kind() in (GROUP_NORM, "aten::contiguous", PERMUTE):
        node = node.inputsAt(0).node()
    return node.kind() == PRODUCT


def _lay_out_for_group_norms(editor: Editor, image: torch._C.Value, channels: int) -> None:
    """Lays out a small image channel by channel before a norm whose groups have few channels. With the channels last torch
    takes such a group of a small image one number at a time: 4.9 ms where the norm takes 0.2 and laying out twice 0.9 (128
    channels in 32 groups, 28 × 28, a batch of 8, two threads).
    """
    for norm in (use.user for use in image.uses() if use.user.kind() == GROUP_NORM):
        if channels // constant(norm.inputsAt(1)) >= WIDE_GROUP:
            continue
        editor.at(norm)
        edges = (editor.call("aten::size", image, axis, gives=INTEGER) for axis in (2, 3))
        large = editor.call("aten::ge", editor.call("aten::mul", *edges, gives=INTEGER), LARGE_IMAGE, gives=BOOLEAN)
        layout = editor.call("aten::mul", editor.call("aten::Int", large, gives=INTEGER), CHANNELS_LAST_FORMAT, gives=INTEGER)
        norm.replaceInput(0, editor.call("aten::contiguous", image, layout))
