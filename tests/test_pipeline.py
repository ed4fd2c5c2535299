"""The export step from Python, and the names that models go by."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from export.arguments import parse
from export.options import Options
from export.sources.name import Kind, ModelName
from tests.conftest import ROOT, export_to


def test_from_python_the_export_makes_what_the_command_makes(tiny_model, tmp_path):
    """Each in a process of its own: TorchScript numbers the classes of all that a process traces."""
    script = (
        "from pathlib import Path\n"
        "from export.options import Options\n"
        "from export.pipeline import export\n"
        "from vit_core.settings import Limits\n"
        f"options = Options('local-dir:{tiny_model}', model_store=Path({str(tmp_path / 'python')!r}), batch_size=4,\n"
        "    limits=Limits(max_pixels=1000), precision='fp32', version='3')\n"
        "steps = []\n"
        "exported = export(options, steps.append)\n"
        "assert exported.settings.limits.max_pixels == 1000 and exported.serving.batch_size == 4\n"
        "assert exported.labels.names == ['cat', 'dog', 'owl'] and {'tracing', 'packing'} <= set(steps)\n"
    )
    options = ["--batch-size", "4", "--max-pixels", "1000", "--precision", "fp32", "--version", "3"]
    command = ["-m", "export", f"local-dir:{tiny_model}", *options, "--model-store", str(tmp_path / "command")]
    for arguments in (["-c", script], command):
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, timeout=120, stdout=subprocess.DEVNULL)
    archives = [(tmp_path / way / "tiny.mar").read_bytes() for way in ("python", "command")]
    assert archives[0] == archives[1]


def test_an_int8_model_is_exported_by_a_process_that_has_loaded_a_fused_one(tiny_model, tmp_path):
    """Which leaves oneDNN's fusion on: the plain operators of int8 fail with it."""
    torch.jit.enable_onednn_fusion(True)
    assert export_to(tmp_path / "store", f"local-dir:{tiny_model}", "--precision", "int8").exists()
    assert torch.jit.onednn_fusion_enabled()


def test_defaults_are_the_same_from_python_and_on_the_command_line():
    assert parse(["vit_tiny_patch16_224"]) == Options("vit_tiny_patch16_224")


@pytest.mark.parametrize(
    ("given", "kind", "short", "public", "path"),
    [
        ("vit_tiny_patch16_224", Kind.TIMM, "vit_tiny_patch16_224", "vit_tiny_patch16_224", None),
        ("hf-hub:org/vit-x", Kind.HUB, "vit-x", "hf-hub:org/vit-x", None),
        ("local-dir:/home/me/models/digits/", Kind.FOLDER, "digits", "digits", Path("/home/me/models/digits")),
        ("local-dir:digits", Kind.FOLDER, "digits", "digits", Path("digits")),
        ("nets/net.py:build", Kind.MODULE, "build", "net.py:build", Path("nets/net.py")),
    ],
)
def test_a_models_name_is_taken_apart_in_one_place(given, kind, short, public, path):
    name = ModelName.parse(given)
    assert (name.kind, name.short, name.public) == (kind, short, public)
    if path:
        assert name.path == path
    script = [sys.executable, "-S", str(ROOT / "export" / "sources" / "name.py"), given]  # as the Makefile asks: no packages
    assert subprocess.run(script, capture_output=True, text=True, check=True).stdout == f"{short}\n"
