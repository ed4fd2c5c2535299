"""Residuals of int8 models: a product adds where the graph shows that it may, and the numbers stay the same."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.test_int8 import in_int8, logits, needs_vnni, noise, packed
from vit_core.int8.products import PRODUCT
from vit_core.residual import ALONE

CHANNELS = 16


class Net(nn.Module):
    """Patches [B, 16, CHANNELS] with positions, whose numbers stand apart in memory; then what `body` makes of them."""

    def __init__(self, body: Callable[[nn.Module, torch.Tensor], torch.Tensor]):
        super().__init__()
        self.body = body
        self.stem = nn.Conv2d(3, CHANNELS, 8, 8)
        self.positions = nn.Parameter(torch.randn(1, 16, CHANNELS))
        self.norm, self.other_norm = nn.LayerNorm(CHANNELS), nn.LayerNorm(CHANNELS)
        self.layer, self.other_layer = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.wide, self.narrow = nn.Linear(CHANNELS, 64), nn.Linear(64, CHANNELS)
        self.gate = nn.Linear(CHANNELS, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.body(self, self.stem(pixels).flatten(2).transpose(1, 2) + self.positions)


def two(net: Net, x: torch.Tensor) -> torch.Tensor:
    x = x + net.layer(net.norm(x))
    return net.narrow(nn.functional.gelu(net.wide(net.other_norm(x)))) + x


def heads(net: Net, x: torch.Tensor) -> torch.Tensor:
    """Its sizes are asked of the norm, as timm's attention does."""
    normed = net.norm(x)
    count, patches, channels = normed.shape
    return x + net.layer(normed.transpose(1, 2).reshape(count, patches, channels))


def pooled(net: Net, x: torch.Tensor) -> torch.Tensor:
    """Its sizes are asked of two tensors."""
    normed = net.norm(x)
    query = normed[:, :1]
    return x + net.layer(normed.mean(1).reshape(normed.shape[0], query.shape[1], CHANNELS))


def read_later(net: Net, x: torch.Tensor) -> torch.Tensor:
    y = x + net.layer(net.norm(x))
    return y + net.other_layer(net.other_norm(y)) + x


def view_read_later(net: Net, x: torch.Tensor) -> torch.Tensor:
    y = x + net.layer(net.norm(x))
    return y + x[:, :1]


def read_by_two_norms(net: Net, x: torch.Tensor) -> torch.Tensor:
    y = x + net.layer(net.norm(x))
    return y + net.other_norm(x)


def mean(net: Net, x: torch.Tensor) -> torch.Tensor:
    return x + net.layer(net.norm(x).mean(1, keepdim=True))


def one_number(net: Net, x: torch.Tensor) -> torch.Tensor:
    return x + net.gate(net.norm(x))


def one_patch(net: Net, x: torch.Tensor) -> torch.Tensor:
    return x[:, :1] + net.layer(net.norm(x))


def windows(net: Net, x: torch.Tensor) -> torch.Tensor:
    return x + net.layer(net.norm(x).reshape(-1, 4, CHANNELS)).reshape(x.shape)


def twice(net: Net, x: torch.Tensor) -> torch.Tensor:
    return torch.add(x, net.layer(net.norm(x)), alpha=2)


def product_read_later(net: Net, x: torch.Tensor) -> torch.Tensor:
    y = net.layer(net.norm(x))
    return (x + y) * y


def two_products(net: Net, x: torch.Tensor) -> torch.Tensor:
    normed = net.norm(x)
    return net.layer(normed) + net.other_layer(normed)


def of_a_view(net: Net, x: torch.Tensor) -> torch.Tensor:
    x = (x + 1).flip(1)[:, ::2]
    return x + net.layer(net.norm(x))


def moved(net: Net, x: torch.Tensor) -> torch.Tensor:
    """As a Swin's tokens are whose order is that of windows."""
    x = x.index_select(1, torch.arange(15, -1, -1)).reshape(-1, 4, CHANNELS)
    return x + net.layer(net.norm(x))


def moved_read_later(net: Net, x: torch.Tensor) -> torch.Tensor:
    moved = x.index_select(1, torch.arange(15, -1, -1))
    x = moved.reshape(-1, 4, CHANNELS)
    return (x + net.layer(net.norm(x))).reshape(moved.shape) + moved


def reshaped(net: Net, x: torch.Tensor) -> torch.Tensor:
    x = (x + 1).unflatten(1, (4, 4)).flatten(0, 1).reshape(-1, 2, CHANNELS)
    return x + net.layer(net.norm(x))


class Repeated(Net):
    """Positions are added twice: TorchScript makes one value of the two."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        stem = self.stem(pixels).flatten(2).transpose(1, 2)
        x, again = stem + self.positions, stem + self.positions
        return x + self.layer(self.norm(x)) + again


@needs_vnni
@pytest.mark.parametrize(
    ("body", "adding"),
    [
        (two, 2),
        (heads, 1),
        (pooled, 0),
        (read_later, 1),  # the second one
        (view_read_later, 0),
        (read_by_two_norms, 0),
        (mean, 0),
        (one_number, 0),
        (one_patch, 0),
        (windows, 0),
        (twice, 0),
        (product_read_later, 0),
        (two_products, 0),
        (of_a_view, 0),
        (moved, 1),
        (moved_read_later, 0),
        (reshaped, 0),  # `unflatten` is none of the operators that are known
        (Repeated, 0),
    ],
)
def test_a_product_adds_where_nothing_else_reads_the_residual(body, adding):
    torch.manual_seed(0)
    net = (body if body is Repeated else Net)(body).eval()
    quantized = in_int8(net, noise(16))
    model = packed(quantized, torch.float32)
    nodes = model.graph.findAllNodes(PRODUCT)
    assert sum(len(list(node.inputs())) > ALONE for node in nodes) == adding
    pictures = noise(3)
    expected = logits(quantized, pictures)
    for _ in range(3):  # compiled by then
        found = logits(model, pictures)
    assert (found - expected).abs().max() <= 0.02 * expected.abs().max()
