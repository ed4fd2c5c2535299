"""Generated labels in the layouts that people write them in: each class gets its label, or the file is refused."""

import csv
import io
import json

from hypothesis import given
from hypothesis import strategies as st

from export.errors import ExportError
from export.label_files import read_labels

words = st.text(st.characters(categories=["L", "Nd", "Zs", "Po"]), min_size=1).map(str.strip).filter(lambda word: word != "")


@given(st.data(), st.lists(words, min_size=1, unique=True), st.sampled_from(["index", "class_id", "target", ""]))
def test_a_table_in_any_order_gives_each_class_its_label(data, labels, index):
    rows = data.draw(st.permutations(list(enumerate(labels))))
    table = io.StringIO()
    csv.writer(table).writerows([(index, "label"), *rows])
    assert _read_as(".csv", table.getvalue()) == labels
    assert _read_as(".json", json.dumps({str(number): label for number, label in rows})) == labels


# The suffix of a file and its lines, from indices and labels in any order. The labels have no digits: where "0 cat" stands on a
# line, nothing says whether the number belongs to the label.
names = st.text(st.characters(categories=["L"]), min_size=1, max_size=8)
LAYOUTS = {
    "list": (".txt", lambda rows: [label for _, label in sorted(rows)]),
    "0: cat": (".txt", lambda rows: [f"{index}: {label}" for index, label in rows]),
    "0. cat": (".names", lambda rows: [f"{index}. {label}" for index, label in rows]),
    "0 cat": (".txt", lambda rows: [f"{index} {label}" for index, label in rows]),
    "cat 0": (".txt", lambda rows: [f"{label} {index}" for index, label in rows]),
    "cat\t0": (".txt", lambda rows: [f"{label}\t{index}" for index, label in rows]),
    "cat,0": (".txt", lambda rows: [f"{label},{index}" for index, label in rows]),
    "from 1": (".txt", lambda rows: [f"{index + 1} {label}" for index, label in rows]),
    "first has none": (".txt", lambda rows: [rows[0][1], *(f"{index} {label}" for index, label in rows[1:])]),
    "header": (".txt", lambda rows: ["class_name", *(label for _, label in sorted(rows)[:-1])]),
    "semicolons": (".csv", lambda rows: ["label;class_idx", *(f"{label};{index}" for index, label in rows)]),
    "floats": (".csv", lambda rows: ["index,label", *(f"{index}.0,{label}" for index, label in rows)]),
    "from 1 in a column": (".csv", lambda rows: ["nr,label", *(f"{index + 1},{label}" for index, label in rows)]),
    "commas": (".csv", lambda rows: ["index,label,", *(f"{index},{label}," for index, label in rows)]),
    "ultralytics": (".yaml", lambda rows: ["names:", *(f"  {index}: {label}" for index, label in rows)]),
    "rows": (".json", lambda rows: [json.dumps([{"id": index, "name": label} for index, label in rows])]),
    "label2id": (".json", lambda rows: [json.dumps({"label2id": {label: index for index, label in rows}})]),
}


@given(
    st.data(),
    st.lists(st.lists(names, min_size=1, max_size=2).map(" ".join), min_size=3, max_size=6, unique=True),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_whatever_the_layout_no_label_is_another_classs(data, labels, end, encoding):
    rows = data.draw(st.permutations(list(enumerate(labels))))
    for suffix, lines in LAYOUTS.values():
        try:
            read = _read_as(suffix, (end.join(lines(rows)) + end).encode(encoding))
        except ExportError:
            continue
        assert read == labels


def test_no_usual_layout_is_refused():
    rows = [(2, "owl"), (0, "cat"), (1, "dog")]
    refused = {"from 1", "first has none", "header", "floats", "from 1 in a column"}
    for name in LAYOUTS.keys() - refused:
        suffix, lines = LAYOUTS[name]
        assert _read_as(suffix, "\n".join(lines(rows))) == ["cat", "dog", "owl"], name


@given(st.sampled_from([".txt", ".csv", ".tsv", ".json", ".yaml"]), st.one_of(st.binary(max_size=80), st.text(max_size=80)))
def test_no_file_is_a_traceback(suffix, content):
    try:
        labels = _read_as(suffix, content)
    except ExportError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(label, str) for label in labels)


def _read_as(suffix: str, content: str | bytes) -> list[str]:
    class File:  # a path without a disk, which is what takes the time
        def __init__(self):
            self.suffix = suffix

        def read_bytes(self) -> bytes:
            return content if isinstance(content, bytes) else content.encode()

        def __str__(self) -> str:
            return f"labels{suffix}"

    return read_labels(File())
