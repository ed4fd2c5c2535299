"""`python -m predict … --output OUT`: a row for each picture in a file, whatever becomes of the pictures or of the run."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from pathlib import Path

from command_line import UserError, relative, show_step
from predict.job import PART, Job
from predict.packed import Packed
from predict.pool import Pool
from predict.progress import Progress, duration
from predict.resume import Run
from predict.sinks import FORMATS
from predict.sources.listing import listed, places
from predict.sources.places import reason, stamp
from vit_core.settings import Settings

LISTED = 10_000  # pictures from one sign of life to the next


def run(options: argparse.Namespace) -> None:
    """Answers all pictures of the sources into `options.output`, or goes on with that, and prints what there is then.

    Raises UserError for what a user can mend: a full disk too, after which the same command goes on.
    """
    out, start = Path(os.path.abspath(options.output)), time.monotonic()
    suffix = out.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"{options.output} should end in {', '.join(FORMATS)}, which is its format")
    with Packed(options.archive) as packed:
        tasks = _tasks(options, packed.settings)
        sink = FORMATS[suffix](tasks)
        identity = {"archive": packed.sha256, "sources": options.pictures, "folder": os.getcwd()}
        identity |= {"task": list(tasks), "top-k": options.top_k, "device": options.device}
        job = Job(packed.folder, tasks, options.top_k, options.device, suffix, os.getcwd())
        try:
            kept = Run(out, identity)
            if kept.whole:
                kept.finish(sink)
                print(f"{relative(out)}: was whole already")
                return
            _list(kept, options.pictures, -(-PART // packed.batch_size) * packed.batch_size)
            answered = _answer(kept, job, packed, options.ray)
            rows, errors = kept.manifest["rows"], sum(kept.done().values())
            kept.finish(sink)
        except OSError as error:
            what = f"{error.filename or out}: {reason(error)}"
            raise UserError(f"{what}; what is done is kept, and the same command goes on with it") from error
    seconds = time.monotonic() - start
    bad = f", {errors:,} with an error in its row" if errors else ""
    print(f"{relative(out)}: {rows:,} pictures{bad}; {answered:,} answered in {duration(seconds)}")


def _tasks(options: argparse.Namespace, settings: Settings) -> tuple[str, ...]:
    tasks = options.task or settings.tasks[:1]
    for task in tasks:
        if task not in settings.tasks:
            raise UserError(f"{options.archive} answers {' and '.join(settings.tasks)}, not {task}")
    return tuple(task for task in settings.tasks if task in tasks)


def _list(kept: Run, sources: list[str], part_rows: int) -> None:
    """Lists the sources, where that is not done. Those that are one file must be what they were when it was."""
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
    except Exception as error:  # of the system, or of whoever made the bucket's package
        return f"unreadable: {reason(error)}"


def _answer(kept: Run, job: Job, packed: Packed, address: str | None) -> int:
    """Answers what is not done yet. Returns the number of pictures."""
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
