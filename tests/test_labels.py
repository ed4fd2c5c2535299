"""Label files, in every form that people have them in."""

import pytest

from export.errors import ExportError
from export.labels import class_labels

FILES = {
    "labels.txt": "cat\ndog\nbarn owl\n",
    "windows.txt": "\ufeffcat\r\ndog\r\nbarn owl\r\n\r\n",
    "list.json": '["cat", "dog", "barn owl"]',
    "index.json": '{"2": "barn owl", "0": "cat", "1": "dog"}',
    "config.json": '{"model_type": "vit", "id2label": {"0": "cat", "1": "dog", "2": "barn owl"}}',
    "rows.csv": "label,count\ncat,10\ndog,20\nbarn owl,3\n",
    "index.csv": "id,name\n2,barn owl\n0,cat\n1,dog\n",
}


@pytest.mark.parametrize("name", FILES)
def test_a_label_file_is_read(name, tmp_path):
    (tmp_path / name).write_text(FILES[name], newline="")
    assert class_labels({}, 3, tmp_path / name).names == ["cat", "dog", "barn owl"]


BROKEN = {
    "few.txt": ("cat\n", "has 1 labels, but the model has 3 classes"),
    "twice.txt": ("cat\ncat\ndog\n", "gives 'cat' to more than one class"),
    "spaces.txt": ("barn owl\nbarn  owl\ndog\n", "gives 'barn owl' to more than one class"),
    "two accents.txt": ("caf\u00e9\ncafe\u0301\ndog\n", "to more than one class"),
    "cut.json": ('["cat"', "is not JSON"),
    "numbers.json": ("[1, 2, 3]", "should hold a JSON list of labels"),
    "words.json": ('{"cat": "a", "dog": "b", "owl": "c"}', "by the index of its class"),
    "gap.json": ('{"0": "cat", "1": "dog", "3": "owl"}', "their indices are not 0 to 2"),
    "id2label.json": ('{"id2label": ["cat", "dog"]}', "by the index of its class"),
    "header.csv": ("a,b\n1,2\n", "a column called label, name or class"),
    "empty.csv": ("", "a column called label, name or class"),
    "latin.txt": (b"caf\xe9\n", "could not be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_label_file_that_is_wrong_says_how(name, tmp_path):
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ExportError, match=message) as caught:
        class_labels({}, 3, tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_model_without_names_is_labelled_by_index():
    assert class_labels({}, 3, None).names == ["0", "1", "2"]


@pytest.mark.parametrize("num_classes", [1000, 11221, 11821, 21841, 21842, 21843])
def test_each_of_imagenets_sets_has_unique_labels(num_classes):
    labels = class_labels({}, num_classes, None).names
    assert len(set(labels)) == num_classes
    assert labels[0] != "0"
