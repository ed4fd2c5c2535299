"""Finds the cores and the memory of this machine or container, and shares them out among the workers of a model."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import torch

# While one worker decodes, receives or answers, the GPU works for the others (measured in benchmarks/overlap.py).
WORKERS_PER_GPU = 3
# A photograph takes 4 ms of a core, and Python holds its lock for about one of them: one worker cannot use more cores.
CORES_PER_WORKER = 4
# Bytes that stay free: for TorchServe's front end (0.4 GB after 100,000 requests), and for the largest pictures (1.2 GB).
RESERVE = 2 << 30
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores() -> int:
    """Returns the number of cores that this process may use: its affinity, or less if the quota of its container is lower."""
    found = len(os.sched_getaffinity(0))
    for folder in _groups("cpu"):
        for read in (_quota_v2, _quota_v1):
            if quota := read(folder):
                found = min(found, math.ceil(quota))
    return found


def memory() -> int:
    """Returns the bytes of memory of this machine, or the limit of its container."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # of cgroup version 2 and 1; "max" means no limit
            if (limit := _read(folder / name)).isdigit():
                found = min(found, int(limit))
    return found


def threads_per_worker(workers: int) -> int:
    """Returns the share of the cores that each of the model's `workers` gets; at least 1.

    More threads than cores cost far more than they bring: on two cores, two workers of two threads each had a third of the
    throughput of one.
    """
    return max(1, cores() // workers)


def useful_workers(device: torch.device, threads: int, resident: int) -> int:
    """Returns how many workers like this one keep the machine busy and fit into its memory.

    On a CPU, where each worker runs its model with `threads` threads, that is one worker for each share of the cores. On GPUs
    it is a few for each, and more where many cores can decode. Each worker holds `resident` bytes.
    """
    if device.type == "cuda":
        wanted = max(WORKERS_PER_GPU * torch.cuda.device_count(), cores() // CORES_PER_WORKER)
    else:
        wanted = cores() // threads
    return max(1, min(wanted, (memory() - RESERVE) // resident))


def resident() -> int:
    """Returns the bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _groups(controller: str) -> Iterator[Path]:
    """Yields the folders of this process's control groups that may limit `controller`, from its own up to the root.

    Version 2 has one hierarchy, version 1 one for each controller. In a container the path in /proc may be the host's, which is
    not visible there; the root is then the container's own group.
    """
    for line in _read(OWN_CGROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # Controllers that share a hierarchy have a folder named after all of them, in any order, and a link for each.
        named = [CGROUPS / name for name in (controller, controllers) if controllers]
        root = next((folder for folder in named if folder.exists()), CGROUPS)
        inner = root / path.lstrip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(root))


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").partition(" ")  # the quota in a period, and the period, in microseconds
    return int(quota) / int(period) if quota.isdigit() else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = (_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))  # -1: no limit
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
