"""Prepares a model for oneDNN's graph fusion, which knows fewer operators than torch, and finds operators that oneDNN runs
slowly.

The values stay the same, up to rounding.
"""

from __future__ import annotations

import torch

from vit_core.graph import rewrite

# torch's attention on a CPU reaches a quarter of the speed of its matrix products. Spelled out, oneDNN fuses it.
ATTENTION = """graph(%q, %k, %v, %mask, %dropout, %causal, %scale, %grouped):
    %out = aten::scaled_dot_product_attention(%q, %k, %v, %mask, %dropout, %causal, %scale, %grouped)
    return (%out)"""
SPELLED_OUT = """graph(%q, %k, %v, %mask, %dropout, %causal, %scale, %grouped):
    %last : int = prim::Constant[value=-1]()
    %last_but_one : int = prim::Constant[value=-2]()
    %power : float = prim::Constant[value=-0.5]()
    %none : NoneType = prim::Constant()
    %features : int = aten::size(%q, %last)
    %factor : float = aten::pow(%features, %power)
    %keys : Tensor = aten::transpose(%k, %last_but_one, %last)
    %products : Tensor = aten::matmul(%q, %keys)
    %scores : Tensor = aten::mul(%products, %factor)
    %weights : Tensor = aten::softmax(%scores, %last, %none)
    %out : Tensor = aten::matmul(%weights, %v)
    return (%out)"""

# A rotary embedding turns queries and keys: x cos + x' sin. oneDNN would run that one number at a time, and a model would take
# five times as long. It does not know `addcmul`, and so leaves that to torch.
ROTATION = """graph(%x, %cos, %turned, %sin, %factor):
    %a : Tensor = aten::mul(%x, %cos)
    %b : Tensor = aten::mul(%turned, %sin)
    %out : Tensor = aten::add(%a, %b, %factor)
    return (%out)"""
TORCHS_ROTATION = """graph(%x, %cos, %turned, %sin, %factor):
    %none : NoneType = prim::Constant()
    %one : int = prim::Constant[value=1]()
    %nothing : float = prim::Constant[value=0.]()
    %zero : Tensor = aten::scalar_tensor(%nothing, %none, %none, %none, %none)
    %a : Tensor = aten::addcmul(%zero, %x, %cos, %one)
    %out : Tensor = aten::addcmul(%a, %turned, %sin, %factor)
    return (%out)"""

# Then the class token, which is bf16, and the turned patches, which are fp32 as the angles are, become one tensor. oneDNN
# refuses a `cat` of both, and does not know `concatenate`.
JOINED = """graph(%parts, %dim, %value):
    %joined : Tensor = aten::cat(%parts, %dim)
    %out : Tensor = aten::type_as(%joined, %value)
    return (%out)"""
TORCHS_JOINED = JOINED.replace("aten::cat", "aten::concatenate")


def prepare_for_fusion(model: torch.jit.ScriptModule, keeps_attention: bool = False) -> None:
    """Rewrites the graph of a frozen `model` in place. It spells attention out, unless the model `keeps_attention`."""
    # oneDNN refuses relu_ in bf16, and takes relu.
    torch._C._jit_pass_remove_mutation(model.graph)
    rewrite(model, ROTATION, TORCHS_ROTATION)
    rewrite(model, JOINED, TORCHS_JOINED)
    if not keeps_attention and _attention_is_plain(model):
        rewrite(model, ATTENTION, SPELLED_OUT)


def _attention_is_plain(model: torch.jit.ScriptModule) -> bool:
    """Whether no attention has a mask or a scale of its own; the ViTs that oneDNN can fuse have neither."""
    nodes = model.graph.findAllNodes("aten::scaled_dot_product_attention")
    options = [[value.toIValue() for value in list(node.inputs())[3:]] for node in nodes]
    return all(each == [None, 0.0, False, None, False] for each in options)


# oneDNN has fast code for two tensors of up to five dimensions, without gaps in memory. For others it takes its reference code,
# one number at a time: the whole model runs at a third to a tenth of torch's speed. That happens to gates that are half of a
# wider tensor (EVA-02 in fp32), and to relative positions that are added in six dimensions (MViT).
ELEMENTWISE = ("aten::add", "aten::sub", "aten::mul", "aten::div")
MOST_DIMENSIONS = 5


def why_not_fused(graph: torch._C.Graph) -> str | None:
    """Returns why a compiled `graph` should not run fused, as a clause: oneDNN fuses nothing of it, as in bf16 on a CPU without
    AVX512, or runs an operator of it slowly. None if it should.
    """
    groups = [group.g("Subgraph") for group in graph.findAllNodes("prim::oneDNNFusionGroup")]
    if not groups:
        return "oneDNN fuses none of its operators on this CPU"
    for node in (node for group in groups for kind in ELEMENTWISE for node in group.findAllNodes(kind)):
        for type in (value.type() for value in node.inputs() if value.type().kind() == "TensorType"):
            sizes = type.sizes() or []  # None if the compiler has not seen the shape
            if len(sizes) > MOST_DIMENSIONS or _has_gaps(sizes, type.strides() or []):
                return f"oneDNN is slow at {node.kind()} of a tensor of {' x '.join(map(str, sizes))}"
    return None


def _has_gaps(sizes: list[int], strides: list[int]) -> bool:
    """Whether a tensor skips numbers in memory, as half of another tensor's columns does."""
    span = 1
    for stride, size in sorted(zip(strides, sizes, strict=False)):
        if size > 1:
            if stride > span:
                return True
            span = stride * size
    return False
