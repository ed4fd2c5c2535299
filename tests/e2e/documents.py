"""Commands as documents print them, run in a copy of the project, on ports of their own."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import timm
import torch

from serve.server import Server
from serve.settings import free_ports, port_overrides, read
from tests.conftest import DIGITS, ROOT

PRETRAINED = "vit_tiny_patch16_224"
MARK = "-" * 8
ADDRESSES = {"port": "inference_address", "management-port": "management_address"}  # that the documents name
PORTS = {"PORT": "port", "MANAGEMENT_PORT": "management-port", "METRICS_PORT": "metrics-port"}
PORTS |= {"GRPC_PORT": "grpc-port", "GRPC_MANAGEMENT_PORT": "grpc-management-port"}


def commands(text: str) -> list[str]:
    """What stands behind `$ ` in console blocks, with its continued lines; and each Python block as a command."""
    found = []
    for kind, block in re.findall(r"```(console|python)\n(.*?)```", text, re.DOTALL):
        if kind == "python":
            found.append(f".venv/bin/python - <<'END'\n{block}END")
        else:
            found += re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)
    return found


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the project with the files of a user in it: a checkpoint of three classes, its labels, and pictures."""
    if not (Path(sys.prefix) / "ready").exists():
        pytest.skip("the commands need the environment that make sets up")
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    copy = tmp_path / "project"
    for name in files.stdout.splitlines():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    (copy / ".venv").symlink_to(Path(sys.prefix))
    for file in (*copy.glob("requirements*.txt"), copy / "constraints.txt"):
        os.utime(file, (0, 0))  # older than the environment, which is not installed anew
    shutil.copytree(DIGITS / "samples", copy / "scans")
    (copy / "scans" / "labels.csv").unlink()
    torch.manual_seed(0)
    torch.save(timm.create_model(PRETRAINED, num_classes=3).state_dict(), copy / "best.pth")
    (copy / "labels.txt").write_text("cat\ndog\nowl\n")
    return copy


class Shell:
    """A shell of a user's in a copy of the project, where ports are other ones than those that the documents name."""

    def __init__(self, checkout: Path, settings: Path):
        self.checkout = checkout
        ports = free_ports()
        self._ports = {read(settings)[key].rpartition(":")[2]: str(ports[name]) for name, key in ADDRESSES.items()}
        outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}  # of a make that runs the tests
        self.environment = {name: value for name, value in os.environ.items() if name not in outer}
        self.environment |= {variable: str(ports[name]) for variable, name in PORTS.items()}
        # `torchserve --start` takes no ports.
        overrides = port_overrides(read(settings), ports).items()
        settings.write_text("\n".join([settings.read_text(), *(f"{key}={value}" for key, value in overrides), ""]))

    def run(self, shown: list[str], **environment: str) -> list[str]:
        """What each of the commands prints. The shell ends at the first one that fails, and leaves no server."""
        lines = ["set -e", 'curl() { command curl --silent --show-error --fail-with-body "$@"; }']
        for command in shown:
            for printed, port in self._ports.items():
                command = command.replace(f"127.0.0.1:{printed}", f"127.0.0.1:{port}")
            lines += [f"echo {MARK}", command]
        with tempfile.TemporaryDirectory(prefix="t") as temporary:  # where TorchServe notes which one it is
            options = {"cwd": self.checkout, "env": {**self.environment, **environment, "TMPDIR": temporary}, "text": True}
            printed = Path(temporary) / "printed"  # no pipe: a server that lives on would keep it open
            try:
                with printed.open("w") as output:
                    script = subprocess.run(
                        ["bash", "-c", "\n".join(lines)], **options, stdout=output, stderr=output, timeout=400
                    )
            finally:
                Server(self.checkout / ".torchserve").stop()
                subprocess.run([".venv/bin/torchserve", "--stop"], **options, stdout=subprocess.DEVNULL, check=True)
            text = printed.read_text()
        assert script.returncode == 0, text[-3000:]
        return text.split(f"{MARK}\n")[1:]
