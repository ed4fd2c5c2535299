"""Token merging: after the attention of each block the most similar tokens are merged, so later blocks have less to do.

Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023. It needs no training and costs some accuracy. The image alone
decides which tokens are merged; their number is the same for every image, so that a batch stays one tensor. After the last
block each token gets its place back, so heads read what they are used to: a head that pools patches counts merged ones as often
as they were.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from export.errors import ExportError


def merge_tokens(model: nn.Module, merged: int) -> nn.Module:
    """Returns a copy of `model` in which each block merges `merged` pairs of patches, or as many as there are.

    Raises ExportError for a model that is not a plain vision transformer of timm's.
    """
    if why_not := _why_not(model):
        raise ExportError(f"--merge-tokens is for timm's plain vision transformers: {why_not}")
    found = copy.deepcopy(model)
    found.blocks = MergingBlocks(found.blocks, merged, found.num_prefix_tokens)
    return found


def _why_not(model: nn.Module) -> str | None:
    if type(model) is not VisionTransformer:
        return f"this is a {type(model).__name__}"
    for block in model.blocks:
        if type(block) is not Block or type(block.attn) is not Attention:
            return f"this one has blocks of its own ({type(block).__name__} with {type(block.attn).__name__})"
    return None


class MergingBlocks(nn.Module):
    """timm's `blocks` with merging between them: tokens [N, T, C] → [N, T, C]. The first `prefix` tokens are never merged."""

    def __init__(self, blocks: nn.Sequential, merged: int, prefix: int):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.merged, self.prefix = merged, prefix

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sizes = None  # [N, T, 1]: how many of the first tokens each one stands for
        places = _count(x, x.shape[1])  # [N, T]: where each first token is
        for block in self.blocks:
            attended, alike = _attend(block.attn, block.norm1(x), sizes)
            x = x + block.ls1(attended)
            if count := min(self.merged, (x.shape[1] - self.prefix) // 2):
                merge = _Merge(alike[:, self.prefix :], count)
                sizes = torch.ones_like(x[..., :1]) if sizes is None else sizes
                x, sizes = self._merged(merge, x, sizes)
                first = _count(x, self.prefix)
                places = torch.cat((first, merge.places() + self.prefix), dim=1).gather(1, places)
            x = x + block.ls2(block.mlp(block.norm2(x)))
        return x.gather(1, _wide(places, x))

    def _merged(self, merge: _Merge, x: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the tokens and their sizes after `merge`; merged tokens are averages weighted by size."""
        weighted = torch.cat((x * sizes, sizes), dim=-1)  # [N, T, C + 1]
        sums = torch.cat((weighted[:, : self.prefix], merge.sums(weighted[:, self.prefix :])), dim=1)
        return sums[..., :-1] / sums[..., -1:], sums[..., -1:]


class _Merge:
    """Which patches are merged: the `count` patches at even places that are most similar to one at an odd place go into that
    one.

    They are compared by the direction of `alike` [N, T, features]. After the merge, the even patches that are kept come first,
    in their order, and then the odd ones.
    """

    def __init__(self, alike: torch.Tensor, count: int):
        directions = alike / alike.norm(dim=-1, keepdim=True)
        likeness, partners = (directions[:, ::2] @ directions[:, 1::2].transpose(1, 2)).max(-1)  # [N, even]
        order = likeness.argsort(dim=-1, descending=True)
        self._gone, self._kept = order[:, :count], order[:, count:].sort(-1).values
        self._into = partners.gather(1, self._gone)
        self._patches = alike.shape[1]

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """[N, T, C] → [N, T - count, C]."""
        even, odd = values[:, ::2], values[:, 1::2]
        odd = odd.scatter_add(1, _wide(self._into, values), even.gather(1, _wide(self._gone, values)))
        return torch.cat((even.gather(1, _wide(self._kept, values)), odd), dim=1)

    def places(self) -> torch.Tensor:
        """Returns for each patch its place after the merge, or that of the patch that it went into, [N, T]."""
        kept, places = self._kept.shape[1], _count(self._kept, self._patches)
        even = torch.zeros_like(torch.cat((self._kept, self._gone), dim=1))
        even = even.scatter(1, self._kept, places[:, :kept]).scatter(1, self._gone, self._into + kept)
        odd = places[:, : even.shape[1]] + kept
        return torch.stack((even, odd), dim=2).flatten(1)[:, : self._patches]  # patch 0 is even, patch 1 is odd, and so on


def _attend(attention: Attention, x: torch.Tensor, sizes: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes timm's Attention with each token weighted by the number of tokens it stands for; also returns the keys, averaged
    over heads.
    """
    count, tokens, _ = x.shape
    qkv = attention.qkv(x).reshape(count, tokens, 3, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    q, k = attention.q_norm(q), attention.k_norm(k)
    weight = None if sizes is None else sizes.log().transpose(1, 2)[:, None]
    attended = F.scaled_dot_product_attention(q, k, v, weight).transpose(1, 2).reshape(count, tokens, attention.attn_dim)
    attended = attention.norm(attended)
    if attention.gate is not None:
        attended = attended * attention.gate(x).sigmoid()
    return attention.proj(attended), k.mean(1)


def _wide(index: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return index[..., None].expand(-1, -1, values.shape[-1])


def _count(like: torch.Tensor, count: int) -> torch.Tensor:
    """Counts from 0 in each row, [N, count]. It avoids `arange`, which would pin the trace to the CPU."""
    return like.new_ones((like.shape[0], count), dtype=torch.long).cumsum(1) - 1
