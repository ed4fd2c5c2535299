"""`python -m tests.conformance URL [URL] [--archive FILE]`: which of the answers of two servers differ."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from command_line import UserError, exit_status, positive
from predict.pictures import pictures
from serve.archive import identity
from tests.conformance.asked import Case, difference
from tests.conformance.cases import cases
from tests.conformance.servers import Asks, InProcess, Server

SAMPLES = Path(__file__).resolve().parent.parent.parent / "examples" / "digits" / "samples"


def compare(one: Asks, other: Asks, asked: list[Case], clients: int = 4, tolerance: float = 0) -> Iterator[tuple[Case, str]]:
    """The cases whose answers differ, and how. Both are asked by several clients at once, so that requests share batches."""
    with ThreadPoolExecutor(clients) as pool:
        for case, found, expected in zip(asked, pool.map(one, asked), pool.map(other, asked), strict=True):
            if differs := difference(found, expected, tolerance):
                yield case, differs


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return exit_status("conformance", lambda: run(options))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description="Ask two servers of one archive, or a server and the core in this process, and compare their answers.",
    )
    parser.add_argument("urls", nargs="+", metavar="URL", help="http://127.0.0.1:8080: one with --archive, or two")
    parser.add_argument("--archive", type=Path, metavar="FILE", help="compare with the core in this process, and this archive")
    parser.add_argument("--model", metavar="NAME", help="of the model (default: the archive's)")
    parser.add_argument("--token", action="append", default=[], metavar="TOKEN", help="of a server, in the order of the URLs")
    parser.add_argument("--pictures", type=Path, nargs="+", default=[SAMPLES], metavar="PICTURE", help="files or folders")
    parser.add_argument("--clients", type=positive, default=4, metavar="N", help="at once (default: %(default)s)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0,
        metavar="T",
        help="between numbers, for servers on machines of two kinds, or without AVX512 (default: 0)",
    )
    return parser.parse_args(_tokens_joined(sys.argv[1:] if arguments is None else arguments))


def _tokens_joined(arguments: list[str]) -> list[str]:
    """Returns `--token=VALUE` for `--token VALUE`: one token of 64 begins with a dash, which argparse takes for an option."""
    joined: list[str] = []
    for each in arguments:
        if joined[-1:] == ["--token"]:
            joined[-1] = f"--token={each}"
        else:
            joined.append(each)
    return joined


def run(options: argparse.Namespace) -> int:
    """Prints a line for each difference. 1 if there is one."""
    if len(options.urls) + bool(options.archive) != 2:
        raise UserError("two are compared: two URLs, or one and --archive")
    if not (model := options.model or (options.archive and identity(options.archive)[0])):
        raise UserError("--model says which model is asked")
    tokens = [*options.token, None, None]
    asked: list[Asks] = [Server(url, model, token) for url, token in zip(options.urls, tokens, strict=False)]
    if options.archive:
        asked.append(InProcess(options.archive))
    every = [case for case in cases(pictures(options.pictures)) if case.token or options.token]
    different = 0
    try:
        for case, how in compare(*asked, every, options.clients, options.tolerance):
            different += 1
            print(f"{case.name}: {how}")
    except requests.RequestException as error:
        raise UserError(f"a server does not answer: {error}") from error
    print(f"{len(every) - different} of {len(every)} answers are the same: {' and '.join(each.name for each in asked)}")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
