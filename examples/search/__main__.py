"""`python -m examples.search recall|anomalies|demo`: how well `search` finds pictures of the same digit, and of none."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from examples.search import anomaly
from examples.search.recall import measure
from search.embedding import Embedder
from search.server import running_client
from serve.errors import exit_status
from serve.server import Server
from serve.settings import free_ports

ROOT = Path(__file__).resolve().parent.parent.parent
SHOWN = "model_store/digits.mar"
ARCHIVE = ROOT / SHOWN


def recall(options: argparse.Namespace) -> None:
    with kept(options.folder) as folder:
        measure(Embedder(running_client(), options.name), options.archive, folder)


def anomalies(options: argparse.Namespace) -> None:
    with kept(options.folder) as folder:
        anomaly.measure(options.archive, folder)


def demo(options: argparse.Namespace) -> None:
    """Everything once: the digits archive exported, a server on free ports, the recall measured, the server stopped, and the
    pictures of no digit told from digits."""
    from export.arguments import parse as export_options
    from export.pipeline import export  # with PyTorch, which takes seconds

    with kept(options.folder) as folder, tempfile.TemporaryDirectory() as place:
        task = ["--task", "classify,embed", "--normalize"]
        print(f"exporting examples/digits with {' '.join(task)}", flush=True)
        store = Path(place) / "model_store"
        export(export_options([f"local-dir:{ROOT / 'examples' / 'digits'}", *task, "--model-store", str(store)]))
        server = Server(Path(place) / "run")
        try:
            started = server.start(ROOT / "config.properties", store, free_ports())
            started.register("digits.mar")
            measure(Embedder(started, "digits"), store / "digits.mar", folder)
        finally:
            server.stop()
        print("\nthe server is stopped\n")
        anomaly.measure(store / "digits.mar", folder / "anomalies")


@contextlib.contextmanager
def kept(folder: Path | None) -> Iterator[Path]:
    """The folder that the user wants the pictures and their index in, else one that is removed afterwards."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
    else:
        yield folder
        print(f"\nthe pictures are in {folder}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.search", description="Measure search on pictures of digits.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command, help in (
        (recall, "draw pictures of digits, and print how many of the nearest ones are of the same digit"),
        (anomalies, "draw pictures of digits and of none, and print how well embeddings tell them apart"),
        (demo, "recall and anomalies, on a server of its own: what make search runs"),
    ):
        sub = commands.add_parser(command.__name__, help=help, description=help)
        sub.set_defaults(run=command)
        sub.add_argument("--folder", type=Path, metavar="FOLDER", help="keep pictures and index there (default: nowhere)")
        if command is not demo:
            sub.add_argument("--archive", type=Path, default=ARCHIVE, metavar="FILE.mar", help=f"the model (default: {SHOWN})")
        if command is recall:
            sub.add_argument("--name", default="digits", metavar="NAME", help="the model that is served (default: digits)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return exit_status("search", lambda: options.run(options))


if __name__ == "__main__":
    sys.exit(main())
