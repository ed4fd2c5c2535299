"""The same trace behind this project's handler and behind TorchServe's `image_classifier`, in one server.

    .venv/bin/pip install captum==0.9.0     # the stock handler cannot be imported without it
    .venv/bin/python -m benchmarks.against_stock

Asks both for two photographs, and compares their answers with timm's own; then sends both a batch of eight of which one is
not an image. Writes benchmarks/results/against_stock.json. The weights are random, but seeded: what is compared is what
the handlers do around the model.
"""

from __future__ import annotations

import io
import json
import platform
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import timm
import torch
import yaml
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import create_transform, resolve_model_data_config

from export.options import Options
from export.pipeline import export
from serve.client import Client
from serve.server import Server
from serve.settings import free_ports
from vit_core.archive import LABELS, TRACE
from vit_core.settings import Serving

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results" / "against_stock.json"
MODEL = "vit_tiny_patch16_224"
# With a delay long enough that eight requests at once are one batch.
SERVING = Serving(max_workers=1, batch_size=8, max_batch_delay=500)
HANDLERS = ("this project", "image_classifier")


def build_archives(model_store: Path, module: torch.nn.Module) -> list[str]:
    """ours.mar and stock.mar: one trace, one set of labels, two handlers. Returns the labels."""
    weights = model_store / "weights.pth"
    torch.save(module.state_dict(), weights)
    serving = {"batch_size": SERVING.batch_size, "max_batch_delay": SERVING.max_batch_delay}
    options = Options(MODEL, checkpoint=weights, model_name="ours", model_store=model_store, precision="fp32", **serving)
    labels = export(options).labels
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(model_store / "ours.mar") as archive:
            archive.extractall(folder)
        (Path(folder) / "stock.yaml").write_text(yaml.safe_dump(SERVING.to_dict()))
        command = [sys.executable, "-m", "model_archiver.model_packaging", "--model-name", "stock", "--version", "1.0"]
        command += ["--handler", "image_classifier", "--serialized-file", TRACE, "--config-file", "stock.yaml"]
        command += ["--extra-files", LABELS, "--export-path", str(model_store)]
        subprocess.run(command, cwd=folder, check=True)
    return labels


def photographs() -> list[bytes]:
    """scikit-learn's two sample photographs (427 x 640) as JPEG files."""
    files = []
    for pixels in load_sample_images().images:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def compare(client: Client, name: str, module: torch.nn.Module, labels: list[str]) -> dict:
    transform = create_transform(**resolve_model_data_config(module))
    errors, agreed = [], 0
    for photograph in photographs():
        with torch.inference_mode():
            probs = module(transform(Image.open(io.BytesIO(photograph)))[None]).softmax(1)[0]
        expected = dict(zip(labels, probs.tolist(), strict=True))
        answer = client.predict(name, photograph).json()
        agreed += next(iter(answer)) == max(expected, key=expected.get)
        errors += [abs(probability / expected[label] - 1) for label, probability in answer.items()]
    batch = [photographs()[0]] * (SERVING.batch_size - 1) + [b"not an image"]
    with ThreadPoolExecutor(len(batch)) as pool:
        statuses = list(pool.map(lambda body: client.predict(name, body).status_code, batch))
    return {
        "top-1 as timm's": f"{agreed} of 2",
        "largest relative error of a top-5 probability": float(f"{max(errors):.2g}"),
        "statuses of seven photographs and a text file in one batch": statuses,
    }


def main() -> None:
    torch.manual_seed(0)
    module = timm.create_model(MODEL).eval()
    with tempfile.TemporaryDirectory() as folder:
        labels = build_archives(Path(folder), module)
        server = Server(Path(folder) / "run")
        client = server.start(ROOT / "config.properties", Path(folder), free_ports())
        try:
            results = {}
            for handler, name in zip(HANDLERS, ("ours", "stock"), strict=True):
                client.register(f"{name}.mar")
                results[handler] = compare(client, name, module, labels)
        finally:
            server.stop()
    versions = {name: version(name) for name in ("torch", "timm", "torchserve", "pillow")}
    record = {"model": f"{MODEL}, random weights, seed 0", "python": platform.python_version(), **versions, "results": results}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
