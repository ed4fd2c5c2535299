"""Keeps the tokens of a Swin in the order of windows from block to block.

timm's blocks shift an image, cut it into windows, and do the reverse behind the attention: up to six passes over memory. Norms,
layers and sums take each token by itself, so here each block moves the tokens once, to where it wants them. What attention adds
to its scores, relative positions and the mask of a shifted image, is one tensor, and the factor of the queries goes into their
weights. The values stay the same, up to rounding.
"""

from __future__ import annotations

import torch
from timm.models import swin_transformer, swin_transformer_v2
from timm.models.swin_transformer import window_partition
from torch import nn

from export.input_shapes import input_shapes

BLOCKS = (swin_transformer.SwinTransformerBlock, swin_transformer_v2.SwinTransformerV2Block)
STAGES = (swin_transformer.SwinTransformerStage, swin_transformer_v2.SwinTransformerV2Stage)


def order_by_windows(module: nn.Module, input_size: tuple[int, int, int]) -> bool:
    """Rewrites the stages of timm's Swins in `module`, in place, and returns whether it has any.

    A stage that pads its windows, or that has blocks of another kind, stays as it is.
    """
    shapes = input_shapes(module, BLOCKS, input_size)
    found = False
    for stage in module.modules():
        if type(stage) in STAGES and all(_fits(block, shapes.get(block)) for block in stage.blocks):
            stage.blocks = nn.Sequential(WindowedBlocks(stage.blocks, *stage.blocks[0].input_resolution))
            found = True
    return found


def _fits(block: nn.Module, shape: torch.Size | None) -> bool:
    """Whether a block cuts an image [height, width, C] of this shape into whole windows, with a mask that was made for it."""
    if type(block) not in BLOCKS or block.dynamic_mask or shape is None or shape[:2] != tuple(block.input_resolution):
        return False
    return not any(edge % window for edge, window in zip(shape, block.window_size, strict=False))


class WindowedBlocks(nn.Module):
    """The blocks of a stage: [N, height, width, C] → the same."""

    def __init__(self, blocks: nn.Sequential, height: int, width: int):
        super().__init__()
        as_image = torch.arange(height * width)
        orders = [as_image, *(_order(block, height, width) for block in blocks), as_image]
        self.moves = nn.ModuleList(map(_move, orders, orders[1:]))
        self.blocks = nn.ModuleList(map(_InWindows, blocks))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = image.flatten(1, 2)
        *before, last = self.moves
        for move, block in zip(before, self.blocks, strict=True):
            tokens = block(move(tokens))
        return last(tokens).reshape(image.shape)


def _order(block: nn.Module, height: int, width: int) -> torch.Tensor:
    """Returns the places in the image of the tokens that a block reads, window by window."""
    places = torch.arange(height * width).view(1, height, width, 1)
    shifted = places.roll([-shift for shift in block.shift_size], (1, 2))
    return window_partition(shifted, block.window_size).flatten()


def _move(order: torch.Tensor, wanted: torch.Tensor) -> nn.Module:
    return nn.Identity() if torch.equal(order, wanted) else _Move(order.argsort()[wanted])


class _Move(nn.Module):
    """[N, tokens, C] → the same in another order."""

    def __init__(self, index: torch.Tensor):
        super().__init__()
        self.register_buffer("index", index)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.index_select(1, self.index)


class _InWindows(nn.Module):
    """A block whose tokens are in the order of its windows: [N, tokens, C] → the same."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.norm_last = isinstance(block, swin_transformer_v2.SwinTransformerV2Block)
        self.area = block.window_area
        self.norm1, self.norm2, self.mlp, self.attn = block.norm1, block.norm2, block.mlp, block.attn
        self.drop_path1, self.drop_path2 = block.drop_path1, block.drop_path2
        self.register_buffer("mask", block.attn_mask)
        if type(block.attn.qkv) is nn.Linear:  # of a layer in its place nothing is known
            if type(block.attn) is swin_transformer.WindowAttention:
                self.attn, self.mask = _Attention(block.attn, block.attn_mask), None
            elif type(block.attn) is swin_transformer_v2.WindowAttention:
                _fold_attention(block.attn)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = tokens.reshape(-1, self.area, tokens.shape[2])
        if self.norm_last:
            x = x + self.drop_path1(self.norm1(self._attend(x)))
            x = x + self.drop_path2(self.norm2(self.mlp(x)))
        else:
            x = x + self.drop_path1(self._attend(self.norm1(x)))
            x = x + self.drop_path2(self.mlp(self.norm2(x)))
        return x.reshape(tokens.shape)

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        return self.attn(x) if self.mask is None else self.attn(x, self.mask)


def _fold_attention(attention: swin_transformer_v2.WindowAttention) -> None:
    """Makes its positions constants, which an operator in place prevents, and `qkv` a layer with a bias, which int8 takes."""
    for layer in attention.cpb_mlp:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    if attention.q_bias is not None:
        biases = torch.cat((attention.q_bias, attention.k_bias, attention.v_bias))
        attention.qkv.bias = nn.Parameter(biases, requires_grad=False)
        attention.q_bias = None


class _Attention(nn.Module):
    """timm's attention within windows: [N * windows, area, C] → the same."""

    def __init__(self, attention: swin_transformer.WindowAttention, mask: torch.Tensor | None):
        super().__init__()
        self.qkv, self.proj, self.heads = attention.qkv, attention.proj, attention.num_heads
        queries = attention.qkv.out_features // 3
        for parameter in attention.qkv.parameters():  # weight and bias
            parameter[:queries] *= attention.scale
        self.table = attention.relative_position_bias_table  # [places, heads]
        self.register_buffer("places", attention.relative_position_index)  # [area, area]
        self.register_buffer("mask", mask)  # [windows of an image, area, area]

    def _added(self) -> torch.Tensor:
        """Returns what is added to the scores of each window, or of each window of an image: [1 or windows, heads, area, area].
        It becomes a constant when a worker loads the model: in an archive it would take room, 4 MB for a Swin-T.
        """
        positions = self.table[self.places].permute(2, 0, 1)[None]
        return (positions if self.mask is None else positions + self.mask[:, None]).contiguous()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        windows, area, _ = x.shape
        qkv = self.qkv(x).reshape(windows, area, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.contiguous().unbind(0)  # one pass, where each product would copy what it reads
        scores = q @ k.transpose(-2, -1)
        added = self._added()
        # oneDNN's fusion fails on a product that a constant of its own shape is added to.
        scores = (scores.view(-1, *added.shape) + added).view(scores.shape)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(windows, area, -1))
