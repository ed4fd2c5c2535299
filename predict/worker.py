"""A process that answers shards: `python -m predict.worker FD`, with a socket to its starter.

Each worker has its own interpreter, because Python's lock would limit one process to a few cores. A picture that ends a worker
ends nothing else.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from predict.job import Failed, Job, Part, Ready, Shard
from predict.rows import Rows
from predict.sinks import FORMATS
from predict.sources.item import Item
from predict.sources.reading import Reader
from vit_core.answer import RAW
from vit_core.errors import InputError, ServerError
from vit_core.machine import threads_per_worker
from vit_core.predictor import Predictor
from vit_core.request import Request
from vit_core.settings import EMBED, ArchiveError


class Answerer:
    """Answers shards with one predictor, as a worker of the server would."""

    def __init__(self, job: Job):
        device = job.device and torch.device(job.device)
        self.predictor = Predictor.load(Path(job.archive), device, workers=job.workers, precision=job.precision)
        self._rows, self._sink = Rows(job.tasks), FORMATS[job.suffix](job.tasks)
        self._reader = Reader(job.folder, self.predictor.archive.settings.limits)
        self._requests = [
            Request([], task=task, accept=RAW) if task == EMBED else Request([], task=task, top_k=job.top_k)
            for task in job.tasks
        ]

    def ready(self) -> Ready:
        described = self.predictor.describe()
        gpus = torch.cuda.device_count() if self.predictor.device.type == "cuda" else 0
        return Ready(described["precision"], described["useful_workers"], gpus)

    def part(self, shard: Shard, say: Callable[[int], None]) -> Part:
        """Returns the rows of a shard. `say` receives the index of a picture before it is answered alone."""
        rows, size = [], 1 if shard.alone else self.predictor.batch_size
        read = self._reader.read(list(shard.items))
        for start in range(0, len(shard.items), size):
            batch = list(zip(range(start, min(start + size, len(shard.items))), read, strict=False))
            rows += self._batch(shard, batch, say)
        errors = sum(row["error"] is not None for row in rows)
        return Part(shard.number, len(rows), errors, self._sink.encode(rows))

    def _batch(self, shard: Shard, batch: list[tuple[int, bytes | InputError]], say: Callable[[int], None]) -> Iterator[dict]:
        if shard.alone:
            say(batch[0][0])
        dead = {index: ServerError(500, "WorkerDied", how) for index, how in shard.deadly.items()}
        images = [data for index, data in batch if isinstance(data, bytes) and index not in dead]
        outcomes = iter(self.predictor.outputs(images) if images else ())
        for index, data in batch:
            item: Item = shard.items[index]
            outcome = dead.get(index) or (next(outcomes) if isinstance(data, bytes) else data)
            if isinstance(outcome, InputError | ServerError):
                yield self._rows.refused(shard.first_id + index, item.path, outcome)
            else:
                answers = [self.predictor.answer_from(outcome, request) for request in self._requests]
                yield self._rows.answered(shard.first_id + index, item.path, answers)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the parent's to answer
    parent = Connection(int(sys.argv[1]))
    try:
        try:
            answerer = Answerer(parent.recv())
        except (ArchiveError, RuntimeError) as error:  # errors of torch for a device that does not exist
            parent.send(Failed(str(error).splitlines()[0]))
            return
        parent.send(answerer.ready())
        while True:
            told = parent.recv()
            if isinstance(told, Shard):
                parent.send(answerer.part(told, parent.send))
            else:  # the number of workers, which the first one starts without
                torch.set_num_threads(threads_per_worker(told))
    except (EOFError, OSError):  # the parent has ended, or needs no more answers
        return


if __name__ == "__main__":
    main()
