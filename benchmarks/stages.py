"""Where the time of a request goes, by the counters of TorchServe's metrics address before and after a load."""

from __future__ import annotations

import re
import urllib.request
from collections import Counter

STAGES = {
    "preprocessing": "PreprocessSeconds_sum",
    "model": "InferenceSeconds_sum",
    "postprocessing": "PostprocessSeconds_sum",
}
REST = "rest"
IMAGES, BATCHES = "BatchSize_sum", "BatchSize_count"
QUEUED, REQUESTS = "ts_queue_latency_microseconds", "ts_inference_requests_total"


def read(address: str, model: str) -> Counter[str]:
    """The counters of `model` as they are now."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as response:
        return parse(response.read().decode(), model)


def parse(text: str, model: str) -> Counter[str]:
    """metric → value, of the lines in Prometheus' text form that are about `model`."""
    found = Counter()
    wanted = {*STAGES.values(), IMAGES, BATCHES, QUEUED, REQUESTS}
    for name, labels, value in re.findall(r"^(\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        if name in wanted and re.search(rf'(?:ModelName|model_name)="{re.escape(model)}"', labels):
            found[name] += float(value)
    return found


def gained(before: Counter[str], after: Counter[str]) -> Counter[str]:
    return Counter({name: after[name] - before[name] for name in after})


def milliseconds_per_image(counted: Counter[str], worker_seconds: float) -> dict[str, float]:
    """Of the `worker_seconds` (wall time, times the number of workers) in which `counted` was gained, for each image.

    What the handler did not take is the rest: the front end, the transport, and the worker waiting for its next batch.
    """
    images = counted[IMAGES]
    found = {stage: 1e3 * counted[metric] / images for stage, metric in STAGES.items()}
    found[REST] = 1e3 * worker_seconds / images - sum(found.values())
    return {stage: round(value, 3) for stage, value in found.items()}


def mean_batch_size(counted: Counter[str]) -> float:
    return round(counted[IMAGES] / counted[BATCHES], 2)


def queue_milliseconds(counted: Counter[str]) -> float:
    """For each request, from its arrival at the front end until a worker takes it."""
    return round(counted[QUEUED] / counted[REQUESTS] / 1e3, 1)
