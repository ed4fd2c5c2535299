"""How many threads a worker may use, and how many workers a machine has use for."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of processor time in a period, and the period


def threads_per_worker(workers: int) -> int:
    """The cores of this machine, or of this container, shared out among the `workers` of the model; at least 1.

    More threads than cores cost far more than they bring: two workers of two threads each on two cores ran at a third of the
    throughput of one.
    """
    return max(1, _cores() // workers)


def useful_workers(device: torch.device, threads: int) -> int:
    """How many workers on devices like `device`, each of which runs its model with `threads` threads, keep this machine busy:
    one for each GPU, or as many as there are cores for."""
    return torch.cuda.device_count() if device.type == "cuda" else max(1, _cores() // threads)


def _cores() -> int:
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = QUOTA.read_text().split()
        return min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no container, or one without a limit: "max 100000"
        return cores
