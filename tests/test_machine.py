"""What a machine or a container has, from control groups of both versions; and how many workers and threads that makes."""

import os
from pathlib import Path

import pytest
import torch

from vit_core import machine

CORES, GIB = 16, 1 << 30
PAGES = 64 * GIB // os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def groups(tmp_path, monkeypatch) -> Path:
    """A machine of 16 cores and 64 GiB, whose control groups are in this folder; this process is in no group of it yet."""
    sysconf = os.sysconf
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(CORES)))
    monkeypatch.setattr(os, "sysconf", lambda name: PAGES if name == "SC_PHYS_PAGES" else sysconf(name))
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "own")
    (tmp_path / "cgroup").mkdir()
    return tmp_path / "cgroup"


def put(groups: Path, own: str, files: dict[str, str]) -> None:
    """This process is in the groups `own`, as /proc/self/cgroup has them, and the groups have these files."""
    groups.with_name("own").write_text(own)
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(f"{text}\n")


def version_1(group: str = "") -> str:
    """/proc/self/cgroup of a process in `group` of each controller."""
    return f"11:memory:/{group}\n4:cpu,cpuacct:/{group}\n2:cpuset:/\n1:name=systemd:/{group}\n"


def quota_1(group: str, quota: int) -> dict[str, str]:
    return {f"cpu,cpuacct/{group}cpu.cfs_quota_us": str(quota), f"cpu,cpuacct/{group}cpu.cfs_period_us": "100000"}


def limit_1(group: str, limit: int) -> dict[str, str]:
    return {f"memory/{group}memory.limit_in_bytes": str(limit)}


def test_without_control_groups_it_is_the_whole_machine(groups):
    assert (machine.cores(), machine.memory()) == (CORES, 64 * GIB)


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "400000 100000"}, 4),
        ("0::/\n", {"cpu.max": "350000 100000"}, 4),  # half a core is of use
        ("0::/\n", {"cpu.max": "10000 100000"}, 1),
        ("0::/\n", {"cpu.max": "25000 50000"}, 1),
        ("0::/\n", {"cpu.max": "9900000 100000"}, CORES),  # more than there are
        ("0::/\n", {"cpu.max": "max 100000"}, CORES),
        ("0::/\n", {}, CORES),
        (version_1(), quota_1("", 200_000), 2),
        (version_1(), quota_1("", -1), CORES),
        (version_1(), {"cpu,cpuacct/cpu.cfs_quota_us": "200000"}, CORES),  # of an unknown period
        (version_1(), {"memory/cpu.max": "200000 100000"}, CORES),  # of another controller
        ("0::/a/b\n", {"a/b/cpu.max": "200000 100000", "a/cpu.max": "300000 100000"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "200000 100000"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2),
        ("0::/a/b\n", {"a/c/cpu.max": "200000 100000"}, CORES),  # of another group
        (version_1("a/b"), quota_1("a/b/", 200_000) | quota_1("a/", 300_000), 2),
        (version_1("a/b"), quota_1("a/b/", -1) | quota_1("a/", 200_000), 2),
        # In a container the group is named as on the host, where its files are not to be seen; the root is its own.
        ("0::/host/pod\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/../../pod\n", {"cpu.max": "200000 100000"}, 2),
        (version_1("host/pod"), quota_1("", 200_000), 2),
        # Some systems have both versions: then the controllers are those of version 1.
        (version_1("a") + "0::/a\n", quota_1("a/", 200_000), 2),
    ],
)
def test_a_quota_of_cpu_time_counts_as_that_many_cores(own, files, cores, groups):
    put(groups, own, files)
    assert machine.cores() == cores


@pytest.mark.parametrize(
    ("own", "files", "memory"),
    [
        ("0::/\n", {"memory.max": str(8 * GIB)}, 8 * GIB),
        ("0::/\n", {"memory.max": str(99 * GIB)}, 64 * GIB),  # more than there is
        ("0::/\n", {"memory.max": "max"}, 64 * GIB),
        ("0::/\n", {}, 64 * GIB),
        (version_1(), limit_1("", 8 * GIB), 8 * GIB),
        (version_1(), limit_1("", 9_223_372_036_854_771_712), 64 * GIB),  # how version 1 has no limit
        (version_1(), limit_1("", -1), 64 * GIB),
        (version_1(), {"cpu,cpuacct/memory.max": str(8 * GIB)}, 64 * GIB),  # of another controller
        ("0::/a/b\n", {"a/b/memory.max": str(4 * GIB), "a/memory.max": str(8 * GIB)}, 4 * GIB),
        ("0::/a/b\n", {"a/b/memory.max": str(8 * GIB), "a/memory.max": str(4 * GIB)}, 4 * GIB),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": str(4 * GIB)}, 4 * GIB),
        (
            version_1("a"),
            {f"memory/{name}memory.limit_in_bytes": str(size * GIB) for name, size in (("a/", 4), ("", 8))},
            4 * GIB,
        ),
        ("0::/host/pod\n", {"memory.max": str(8 * GIB)}, 8 * GIB),
        (version_1("host/pod"), limit_1("", 8 * GIB), 8 * GIB),
    ],
)
def test_a_limit_of_memory_counts(own, files, memory, groups):
    put(groups, own, files)
    assert machine.memory() == memory


def test_this_machine_has_cores_and_memory():
    """Whatever its control groups are like."""
    assert 1 <= machine.cores() <= os.cpu_count()
    assert 0 < machine.resident() < machine.memory()


@pytest.mark.parametrize(
    ("cores", "quota", "workers", "threads"),
    [
        (16, None, 1, 16),
        (16, None, 4, 4),
        (2, None, 4, 1),
        (16, "max 100000", 2, 8),
        (16, "350000 100000", 2, 2),
        (1, "x", 1, 1),
    ],
)
def test_cores_are_shared_out_among_workers(cores, quota, workers, threads, groups, monkeypatch):
    put(groups, "0::/\n", {"cpu.max": quota} if quota else {})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert machine.threads_per_worker(workers) == threads


@pytest.mark.parametrize(
    ("device", "threads", "gpus", "workers"),
    [("cpu", 16, 0, 1), ("cpu", 1, 0, 16), ("cpu", 6, 0, 2), ("cpu", 32, 0, 1), ("cuda:0", 16, 1, 4), ("cuda:0", 16, 4, 12)],
)
def test_workers_are_of_use_as_long_as_there_are_cores_or_gpus_for_them(device, threads, gpus, workers, groups, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert machine.useful_workers(torch.device(device), threads, GIB) == workers


@pytest.mark.parametrize(
    ("device", "memory", "resident", "workers"),
    [
        ("cpu", 64 * GIB, GIB, 16),
        ("cpu", 6 * GIB, GIB, 4),
        ("cpu", 6 * GIB, 3 * GIB, 1),
        ("cpu", 6 * GIB, 99 * GIB, 1),
        ("cpu", GIB, GIB, 1),
        ("cuda:0", 64 * GIB, GIB, 24),
        ("cuda:0", 64 * GIB, 4 * GIB, 15),
    ],
)
def test_workers_are_of_use_as_long_as_they_fit_into_memory(device, memory, resident, workers, groups, monkeypatch):
    """Beside the 2 GiB that stay free for TorchServe's front end; one is always tried."""
    put(groups, "0::/\n", {"memory.max": str(memory)})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert machine.useful_workers(torch.device(device), 1, resident) == workers
