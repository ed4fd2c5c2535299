"""Every family of timm's image classifiers: exported, loaded by the handler, and answering as the eager model does."""

import io

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from tests.conftest import export_to
from tests.in_process import handle, jpeg, load

SMALL = [
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "vit_tiny_r_s16_p8_224",  # a ResNet stem
    "deit_tiny_distilled_patch16_224",  # two heads
    "deit3_small_patch16_224",  # LayerScale
    "eva02_tiny_patch14_224",  # rotary embeddings, SwiGLU
    "vit_small_patch14_dinov2",
    "vit_small_patch16_rope_224",
    "swin_tiny_patch4_window7_224",
    "convnext_atto",
    "resnet50",
]
LARGE = [
    "vit_base_patch16_224",
    "vit_base_patch16_224.mae",
    "vit_large_patch16_224",
    "vit_base_r50_s16_224",
    "beit_base_patch16_224",
    "beitv2_base_patch16_224",
    "vit_base_patch16_siglip_224",
    "vit_base_patch16_clip_224",
]
CLASSES = 7  # other than any of them has, so each gets a new head


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.large) for name in LARGE)])
def test_a_family_is_exported_and_answers_as_eager_does(name, tmp_path):
    torch.manual_seed(0)
    size = {"img_size": 224} if "dinov2" in name else {}  # it comes at 518, which takes its time
    model = timm.create_model(name, num_classes=CLASSES, **size).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    options = ["--img-size", "224"] if size else []
    archive = export_to(
        tmp_path / "store", name, "--checkpoint", str(tmp_path / "weights.pth"), "--top-k", "7", "--precision", "fp32", *options
    )

    handler, context = load(archive, tmp_path / "unpacked")
    transform = create_transform(**resolve_data_config(size, model=model, use_test_size=True))
    pictures = [jpeg(seed) for seed in range(3)]
    for picture, answer in zip(pictures, handle(handler, context, [{"body": picture} for picture in pictures]), strict=True):
        with torch.inference_mode():
            probs = model(transform(Image.open(io.BytesIO(picture)).convert("RGB"))[None]).softmax(1)[0]
        assert next(iter(answer)) == str(probs.argmax().item())
        assert answer == pytest.approx({str(index): probs[index].item() for index in range(CLASSES)}, abs=1e-4)
