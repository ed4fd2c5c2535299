"""`python -m predict … --output OUT`: writes a row for each picture to a file, and survives bad pictures and interruptions."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from command_line import UserError, show_step
from predict.job import PART, Job
from predict.packed import Packed
from predict.pool import Pool
from predict.progress import Progress, duration
from predict.resume import Run
from predict.sinks import FORMATS
from predict.sources.listing import listed, places
from predict.sources.places import is_url, reason, stamp
from vit_core.settings import Settings

LISTED = 10_000  # pictures between two updates of the progress


@dataclass(frozen=True)
class Done:
    """The outcome of a run."""

    rows: int
    errors: int
    answered: int  # by this process, without those before it was killed


def run(options: argparse.Namespace) -> None:
    """Runs `answer` for the command line, and prints a line about its outcome."""
    start = time.monotonic()
    out = options.output
    done = answer(options.archive, options.pictures, out, options.task, options.top_k, options.device, options.ray)
    if done is None:
        print(f"{out}: was whole already")
        return
    bad = f", {done.errors:,} with an error in its row" if done.errors else ""
    print(f"{out}: {done.rows:,} pictures{bad}; {done.answered:,} answered in {duration(time.monotonic() - start)}")


def answer(
    archive: Path,
    sources: list[str],
    output: str | Path,
    task: tuple[str, ...] | None = None,
    top_k: int | None = None,
    device: str | None = None,
    ray: str | None = None,
) -> Done | None:
    """Writes a row for each picture of the sources to `output`, in the format of its suffix, or continues an interrupted run.

    `ray` is the address of a cluster, or LOCAL. Returns None if the output was complete already and only its parts were left
    over. Raises UserError for what a user can fix, such as a full disk; the same call continues afterwards.
    """
    if is_url(str(output)):
        raise UserError(f"{output} is an address: a run writes to a disk of this machine, and from there the file is copied")
    out = Path(os.path.abspath(output))
    suffix = out.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"{output} should end in {', '.join(FORMATS)}, which is its format")
    if not out.parent.is_dir():
        raise UserError(f"there is no folder {out.parent}")
    with Packed(archive) as packed:
        tasks = _tasks(archive, task, packed.settings)
        sink = FORMATS[suffix](tasks)
        identity = {"archive": packed.sha256, "sources": sources, "folder": os.getcwd()}
        identity |= {"task": list(tasks), "top-k": top_k, "device": device}
        try:
            kept = Run(out, identity)
            if kept.whole:
                kept.finish(sink)
                return None
            batch = packed.serving.batch_size
            _list(kept, sources, -(-PART // batch) * batch)
            job = Job(packed.folder(kept.folder), tasks, top_k, device, suffix, os.getcwd())
            answered = _answer(kept, job, packed, ray)
            done = Done(kept.manifest["rows"], sum(kept.done().values()), answered)
            kept.finish(sink)
        except OSError as error:
            what = f"{error.filename or out}: {reason(error)}"
            raise UserError(f"{what}; what is done is kept, and the same command goes on with it") from error
    return done


def _tasks(archive: Path, asked: tuple[str, ...] | None, settings: Settings) -> tuple[str, ...]:
    """Returns the tasks in the archive's order."""
    for task in asked or ():
        if task not in settings.tasks:
            raise UserError(f"{archive} answers {' and '.join(settings.tasks)}, not {task}")
    return tuple(task for task in settings.tasks if task in asked) if asked else settings.tasks[:1]


def _list(kept: Run, sources: list[str], part_rows: int) -> None:
    """Lists the sources, unless an earlier run has. Sources that are one file must not have changed since."""
    if kept.manifest is not None:
        for place, before in kept.manifest["stamps"].items():
            if _stamp(place) != before:
                raise UserError(f"{place} has changed since {kept.out} was begun: remove {kept.folder} to begin anew")
        return
    try:
        found = places(sources)
        stamps = {place: _stamp(place) for place, kind in found if kind == "file"}

        def show(rows: int) -> None:
            if rows % LISTED == 0:
                show_step(f"listing: {rows:,} pictures")

        kept.list(listed(found), part_rows, stamps, show)
        show_step("")
        if not kept.manifest["rows"]:
            raise UserError(f"there are no pictures in {', '.join(sources)}")
    except UserError:
        kept.discard()
        raise


def _stamp(place: str) -> str:
    try:
        return stamp(place)
    except Exception as error:  # errors of the system, or of the bucket's package
        return f"unreadable: {reason(error)}"


def _answer(kept: Run, job: Job, packed: Packed, address: str | None) -> int:
    """Answers the shards that are left. Returns the number of pictures."""
    done, manifest = kept.done(), kept.manifest
    before = sum(kept.rows_of(number) for number in done)
    progress = Progress(manifest["rows"], before)
    if left := kept.parts - len(done):
        job = job.pinned(manifest["precision"])
        with contextlib.closing(_engine(job, packed, manifest["sources"], address)) as engine:
            for part in engine.answered(kept.shards(done), left):
                if kept.manifest["precision"] is None:
                    kept.begin(engine.precision)
                kept.add(part)
                progress.add(part.rows, part.errors)
        progress.clear()
    return progress.done - before


def _engine(job: Job, packed: Packed, sources: list[str], address: str | None):
    if address is None:
        return Pool(job)
    from predict.ray_data import Cluster

    return Cluster(job, packed, sources, address)
