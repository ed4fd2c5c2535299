"""int8 products run on every CPU whose instructions do not saturate, and on no other."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import ROOT
from vit_core.int8.products import multiplies_int8


def on_cpu(isa: str) -> dict:
    """Returns what `tests.int8_on_avx_vnni` prints where oneDNN and torch use no newer instructions than these."""
    limits = {"ONEDNN_MAX_CPU_ISA": isa, "ATEN_CPU_CAPABILITY": "avx2"}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **limits}
    command = [sys.executable, "-m", "tests.int8_on_avx_vnni"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("has", "multiplies"),
    [
        ({"avx512_vnni": True, "avx_vnni": False}, True),
        ({"avx512_vnni": False, "avx_vnni": True}, True),
        ({"avx2": True, "avx512_vnni": False, "avx_vnni": False}, False),
        ({"neon": True, "i8mm": True}, False),
    ],
)
def test_vnni_multiplies_int8_with_avx512_and_without(has, multiplies, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert multiplies_int8() == multiplies


@pytest.mark.skipif(not torch.cpu.get_capabilities().get("avx_vnni"), reason="this CPU has no AVX-VNNI")
def test_products_of_avx_vnni_are_exact_and_a_model_runs_with_them():
    found = on_cpu("AVX2_VNNI")
    assert found["wrong"] == 0
    assert "; 8 layers multiplied in int8, attention and the others in fp32; " in found["rule"]
    assert found["distance"] < 0.02


@pytest.mark.skipif(not torch.cpu.get_capabilities().get("avx2"), reason="this CPU has no AVX2")
def test_products_of_avx2_alone_are_wrong_which_is_why_they_are_not_used():
    assert on_cpu("AVX2")["wrong"]
