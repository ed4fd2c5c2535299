"""`python -m predict … --ray`: the rows of a run in process, on Ray with two CPUs, killed and resumed, and with a node lost."""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from predict.job import PART, Shard
from predict.ray_data import Cluster
from predict.sources.item import Item
from serve.settings import free_ports
from tests.bulk import PARTS, SAMPLES, finished, kill, kill_after, repeated, rows, start
from tests.conftest import DIGITS, export_to

PICTURES = 6 * PART + 10
# Of the cluster of two nodes: theirs and the driver's.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
RAY = Path(sys.executable).with_name("ray")


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return export_to(tmp_path_factory.mktemp("store"), f"local-dir:{DIGITS}", "--precision", "fp32")


@pytest.fixture(scope="module")
def listing(tmp_path_factory) -> Path:
    file = repeated(tmp_path_factory.mktemp("list"), PICTURES)
    file.write_text(file.read_text() + "/nowhere.png\n")
    return file


@pytest.fixture(scope="module")
def undisturbed(archive, listing, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out.jsonl"
    finished(archive, listing, "--output", out)
    assert [row["id"] for row in rows(out)] == list(range(PICTURES + 1))
    assert [row["id"] for row in rows(out) if row["error"]] == [PICTURES]
    return out


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path, since Ray opens sockets below it; no process of Ray's runs there any more at the end."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    deadline = time.monotonic() + 30
    while (left := processes(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    kill(left)
    shutil.rmtree(folder)
    assert left == []


def processes(folder: Path) -> list[psutil.Process]:
    """Those that name the folder, or have a log open in it: Ray's workers write another name over theirs."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(folder) in text for text in (*process.cmdline(), *(file.path for file in process.open_files()))):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_killed_with_two_cpus_it_goes_on_and_ends_as_in_process(archive, listing, undisturbed, place, tmp_path):
    out = tmp_path / "out.jsonl"
    two = sorted(os.sched_getaffinity(0))[:2]
    options = {
        "env": os.environ | {"RAY_TMPDIR": str(place), "TMPDIR": str(place)},
        "preexec_fn": lambda: os.sched_setaffinity(0, two),
    }
    said = kill_after(start(archive, listing, "--output", out, "--ray", **options), out, 2)
    assert not out.exists() and len(list(tmp_path.glob(f"out.jsonl.parts/{PARTS}"))) >= 2, said
    printed = finished(archive, listing, "--output", out, "--ray", **options)
    assert f"{PICTURES + 1:,} pictures, 1 with an error in its row; " in printed
    assert int(printed.partition("; ")[2].split()[0].replace(",", "")) < PICTURES - PART
    assert out.read_bytes() == undisturbed.read_bytes()


@pytest.fixture
def nodes(place) -> Iterator[tuple[str, psutil.Process]]:
    """The address of a cluster of two nodes with a CPU each, and the one that is not the driver's, with a port for its own."""
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_health_check_failure_threshold": "2"}
    environment |= TOKEN
    environment |= {"RAY_health_check_period_ms": "500", "RAY_health_check_initial_delay_ms": "0", "TMPDIR": str(place)}

    def node(*arguments: str) -> subprocess.Popen:
        folder = place / arguments[0].strip("-")
        command = [RAY, "start", *arguments, "--num-cpus", "1", "--temp-dir", folder, "--block", "--disable-usage-stats"]
        command += ["--object-store-memory", "100000000"]
        log = folder.with_suffix(".log").open("w")
        started = subprocess.Popen(
            list(map(str, command)), env=environment, start_new_session=True, stdout=log, stderr=subprocess.STDOUT
        )
        while "runtime started" not in folder.with_suffix(".log").read_text():
            assert started.poll() is None, folder.with_suffix(".log").read_text()
            time.sleep(0.1)
        return started

    address = f"127.0.0.1:{next(iter(free_ports().values()))}"
    head = node("--head", "--port", address.rpartition(":")[2], "--include-dashboard", "false")
    other = node("--address", address)
    yield address, psutil.Process(other.pid)
    for each in (head, other):
        if each.poll() is None:
            kill([*psutil.Process(each.pid).children(recursive=True), psutil.Process(each.pid)])
        each.wait()
    kill(processes(place))


def test_a_node_that_is_lost_loses_no_picture(archive, nodes, tmp_path):
    address, other = nodes
    many = repeated(tmp_path, 20 * PART)  # so many that one node is not done before the other one has a worker
    finished(archive, many, "--output", tmp_path / "undisturbed.jsonl")
    out = tmp_path / "out.jsonl"
    run = start(archive, many, "--output", out, "--ray", address, env=os.environ | TOKEN)
    while run.poll() is None and not works(other):
        time.sleep(0.1)
    time.sleep(1)  # until it has pictures
    lost = [other, *other.children(recursive=True)]
    assert run.poll() is None, run.communicate()
    for process in lost:
        process.kill()
    _, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    assert out.read_bytes() == (tmp_path / "undisturbed.jsonl").read_bytes()


def works(node: psutil.Process) -> bool:
    """Whether a node of a cluster has a process with the core."""
    with contextlib.suppress(psutil.Error):
        return any("predict.worker" in each.cmdline() for each in node.children(recursive=True))
    return False


def test_a_picture_folder_that_a_node_does_not_see_is_one_line(archive):
    from predict.ray_data import _unseen

    assert _unseen([str(SAMPLES[0])]) == ""
    assert _unseen([str(SAMPLES[0]), "/nowhere"]).startswith("there is no /nowhere on this node: ")


def test_every_node_gets_its_actors_at_once():
    """Ray would start the second one when the first has been busy for a while: a short run would be over by then."""
    asked = {}
    blocks = SimpleNamespace(map_batches=lambda _, **options: asked.update(options) or SimpleNamespace(iter_rows=list))
    nodes = [{"Alive": True, "Resources": {"CPU": 1.0}}] * 2
    cluster = object.__new__(Cluster)
    cluster._ray = SimpleNamespace(data=SimpleNamespace(from_blocks=lambda _: blocks), nodes=lambda: nodes)
    cluster._job = cluster._archive = cluster._roots = cluster._pin = None
    cluster._gpus, cluster._flops = False, 0
    shards = [Shard(number, number, [Item("a.png")]) for number in range(3)]
    assert list(cluster._wave(shards)) == []
    assert (asked["compute"].initial_size, asked["compute"].max_size, asked["num_cpus"]) == (2, 2, 1)
