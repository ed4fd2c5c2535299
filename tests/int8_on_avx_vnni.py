"""Runs int8 products as a CPU does that has AVX-VNNI and no AVX512, as Intel's desktop and efficiency cores are.

    PYTHONPATH=handler:examples/digits ONEDNN_MAX_CPU_ISA=AVX2_VNNI ATEN_CPU_CAPABILITY=avx2 python -m tests.int8_on_avx_vnni

Prints JSON: how many products are `wrong`, the rule of a small ViT in int8, and how far its logits are from the plain form's.
With AVX2 in place of AVX2_VNNI products are wrong.
"""

import itertools
import json

import timm
import torch

from export.trace import trace
from tests.conftest import TINY
from tests.test_int8 import SIZE, in_int8, logits, noise
from tests.test_int8_fused import SETTINGS
from vit_core.int8.products import PRODUCT
from vit_core.way import take_way

HAS = {"architecture": "x86_64", "cpu_name": "Intel Core", "avx2": True, "avx_vnni": True}
LARGEST, SMALLEST = 255, -127  # of an activation and of a weight


def is_exact(steps: torch.Tensor, weight: torch.Tensor, zero_point: int) -> bool:
    """Whether the product of uint8 [rows, in] and int8 [out, in] is the integers'."""
    ones, zeros = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int32)
    layer = (torch.ops.onednn.qlinear_prepack(weight, None), ones, zeros, zeros.float())
    product = getattr(torch.ops.onednn, PRODUCT.split("::")[1])
    found = product(steps, 1.0, zero_point, *layer, 1.0, 0, torch.float32, "none", [], "")
    return torch.equal(found.double(), (steps.double() - zero_point) @ weight.double().T)


def main() -> None:
    wrong = 0
    for rows, inside, outside in itertools.product((1, 7, 197), (16, 100, 384), (1, 48, 1000)):
        steps, weight = torch.full((rows, inside), LARGEST), torch.full((outside, inside), SMALLEST)
        wrong += not is_exact(steps.to(torch.uint8), weight.to(torch.int8), zero_point=128)
    torch.cpu.get_capabilities = lambda: HAS
    torch.cpu._is_avx512_supported = lambda: False
    torch.manual_seed(0)
    quantized = in_int8(timm.create_model("vit_tiny_patch16_224", num_classes=3, **TINY | {"depth": 2}).eval(), noise(16))
    model, taken = take_way(trace(quantized, SIZE), SETTINGS, torch.device("cpu"), 2)
    expected = logits(quantized, noise(3))
    distance = (logits(model, noise(3)) - expected).abs().max() / expected.abs().max()
    print(json.dumps({"wrong": wrong, "rule": taken.rule, "distance": distance.item()}))


if __name__ == "__main__":
    main()
