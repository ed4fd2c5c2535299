"""What becomes of the server over time and under trouble: memory, recovery, overload.

    .venv/bin/python -m benchmarks.endurance

Serves the digits example and asks it 100,000 times by 16 clients, noting the memory of worker and front end on the way, and the
processor time that a request costs them; kills the worker under load and waits for the first answer of its successor; sends
ten times what the queue holds and notes how long a refusal takes. Writes benchmarks/results/endurance.json. Clients and server
share the machine.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import requests

from export.options import Options
from export.pipeline import export
from serve.client import Client
from serve.server import Server
from serve.settings import free_ports

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results" / "endurance.json"
DIGITS = ROOT / "examples" / "digits"
CLIENTS = 16
MARKS = (1_000, *range(10_000, 100_001, 10_000))  # requests after which memory and cost are noted
BODIES = [file.read_bytes() for file in sorted((DIGITS / "samples").glob("*.*g"))]


class Caller:
    """Posts pictures over one connection for each thread; notes each status and how many seconds it took."""

    def __init__(self, client: Client):
        self.url = f"{client.inference}/predictions/digits"
        self.headers = {"Authorization": f"Bearer {client.token('inference')}"}
        self._local = threading.local()

    def __call__(self, index: int) -> tuple[int, float]:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.trust_env = False
        start = time.perf_counter()
        response = self._local.session.post(self.url, data=BODIES[index % len(BODIES)], headers=self.headers, timeout=120)
        return response.status_code, time.perf_counter() - start


def worker(client: Client) -> psutil.Process:
    (only,) = client.describe("digits")["workers"]
    return psutil.Process(only["pid"])


def course(client: Client) -> list[dict]:
    """At each of MARKS: resident megabytes of the worker and of the front end, its parent; and since the mark before, answers a
    second, and milliseconds of processor time that both have spent on a request."""
    process, call, noted, done = worker(client), Caller(client), [], 0
    both = (process, process.parent())
    with ThreadPoolExecutor(CLIENTS) as pool:
        for mark in MARKS:
            start, spent, count = time.perf_counter(), _processor_seconds(both), mark - done
            codes = {code for code, _ in pool.map(call, range(done, mark))}
            rate, spent = count / (time.perf_counter() - start), _processor_seconds(both) - spent
            sizes = [round(each.memory_info().rss / 1e6) for each in both]
            noted.append({"requests": mark, "worker_mb": sizes[0], "front_end_mb": sizes[1]})
            noted[-1] |= {"per_second": round(rate), "processor_ms_per_request": round(1e3 * spent / count, 2)}
            print(noted[-1], codes, flush=True)
            if codes != {200}:
                sys.exit(f"not all requests were answered: {codes}")
            done = mark
    return noted


def _processor_seconds(processes: tuple[psutil.Process, ...]) -> float:
    return sum(sum(each.cpu_times()[:2]) for each in processes)


def recovery(client: Client) -> dict:
    """Seconds from the worker's end to the next answer, and the requests that were lost meanwhile."""
    call, codes, stop = Caller(client), [], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            code, _ = call(0)
            codes.append((time.perf_counter(), code))

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(ask)
        time.sleep(2)
        killed = time.perf_counter()
        worker(client).kill()
        lost = lambda: [when for when, code in codes if code != 200]  # noqa: E731
        while not lost() or not any(code == 200 and when > lost()[0] for when, code in codes):
            time.sleep(0.05)
        time.sleep(2)
        stop.set()
    first = next(when for when, code in codes if code == 200 and when > lost()[0])
    return {"seconds": round(first - killed, 2), "lost": len(lost())}


def overload(client: Client, queue: int) -> dict:
    """Ten times the queue at once: how long a refusal takes, and the memory before and after."""
    process, call = worker(client), Caller(client)
    before = process.memory_info().rss
    calm = statistics.median(call(index)[1] for index in range(50))
    with ThreadPoolExecutor(10 * queue) as pool:
        outcomes = list(pool.map(call, range(4000)))
    refused = [seconds for code, seconds in outcomes if code == 503]
    after = statistics.median(call(index)[1] for index in range(50))
    return {
        "answered": sum(code == 200 for code, _ in outcomes),
        "refused": len(refused),
        "refusal_median_ms": round(1e3 * statistics.median(refused), 1),
        "latency_before_ms": round(1e3 * calm, 1),
        "latency_afterwards_ms": round(1e3 * after, 1),
        "worker_grew_mb": round((process.memory_info().rss - before) / 1e6, 1),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        export(Options(f"local-dir:{DIGITS}", model_store=store))
        os.chdir(ROOT)
        config = Path(folder) / "config.properties"
        config.write_text((ROOT / "config.properties").read_text() + "job_queue_size=20\n")
        server = Server(Path(folder) / "run")
        client = server.start(config, store, free_ports())
        try:
            client.register("digits.mar")
            measured = {"course": course(client), "recovery": recovery(client), "overload": overload(client, 20)}
        finally:
            server.stop()
    print(json.dumps({key: measured[key] for key in ("recovery", "overload")}, indent=2))
    RESULTS.write_text(json.dumps({"cores": os.cpu_count(), **measured}, indent=2) + "\n")


if __name__ == "__main__":
    main()
