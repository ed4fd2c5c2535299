"""Linear layers in int8: near to fp32 whatever the activations are like, independent of a batch, and few passes over memory."""

import copy

import pytest
import timm
import torch
from torch import nn

from export.errors import ExportError
from export.int8 import find_scales, quantize, quantize_until_near
from export.precision import compare
from export.ranges import see
from export.trace import trace
from tests.conftest import DIGITS, TINY
from train import heldout_pictures, make_transform, to_pixels, training_picture
from vit_core.int8.layers import Int8Layer, Int8Linear
from vit_core.int8.products import multiplies_int8
from vit_core.packed import pack_int8
from vit_core.settings import Head, Preprocessing

SIZE = (3, 32, 32)
PLAIN = Preprocessing(SIZE, "bicubic", 1.0, "center", (0.5,) * 3, (0.5,) * 3)
SMALL = {
    "swin_tiny_patch4_window7_224": ({"img_size": 56, "embed_dim": 24, "depths": (1, 1, 1, 1)}, 56),
    "convnext_tiny": ({"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 48)}, 64),
    "vit_tiny_r_s16_p8_224": ({"img_size": 64, "depth": 2}, 64),
    "vit_small_r26_s32_224": ({"img_size": 64, "depth": 1}, 64),
    "deit3_small_patch16_224": ({"img_size": 32, "depth": 2}, 32),
    "eva02_tiny_patch14_224": ({"img_size": 28, "depth": 2}, 28),
}

# Where there is none, products are not used: there the plain form runs, which the other tests are of.
needs_vnni = pytest.mark.skipif(not multiplies_int8(), reason="this CPU has no VNNI")


def in_int8(module: nn.Module, pictures: torch.Tensor) -> nn.Module:
    return quantize(module, [find_scales(each) for each in see(module, pictures.split(8))])


def frozen(module: nn.Module, size: int) -> torch.jit.ScriptModule:
    torch.jit.enable_onednn_fusion(False)
    return torch.jit.freeze(trace(module, (3, size, size)).eval(), optimize_numerics=False)


def packed(module: nn.Module, between: torch.dtype, size: int = 32) -> torch.jit.ScriptModule:
    model = frozen(module, size)
    assert pack_int8(model, between) == sum(isinstance(layer, Int8Layer) for layer in module.modules())
    return model


def noise(count: int, size: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", num_classes=3, **TINY | {"depth": 2}).eval()


@pytest.fixture(scope="module")
def digits() -> nn.Module:
    return timm.create_model(f"local-dir:{DIGITS}", pretrained=True).eval()


@pytest.fixture(scope="module")
def heldout() -> tuple[torch.Tensor, torch.Tensor]:
    transform = make_transform(normalize=True)
    pictures, targets = zip(*heldout_pictures(), strict=True)
    return torch.stack([transform(picture) for picture in pictures]), torch.tensor(targets)


@pytest.fixture(scope="module")
def trained_on() -> torch.Tensor:
    return to_pixels(torch.stack([torch.from_numpy(training_picture(seed)[0]) for seed in range(96)]))


@torch.inference_mode()
def logits(module: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    return torch.cat([module(batch) for batch in pictures.split(64)])


# --- what becomes int8 ---


def test_the_layers_of_the_blocks_become_int8_and_the_module_stays_as_it_was(vit):
    before = copy.deepcopy(vit.state_dict())
    quantized = in_int8(vit, noise(16))
    linear = {name for name, layer in vit.named_modules() if isinstance(layer, nn.Linear)}
    found = {name for name, layer in quantized.named_modules() if isinstance(layer, Int8Linear)}
    assert linear - found == {"head"} and len(found) == 8
    assert all(torch.equal(vit.state_dict()[key], value) for key, value in before.items())


def test_a_layer_whose_weights_are_read_elsewhere_stays_as_it_is():
    beit = timm.create_model("beit_base_patch16_224", num_classes=3, depth=1, embed_dim=48, num_heads=3).eval()
    quantized = in_int8(beit, noise(2, 224))
    assert type(quantized.blocks[0].attn.qkv) is nn.Linear
    assert isinstance(quantized.blocks[0].mlp.fc1, Int8Linear)


def test_layers_that_read_the_same_share_its_eight_bits():
    torch.manual_seed(0)
    eva = timm.create_model("eva02_base_patch14_224", img_size=28, depth=1, embed_dim=48, num_heads=3, num_classes=3).eval()
    names = [sorted(name.split(".")[-1] for name in each.names) for each in see(eva, [noise(2, 28)])]
    assert ["k_proj", "q_proj", "v_proj"] in names
    model = frozen(in_int8(eva, noise(8, 28)), 28)
    layers = pack_int8(model, torch.float32)
    assert layers - str(model.graph).count("aten::quantize_per_tensor") >= 2


# --- how near it is ---


@torch.inference_mode()
def test_int8_reads_digits_as_well_as_fp32(digits, heldout, trained_on):
    pictures, targets = heldout
    quantized = in_int8(digits, trained_on)
    expected, found = logits(digits, pictures), logits(quantized, pictures)
    accuracies = [(each.argmax(1) == targets).float().mean().item() for each in (expected, found)]
    assert accuracies[1] >= accuracies[0] - 0.005
    agreement = compare(found, expected, 10, Head())
    assert agreement.top1_agreement >= 0.995 and agreement.mean_kl < 0.002 and agreement.agreement >= 0.995


@torch.inference_mode()
def test_outliers_in_single_channels_cost_nothing(digits, heldout, trained_on):
    """Trained transformers have channels that are a hundred times larger than others. The same function with such channels:
    without smoothing int8 reads two digits in three."""
    outlying, generator = copy.deepcopy(digits), torch.Generator().manual_seed(1)
    for block in outlying.blocks:
        for norm, linear in ((block.norm1, block.attn.qkv), (block.norm2, block.mlp.fc1)):
            channels = torch.randperm(norm.weight.numel(), generator=generator)[:4]
            for values in (norm.weight, norm.bias):
                values[channels] *= 100
            linear.weight[:, channels] /= 100
    pictures = heldout[0][::4]
    expected = logits(digits, pictures)
    torch.testing.assert_close(logits(outlying, pictures), expected, rtol=0, atol=1e-3)
    agreement = compare(logits(in_int8(outlying, trained_on), pictures), expected, 10, Head())
    assert agreement.top1_agreement >= 0.99 and agreement.mean_kl < 0.002


@needs_vnni
def test_an_int8_answer_does_not_depend_on_its_neighbours(vit):
    quantized = in_int8(vit, noise(16))
    pictures = noise(8)
    loud = torch.cat([pictures[:1], pictures[1:] * 1000])  # one scale for the batch would leave the first image nothing
    for model in (quantized, packed(quantized, torch.float32)):
        torch.testing.assert_close(logits(model, loud)[0], logits(model, pictures[:1])[0], rtol=0, atol=1e-5)


def test_layers_that_lose_most_are_left_out_until_the_agreement_is_enough(vit):
    scales = [find_scales(each) for each in see(vit, noise(16).split(8))]
    asked = []

    def agreement(candidate: nn.Module) -> float:
        asked.append(sum(isinstance(layer, Int8Linear) for layer in candidate.modules()))
        return 1.0 if asked[-1] < 8 else 0.5

    quantized, left = quantize_until_near(vit, scales, agreement)
    worst = max(scales, key=lambda each: each.noise)
    assert asked == [8, 7] and left == worst.seen.names
    assert type(quantized.get_submodule(left[0])) is nn.Linear
    with pytest.raises(ExportError, match="agrees with fp32 on 12% of the pictures"):
        quantize_until_near(vit, scales, lambda candidate: 0.12)
