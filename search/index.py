"""An index on disk for a folder of pictures: the embedding of each, and the names of the files."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from tqdm import tqdm

from search.embedding import Embedder, Refused
from serve.errors import ServeError

REQUEST_IMAGES = 16  # two batches of a worker, by the default of archives
REQUEST_BYTES = 12_000_000  # of image files: a third more in base64, below the 20 million of config.properties
CONTENTS, VECTORS = "contents.json", "vectors.faiss"


@dataclass(frozen=True)
class PictureIndex:
    """The vectors of `files` below `folder`, in the same order, and their origin: the served `name` and its `model`
    (`Embedder.model`).
    """

    vectors: faiss.Index
    folder: Path
    files: list[str]
    name: str
    model: dict

    def nearest(self, vector: np.ndarray, count: int) -> list[tuple[Path, float]]:
        """Returns the `count` nearest files and the cosine of the angle between each one and `vector`, the nearest first."""
        similarities, places = self.vectors.search(unit(vector[None]), min(count, len(self.files)))
        return [(self.folder / self.files[place], float(each)) for place, each in zip(places[0], similarities[0], strict=True)]

    def find(self, embedder: Embedder, image: bytes, count: int) -> list[tuple[Path, float]]:
        """Finds the files nearest to an image file. Raises Refused, and ServeError if the index is of another model."""
        if embedder.model != self.model:
            raise ServeError(
                f"{embedder.name} is another model than the one that the index was made with: index the folder again"
            )
        return self.nearest(embedder.embed([image])[0], count)

    def save(self, file: Path) -> None:
        contents = {"folder": str(self.folder), "files": self.files, "name": self.name, "model": self.model}
        part = file.with_name(f"{file.name}.part")
        with zipfile.ZipFile(part, "w") as whole:
            whole.writestr(CONTENTS, json.dumps(contents))
            whole.writestr(VECTORS, faiss.serialize_index(self.vectors).tobytes())
        os.replace(part, file)  # atomically: the new index, or the one before

    @classmethod
    def load(cls, file: Path) -> PictureIndex:
        """Loads an index. Raises ServeError if `file` is not one that `save` wrote."""
        try:
            with zipfile.ZipFile(file) as whole:
                contents = json.loads(whole.read(CONTENTS))
                vectors = faiss.deserialize_index(np.frombuffer(whole.read(VECTORS), np.uint8))
            return cls(vectors, Path(contents["folder"]), contents["files"], contents["name"], contents["model"])
        except OSError as error:
            raise ServeError(f"{file} cannot be read: {error.strerror}") from error
        except (zipfile.BadZipFile, KeyError, TypeError, ValueError, RuntimeError) as error:  # Faiss raises RuntimeError
            raise ServeError(f"{file} is no index of search, or a damaged one") from error


def build(embedder: Embedder, folder: Path, besides: Path, refused: Callable[[Path, str], None]) -> PictureIndex:
    """Embeds the files in `folder` at any depth, except for names that begin with a dot and the file `besides`.

    `refused` receives each file that cannot be read, or that the server rejects, with the reason. Raises ServeError if no file
    is left.
    """
    folder, besides = folder.resolve(), besides.resolve()
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name[0] != "." and path != besides)
    taken, vectors = [], []
    for batch in _batches(files, min(REQUEST_IMAGES, embedder.max_images), refused):
        for path, found in _embedded(embedder, batch):
            if isinstance(found, Refused):
                refused(path, str(found))
            else:
                taken.append(path.relative_to(folder).as_posix())
                vectors.append(found)
    if not taken:
        raise ServeError(f"no pictures in {folder}")
    return PictureIndex(vector_index(np.stack(vectors)), folder, taken, embedder.name, embedder.model)


def vector_index(vectors: np.ndarray) -> faiss.Index:
    """Returns an index of vectors [N, features] by the cosine of the angle to a query.

    It compares with every vector, which takes milliseconds for a hundred thousand; `faiss.index_factory(features, "HNSW32",
    ...)` is for many more.
    """
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(unit(vectors))
    return index


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scales vectors [N, features] to length 1, so that inner products are cosines. A vector of zeros stays."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _batches(files: list[Path], most: int, refused: Callable[[Path, str], None]) -> Iterator[list[tuple[Path, bytes]]]:
    """Yields the files with their contents, as many at a time as one request may hold."""
    batch: list[tuple[Path, bytes]] = []
    for path in tqdm(files, unit=" files", disable=None):  # None: shown on a terminal only
        try:
            data = path.read_bytes()
        except OSError as error:
            refused(path, str(error.strerror))
            continue
        if batch and (len(batch) == most or sum(len(each) for _, each in batch) + len(data) > REQUEST_BYTES):
            yield batch
            batch = []
        batch.append((path, data))
    if batch:
        yield batch


def _embedded(embedder: Embedder, batch: list[tuple[Path, bytes]]) -> list[tuple[Path, np.ndarray | Refused]]:
    """Returns for each file its embedding, or why it has none. If the server rejects a request for one bad file, the files are
    sent one by one.
    """
    try:
        return list(zip([path for path, _ in batch], embedder.embed([data for _, data in batch]), strict=True))
    except Refused as error:
        if len(batch) == 1:
            return [(batch[0][0], error)]
        return [found for each in batch for found in _embedded(embedder, [each])]
