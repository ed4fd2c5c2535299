"""What 200 connections without a token take, that each send a body of 19.9 MB: memory, and the time of others.

    .venv/bin/python -m benchmarks.bodies

Serves the digits example as Java would have it, with the bound of config.properties, and behind HAProxy with
examples/production/haproxy.cfg, which must be installed. For twenty seconds one client with a token asks as well, and its
slowest answer is noted, with the memory of TorchServe's front end. Writes benchmarks/results/bodies.json.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.machine import machine
from export.options import Options
from export.pipeline import export
from serve.client import Client
from serve.server import Server
from serve.settings import free_ports
from tests.e2e.proxy import BODY, HAPROXY, LARGE, flood, java, proxy_before

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results" / "bodies.json"
CONNECTIONS, SECONDS = 200, 20


def measured(client: Client, connect: Callable[[], socket.socket], predict: Callable[[], int]) -> dict:
    process = java(client)
    held, slowest, codes, end = [process.memory_info().rss], 0.0, set(), time.monotonic() + SECONDS
    with ThreadPoolExecutor(1) as pool:
        flooding = pool.submit(flood, connect, "", CONNECTIONS)
        while time.monotonic() < end or not flooding.done():
            start = time.monotonic()
            codes.add(predict())
            slowest = max(slowest, time.monotonic() - start)
            held.append(process.memory_info().rss)
        for connection in flooding.result():
            connection.close()
    before, most, after = (round(each / 1e6) for each in (held[0], max(held), held[-1]))
    memory = {"megabytes_before": before, "megabytes_most": most, "megabytes_after": after}
    return {**memory, "slowest_seconds": round(slowest, 2), "statuses": sorted(codes)}


def direct(client: Client) -> dict:
    address = urlsplit(client.inference)
    return measured(
        client,
        lambda: socket.create_connection((address.hostname, address.port)),
        lambda: client.predict("digits", BODY).status_code,
    )


def proxied(client: Client) -> dict:
    with tempfile.TemporaryDirectory() as folder, proxy_before(client, Path(folder)) as proxy:
        return measured(client, proxy.connect, lambda: proxy.predict().status_code)


def main() -> None:
    if HAPROXY is None:
        sys.exit("benchmarks.bodies: there is no HAProxy: apt install haproxy")
    config = (ROOT / "config.properties").read_text().replace("metrics.yaml", str(ROOT / "metrics.yaml"))
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        export(Options(f"local-dir:{ROOT / 'examples' / 'digits'}", model_name="digits", model_store=work))
        for name, settings, measure in (
            ("Java's own bound", re.sub(r"(?m)^vmargs=.*$", "", config), direct),
            ("vmargs=-Xmx1g", config, direct),
            ("behind HAProxy", config, proxied),
        ):
            (work / "config.properties").write_text(settings)
            server = Server(work / "run")
            client = server.start(work / "config.properties", work, free_ports())
            try:
                client.register("digits.mar")
                results[name] = measure(client)
            finally:
                server.stop()
            print(f"{name:20} {results[name]}", flush=True)
    RESULTS.write_text(json.dumps({"machine": machine("cpu"), "body_bytes": LARGE, "servers": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
