"""Runs as many workers as this machine can use; one thread of this process waits for each."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import replace

from predict.job import Job, Part, Shard
from predict.process import WorkerProcess


class Pool:
    """Answers shards in any order. The first worker reports how many workers are useful, as the server's does."""

    def __init__(self, job: Job):
        self._first = WorkerProcess(job)
        self.precision = self._first.ready.precision
        self._job = replace(job, precision=self.precision)
        self._workers, self._closed = [self._first], False
        self._done: queue.SimpleQueue[Part | BaseException | None] = queue.SimpleQueue()

    def answered(self, shards: Iterator[Shard], most: int) -> Iterator[Part]:
        """Yields the parts of the shards, of which there are at most `most`, when they are done. Raises UserError if workers
        cannot run.
        """
        ready, feed, lock = self._first.ready, iter(shards), threading.Lock()
        count = max(1, min(ready.workers, most))

        def serve(number: int) -> None:
            try:
                worker = self._worker(number, count, ready.gpus)
                while True:
                    with lock:
                        shard = None if self._closed else next(feed, None)
                    if shard is None:
                        break
                    self._done.put(worker.answer(shard))
                self._done.put(None)
            except BaseException as error:
                self._done.put(error)

        if ready.gpus and count > 1:
            self._first.share(count)
        for number in range(count):
            threading.Thread(target=serve, args=(number,), daemon=True).start()
        while count:
            done = self._done.get()
            if isinstance(done, BaseException):
                raise done
            if done is None:
                count -= 1
            else:
                yield done

    def _worker(self, number: int, count: int, gpus: int) -> WorkerProcess:
        if number == 0:
            return self._first
        if gpus:
            job = replace(self._job, device=f"cuda:{number % gpus}" if self._job.device is None else self._job.device)
            job = replace(job, workers=count)
        else:
            job = self._job  # its model has the number of threads that made this count
        worker = WorkerProcess(job)
        self._workers.append(worker)
        return worker

    def close(self) -> None:
        self._closed = True
        for worker in self._workers:
            worker.close()
