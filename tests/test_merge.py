"""Token merging: fewer tokens, the same answer where the merged ones are alike, and each image by itself."""

import json
import zipfile

import pytest
import timm
import torch

from export.errors import ExportError
from export.flops import count_flops
from export.merge import MergingBlocks, merge_tokens
from export.trace import baked_devices, check_trace, trace
from tests.conftest import DIGITS, TINY, export_to

SIZE = (3, 64, 64)  # 16 patches
PREFIXES = {
    "vit_tiny_patch16_224": {},
    "vit_base_patch16_siglip_224": {"num_heads": 3},  # no token besides, and a head that pools by attention
    "vit_small_patch14_reg4_dinov2": {"patch_size": 16, "init_values": 1.0},  # four registers, and LayerScale
}


def model(name: str, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    options = TINY | {"img_size": 64, "depth": 3, "num_classes": 5} | PREFIXES[name] | options
    found = timm.create_model(name, **options).eval()
    torch.nn.init.normal_(found.head.weight)
    return found


def noise(count: int) -> torch.Tensor:
    return torch.randn(count, *SIZE, generator=torch.Generator().manual_seed(count))


@torch.inference_mode()
@pytest.mark.parametrize("name", PREFIXES)
def test_without_pairs_it_is_the_model(name):
    whole = model(name)
    same = merge_tokens(whole, 1)
    same.blocks.merged = 0
    torch.testing.assert_close(same(noise(3)), whole(noise(3)), rtol=0, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("name", PREFIXES)
def test_tokens_that_are_the_same_are_merged_without_a_difference(name):
    """Patches of one colour without a position: whichever are merged, they count as often as they were."""
    whole = model(name)
    whole.pos_embed.zero_()
    merged, picture = merge_tokens(whole, 4), torch.full((2, *SIZE), 0.3)
    torch.testing.assert_close(merged(picture), whole(picture), rtol=0, atol=1e-4)
    assert (merged(noise(2)) - whole(noise(2))).abs().max() > 1e-2  # others are not the same


@pytest.mark.parametrize(("pairs", "tokens"), [(1, [17, 16, 15]), (3, [17, 14, 11]), (100, [17, 9, 5])])
def test_each_block_has_fewer_tokens_than_the_one_before(pairs, tokens):
    merged, seen = merge_tokens(model("vit_tiny_patch16_224"), pairs), []
    for block in merged.blocks.blocks:
        block.norm1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    with torch.inference_mode():
        merged(noise(1))
    assert seen == tokens
    assert count_flops(merged, SIZE) < count_flops(model("vit_tiny_patch16_224"), SIZE)


@torch.inference_mode()
def test_an_image_is_merged_by_itself():
    merged = merge_tokens(model("vit_tiny_patch16_224"), 3)
    together, alone = merged(noise(8)), torch.cat([merged(image[None]) for image in noise(8)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", PREFIXES)
def test_the_trace_takes_any_batch_and_any_device(name):
    merged = merge_tokens(model(name), 3)
    traced = trace(merged, SIZE)
    assert check_trace(merged, traced, SIZE).top1_agreement == 1
    assert baked_devices(traced) == []


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "eva02_tiny_patch14_224", "vit_small_patch16_dinov3"])
def test_other_transformers_are_refused_by_name(name):
    with pytest.raises(ExportError, match="--merge-tokens is for timm's plain vision transformers: this "):
        merge_tokens(timm.create_model(name), 4)


def test_an_archive_says_what_merging_costs(tmp_path, tiny_model):
    archive = export_to(tmp_path, f"local-dir:{DIGITS}", "--merge-tokens", "2")
    with zipfile.ZipFile(archive) as file:
        record = json.loads(file.read("record.json"))
    assert record["merged_tokens"]["pairs_in_each_block"] == 2 and record["merged_tokens"]["images"] == 12
    assert 0 < record["merged_tokens"]["largest_score_difference"] < 1
    assert record["explanations"]["unavailable"] == "its tokens are merged, and no longer those of patches"
    assert isinstance(merge_tokens(timm.create_model(f"local-dir:{DIGITS}"), 2).blocks, MergingBlocks)
