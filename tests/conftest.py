"""A model small enough to export in a second, and the example's archive."""

import os
import signal
import zipfile
from pathlib import Path
from unittest import mock

import pytest
import timm
import torch
from hypothesis import HealthCheck, settings
from timm.models import save_for_hf
from xdist.scheduler import LoadScopeScheduling

from export.arguments import parse
from export.pipeline import export
from tests.in_process import load

# A busy machine fails no test.
settings.register_profile("no times", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no times")

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "examples" / "digits"
# Without AVX512, the order of oneDNN's sums depends on how many images it is given at once.
LAST_DIGITS = 0 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 1e-5
TINY = {"img_size": 32, "embed_dim": 48, "depth": 1, "num_heads": 3}


def export_to(model_store: Path, model: str, *options: str) -> Path:
    """Runs the export step and returns the archive."""
    parsed = parse([model, "--model-store", str(model_store), *options])
    return export(parsed).archive


def read(archive: Path, name: str) -> bytes:
    """One file of the archive."""
    with zipfile.ZipFile(archive) as file:
        return file.read(name)


def pytest_configure(config):
    beside = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    torch.set_num_threads(max(1, torch.get_num_threads() // beside))


def starts_servers(nodeid: str) -> bool:
    """Whether a test needs the machine almost to itself."""
    return nodeid.startswith(("tests/e2e/", "tests/test_bulk_ray.py"))


class ServersApart(LoadScopeScheduling):
    """The order of `make test`: tests that start servers one after the other, and beside them the other tests, file by file."""

    def _split_scope(self, nodeid: str) -> str:
        return "servers" if starts_servers(nodeid) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config, log):
    return ServersApart(config, log)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not starts_servers(item.nodeid))
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device: there is none here"))


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """A shell that starts the tests in the background has them ignore SIGINT, and so what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def process_as_it_was():
    """A handler sets how torch runs in its process; a run on Ray sets variables for what it starts."""
    threads = torch.get_num_threads()
    with mock.patch.dict(os.environ):
        yield
    torch.set_num_threads(threads)
    torch.jit.enable_onednn_fusion(False)
    torch.set_flush_denormal(False)


@pytest.fixture
def tiny_model(tmp_path) -> Path:
    """A folder as timm saves one: a one-block ViT of random weights with the classes cat, dog and owl."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **TINY)
    folder = tmp_path / "tiny"
    config = {"label_names": ["cat", "dog", "owl"], "model_args": TINY}
    save_for_hf(model, folder, model_config=config, safe_serialization=True)
    return folder


@pytest.fixture
def loaded(tiny_model, tmp_path):
    """A handler with the tiny model in it, and its context."""
    return load(export_to(tmp_path / "store", f"local-dir:{tiny_model}"), tmp_path / "unpacked")


@pytest.fixture(scope="session")
def digits_store(tmp_path_factory) -> Path:
    """A model store with the example's archive in it, small batches so that a few requests make several."""
    model_store = tmp_path_factory.mktemp("model_store")
    export_to(model_store, f"local-dir:{DIGITS}", "--batch-size", "4", "--max-batch-delay", "20")
    return model_store
