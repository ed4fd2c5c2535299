"""Which pictures the sources of a run in bulk mean, and that their bytes come out of each kind of source."""

import csv
import io
import os
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command_line import UserError
from predict.sources import places as places_module
from predict.sources.columns import path_columns
from predict.sources.item import Item
from predict.sources.listing import listed, places
from predict.sources.reading import Reader
from tests.bulk import SAMPLES
from vit_core.errors import InputError
from vit_core.settings import Limits

DATA = [sample.read_bytes() for sample in SAMPLES]


def items(*sources: object) -> list[Item]:
    return list(listed(places([str(source) for source in sources])))


def contents(found: list[Item], folder: Path) -> list[bytes | str]:
    """The bytes of items, or the words of their errors."""
    read = Reader(str(folder), Limits()).read(found)
    return [f"{each.type}: {each.message}" if isinstance(each, InputError) else each for each in read]


def names(found: list[Item]) -> list[str]:
    return [item.path.rpartition("/")[2] for item in found]


@pytest.fixture
def tar(tmp_path) -> Path:
    """A tar as webdataset has it: pictures, labels, and names that are left out."""
    file = tmp_path / "shard-000.tar"
    with tarfile.open(file, "w") as archive:
        for index, data in enumerate(DATA[:5]):
            for name, content in (
                (f"{index:04}{SAMPLES[index].suffix}", data),
                (f"{index:04}.cls", b"7"),
                (f".{index}.png", data),
            ):
                info = tarfile.TarInfo(f"digits/{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return file


def parquet(file: Path, column: pa.Array, name: str, group: int = 7) -> Path:
    pq.write_table(pa.table({"label": list(range(len(column))), name: column}), file, row_group_size=group)
    return file


@pytest.mark.parametrize(
    "header", ["Image Path,label", "image_id,file_name", "Image Index,Finding Labels", "ImageID,label,img-path"]
)
def test_a_column_of_paths_is_known_by_any_of_its_names(header, tmp_path):
    """Ids are names of files in some data sets, where nothing else is."""
    columns = header.split(",")
    (meant,) = [columns[place] for place in path_columns(columns)]
    row = ",".join(str(SAMPLES[0]) if column == meant else "7" for column in columns)
    (tmp_path / "list.csv").write_text(f"{header}\n{row}\n")
    assert [item.file for item in items(tmp_path / "list.csv")] == [str(SAMPLES[0])]
    assert meant == {"image_id": "file_name", "ImageID": "img-path"}.get(columns[0], columns[0])


def test_a_folder_is_its_pictures_at_any_depth_sorted(tmp_path):
    for name in ("b/c/2.png", "b/1.jpg", "a.png", "b.txt", ".hidden/3.png", "b/.4.png", "B.JPEG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(DATA[0])
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    assert [os.path.relpath(item.path, tmp_path) for item in items(tmp_path)] == ["B.JPEG", "a.png", "b/1.jpg", "b/c/2.png"]


def test_lists_of_paths_are_meant_from_their_folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.png").write_bytes(DATA[0])
    for name in ("list.txt", "list.csv", "list.parquet"):
        paths = ["in/x.png", str(SAMPLES[1]), "in/nowhere.png"]
        if name.endswith("txt"):
            (tmp_path / name).write_bytes(("\ufeff" + "\r\n".join([*paths, ""])).encode())
        elif name.endswith("csv"):
            with (tmp_path / name).open("w", newline="") as file:
                csv.writer(file).writerows([("label", "File"), *((1, path) for path in paths)])
        else:
            pq.write_table(pa.table({"label": [1, 2, 3], "file_name": paths}), tmp_path / name)
        found = items(tmp_path / name)
        assert [item.path for item in found] == [f"{tmp_path}/in/x.png", str(SAMPLES[1]), f"{tmp_path}/in/nowhere.png"]
        assert contents(found, tmp_path) == [DATA[0], DATA[1], "UnreadableFile: No such file or directory"]


@pytest.mark.parametrize("kind", ["binary", "struct"])
def test_pictures_in_a_parquet_are_read_row_by_row(kind, tmp_path):
    column = pa.array([*DATA[:19], None], pa.binary())
    if kind == "struct":  # as Hugging Face's datasets has them
        column = pa.StructArray.from_arrays([column, pa.array(["x"] * 20)], ["bytes", "path"])
    file = parquet(tmp_path / "table.parquet", column, "image")
    found = items(file)
    assert [item.path for item in found] == [f"{file}#{row}" for row in range(20)]
    assert contents(found, tmp_path) == [*DATA[:19], "UnreadableFile: the row has no bytes"]
    some = [found[row] for row in (3, 5, 4, 18, 0)]  # gaps, and back
    assert contents(some, tmp_path) == [DATA[row] for row in (3, 5, 4, 18, 0)]


def test_a_tar_is_its_pictures(tar, tmp_path):
    found = items(tar)
    assert [item.path for item in found] == [f"{tar}/digits/{i:04}{SAMPLES[i].suffix}" for i in range(5)]
    assert contents(found, tmp_path) == DATA[:5]


def test_a_tar_that_is_cut_off_says_so_and_keeps_what_it_has(tar, tmp_path):
    end = items(tar)[3].offset + 10
    tar.write_bytes(tar.read_bytes()[:end])
    found = items(tar)
    assert [bool(item.error) for item in found] == [False] * 4 + [True] and found[-1].error.startswith("BrokenTar: ")
    assert contents(found, tmp_path)[:4] == [*DATA[:3], "UnreadableFile: the file is cut off"]
    tar.write_bytes(b"no tar")
    assert [item.error[:9] for item in items(tar)] == ["BrokenTar"]


def test_a_broken_list_is_a_row_with_its_error(tmp_path):
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    (item,) = items(tmp_path / "cut.parquet")
    assert item.error.startswith("UnreadableList: ") and item.path == f"{tmp_path}/cut.parquet"


def test_patterns_are_expanded(tar, tmp_path):
    for number in (1, 2):
        (tmp_path / f"shard-00{number}.tar").write_bytes(tar.read_bytes())
    assert len(items(f"{tmp_path}/shard-*.tar")) == len(items(f"{tmp_path}/shard-{{000..002}}.tar")) == 15
    assert len(items(f"{tmp_path}/shard-00{{0,2}}.tar")) == 10
    assert [item.error[:9] for item in items(f"{tmp_path}/shard-{{002..003}}.tar")] == [""] * 5 + ["BrokenTar"]


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


def test_urls_are_read_by_fsspec(memory, tar, tmp_path):
    memory.pipe({f"/bucket/{index // 3}/{sample.name}": DATA[index] for index, sample in enumerate(SAMPLES)})
    memory.pipe("/bucket/.hidden/x.png", DATA[0])
    memory.pipe("/more/all.tar", tar.read_bytes())
    memory.pipe("/more/list.txt", b"near.png\nmemory://bucket/0/0-b.jpg\n")
    found = items("memory://bucket")
    assert len(found) == 20 and contents(found, tmp_path) == [
        (SAMPLES[0].parent / item.path.rpartition("/")[2]).read_bytes() for item in found
    ]
    assert names(items("memory://bucket/0")) == [sample.name for sample in SAMPLES[:3]]
    assert names(items("memory://bucket/*/0-?.jpg")) == ["0-a.jpg", "0-b.jpg"]
    assert contents(items("memory://more/all.tar"), tmp_path) == DATA[:5]
    memory.pipe("/more/near.png", DATA[2])
    assert contents(items("memory://more/list.txt"), tmp_path) == [DATA[2], DATA[1]]
    assert names(items(f"file://{SAMPLES[0].parent}")) == [sample.name for sample in SAMPLES]
    assert contents(items(f"file://{SAMPLES[0].parent}"), tmp_path) == DATA


def test_a_named_file_that_is_none_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "list.txt").write_text("pipe.png\n/dev/zero\n")
    assert contents(items(tmp_path / "list.txt"), tmp_path) == ["UnreadableFile: not a file"] * 2


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(1 << 40)
    assert contents([Item("large.png", "large.png")], tmp_path) == [
        f"FileTooLarge: the image file has {1 << 40} bytes: at most 20000000 are allowed"
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: "nowhere.png", "there is no file or folder nowhere.png"),
        (lambda folder: "nowhere-*.tar", "nothing matches"),
        (lambda folder: "nosuch://bucket", "nosuch:// cannot be read: Protocol not known"),
        (lambda folder: written(folder / "a.tar.gz", ""), "is compressed"),
        (lambda folder: written(folder / "a.csv", "x,y\n1,2\n"), "has the columns x, y: expected one of paths"),
        (lambda folder: parquet(folder / "a.parquet", pa.array([1.5]), "image"), "has no columns of text"),
        (lambda folder: two_columns(folder / "a.parquet"), "has several columns of bytes: left, right"),
    ],
)
def test_a_source_that_is_not_clear_is_one_line(make, message, tmp_path):
    with pytest.raises(UserError, match=message):
        items(make(tmp_path))


def written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def two_columns(file: Path) -> Path:
    pq.write_table(pa.table({"left": [b"x"], "right": [b"x"]}), file)
    return file


def test_a_bucket_without_its_package_is_one_line(monkeypatch):
    def missing(protocol):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    places_module.filesystem.cache_clear()
    with pytest.raises(UserError, match=r"^s3:// needs a package that is not installed: Install s3fs to access S3$"):
        items("s3://bucket/pictures")
