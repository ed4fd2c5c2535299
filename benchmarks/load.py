"""A load generator that costs little: clients that post pictures over kept connections, each as soon as it has its answer."""

from __future__ import annotations

import asyncio
import io
import math
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from PIL import Image
from sklearn.datasets import load_sample_images

# Seconds in which the answers to one batch are all sent: counting starts between two batches, not within one.
SETTLE = 0.05


@dataclass(frozen=True)
class Load:
    """What `clients` at once got: answers per second, the latency of each in seconds, and the answers that were not 200.

    `span` is the seconds from the first request to the last answer, the warm-up included.
    """

    clients: int
    per_second: float
    latencies: list[float]
    errors: int
    span: float


def photographs() -> list[bytes]:
    """Sixteen parts of scikit-learn's two photographs, 500 x 375, as JPEG files."""
    files = []
    for image in map(Image.fromarray, load_sample_images().images):
        for x, y in ((x, y) for x in (0, 40, 90, 140) for y in (0, 50)):
            buffer = io.BytesIO()
            image.crop((x, y, x + 500, y + 375)).save(buffer, "JPEG", quality=90)
            files.append(buffer.getvalue())
    return files


def percentile(latencies: list[float], share: float) -> float:
    """The latency that `share` of them do not exceed."""
    return sorted(latencies)[max(0, math.ceil(share * len(latencies)) - 1)]


def post(url: str, headers: dict[str, str], bodies: list[bytes], clients: int, seconds: float, warm_up: float = 1.5) -> Load:
    """Posts `bodies` in turn by `clients` at once.

    What counts are `seconds`, or longer until there is one answer, after a warm-up of at least `warm_up` and of one answer for
    each client: the first answers come sooner than those that waited behind a full queue.
    """
    return asyncio.run(_post(url, headers, bodies, clients, seconds, warm_up))


async def _post(url: str, headers: dict[str, str], bodies: list[bytes], clients: int, seconds: float, warm_up: float) -> Load:
    parts = urlsplit(url)
    head = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", *(f"{name}: {value}" for name, value in headers.items())]
    requests = ["\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body for body in bodies]
    begun, start, end, errors = time.perf_counter(), math.inf, math.inf, 0
    waiting, answers = set(range(clients)), []

    async def client(number: int) -> None:
        nonlocal start, end, errors
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        turn = number
        while time.perf_counter() < end:
            sent = time.perf_counter()
            writer.write(requests[turn % len(requests)])
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in answer.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            received = time.perf_counter()
            answers.append((received, received - sent))
            errors += not answer.startswith(b"HTTP/1.1 200")
            if received > start:
                end = min(end, max(start + seconds, received + SETTLE))
            waiting.discard(number)
            if not waiting and received > begun + warm_up:
                start = min(start, received + SETTLE)
            turn += clients
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    latencies = [latency for received, latency in answers if start < received <= end]
    rate = per_second([received for received, _ in answers], start, end)
    return Load(clients, rate, latencies, errors, time.perf_counter() - begun)


def per_second(times: list[float], start: float, end: float) -> float:
    """Answers a second, by the `times` at which they came: from the last one before `start` to the last one before `end`.

    Answers come in batches, seconds apart if the server is slow: their number in a fixed time would be off by as much as one.
    """
    first = max(time for time in times if time <= start)
    counted = [time for time in times if first < time <= end]
    return len(counted) / (max(counted) - first)
