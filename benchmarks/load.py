"""A load generator that costs little: clients that post pictures over kept connections, each as soon as it has its answer."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Load:
    """What `clients` at once got: answers per second over the measured time, and the latency of each in seconds, sorted."""

    clients: int
    per_second: float
    latencies: list[float]
    errors: int

    def percentile(self, share: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def post(url: str, headers: dict[str, str], bodies: list[bytes], clients: int, seconds: float, warm_up: float = 2.0) -> Load:
    """Posts `bodies` in turn by `clients` at once for `warm_up` and then for `seconds`, which alone are counted."""
    return asyncio.run(_post(url, headers, bodies, clients, seconds, warm_up))


async def _post(url: str, headers: dict[str, str], bodies: list[bytes], clients: int, seconds: float, warm_up: float) -> Load:
    parts = urlsplit(url)
    head = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", *(f"{name}: {value}" for name, value in headers.items())]
    requests = ["\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body for body in bodies]
    start = time.perf_counter() + warm_up
    end = start + seconds
    latencies, errors = [], 0

    async def client(number: int) -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        turn = number
        while time.perf_counter() < end:
            sent = time.perf_counter()
            writer.write(requests[turn % len(requests)])
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in answer.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            received = time.perf_counter()
            if start <= received < end:
                latencies.append(received - sent)
                errors += not answer.startswith(b"HTTP/1.1 200")
            turn += clients
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return Load(clients, len(latencies) / seconds, sorted(latencies), errors)
