"""How many threads a worker may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of processor time in a period, and the period


def threads_per_worker(workers: int) -> int:
    """The cores of this machine, or of this container, shared out among the `workers` of the model; at least 1.

    More threads than cores cost far more than they bring: two workers of two threads each on two cores ran at a third of the
    throughput of one.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = QUOTA.read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no container, or one without a limit: "max 100000"
        pass
    return max(1, cores // workers)
