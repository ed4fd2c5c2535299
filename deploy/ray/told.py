"""Reports the project's metrics to Ray, with the same names, labels and units as to TorchServe."""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge, Histogram

from vit_core.stages import Stages

# Prometheus' own buckets, which TorchServe has, too. Ray requires them.
BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
HISTOGRAMS = {
    "BatchSize": "images that the model is given at once",
    "PreprocessSeconds": "reading, decoding and resizing, of a batch of requests",
    "InferenceSeconds": "the model, of a batch of images",
    "PostprocessSeconds": "labels, of a batch of requests",
    "ExplanationSeconds": "one image whose answer is explained",
}


class Told:
    """The metrics of one replica. Ray prefixes their names with `ray_`, and makes them lower case."""

    def __init__(self, model: str, version: str, replica: str):
        labels = {"ModelName": model, "ModelVersion": version}
        keys = tuple(labels)
        self._histograms = {
            name: Histogram(name, description, boundaries=BUCKETS, tag_keys=keys).set_default_tags(labels)
            for name, description in HISTOGRAMS.items()
        }
        self._refused = Counter("RefusedRequests", "requests that got an error, by its type", tag_keys=("Reason", *keys))
        self._refused.set_default_tags(labels)
        self._in_flight = Gauge("RequestsInFlight", "requests that a replica has and has not answered", ("WorkerName", *keys))
        self._in_flight.set_default_tags({**labels, "WorkerName": replica})
        self._count = 0

    def batch(self, stages: Stages) -> None:
        for name, value, _ in stages.observed:
            self._histograms[name].observe(value)

    def refused(self, type: str) -> None:
        self._refused.inc(tags={"Reason": type})

    def in_flight(self, change: int) -> None:
        self._count += change
        self._in_flight.set(self._count)
