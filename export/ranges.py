"""Samples the inputs of a model's linear layers and convolutions on pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

ROWS = 512  # tokens or patches to keep for each layer
LEAST_CHANNELS = 16  # of a convolution's input: pixels, which have 3, are not rounded to steps
Layer = nn.Linear | nn.Conv2d
Cut = tuple | None  # how a convolution cuts its input into patches; None for a linear layer, which reads it as it is


@dataclass
class Seen:
    """The activations that some layers read; several layers if they read the same, as queries, keys and values do."""

    names: list[str]
    layers: list[Layer]
    after_norm: bool  # linear layers whose input is directly the output of a LayerNorm
    rows: dict[Cut, list[torch.Tensor]] = field(default_factory=dict)  # a sample, float32 [n, numbers of an output] each
    low: torch.Tensor | None = None  # [in_features]: the least of each channel, over all pictures
    high: torch.Tensor | None = None

    def see(self, x: torch.Tensor, count: int, generator: torch.Generator) -> None:
        x = x.detach().float()
        channels = 1 if isinstance(self.layers[0], nn.Conv2d) else x.dim() - 1
        others = [dim for dim in range(x.dim()) if dim != channels]
        low, high = x.amin(others), x.amax(others)
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)
        for cut in dict.fromkeys(map(cut_of, self.layers)):
            self.rows.setdefault(cut, []).append(_sample(x, cut, count, generator))


def cut_of(layer: Layer) -> Cut:
    return None if isinstance(layer, nn.Linear) else (layer.kernel_size, layer.stride, layer.padding, layer.dilation)


@torch.inference_mode()
def see(module: nn.Module, batches: Sequence[torch.Tensor]) -> list[Seen]:
    """Records what each linear layer and convolution of `module` reads over the batches, if it has more than one output for an
    image.

    It leaves out layers that read one row for each image, as the classifier does, because they cost next to nothing; layers
    whose weights are used without a call (BEiT's qkv); and convolutions of several groups, which are no single product, of few
    channels, and with padding that is not zeros or has a name ("same").
    """
    groups = _groups(module, batches[0][:1])
    generator = torch.Generator().manual_seed(0)
    count = -(-ROWS // len(batches))
    hooks = []
    for group in groups:

        def hook(_: nn.Module, inputs: tuple, group: Seen = group) -> None:
            group.see(inputs[0], count, generator)

        hooks.append(group.layers[0].register_forward_pre_hook(hook))
    try:
        for batch in batches:
            module(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return groups


def _groups(module: nn.Module, picture: torch.Tensor) -> list[Seen]:
    """Groups the layers by the tensor that they read, by running one picture."""
    kept, normed, found = [], set(), {}  # keeps the tensors alive, so that ids stay unique

    def norm_hook(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        kept.append(output)
        normed.add(id(output))

    def layer_hook(name: str, layer: Layer, inputs: tuple, output: torch.Tensor) -> None:
        (x,) = inputs
        if _has_several_outputs(layer, output) and id(layer) not in called:
            called.add(id(layer))
            kept.append(x)
            linear = isinstance(layer, nn.Linear)
            group = found.setdefault((id(x), linear), Seen([], [], linear and id(x) in normed))
            group.names.append(name)
            group.layers.append(layer)

    called: set[int] = set()
    hooks = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.LayerNorm):
            hooks.append(layer.register_forward_hook(norm_hook))
        elif type(layer) is nn.Linear or _is_plain_convolution(layer):

            def hook(layer: Layer, inputs: tuple, output: torch.Tensor, name: str = name) -> None:
                layer_hook(name, layer, inputs, output)

            hooks.append(layer.register_forward_hook(hook))
    try:
        module(picture)
    finally:
        for hook in hooks:
            hook.remove()
    return list(found.values())


def _is_plain_convolution(layer: nn.Module) -> bool:
    if type(layer) is not nn.Conv2d or isinstance(layer.padding, str):
        return False
    return layer.groups == 1 and layer.padding_mode == "zeros" and layer.in_channels >= LEAST_CHANNELS


def _has_several_outputs(layer: Layer, output: torch.Tensor) -> bool:
    """Whether a layer has more than one output for each channel of an image."""
    return output.dim() > 2 if isinstance(layer, nn.Linear) else output.dim() == 4 and output[0, 0].numel() > 1


def _sample(x: torch.Tensor, cut: Cut, count: int, generator: torch.Generator) -> torch.Tensor:
    """Returns `count` of the rows that a layer multiplies, chosen by chance: of tokens [..., in_features], or of the patches of
    [N, in, H, W] in the order of a convolution's weights.
    """
    if cut is None:
        rows = x.reshape(-1, x.shape[-1])
        return rows[torch.randint(len(rows), (min(count, len(rows)),), generator=generator)]
    kernel, stride, (above, beside), dilation = cut
    patches = F.pad(x, (beside, beside, above, above)).movedim(1, -1)
    for axis, (size, step, apart) in enumerate(zip(kernel, stride, dilation, strict=True), 1):
        patches = patches.unfold(axis, apart * (size - 1) + 1, step)[..., ::apart]  # a view
    places = torch.randint(patches[..., 0, 0, 0].numel(), (count,), generator=generator)
    return patches[torch.unravel_index(places, patches.shape[:3])].flatten(1)
