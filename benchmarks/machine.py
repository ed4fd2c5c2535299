"""What a record says of the machine that it was taken on, and of what else ran there meanwhile."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import psutil
import torch

from vit_core.precision import Precision

INSTRUCTIONS = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_tile")  # that matter here, as torch names them


def machine(device: str) -> dict:
    """The processor and the cores that this process may use; for a `device` cuda the GPU too."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    has = [each for each in INSTRUCTIONS if torch.cpu.get_capabilities().get(each)]
    found = {"processor": name, "cores": len(os.sched_getaffinity(0)), "instructions": has}
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
        found["compute_capability"] = ".".join(map(str, torch.cuda.get_device_capability()))
        found["driver"] = _driver()
    return found


def cpu_multiplies(precision: Precision) -> bool:
    """Whether this CPU has instructions for it that oneDNN may use, also such as are too slow for the handler to take."""
    has_bf16 = torch.cpu.get_capabilities().get("avx512_bf16") and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return precision.is_fast(torch.device("cpu")) or bool(precision.name == "bf16" and has_bf16)


def suffix(device: str) -> str:
    """What the name of a results file ends with, "-nvidia-h200" say: nothing on a CPU."""
    return f"-{re.sub('[^a-z0-9]+', '-', torch.cuda.get_device_name().lower()).strip('-')}" if device == "cuda" else ""


def _driver() -> str:
    if not shutil.which("nvidia-smi"):
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")[0] or "unknown"


def others_seconds() -> float:
    """Processor time since the machine's start that did not go to this process and what it has started, but to other programs,
    to the kernel for itself, or to the host's other machines."""
    times = psutil.cpu_times()
    everything = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
    own, process = 0.0, psutil.Process()
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            own += sum(
                each.cpu_times()[:4]
            )  # in user mode and in the kernel, its own and those of its children that have ended
    return everything - own
