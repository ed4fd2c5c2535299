"""The archive of a run: unpacked for the workers of this machine, and in one piece for those of other machines."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
import zipfile
from pathlib import Path

from command_line import UserError
from vit_core.archive import CONFIG, LABELS, RECORD, TRACE, Archive, unpack
from vit_core.settings import ArchiveError

PLACE = "archive"


class Packed:
    """A `.mar`, or the folder that it was unpacked into. Raises UserError for anything else."""

    def __init__(self, path: Path):
        self._unpacked: tempfile.TemporaryDirectory | None = None
        try:
            self._unpacked = None if path.is_dir() else unpack(path)
            self._folder = Path(self._unpacked.name) if self._unpacked else path.absolute()
            archive = Archive.read(self._folder)
        except ArchiveError as error:
            raise UserError(error) from error
        self.settings, self.serving, self.record = archive.settings, archive.serving, archive.record

    def folder(self, place: Path) -> str:
        """Returns the folder of the unpacked archive, which is below `place` unless the archive was unpacked already. So a run
        that is killed leaves nothing elsewhere.
        """
        if self._unpacked:
            shutil.rmtree(place / PLACE, ignore_errors=True)  # of a run that was killed
            self._folder = Path(shutil.move(self._folder, place / PLACE))
        return str(self._folder)

    @property
    def sha256(self) -> str:
        """Returns the digest of the files that answers depend on: those of the archive, without its code."""
        whole = hashlib.sha256()
        for file in self._files():
            with file.open("rb") as opened:
                whole.update(hashlib.file_digest(opened, "sha256").digest())
        return whole.hexdigest()

    def bytes(self) -> bytes:
        """Returns a file like a `.mar`, without code."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as file:
            for each in self._files():
                file.write(each, each.name)
        return packed.getvalue()

    def _files(self) -> list[Path]:
        return [self._folder / name for name in (TRACE, CONFIG, LABELS, RECORD)]

    def __enter__(self) -> Packed:
        return self

    def __exit__(self, *_) -> None:
        if self._unpacked:
            self._unpacked.cleanup()
