"""Folders and tables of labelled pictures: whose labels are meant, and what is refused by name."""

from pathlib import Path

import pytest
from timm.data import ImageNetInfo

from command_line import UserError
from evaluate.sources import Example, read_source
from export.labels import imagenet_labels
from tests.labelled import in_table

PETS = ["cat", "dog", "Snowy owl"]


def folders(where: Path, *files: str) -> Path:
    """Files that are called as pictures, whatever is in them."""
    for file in files:
        (where / file).parent.mkdir(parents=True, exist_ok=True)
        (where / file).write_bytes(b"")
    return where


def classes(source: Path, labels: list[str] = PETS, several: bool = False) -> dict[str, tuple[int, ...]]:
    return {example.picture.name: example.classes for example in read_source(source, labels, several)}


def test_folders_are_called_as_the_labels_at_any_depth(tmp_path):
    source = folders(tmp_path, "dog/a.png", "cat/old/b.jpg", "Snowy owl/c.webp", ".thumbs/d.png", "cat/.e.png", "README.txt")
    assert classes(source) == {"a.png": (1,), "b.jpg": (0,), "c.webp": (2,)}


def test_folders_may_be_called_as_the_indices(tmp_path):
    assert classes(folders(tmp_path, "2/a.png", "0/b.png")) == {"a.png": (2,), "b.png": (0,)}


def test_a_label_goes_before_an_index(tmp_path):
    assert classes(folders(tmp_path, "1/a.png", "2/b.png"), ["2", "1", "0"]) == {"a.png": (1,), "b.png": (0,)}


def test_accents_may_be_taken_apart_as_on_a_mac(tmp_path):
    assert classes(folders(tmp_path, "e\u0301cureuil/a.png"), ["loup", "\u00e9cureuil"]) == {"a.png": (1,)}


def test_imagenets_folders_are_synsets(tmp_path):
    labels, synsets = imagenet_labels("imagenet-1k"), ImageNetInfo("imagenet-1k").label_names()
    source = folders(tmp_path, f"{synsets[7]}/a.JPEG", f"{synsets[999]}/b.JPEG")
    assert classes(source, labels) == {"a.JPEG": (7,), "b.JPEG": (999,)}
    with pytest.raises(UserError, match=r"'n0\d{7}' is no label of the archive: .*1000 in all"):
        classes(source, labels[::-1])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["cat/a.png", "dogs/b.png"], "'dogs' is no label of the archive: did you mean 'dog'? it has cat, dog, Snowy owl"),
        (["cat/a.png", "snowy owl/b.png"], "did you mean 'Snowy owl'?"),
        (["cat/a.png", "lion/notes.txt"], "'lion' is no label"),
        (["0/a.png", "3/b.png"], "folder {}/3: '3' is no label"),
        (["cat/a.png", "1/b.png"], "'1' is no label"),
        (["cat/a.png", "b.png"], "b.png lies beside the folders of the classes, so it has no label"),
        (["cat/a.png", " cat/b.png"], "folders ' cat' and 'cat' in {} are of the same class"),
        (["cat/a.txt"], "there are no pictures in {}"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_folder_that_is_not_clear_is_named(files, message, tmp_path):
    with pytest.raises(UserError) as caught:
        classes(folders(tmp_path / "p", *files))
    assert message.format(tmp_path / "p") in str(caught.value)


def test_a_table_is_read_by_its_header(tmp_path):
    table = in_table(
        tmp_path / "t.csv", [("dog", "x/a.png", "1"), ("cat", "/y/b.png", "0")], ("Label", "File Name", "class_id")
    )
    assert read_source(table, PETS, False) == [Example(tmp_path / "x/a.png", (1,)), Example(Path("/y/b.png"), (0,))]
    (tmp_path / "t.tsv").write_text("\ufeffimage\tclass\n\na.png\tSnowy owl\n", encoding="utf-8")
    assert classes(tmp_path / "t.tsv") == {"a.png": (2,)}
    (tmp_path / "semicolons.csv").write_text("image;class\na.png;dog\n")
    assert classes(tmp_path / "semicolons.csv") == {"a.png": (1,)}


def test_several_labels_stand_in_one_cell_or_in_a_column_each(tmp_path):
    expected = {"a.png": (0, 1), "b.png": (), "c.png": (2,)}
    table = in_table(tmp_path / "t.csv", [("a.png", "cat| dog"), ("b.png", ""), ("c.png", "Snowy owl")], ("path", "labels"))
    assert classes(table, several=True) == expected
    rows = [("a.png", 1, "1.0", 0), ("b.png", 0, 0, ""), ("c.png", 0, "false", "TRUE")]
    table = in_table(tmp_path / "t.csv", rows, ("path", "cat", "dog", "Snowy owl"))
    assert classes(table, several=True) == expected


def test_a_label_with_the_separator_in_it_is_one(tmp_path):
    table = in_table(tmp_path / "t.csv", [("a.png", "cat|dog")])
    assert classes(table, ["cat|dog", "cat"]) == {"a.png": (0,)}
    with pytest.raises(UserError, match=r"line 2, has 'cat\|dog', which is a label and several labels too"):
        classes(table, ["cat|dog", "cat", "dog"], several=True)


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (("path", "image", "label"), [("a", "b", "cat")], "the columns 'path' and 'image': which has the paths"),
        (("where", "label"), [("a", "cat")], "no column of paths, called 'path' say: its header has 'where', 'label'"),
        (("path", "animal"), [("a", "cat")], "no column of labels, called 'label' say: its header has 'path', 'animal'"),
        (("path", "label"), [("a", "cat"), ("b", "catt")], "line 3: 'catt' is no label of the archive: did you mean 'cat'?"),
        (("path", "label", "target"), [("a", "cat", 1)], "line 2, has two columns of labels that say different classes"),
        (("path", "label"), [("a", "cat|dog")], "line 2, has 2 labels: the archive's classes exclude each other"),
        (("path", "label"), [("a", "")], "line 2, has no label: "),
        (("path", "label"), [("", "cat")], "line 2, has no path"),
        (("path", "label"), [("a", "cat"), ("a", "dog")], "line 3, names {}/a a second time, after line 2"),
        (("path", "label"), [("a", "cat", "x")], "line 2, has 3 cells, and the header has 2"),
        (("path", "label"), [], "has no rows below its header"),
        (("path", "path"), [("a", "cat")], "two columns of one name"),
        (("path", "cat", "dog"), [("a", 1, 0)], "none for 'Snowy owl'"),
        (
            ("path", "cat", "dog", "Snowy owl"),
            [("a", 1, 0, 0.5)],
            "line 2, has '0.5' in its column 'Snowy owl': expected 1 or 0",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_table_that_is_not_clear_is_refused_by_name(header, rows, message, tmp_path):
    with pytest.raises(UserError) as caught:
        classes(in_table(tmp_path / "t.csv", rows, header))
    assert message.format(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_neither_folder_nor_table_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no file or folder"):
        classes(tmp_path / "nothing")
    (tmp_path / "list.txt").write_text("a.png cat")
    with pytest.raises(UserError, match=r"neither a folder nor a file \.csv or \.tsv"):
        classes(tmp_path / "list.txt")
    (tmp_path / "t.csv").write_bytes(b"path,label\na,caf\xe9\n")
    with pytest.raises(UserError, match=r"could not be read: .*utf-8"):
        classes(tmp_path / "t.csv")
