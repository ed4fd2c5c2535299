"""Ray Serve on three nodes under load: replicas come and go, and a lost node takes with it what it had in flight, no more."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
import yaml

from serve.settings import free_ports
from tests.conftest import ROOT
from tests.e2e.conftest import SAMPLES, altered, assert_same_answer, eventually
from tests.e2e.load import PATIENCE, Load
from tests.e2e.test_roll import SECOND

BODY = SAMPLES[0][0].read_bytes()
CLIENTS = 4
NAME = "VisionTransformer"  # of the deployment of a model


@pytest.fixture
def cluster(monkeypatch) -> Iterator:
    """Ray's own imitation of a cluster: each node has its processes, its part of Serve's proxies, and one core."""
    temporary = tempfile.mkdtemp(prefix="t", dir="/tmp")
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 64, "RAY_USAGE_STATS_ENABLED": "0"}
    environment["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "60"  # three proxies start on the cores of one machine
    for name, value in {**environment, "PYTHONPATH": str(ROOT), "TMPDIR": temporary}.items():
        monkeypatch.setenv(name, value)
    import ray
    from ray.cluster_utils import Cluster

    Path(temporary, "ray").mkdir()  # where Ray notes the address of what was started last
    sizes = {"num_cpus": 1, "object_store_memory": 100 << 20}
    before = set(psutil.Process().children(recursive=True))
    nodes = Cluster(initialize_head=True, head_node_args={**sizes, "include_dashboard": False, "temp_dir": f"{temporary}/ray"})
    try:
        for _ in range(2):
            nodes.add_node(**sizes)
        monkeypatch.setenv("RAY_ADDRESS", nodes.address)
        ray.init(address=nodes.address, logging_level="ERROR", log_to_driver=False)
        yield nodes
    finally:
        started = set(psutil.Process().children(recursive=True)) - before
        ray.shutdown()
        nodes.shutdown()
        _, alive = psutil.wait_procs(started, timeout=20)
        for each in alive:
            each.kill()
        shutil.rmtree(temporary)


def apply(folder: Path, archive: Path, replicas: int, port: int) -> None:
    """Hands a config file to Serve with its own command, and waits until the replicas that run are as many."""
    config = yaml.safe_load((ROOT / "deploy" / "ray" / "serve.yaml").read_text())
    config["http_options"]["port"] = port
    front, model = config["applications"]
    front["args"] = {"token_file": None, "replicas": 3}
    model["args"] = {"archive": str(archive), "cpus": 1}
    model["deployments"] = [{"name": NAME, "num_replicas": replicas}]
    file = folder / "serve.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [Path(sys.executable).with_name("serve"), "run", "--non-blocking", file]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert eventually(lambda: len(nodes_of_replicas()) == replicas, PATIENCE)


def nodes_of_replicas() -> list[str]:
    """The node of each replica of the model that runs; none while Serve is at work on the application."""
    from ray.serve.context import _get_global_client

    application = _get_global_client().get_serve_details()["applications"].get("digits", {})
    if application.get("status") != "RUNNING":
        return []
    return [each["node_id"] for each in application["deployments"][NAME]["replicas"] if each["state"] == "RUNNING"]


def test_nothing_is_lost_but_what_a_dead_node_had_in_flight(cluster, digits_store, tmp_path, expected):
    altered(digits_store, tmp_path / "second.mar", SECOND)
    port = free_ports()["port"]
    url = f"http://127.0.0.1:{port}"
    apply(tmp_path, digits_store / "digits.mar", 1, port)
    known = expected[SAMPLES[0][0].name]
    load = Load(f"{url}/predictions/digits", [BODY], lambda _, answer: assert_same_answer(answer, known), CLIENTS)
    try:
        assert load.goes_on()
        apply(tmp_path, digits_store / "digits.mar", 3, port)
        assert len(set(nodes_of_replicas())) == 3
        assert load.goes_on() and load.lost == []
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        assert load.goes_on() and len(load.lost) <= CLIENTS
        after = len(load.lost)
        apply(tmp_path, digits_store / "digits.mar", 1, port)
        assert load.goes_on()
        apply(tmp_path, tmp_path / "second.mar", 1, port)
        assert requests.get(f"{url}/models/digits", timeout=60).json()[0]["modelVersion"] == "2.0"
        assert load.goes_on() and len(load.lost) == after
    finally:
        load.stop()
