"""Label files as people have them: in the order of the classes, or refused with the reason. Never permuted, never cut."""

import json

import pytest
import timm
import torch

from export.errors import ExportError
from export.label_files import read_labels
from export.labels import class_labels
from tests.conftest import export_to, read

CLASSES = ["cat", "dog", "barn owl"]
RIGHT = {
    "class_id.csv": "class_id,name\n2,barn owl\n0,cat\n1,dog\n",
    "Class ID.csv": "Name,Class ID\nbarn owl,2\ncat,0\ndog,1\n",
    "idx.csv": "idx;label\n2;barn owl\n0;cat\n1;dog\n",
    "target.tsv": "target\tclass_name\n2\tbarn owl\n0\tcat\n1\tdog\n",
    "pandas.csv": ",label\n2,barn owl\n0,cat\n1,dog\n",
    "pandas twice.csv": "Unnamed: 0,label\n2,barn owl\n0,cat\n1,dog\n",
    "class is the index.csv": "class,name\n2,barn owl\n0,cat\n1,dog\n",
    "label is the index.csv": "label,name\n2,barn owl\n0,cat\n1,dog\n",
    "quoted.csv": 'index,label\n0,"cat"\n1,"dog"\n2,"barn owl"\n\n',
    "numbered.txt": "2,barn owl\n0,cat\n1,dog\n",
    "numbered colon.txt": "0: cat\n1: dog\n2: barn owl\n",
    "numbered space.txt": "0 cat\n1 dog\n2 barn owl\n",
    "numbered tab.txt": "2\tbarn owl\n0\tcat\n1\tdog\n",
    "class_to_idx.txt": "barn owl 2\ncat 0\ndog 1\n",
    "numbered bracket.txt": "2) barn owl\n0) cat\n1) dog\n",
    "numbered dot.txt": "2. barn owl\n0. cat\n1. dog\n",
    "numbered square.txt": "[2] barn owl\n[0] cat\n[1] dog\n",
    "numbered bar.txt": "2|barn owl\n0|cat\n1|dog\n",
    "numbered dash.txt": "2-barn owl\n0-cat\n1-dog\n",
    "utf-16.txt": "cat\r\ndog\r\nbarn owl\r\n".encode("utf-16"),
    "utf-16.csv": "index,label\r\n2,barn owl\r\n0,cat\r\n1,dog\r\n".encode("utf-16"),
    "torchserve.json": '{"2": ["n3", "barn owl"], "0": ["n1", "cat"], "1": ["n2", "dog"]}',
    "class_to_idx.json": '{"barn owl": 2, "cat": 0, "dog": 1}',
    "label2id.json": '{"label2id": {"barn owl": "2", "cat": "0", "dog": "1"}}',
    "both.json": '{"label2id": {"barn owl": 2, "cat": 0, "dog": 1}, "id2label": {"2": "barn owl", "0": "cat", "1": "dog"}}',
    "coco.json": '{"categories": [{"id": 2, "name": "barn owl"}, {"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]}',
    "names.yaml": "names:\n  2: barn owl\n  0: cat\n  1: dog\n",
    "list.yml": "names: [cat, dog, barn owl]\n",
    "arrow.txt": "2 -> barn owl\n0 -> cat\n1 -> dog\n",
    "class number.txt": "class 2: barn owl\nclass 0: cat\nclass 1: dog\n",
    "number last.txt": "barn owl : 2\ncat : 0\ndog : 1\n",
    "number in brackets.txt": "barn owl (2)\ncat (0)\ndog (1)\n",
    "number last arrow.txt": "barn owl -> 2\ncat -> 0\ndog -> 1\n",
    "synset_words.txt": "n01 cat\nn02 dog\n".replace("n0", "n0000000") + "n00000003 barn owl\n",
    "synsets and numbers.txt": "n00000003 0 cat\nn00000001 2 barn owl\nn00000002 1 dog\n",
    "coco.names": "cat\ndog\nbarn owl\n",
    "commas.csv": "index,label,\n2,barn owl,\n0,cat,\n1,dog,\n,,\n",
    "label_names.json": '{"architecture": "vit", "label_names": ["cat", "dog", "barn owl"]}',
    "ultralytics.yaml": "nc: 3\nnames: ['cat', 'dog', 'barn owl']\n",
}


@pytest.mark.parametrize("name", RIGHT)
def test_labels_come_in_the_order_of_their_classes(name, tmp_path):
    content = RIGHT[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert class_labels({}, 3, tmp_path / name).names == CLASSES


AS_THEY_ARE = (
    ["stage 0", "stage 1", "stage 2"],
    ["2 doors", "4 doors", "5 seats"],
    ["0", "1", "2"],
    ["a, b", "c", "d"],
    ["0-2", "3-9", "10-19", "more than 20"],
    ["0 to 9 years", "10 to 19 years"],
    ["0.5 - 1 mm", "1.5 - 2 mm"],
    ["Boeing 737-800", "Airbus A320", "Cessna 172"],
    ["1955 Chevrolet", "1957 Ford"],
    ["3 of clubs", "joker", "ace"],
    ["stage 0"],
    ["target", "clutter"],
    ["school", "class"],
)


def test_labels_that_hold_numbers_and_other_things_stay_as_they_are(tmp_path):
    for labels in AS_THEY_ARE:
        (tmp_path / "labels.txt").write_text("\n".join(labels))
        assert read_labels(tmp_path / "labels.txt") == labels


WRONG = {
    "comment.txt": ("# mine\ncat\ndog\n", "line 1, starts with #"),
    "gap.txt": ("cat\n\ndog\n", "line 2, is empty"),
    "from one.txt": ("1 cat\n2 dog\n3 owl\n", "from 1"),
    "from one colon.txt": ("1: cat\n2: dog\n3: owl\n", "from 1"),
    "twice.txt": ("0,cat\n0,dog\n1,owl\n", "line 2, gives the class 0 a second time: 'cat', 'dog'"),
    "twice.csv": ("index,label\n0,cat\n1,dog\n1,owl\n", "line 4, gives the class 1 a second time: 'dog', 'owl'"),
    "short.csv": ("index,label\n0,cat\n1\n2,owl\n", "line 3, has 1 cells, and the header has 2"),
    "comma.csv": ("index,label\n0,tench, Tinca tinca\n1,dog\n", "line 2, has 3 cells"),
    "one.csv": ("id,label\n1,cat\n2,dog\n", "from 1"),
    "empty.csv": ("index,label\n0,cat\n1,\n", "line 3, gives the class 1 no label"),
    "counts.csv": ("label,count\nowl,30\ncat,20\ndog,10\n", "may be ordered by its column 'count'"),
    "order.csv": ("label,code\nowl,2\ncat,0\ndog,1\n", "may be ordered by its column 'code'"),
    "two indices.csv": ("index,id,label\n0,1,cat\n1,0,dog\n", "columns 'index' and 'id': which are the class indices"),
    "two labels.csv": ("index,label,name\n0,n1,cat\n1,n2,dog\n", "columns 'label' and 'name': which are the labels"),
    "columns.csv": ("label,label\na,b\n", "two columns of one name"),
    "numbers.json": ('{"0": 1, "1": 0}', "maps numbers to numbers"),
    "key twice.json": ('{"0": "cat", "0": "dog"}', "has the key '0' twice"),
    "null.json": ('{"0": "cat", "1": null}', "gives the class 1 no label"),
    "uneven.json": ('[{"id": 0, "name": "cat"}, {"id": 1}]', "row 2, has other columns"),
    "tabs.yaml": ("names:\n\t- cat", "is not YAML"),
    "float index.csv": ("index,label\n2.0,owl\n0.0,cat\n1.0,dog\n", "line 2, has '2.0' in its column 'index'"),
    "negative.csv": ("index,label\n-1,owl\n0,cat\n1,dog\n", "has '-1' in its column 'index'"),
    "synset.csv": ("id,label\nn3,owl\nn1,cat\n", "has 'n3' in its column 'id'"),
    "blank.csv": (",label\n2,owl\n,cat\n1,dog\n", "line 3, has '' in its column ''"),
    "proportion.csv": ("label,proportion\nowl,0.5\ncat,0.3\ndog,0.2\n", "may be ordered by its column 'proportion'"),
    "ascending.csv": ("label,count\nowl,1\ncat,2\ndog,3\n", "may be ordered by its column 'count'"),
    "key twice.yaml": ("names:\n  0: cat\n  0: dog\n", "the key '0' is there twice"),
    "disagree.json": (
        '{"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 1, "dog": 0}}',
        "has id2label and label2id, and they disagree",
    ),
    "numbers.txt": ("2\n0\n1\n", "which order is meant is not clear"),
    "strings.json": ('["1", "0"]', "which order is meant is not clear"),
    "slashes.txt": ("// mine\ncat\n", "line 1, starts with /"),
    "page.txt": ("<html>\n<body>\n", "holds no labels"),
    "pointer.txt": ("version https://git-lfs.github.com/spec/v1\noid 1\n", "holds no labels"),
    "lines.txt": ('{"label": "cat"}\n{"label": "dog"}\n', "holds no labels"),
    "no mark.txt": ("c\0a\0t\0\n\0", "as UTF-16 without its mark"),
    "empty label.json": ('["cat", ""]', "has an empty label"),
    "deep.json": ("[" * 100_000, "is nested too deeply"),
    "open.csv": ('label\n"cat\n', "is not CSV"),
    "header.txt": ("class_name\ncat\ndog\n", "begins with 'class_name', which is the name of a column"),
    "header of two.txt": ("Class ID, Name\n0, cat\n", "begins with 'Class ID, Name', which is the name of a column"),
    "header of numbers.txt": ("index\n0\n1\n", "begins with 'index'"),
    "ini.txt": ("[labels]\n0 = cat\n1 = dog\n", "begins with '[labels]'"),
    "some numbered.txt": ("0 cat\n1 dog\nbird\n", "line 3, 'bird', has no number"),
    "some numbered last.txt": ("cat,0\nbird\ndog,1\n", "line 2, 'bird', has no number"),
    "no label.txt": ("0\tcat\n1\t\n2\towl\n", "line 2, '1', has no number"),
    "twice space.txt": ("0 cat\n0 dog\n1 owl\n", "line 2, gives the class 0 a second time: 'cat', 'dog'"),
    "label twice.txt": ("2: cat\n1: cat\n0: owl\n", "or one label twice"),
    "two ways.txt": ("0: cat\n1 dog\n", "in different ways"),
    "hole.txt": ("0 cat\n2 dog\n3 owl\n", "but not from 0 to 2"),
    "negative.txt": ("-1 cat\n0 dog\n1 owl\n", "but not from 0 to 2"),
    "float.txt": ("2.0 cat\n1.0 dog\n0.0 owl\n", "but not from 0 to 2"),
    "one from one.txt": ("1: cat\n", "from 1"),
    "items.txt": ("- cat\n- dog\n", "begins each line with '-'"),
    "markdown.txt": ("| 0 | cat |\n| 1 | dog |\n", "begins each line with '|'"),
    "quotes.txt": ('"cat"\n"dog"\n', "in quotation marks"),
    "of code.txt": ("0: 'cat',\n1: 'dog'\n", "in quotation marks"),
    "ends.txt": ("cat,\ndog,\nowl\n", "a comma after each"),
    "json.txt": ('["cat", "dog"]', "holds no labels"),
    "code.txt": ("LABELS = [\n'cat',\n]\n", "holds no labels"),
    "map.pbtxt": ("item {\n id: 1\n}\n", "holds no labels"),
    "synsets.txt": ("n00000002 cat\nn00000001 dog\n", "synsets that are not in their order"),
    "map_clsloc.txt": ("n00000001 2 cat\nn00000002 1 dog\n", "from 1"),
    "archive.txt": ("PK\x03\x04\n", "the class 0 holds the character '\\x03'"),
    "half a character.json": ('["\\ud800"]', "the class 0 holds the character '\\ud800'"),
    "hole.csv": ("label\ncat\n\nowl\n", "has an empty label: that of the class 1"),
    "comment.csv": ("label\n# mine\ncat\n", "line 2, starts with #"),
    "from one.csv": ("nr,label\n2,owl\n3,cat\n1,dog\n", "may be ordered by its column 'nr'"),
    "pandas thrice.csv": ("Unnamed: 0.1,Unnamed: 0,label\n0,1,cat\n1,0,dog\n", "which are the class indices is not clear"),
    "digits.csv": ("index,label\n" + "9" * 5000 + ",cat\n", "expected the index of a class"),
    "names.json": ('{"names": ["a", "b"], "labels": ["b", "a"]}', "has names and labels, and they disagree"),
    "synonyms.json": (
        '{"0": ["cat", "puss"], "1": ["dog", "hound"]}',
        "no label: expected a text, not ['cat'",
    ),
    "object.json": ('{"0": {"name": "cat"}}', "gives the class 0 no label: expected a text, not {'name'"),
    "index twice.json": ('{"cat": 0, "dog": 0}', "gives the class 0 a second time"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_clear_is_refused_in_one_line(name, tmp_path):
    content, message = WRONG[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(ExportError) as caught:
        read_labels(tmp_path / name)
    assert message in str(caught.value) and str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_a_thousand_classes_of_ones_own_are_not_imagenets(tmp_path):
    """Names are inferred for timm's own weights alone: whose thousand classes a checkpoint has is not known."""
    model = timm.create_model("test_vit")
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    (tmp_path / "net.py").write_text("import timm\ndef build():\n    return timm.create_model('test_vit')\n")
    for number, arguments in enumerate(
        (["test_vit", "--checkpoint", str(tmp_path / "mine.pth")], [f"{tmp_path}/net.py:build"])
    ):
        archive = export_to(tmp_path, *arguments, "--model-name", f"mine{number}", "--precision", "fp32")
        assert json.loads(read(archive, "index_to_name.json"))["7"] == "7"
    own = export_to(tmp_path, "test_vit", "--no-pretrained", "--precision", "fp32")
    assert json.loads(read(own, "index_to_name.json"))["7"] == "cock"
