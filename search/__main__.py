"""`python -m search index|find`: makes an index of a folder of pictures, and finds the pictures nearest to a given one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from command_line import Parser, positive, relative
from search.embedding import Embedder
from search.index import PictureIndex, build
from search.server import running_client
from serve.errors import ServeError, exit_status


def index(options: argparse.Namespace) -> None:
    if not options.folder.is_dir():
        raise ServeError(f"there is no folder {options.folder}")
    skipped = []

    def refused(file: Path, reason: str) -> None:
        skipped.append(file)
        with tqdm.external_write_mode(sys.stderr):  # not within the line of progress
            print(f"skipped {relative(file)}: {reason}", file=sys.stderr)

    if options.archive:
        from search import archive  # with pyarrow

        made = archive.build(options.archive, options.folder, refused)
    else:
        made = build(Embedder(running_client(), options.name), options.folder, options.index, refused)
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
    embedder = Embedder(running_client(), options.name or pictures.name)
    for file, similarity in pictures.find(embedder, image, options.k):
        print(f"{similarity:6.3f}  {relative(file)}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m search", description="Find the nearest pictures in a folder.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    help = "embed the pictures of a folder, by a served model or by an archive, and keep the vectors"
    sub = commands.add_parser("index", help=help, description=help)
    sub.set_defaults(run=index)
    sub.add_argument("folder", type=Path, metavar="FOLDER")
    model = sub.add_mutually_exclusive_group(required=True)
    model.add_argument("--name", metavar="NAME", help="the model that the server of make serve has")
    model.add_argument(
        "--archive", type=Path, metavar="FILE.mar", help="an archive: no server is asked, and all cores are used"
    )

    help = "print the files that are nearest to a picture, nearest first, with the cosine of the angle between the vectors"
    sub = commands.add_parser("find", help=help, description=help)
    sub.set_defaults(run=find)
    sub.add_argument("picture", type=Path, metavar="PICTURE")
    sub.add_argument("--name", metavar="NAME", help="the model that is served (default: the index's)")
    sub.add_argument("-k", type=positive, default=5, metavar="K", help="files to print (default: 5)")

    for sub in commands.choices.values():
        sub.add_argument("--index", type=Path, required=True, metavar="FILE", help="the file of the index")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return exit_status("search", lambda: options.run(options))


if __name__ == "__main__":
    sys.exit(main())
