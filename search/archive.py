"""Embeds a folder of pictures with an archive in processes of this machine, without a server: `predict` in bulk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from predict.bulk import answer
from predict.packed import Packed
from search.index import PictureIndex, vector_index
from serve.errors import ServeError
from vit_core.settings import EMBED


def embeddings(archive: Path, folder: Path) -> tuple[list[Path], np.ndarray, dict[Path, str]]:
    """Returns the pictures of a folder at any depth, their embeddings [pictures, features] float32, and why others have none.

    Raises UserError for an archive without embeddings, and for a folder without pictures.
    """
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "embeddings.parquet"
        answer(archive, [str(folder)], output, task=(EMBED,))
        table = pq.read_table(output)
    paths, errors = ([*map(Path, table["path"].to_pylist())], table["error"].to_pylist())
    refused = {path: error for path, error in zip(paths, errors, strict=True) if error}
    vectors = [row.values.to_numpy() for row in table["embedding"] if row.is_valid]
    return [path for path in paths if path not in refused], np.array(vectors, np.float32), refused


def build(archive: Path, folder: Path, refused: Callable[[Path, str], None]) -> PictureIndex:
    """Makes the index of a folder, as `search.index.build` does with a server. The archive's file name is the name of its
    model.
    """
    with Packed(archive) as packed:
        preprocessing = packed.settings.to_dict()["preprocessing"]
        model = {"weights_sha256": packed.record["weights_sha256"], "preprocessing": preprocessing}
    folder = folder.resolve()
    files, vectors, bad = embeddings(archive, folder)
    for file, reason in bad.items():
        refused(file, reason)
    if not files:
        raise ServeError(f"no pictures in {folder}")
    names = [file.relative_to(folder).as_posix() for file in files]
    return PictureIndex(vector_index(vectors), folder, names, archive.stem, model)
