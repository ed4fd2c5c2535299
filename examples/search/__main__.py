"""`python -m examples.search index|find|recall|demo`."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from examples.search.embedding import Embedder
from examples.search.index import PictureIndex, build
from examples.search.recall import measure
from serve.client import Client
from serve.errors import ServeError, exit_status
from serve.server import Server
from serve.settings import free_ports

ROOT = Path(__file__).resolve().parent.parent.parent
RUN_DIR = ROOT / ".torchserve"


def index(options: argparse.Namespace) -> None:
    if not options.folder.is_dir():
        raise ServeError(f"there is no folder {options.folder}")
    skipped = []

    def refused(file: Path, reason: str) -> None:
        skipped.append(file)
        with tqdm.external_write_mode(sys.stderr):  # not into the line of progress
            print(f"skipped {relative(file)}: {reason}", file=sys.stderr)

    made = build(Embedder(client(), options.name), options.folder, options.index, refused)
    try:
        made.save(options.index)
    except OSError as error:
        raise ServeError(f"{options.index} cannot be written: {error.strerror}") from error
    print(f"{options.index}: {len(made.files):,} pictures, {len(skipped)} other files skipped")


def find(options: argparse.Namespace) -> None:
    pictures = PictureIndex.load(options.index)
    try:
        image = options.picture.read_bytes()
    except OSError as error:
        raise ServeError(f"{options.picture} cannot be read: {error.strerror}") from error
    for file, similarity in pictures.find(Embedder(client(), options.name or pictures.name), image, options.k):
        print(f"{similarity:6.3f}  {relative(file)}")


def recall(options: argparse.Namespace) -> None:
    with kept(options.folder) as folder:
        measure(Embedder(client(), options.name), folder)


def demo(options: argparse.Namespace) -> None:
    """Everything once: the digits archive exported, a server on free ports, the recall measured, the server stopped."""
    from export.__main__ import export, parse  # with PyTorch, which takes seconds

    with kept(options.folder) as folder, tempfile.TemporaryDirectory() as place:
        print("exporting examples/digits with --task classify,embed --normalize", flush=True)
        store = Path(place) / "model_store"
        task = ["--task", "classify,embed", "--normalize"]
        export(parse([f"local-dir:{ROOT / 'examples' / 'digits'}", *task, "--model-store", str(store)]))
        server = Server(Path(place) / "run")
        try:
            started = server.start(ROOT / "config.properties", store, free_ports())
            started.register("digits.mar")
            measure(Embedder(started, "digits"), folder)
        finally:
            server.stop()
        print("\nthe server is stopped")


def client() -> Client:
    if not Server(RUN_DIR).running():
        raise ServeError("no server that was started here is running: make serve starts one")
    return Client(RUN_DIR)


@contextlib.contextmanager
def kept(folder: Path | None) -> Iterator[Path]:
    """The folder that the user wants the pictures and their index in, else one that is removed afterwards."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
    else:
        yield folder
        print(f"\nthe pictures, and their index digits.index, are in {folder}")


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.search", description="Find the nearest pictures in a folder.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command, help in (
        (index, "embed the pictures of a folder through the server that make serve has started, and keep the vectors"),
        (
            find,
            "print the files that are nearest to a picture, nearest first, with the cosine of the angle between the vectors",
        ),
        (recall, "draw pictures of digits, and print how many of the nearest ones are of the same digit"),
        (demo, "recall, on a server of its own: what make search runs"),
    ):
        sub = commands.add_parser(command.__name__, help=help, description=help)
        sub.set_defaults(run=command)
        if command is index:
            sub.add_argument("folder", type=Path, metavar="FOLDER")
            sub.add_argument("--name", required=True, metavar="NAME", help="the model that is served")
        elif command is find:
            sub.add_argument("picture", type=Path, metavar="PICTURE")
            sub.add_argument("--name", metavar="NAME", help="the model that is served (default: the index's)")
            sub.add_argument("-k", type=positive, default=5, metavar="K", help="files to print (default: 5)")
        else:
            sub.add_argument("--folder", type=Path, metavar="FOLDER", help="keep pictures and index there (default: nowhere)")
        if command in (index, find):
            sub.add_argument("--index", type=Path, required=True, metavar="FILE")
        if command is recall:
            sub.add_argument("--name", default="digits", metavar="NAME", help="the model that is served (default: digits)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return exit_status("search", lambda: options.run(options))


if __name__ == "__main__":
    sys.exit(main())
