"""How many threads a worker may use, and how many workers a machine has use for."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

# While one worker of a GPU decodes, receives or answers, the GPU works for the others: measured in benchmarks/overlap.py.
WORKERS_PER_GPU = 3
# Of 4 ms of a core that a photograph takes, Python holds its lock for about one: more cores than this one worker cannot use.
CORES_PER_WORKER = 4
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of processor time in a period, and the period


def threads_per_worker(workers: int) -> int:
    """The cores of this machine, or of this container, shared out among the `workers` of the model; at least 1.

    More threads than cores cost far more than they bring: two workers of two threads each on two cores ran at a third of the
    throughput of one.
    """
    return max(1, _cores() // workers)


def useful_workers(device: torch.device, threads: int) -> int:
    """How many workers on devices like `device` keep this machine busy: on a CPU, where each runs its model with `threads`
    threads, as many as there are cores for; on GPUs some for each, and more where there are many cores to decode with."""
    if device.type == "cuda":
        return max(WORKERS_PER_GPU * torch.cuda.device_count(), _cores() // CORES_PER_WORKER)
    return max(1, _cores() // threads)


def _cores() -> int:
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = QUOTA.read_text().split()
        return min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no container, or one without a limit: "max 100000"
        return cores
