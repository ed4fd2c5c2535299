"""Convolutions in int8: near to fp32, the numbers of the plain form where a CPU multiplies int8, and few passes over memory."""

import pytest
import torch
from torch import nn

from export.int8 import find_scales, quantize
from export.ranges import see
from tests.test_int8 import in_int8, logits, needs_vnni, noise, packed
from vit_core.graph import constant
from vit_core.int8.layers import Int8Conv2d
from vit_core.int8.products import PRODUCT

CHANNELS = 16
# kernel, stride, padding, dilation
CUTS = [
    (1, 1, 0, 1),
    (1, 2, 0, 1),
    (1, 1, 1, 1),
    (3, 1, 1, 1),
    (3, 2, 0, 1),
    (3, 1, 2, 2),
    ((2, 4), (1, 3), (0, 2), 1),
    (8, 8, 0, 1),
]


def seeded(net: nn.Sequential) -> nn.Module:
    torch.manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.2)
            nn.init.uniform_(layer.running_var, 0.5, 2)
        if isinstance(layer, (nn.BatchNorm2d, nn.GroupNorm)) and layer.affine:
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias, std=0.3)
    return net.eval()


def chain(*layers: nn.Module) -> nn.Module:
    """A network whose first convolution reads pixels, and so stays as it is."""
    return seeded(nn.Sequential(nn.Conv2d(3, CHANNELS, 3, padding=1), *layers, nn.Flatten()))


def kinds(model: torch.jit.ScriptModule, *names: str) -> dict[str, int]:
    return {name: len(model.graph.findAllNodes(name)) for name in names}


class Bottleneck(nn.Module):
    """A block of a ResNet, or of a hybrid's stem."""

    def __init__(self, norm, stride: int = 1, beside: int | None = 1):
        super().__init__()
        self.main = nn.Sequential(
            *(nn.Conv2d(CHANNELS, 32, 1, bias=False), norm(32), nn.ReLU(inplace=True)),
            *(nn.Conv2d(32, 32, 3, stride, 1, bias=False), norm(32), nn.ReLU(inplace=True)),
            *(nn.Conv2d(32, CHANNELS, 1, bias=False), norm(CHANNELS)),
        )
        self.beside = nn.Identity()
        if beside:
            layer = nn.Conv2d(CHANNELS, CHANNELS, beside, stride, beside // 2, bias=False)
            self.beside = nn.Sequential(layer, norm(CHANNELS))
        self.last = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.main(x) + self.beside(x))


# --- what becomes int8 ---


class Gate(nn.Module):
    """Squeeze and excitation: its convolutions have one output for an image."""

    def __init__(self):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(CHANNELS, CHANNELS, 1), nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


def test_convolutions_of_one_group_that_have_many_channels_become_int8():
    net = chain(
        nn.Conv2d(CHANNELS, 20, 3, bias=False),
        nn.Conv2d(20, 20, 3, groups=20),
        nn.Conv2d(20, 12, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(12, CHANNELS, 1),
        Gate(),
        nn.Conv2d(CHANNELS, 8, 3, padding="same"),
    )
    quantized = in_int8(net, noise(8))
    assert [name for name, layer in quantized.named_modules() if isinstance(layer, Int8Conv2d)] == ["1"]


def test_convolutions_that_read_the_same_share_its_eight_bits():
    """Though they cut it into other patches."""
    net = chain(nn.ReLU(), Bottleneck(nn.BatchNorm2d, 2, beside=3))
    scales = [find_scales(each) for each in see(net, noise(8).split(4))]
    assert [each.seen.names for each in scales] == [["2.main.0", "2.beside.0"], ["2.main.3"], ["2.main.6"]]
    assert all(0 < each.noise < 0.02 for each in scales)


@pytest.mark.parametrize("cut", CUTS)
@torch.inference_mode()
def test_what_is_sampled_are_patches_that_the_convolution_multiplies(cut):
    layer = nn.Conv2d(CHANNELS, 4, *cut, bias=False)
    net = chain(layer)
    (seen,) = see(net, noise(8).split(4))
    (rows,) = seen.rows.values()
    outputs = net[:2](noise(8)).movedim(1, -1).flatten(0, 2)
    products = torch.cat(rows) @ layer.weight.flatten(1).T
    distances = torch.cdist(products, outputs, compute_mode="donot_use_mm_for_euclid_dist")
    assert products.shape == (512, 4) and distances.amin(1).max() < 1e-5


# --- what it computes ---


@needs_vnni
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("before", [nn.ReLU(), nn.Hardswish(), nn.ZeroPad2d((0, 1, 2, 0))], ids=["relu", "hardswish", "padded"])
@torch.inference_mode()
def test_an_int8_convolution_gives_what_the_plain_form_gives_which_is_near_fp32(cut, before):
    """Its border, too, where zero is a step of its own unless activations are positive."""
    net = chain(before, nn.Conv2d(CHANNELS, 24, *cut), nn.Hardswish(), nn.Conv2d(24, 8, 1, bias=False))
    quantized = in_int8(net, noise(16))
    pictures = noise(3)
    expected, plain = net(pictures), quantized(pictures)
    found = packed(quantized, torch.float32)(pictures)
    assert 0 < (plain - expected).norm() <= 0.02 * expected.norm()
    assert (found - plain).abs().max() <= 0.02 * plain.abs().max()
    assert (found - plain).norm() <= 0.002 * plain.norm()


@needs_vnni
@torch.inference_mode()
def test_what_a_convolution_answers_does_not_depend_on_its_neighbours():
    quantized = in_int8(chain(nn.ReLU(), Bottleneck(nn.BatchNorm2d)), noise(16))
    pictures = noise(8)
    loud = torch.cat([pictures[:1], pictures[1:] * 1000])
    for model in (quantized, packed(quantized, torch.float32)):
        torch.testing.assert_close(model(loud)[0], model(pictures[:1])[0], rtol=0, atol=1e-5)


# --- in few passes ---


@needs_vnni
@pytest.mark.parametrize("between", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_block_with_batch_norms_hands_on_eight_bits(between):
    """Norms are in the layers before them, and two of three products give what the next one reads. A ReLU is in the steps that
    read it alone, or one pass with the sum before it.
    """
    blocks = [Bottleneck(nn.BatchNorm2d, *how) for how in ((1,), (2,), (1, None))]
    quantized = in_int8(chain(nn.BatchNorm2d(CHANNELS), nn.ReLU(), *blocks), noise(16))
    model = packed(quantized, between)
    assert kinds(model, PRODUCT, "aten::quantize_per_tensor", "aten::add", "aten::_add_relu") == {
        PRODUCT: 11,
        "aten::quantize_per_tensor": 3,
        "aten::add": 1,
        "aten::_add_relu": 2,
    }
    assert not any(kinds(model, "aten::batch_norm", "aten::relu", "aten::relu_").values())
    plain = quantized(noise(3))
    assert (model(noise(3)) - plain).norm() <= 0.02 * plain.norm()


@needs_vnni
@pytest.mark.parametrize(("groups", "size"), [(8, 16), (8, 32), (2, 16)])
@torch.inference_mode()
def test_group_norms_are_laid_out_as_torch_is_fast_at(groups, size):
    """What a norm of wide groups reads, or one of a large image, is as the product has left it."""
    quantized = in_int8(
        chain(nn.ReLU(), Bottleneck(lambda channels: nn.GroupNorm(groups, channels, affine=groups > 2))), noise(16, size)
    )
    model = packed(quantized, torch.float32, size)
    assert kinds(model, PRODUCT, "aten::quantize_per_tensor", "aten::relu", "aten::_add_relu") == {
        PRODUCT: 4,
        "aten::quantize_per_tensor": 3,  # ReLU is in them
        "aten::relu": 0,
        "aten::_add_relu": 1,
    }
    plain = quantized(noise(3, size))
    assert (model(noise(3, size)) - plain).norm() <= 0.02 * plain.norm()
    for number in range(4):
        read = packed(quantized, torch.float32, size)
        read.graph.eraseOutput(0)
        read.graph.registerOutput(read.graph.findAllNodes("aten::group_norm")[number].inputsAt(0))
        channels_last = read(noise(3, size)).is_contiguous(memory_format=torch.channels_last)
        assert channels_last == (groups == 2 or size == 32)


@needs_vnni
def test_a_norm_is_in_the_weights_before_they_are_rounded_to_bf16():
    """Of a convolution that is not in int8. Rounded one after the other, weights and factors are off by twice as much."""
    net = chain(nn.BatchNorm2d(CHANNELS), nn.ReLU(), nn.Conv2d(CHANNELS, 8, 1))
    model = packed(in_int8(net, noise(8)), torch.bfloat16)
    factor = net[1].weight / (net[1].running_var + net[1].eps).sqrt()
    expected = (net[0].weight * factor[:, None, None, None]).bfloat16()
    found = constant(model.graph.findNode("aten::_convolution").inputsAt(1))
    assert (found == expected).float().mean() > 0.99


@needs_vnni
def test_numbers_that_something_else_reads_are_not_rounded_for_it():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.layer, self.next = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, pixels):
            x = self.layer(self.first(pixels))
            return (self.next(x.relu()) * x.sigmoid()).flatten(1)

    quantized = in_int8(seeded(Net()), noise(16))
    model = packed(quantized, torch.float32)
    assert kinds(model, "aten::quantize_per_tensor") == {"aten::quantize_per_tensor": 2}
    plain = logits(quantized, noise(3))
    assert (logits(model, noise(3)) - plain).norm() <= 0.02 * plain.norm()


@needs_vnni
@pytest.mark.parametrize("first", [nn.Conv2d, Int8Conv2d])
def test_a_relu_stays_where_the_lowest_step_is_not_zero(first):
    """An archive of this project has none such, as the least activation after ReLU is zero."""
    net = seeded(nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.Flatten()))
    scales = [find_scales(each) for each in see(net, noise(8).split(4))]
    quantized = quantize(net, scales if first is Int8Conv2d else scales[1:])
    quantized[3].lowest = -100
    plain = logits(quantized, noise(3))
    assert (logits(packed(quantized, torch.float32), noise(3)) - plain).norm() <= 0.002 * plain.norm()
