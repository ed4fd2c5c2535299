"""Keeps the state of a run on disk until it ends: OUT.parts, with a manifest, the listing, and the finished parts.

A run that is killed at any moment continues from there when it is started again. Each file appears whole or not at all: it is
written under another name, flushed to the disk, and renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from command_line import UserError
from predict.job import Part, Shard
from predict.sources.item import Item

MANIFEST, LISTING, LOCK = "manifest.json", "listing.jsonl", "lock"
WHOLE, DONE = "whole", "done"  # the output before it has its name, and the sign that it has
FORMAT = 1  # counts up when these files change


class Run:
    """The folder of one run. `identity` is what its rows depend on, by name; a run that continues must have the same."""

    def __init__(self, out: Path, identity: dict):
        self.out, self.folder = out, out.with_name(f"{out.name}.parts")
        if out.exists() and not any((self.folder / name).exists() for name in (MANIFEST, DONE)):
            raise UserError(f"{out} is there already: remove it, or name another --output")
        self.folder.mkdir(exist_ok=True)
        self._lock = (self.folder / LOCK).open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # is free again when its process ends, however it does
        except BlockingIOError as error:
            raise UserError(f"another process is writing {out}: wait for it, or name another --output") from error
        self._identity = {"format": FORMAT, **identity}
        self.manifest = None if self.whole else self._read_manifest()

    def list(self, items: Iterable[Item], part_rows: int, stamps: dict[str, str], show: Callable[[int], None]) -> None:
        """Stores the listing of the pictures, which is all that a continued run knows about its sources."""
        rows, digest = 0, hashlib.sha256()
        with self._writing(LISTING) as file:
            for rows, item in enumerate(items, 1):
                line = (json.dumps(item) + "\n").encode()
                digest.update(line)
                file.write(line)
                show(rows)
        content = {
            "rows": rows,
            "part_rows": part_rows,
            "stamps": stamps,
            "listing_sha256": digest.hexdigest(),
            "precision": None,
        }
        self._write_manifest({**self._identity, **content})

    def discard(self) -> None:
        """Removes a run whose sources could not be listed."""
        shutil.rmtree(self.folder)

    def begin(self, precision: str) -> None:
        """Stores the first worker's report. All parts are made in one precision, whichever machine makes them."""
        self._write_manifest({**self.manifest, "precision": precision})

    def done(self) -> dict[int, int]:
        """Returns the numbers of the finished parts, and how many errors each has."""
        names = (path.name.split("-") for path in self.folder.glob("part-*-*") if "." not in path.name)
        return {int(number): int(errors) for _, number, errors in names}

    @property
    def parts(self) -> int:
        return -(-self.manifest["rows"] // self.manifest["part_rows"])

    def rows_of(self, part: int) -> int:
        size = self.manifest["part_rows"]
        return min(size, self.manifest["rows"] - part * size)

    def shards(self, besides: Container[int]) -> Iterator[Shard]:
        """Yields the shards of the listing except for those in `besides`, which are done."""
        size = self.manifest["part_rows"]
        with (self.folder / LISTING).open("rb") as file:
            for number in range(self.parts):
                lines = [file.readline() for _ in range(self.rows_of(number))]
                if number not in besides:
                    yield Shard(number, number * size, [Item(*json.loads(line)) for line in lines])

    def add(self, part: Part) -> None:
        with self._writing(_name(part.number, part.errors)) as file:
            file.write(part.data)

    def finish(self, sink) -> None:
        """Joins the parts to the output, and removes them."""
        if not self.whole:
            parts = sorted(self.done().items())
            with self._writing(WHOLE) as file:
                sink.merge((self.folder / _name(*each) for each in parts), file)
            os.replace(self.folder / WHOLE, self.out)
            (self.folder / DONE).touch()
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in (DONE, LOCK):
                path.unlink()
        shutil.rmtree(self.folder)

    @property
    def whole(self) -> bool:
        """Whether the output is complete because the run was killed only while it cleaned up."""
        return (self.folder / DONE).exists()

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[BinaryIO]:
        part = self.folder / f"{name}.partial"
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.folder / name)

    def _read_manifest(self) -> dict | None:
        try:
            found = json.loads((self.folder / MANIFEST).read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(f"{self.folder / MANIFEST} cannot be read: {self._anew}") from error
        for name, value in self._identity.items():
            if (before := found.get(name)) != value:
                raise UserError(f"{self.out} was begun with {name} {_short(before)}, not {_short(value)}: {self._anew}")
        if hashlib.file_digest((self.folder / LISTING).open("rb"), "sha256").hexdigest() != found["listing_sha256"]:
            raise UserError(f"{self.folder / LISTING} has changed: {self._anew}")
        return found

    @property
    def _anew(self) -> str:
        return f"go on with the same command, or remove {self.folder} to begin anew"

    def _write_manifest(self, content: dict) -> None:
        with self._writing(MANIFEST) as file:
            file.write(json.dumps(content, indent=2).encode())
        self.manifest = content


def _name(number: int, errors: int) -> str:
    return f"part-{number:06}-{errors}"


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
