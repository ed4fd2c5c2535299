"""Reads labels in lines of text: one on each line, alone, or with the index of its class before or after it."""

from __future__ import annotations

import re
from pathlib import Path

from export.errors import ExportError
from export.label_order import LONGEST, is_index, labels_by_index, names_in_order, told_apart
from export.label_tables import INDEX_NAMES, LABEL_NAMES
from predict.sources.columns import plain

# Beginnings of files that are not lists of labels: HTML, JSON, a label map of TensorFlow, code, PDF, a Git LFS pointer.
NO_LABELS = re.compile(r"<|\{|\[[\[\"']|.*[\[{]$|%PDF|version https://git-lfs", re.IGNORECASE)
MARKED = re.compile(r"[-*+•]\s.*|\|.*")  # items of a list, or rows of a table, in Markdown or YAML
SYNSET = re.compile(r"(n\d{8})(?:\s*[,:;=|]\s*|\s+)(\S.*)")  # "n01440764 tench, Tinca tinca"
# "2,owl", "2: owl", "class 2: owl", "[2] owl", "2) owl", "2. owl", "2 owl"; but not "0-2 years", which is no index.
FIRST = re.compile(
    rf"(?:(?:class|label|id|idx|index)[\s_:=#]*)?[\[(]?(?P<index>[-+]?\d{{1,{LONGEST}}}(?:\.\d+)?)"
    r"(?!\d|\s*(?:[-–—_.]|to\b)\s*\d)[\])]?(?P<between>\s*(?:[-=]>|→|[,:;=|._-])\s*|\s+|(?<=[\])]))(?P<label>\S.*)",
    re.IGNORECASE,
)
# "owl 2", as a class_to_idx is printed, "owl,2", "owl (2)".
LAST = re.compile(
    r"(?P<label>.*?[^\s\d])(?P<between>\s*(?:[-=]>|→|[,:;=|_-])\s*|\s+|\s*(?=[\[(]))"
    rf"[\[(#]?(?P<index>\d{{1,{LONGEST}}})[\])]?"
)
AS_JSON = "labels that are meant so can be given as a list in a .json file"


def from_lines(file: Path, text: str) -> list[str]:
    """Reads the labels of a text. Raises ExportError if there is not one on each line, or if only some are numbered."""
    lines = [line.strip() for line in re.split(r"\r\n|\n|\r", text.rstrip())]
    if NO_LABELS.match(lines[0]):
        raise ExportError(f"{file} holds no labels: it begins with {lines[0][:40]!r}")
    for number, line in enumerate(lines, 1):
        if not line:
            raise ExportError(f"{file}, line {number}, is empty: each line should be a label")
        if line.startswith(("#", "//")):
            raise ExportError(f"{file}, line {number}, starts with {line[0]}: take a comment out; {AS_JSON}")
    if _is_header(lines):
        raise ExportError(
            f"{file} begins with {lines[0][:40]!r}, which is the name of a column and not a class: take the line out, or call "
            f"the file .csv; {AS_JSON}"
        )
    if all(map(MARKED.fullmatch, lines)):
        raise ExportError(f"{file} begins each line with {lines[0][0]!r}: take that off; {AS_JSON}")
    with_synset = [SYNSET.fullmatch(line) for line in lines]
    labels = _by_synset(file, with_synset) if all(with_synset) else _by_number(file, lines) or names_in_order(file, lines)
    commas = sum(label.endswith((",", ";")) for label in labels)
    if commas >= max(1, len(labels) - 1) or all(re.fullmatch(r"(['\"]).*\1[,;]?", label) for label in labels):
        raise ExportError(f"{file} has its labels in quotation marks, or with a comma after each: take those off; {AS_JSON}")
    return labels


def _is_header(lines: list[str]) -> bool:
    """Whether the first line names columns: "label", "Class Name", "index,label", but also "labels = ["."""
    whole, cells = [lines[0]], re.split(r"[,;|\t]", lines[0])
    for names in (whole, cells, lines[0].split()):
        found = [plain(re.sub(r"[^\w\s-]", "", name)) for name in names if name.strip()]
        if all(each in (*LABEL_NAMES, *INDEX_NAMES) for each in found) and (
            any(each in LABEL_NAMES for each in found) or all(map(is_index, lines[1:2]))
        ):
            return True
    return False


def _by_synset(file: Path, found: list[re.Match]) -> list[str]:
    synsets, names = [match[1] for match in found], [match[2] for match in found]
    if labels := _by_number(file, names):
        return labels
    if synsets != sorted(set(synsets)):
        raise ExportError(
            f"{file} has synsets that are not in their order, which is that of ImageNet's classes: sort its lines; {AS_JSON}"
        )
    return names_in_order(file, told_apart(names, synsets))


def _by_number(file: Path, lines: list[str]) -> list[str] | None:
    """Orders the labels by their numbers; None if there are no numbers, or they are part of the labels."""
    for pattern in (FIRST, LAST):
        found = [(number, match) for number, line in enumerate(lines, 1) if (match := pattern.fullmatch(line))]
        labels = {match["label"] for _, match in found}
        # "stage 0", "stage 1" are complete labels: without the number they would be equal.
        if 2 * len(found) < len(lines) or len(labels) < (1 if len(lines) == 1 and pattern is FIRST else 2):
            continue
        indices = [match["index"] for _, match in found]
        numbers = sorted(map(float, indices))
        whole = len(found) == len(lines) and all(map(is_index, indices))
        if whole and numbers == list(range(len(lines))):
            between = {(match["between"] or "").strip() for _, match in found}
            if len(between) > 1 or len(labels) < len(lines):
                raise ExportError(f"{file} numbers its labels in different ways, or one label twice: {AS_JSON}")
            return labels_by_index(file, [(match["index"], match["label"], number) for number, match in found])
        if whole and numbers == list(range(1, len(lines) + 1)) and len(labels) == len(lines):
            raise ExportError(f"{file} numbers its labels from 1: the first class is 0")
        if len(labels) == len(found) and (numbers[0] <= 1 or numbers[-1] <= 2 * len(lines)):
            _refuse(file, lines, found)
    return None


def _refuse(file: Path, lines: list[str], found: list[tuple[int, re.Match]]) -> None:
    """Raises ExportError for the first line whose number is not that of a class."""
    given: dict[str, str] = {}
    for number, match in found:
        if match["index"] in given:
            raise ExportError(
                f"{file}, line {number}, gives the class {match['index']} a second time: {given[match['index']]!r}, "
                f"{match['label']!r}"
            )
        given[match["index"]] = match["label"]
    if bare := sorted({*range(1, len(lines) + 1)} - {number for number, _ in found}):
        raise ExportError(
            f"{file}, line {bare[0]}, {lines[bare[0] - 1][:40]!r}, has no number, and others have one: number all lines from "
            f"0, or none; {AS_JSON}"
        )
    raise ExportError(f"{file} numbers its labels, but not from 0 to {len(lines) - 1}: put the numbers right; {AS_JSON}")
