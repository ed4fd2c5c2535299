"""`python -m predict ARCHIVE.mar PICTURE…`: prints the answers that a server with this archive would give."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from command_line import Parser, exit_status, positive
from predict.job import LOCAL
from predict.loading import add_archive, load, tasks
from predict.pictures import pictures
from predict.table import Lines, Table
from vit_core.errors import InputError, RequestError
from vit_core.request import Request

if TYPE_CHECKING:
    from vit_core.predictor import Predictor


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return exit_status("predict", lambda: run(options))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m predict", description="Answer pictures with an archive in this process, without a server.")
    add_archive(parser)
    parser.add_argument(
        "pictures",
        nargs="+",
        metavar="PICTURE",
        help="an image file, or a folder: the pictures in it, at any depth. With --output also a list of paths"
        " (.txt, .csv, .parquet), a .parquet with the pictures themselves, a .tar, a pattern, or a URL of any of these",
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON for each picture: its path, its answer or error")
    parser.add_argument("--top-k", type=positive, metavar="K", help="labels in an answer (default: the archive's)")
    parser.add_argument(
        "--task",
        type=tasks,
        metavar="TASK",
        help="classify or embed, where the archive has both; with --output also classify,embed (default: its first)",
    )
    parser.add_argument(
        "--output", metavar="OUT", help="for any number of pictures: write a row for each to OUT.parquet, OUT.csv or OUT.jsonl"
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const=LOCAL,
        metavar="ADDRESS",
        help="with --output: on this Ray cluster (auto: the one that this machine is in; no address: one for this run alone)",
    )
    options = parser.parse_args(arguments)
    if options.output is None and (options.ray or len(options.task or ()) > 1):
        parser.error("--ray and several tasks need --output")
    if options.output and options.json:
        parser.error("--json is for the screen: --output OUT.jsonl has lines of JSON too")
    return options


def run(options: argparse.Namespace) -> int | None:
    if options.output is None:
        return predict(options)
    from predict import bulk

    return bulk.run(options)


def predict(options: argparse.Namespace) -> int:
    """Prints an answer or an error for each picture. Returns 1 if there was an error."""
    files = pictures([Path(each) for each in options.pictures])
    predictor = load(options.archive, options.device)
    show = Lines() if options.json else Table(files, predictor.describe())
    failed = False
    for file, answer, error in answers(predictor, options, files):
        failed |= error is not None
        show.print_row(file, answer, error)
    return int(failed)


def answers(predictor: Predictor, options: argparse.Namespace, files: list[Path]) -> Iterator[tuple]:
    """Yields for each file the body of its answer, or its RequestError, in batches of the archive's size."""
    (task,) = options.task or (None,)
    for start in range(0, len(files), predictor.batch_size):
        batch = files[start : start + predictor.batch_size]
        read = [_read(file) for file in batch]
        images = [data for data in read if isinstance(data, bytes)]
        requests = [Request([image], top_k=options.top_k, task=task) for image in images]
        answered = iter(predictor.answer(requests) if requests else ())
        for file, data in zip(batch, read, strict=True):
            answer = next(answered) if isinstance(data, bytes) else InputError(400, "UnreadableFile", data.strerror)
            yield (file, None, answer) if isinstance(answer, RequestError) else (file, answer.body, None)


def _read(file: Path) -> bytes | OSError:
    try:
        return file.read_bytes()
    except OSError as error:  # concerns one picture; the others are answered
        return error


if __name__ == "__main__":
    sys.exit(main())
