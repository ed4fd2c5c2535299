"""The messages to a worker: one at its start, and one for each part of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from predict.sources.item import Item

# Pictures of a part, rounded up to whole batches: what is done again after a kill, and what Ray's blocks hold.
PART = 256
LOCAL = "local"  # the address of a Ray cluster that is started for the run, on this machine


@dataclass(frozen=True)
class Job:
    """How all pictures of a run are answered."""

    archive: str  # the folder that it was unpacked into
    tasks: tuple[str, ...]
    top_k: int | None
    device: str | None
    suffix: str  # of the output
    folder: str  # relative paths start here
    workers: int = 1  # that share the cores
    precision: str | None = None  # the precision that the run began with; None: this is its first worker

    def pinned(self, precision: str | None) -> Job:
        return replace(self, precision=precision)


@dataclass(frozen=True)
class Shard:
    """Pictures that are consecutive in the listing."""

    number: int
    first_id: int
    items: Sequence[Item]
    alone: bool = False  # each picture by itself, with a word to the parent before it
    deadly: dict[int, str] = field(default_factory=dict)  # pictures that a worker died on, by index, and how


@dataclass(frozen=True)
class Part:
    """The rows of a shard, in the format of the output."""

    number: int
    rows: int
    errors: int
    data: bytes


@dataclass(frozen=True)
class Ready:
    """A worker's message after it has loaded the archive."""

    precision: str
    workers: int  # that this machine has a use for
    gpus: int  # that they share; 0: they run on the CPU


@dataclass(frozen=True)
class Failed:
    """The reason why a worker cannot load the archive."""

    message: str
