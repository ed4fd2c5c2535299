"""A real TorchServe process with the example's archive, on ports of its own."""

import contextlib
import csv
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from serve import __main__ as commands
from serve.client import Client
from serve.server import Server
from serve.settings import free_ports
from tests.conftest import DIGITS, ROOT
from tests.e2e.browser import Browser

SAMPLES = [(DIGITS / "samples" / row["file"], row["label"]) for row in csv.DictReader((DIGITS / "samples/labels.csv").open())]


@contextlib.contextmanager
def serving(model_store: Path, run_dir: Path, archive: str, *settings: str) -> Iterator[Client]:
    """A client of a TorchServe with `archive` registered, started with config.properties and these `settings` besides."""
    config = run_dir.with_suffix(".properties")
    lines = (ROOT / "config.properties").read_text().replace("metrics.yaml", str(ROOT / "metrics.yaml"))
    config.write_text(lines + "\n".join(settings) + "\n")
    server = Server(run_dir)
    client = server.start(config, model_store, free_ports())
    try:
        client.register(archive)
        yield client
    finally:
        server.stop()


@pytest.fixture(scope="session")
def client(digits_store: Path, tmp_path_factory) -> Iterator[Client]:
    with serving(digits_store, tmp_path_factory.mktemp("server") / "run", "digits.mar") as client:
        yield client


@pytest.fixture(scope="session")
def expected() -> dict[str, dict[str, float]]:
    """The probability of each label that timm, in process, gives to each sample picture."""
    model = timm.create_model(f"local-dir:{DIGITS}", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model))
    answers = {}
    for picture, _ in SAMPLES:
        with torch.inference_mode():
            probs = model(transform(Image.open(picture).convert("RGB"))[None]).softmax(1)[0]
        answers[picture.name] = {str(label): value for label, value in enumerate(probs.tolist())}
    return answers


def assert_same_answer(actual: dict[str, float], expected: dict[str, float]) -> None:
    assert next(iter(actual)) == max(expected, key=expected.get)
    assert list(actual.values()) == sorted(actual.values(), reverse=True)
    assert len(actual) == 5
    assert actual == pytest.approx({label: expected[label] for label in actual}, abs=0.02)  # in bf16 on some CPUs


def counted(client: Client, metric: str, **dimensions: str) -> float:
    """A metric of the digits model, read from TorchServe's metrics address; 0 as long as there is none."""
    return sum(client.metric(metric, **{"ModelName": "digits", **dimensions})[:1])


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Metrics travel through the worker's log, and may come after the answers."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def altered(store: Path, archive: Path, changes: dict[str, tuple[bytes, bytes]]) -> None:
    """Writes the digits archive of `store` to `archive`, with the first text replaced by the second in each of these files."""
    with zipfile.ZipFile(store / "digits.mar") as source, zipfile.ZipFile(archive, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            old, new = changes.get(name, (b"", b""))
            assert old in data
            target.writestr(name, data.replace(old, new) if old else data)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder for the server and its temporary files, which must be gone at the end, with its processes."""
    temporary = Path(tempfile.mkdtemp(prefix="t"))  # short: TorchServe opens sockets below it
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(commands, "RUN_DIR", tmp_path / "run")
    yield tmp_path
    Server(tmp_path / "run").stop()
    left = list(temporary.iterdir())
    shutil.rmtree(temporary)
    assert left == []
    assert processes_below(tmp_path) == []


def processes_below(folder: Path) -> list[psutil.Process]:
    """Processes that run in `folder`, or name it."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(folder) in text for text in (process.cwd(), *process.cmdline())):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def ports() -> list[str]:
    return [part for name, port in free_ports().items() for part in (f"--{name}", str(port))]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser
