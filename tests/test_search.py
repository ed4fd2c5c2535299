"""The index of search: its file, its answers, and what it does with files that are refused. No server is asked."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import requests

from examples.search.recall import shares
from search.embedding import Refused, sentence
from search.index import REQUEST_BYTES, PictureIndex, build
from serve.errors import ServeError


class FakeEmbedder:
    """Embeds a file of two numbers as these, and refuses what is none: all that are sent with it too, as the server does."""

    name, model = "fake", {"weights_sha256": "0"}

    def __init__(self, max_images: int = 32):
        self.max_images = max_images
        self.requests: list[int] = []

    def embed(self, images: list[bytes]) -> np.ndarray:
        self.requests.append(len(images))
        try:
            return np.array([[float(each) for each in image.split()] for image in images], np.float32)
        except ValueError as error:
            raise Refused("not numbers") from error


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def unexpected(file: Path, reason: str) -> None:
    raise AssertionError((file, reason))


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    written(folder / "below", up="0 2")
    return written(folder, right="5 0", slanted="1 1", left="-1 0")


def test_the_nearest_come_first_with_their_cosine(pictures, tmp_path):
    embedder = FakeEmbedder()
    build(embedder, pictures, tmp_path / "file", unexpected).save(tmp_path / "file")
    loaded = PictureIndex.load(tmp_path / "file")
    found = loaded.find(embedder, b"9 1", 3)
    assert [path for path, _ in found] == [pictures / name for name in ("right", "slanted", "below/up")]
    assert [similarity for _, similarity in found] == pytest.approx([9 / 82**0.5, 10 / 164**0.5, 1 / 82**0.5])
    assert len(loaded.find(embedder, b"1 0", 100)) == 4
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["file"]


def test_refused_files_are_named_and_the_others_of_their_request_are_kept(pictures, tmp_path):
    written(pictures, notes="text", more="text")
    refused = []
    index = build(FakeEmbedder(), pictures, tmp_path / "file", lambda file, reason: refused.append((file.name, reason)))
    assert sorted(refused) == [("more", "not numbers"), ("notes", "not numbers")]
    assert index.files == ["below/up", "left", "right", "slanted"]


def test_hidden_files_and_the_index_itself_are_left_out(pictures):
    written(pictures, **{".hidden": "text", "own.index": "text"})
    assert len(build(FakeEmbedder(), pictures, pictures / "own.index", unexpected).files) == 4


def test_a_request_has_no_more_images_than_the_archive_takes(pictures, tmp_path):
    embedder = FakeEmbedder(max_images=3)
    build(embedder, pictures, tmp_path / "file", unexpected)
    assert embedder.requests == [3, 1]


def test_a_request_has_no_more_bytes_than_the_server_takes(pictures, tmp_path):
    large = REQUEST_BYTES // 2 + 1
    written(pictures, first="1 0".ljust(large), second="1 0".ljust(large))
    embedder = FakeEmbedder()
    build(embedder, pictures, tmp_path / "file", unexpected)
    assert sum(embedder.requests) == 6 and len(embedder.requests) > 1


def test_a_folder_without_pictures_is_said_so(tmp_path):
    with pytest.raises(ServeError, match="no pictures in"):
        build(FakeEmbedder(), written(tmp_path, notes="text"), tmp_path / "file", lambda *_: None)


def test_another_models_embeddings_are_not_compared(pictures, tmp_path):
    index = build(FakeEmbedder(), pictures, tmp_path / "file", unexpected)
    other = FakeEmbedder()
    other.model = {"weights_sha256": "1"}
    with pytest.raises(ServeError, match="index the folder again"):
        index.find(other, b"1 0", 1)


def test_a_file_that_is_no_index_is_said_so(pictures, tmp_path):
    file = tmp_path / "file"
    build(FakeEmbedder(), pictures, file, unexpected).save(file)
    with zipfile.ZipFile(file) as whole:
        contents, vectors = (whole.read(name) for name in whole.namelist())
    with zipfile.ZipFile(tmp_path / "cut", "w") as cut:
        cut.writestr("contents.json", contents)
        cut.writestr("vectors.faiss", vectors[:-5])
    with zipfile.ZipFile(tmp_path / "strange", "w") as strange:
        strange.writestr("contents.json", "[]")
        strange.writestr("vectors.faiss", vectors)
    written(tmp_path, text="text")
    for name in ("cut", "strange", "text"):
        with pytest.raises(ServeError, match=f"{name} is no index"):
            PictureIndex.load(tmp_path / name)
    with pytest.raises(ServeError, match="nothing cannot be read: No such file"):
        PictureIndex.load(tmp_path / "nothing")


def test_the_shares_count_what_they_say():
    queries = [Path("3/a"), Path("4/b")]
    nearest = [[Path("3/c"), Path("3/d"), Path("8/e"), Path("8/f")], [Path("9/g")] * 4]
    assert shares(queries, nearest) == (0.25, 0.5)


@pytest.mark.parametrize(("status", "body", "said"), [(413, b"", "larger than the server takes"), (502, b"<html>", "502 Bad")])
def test_an_answer_without_a_sentence_gets_one(status, body, said):
    response = requests.Response()
    response.status_code, response._content, response.reason = status, body, "Bad Gateway"
    assert said in sentence(response)
