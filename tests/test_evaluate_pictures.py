"""The pictures of a report: what they show, whatever the number of classes and the names of them."""

import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from evaluate import plots
from evaluate.__main__ import main
from evaluate.mistakes import CELL, COLUMNS, ROWS, sheet
from evaluate.plots import plot
from evaluate.table import confused, table
from tests.conftest import DIGITS
from tests.labelled import by_class, evaluated


def report(classes: int, label: str = "class") -> dict:
    """A report of so many classes, each of which is taken for the next one, the later the more often."""
    labels = [f"{label} {index}" for index in range(classes)]
    confusion = {name: {name: 20, labels[(index + 1) % classes]: 1 + index % 9} for index, name in enumerate(labels)}
    each = {"pictures": 21, "precision": 0.5, "recall": None, "f1": 0.25, "average_precision": 0.75}
    reliability = [
        {"low": low / 15, "high": (low + 1) / 15, "count": 10**low, "confidence": low / 15, "accuracy": 0.5}
        for low in (1, 5, 7)
    ]
    metrics = {
        "pictures": 21 * classes,
        "classes": {name: {**each, "f1": index / classes} for index, name in enumerate(labels)},
        "confusion": confusion,
        "reliability": reliability,
        "calibration_error": 0.1,
    }
    return {"name": "m.mar", "precision": "fp32", "device": "cpu", "metrics": metrics, "errors": []}


@pytest.fixture
def drawn(monkeypatch) -> list:
    """The figures that are drawn, which are closed otherwise."""
    figures = []
    monkeypatch.setattr(plots.pyplot, "close", figures.append)
    yield figures
    monkeypatch.undo()
    pyplot.close("all")


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_a_few_classes_are_a_matrix_with_numbers(drawn, tmp_path):
    plot(report(10), tmp_path / "plot.png")
    matrix, reliability = drawn[0].axes
    assert sorted(texts(matrix), key=int) == sorted([*["20"] * 10, *map(str, range(1, 10)), "1"], key=int)
    assert [label.get_text() for label in matrix.get_yticklabels()] == [f"class {index}" for index in range(10)]
    assert texts(reliability) == ["10", "100k", "10,000k"]
    assert Image.open(tmp_path / "plot.png").size == (1500, 750)


def test_a_thousand_classes_are_the_most_confused_pairs(drawn, tmp_path):
    found = report(1000, "a label that is longer than there is room for")
    plot(found, tmp_path / "plot.png")
    bars = drawn[0].axes[0]
    names = [label.get_text() for label in bars.get_yticklabels()]
    assert len(names) == len(bars.patches) == 30 and all("… → a label" in name and len(name) < 55 for name in names)
    assert [bar.get_width() for bar in bars.patches] == [9] * 30
    assert len(confused(found["metrics"])) == 1000
    printed = table([found])
    assert "class" in printed and "… and 970 more, which --json has" in printed and len(printed.splitlines()) < 60


def test_dollars_are_not_read_as_mathematics(drawn, tmp_path):
    plot(report(3, "$x_{"), tmp_path / "plot.png")


def test_the_same_report_makes_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        plot(report(4), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_sheet_shows_the_worst_mistakes(tmp_path):
    picture = tmp_path / "red.png"
    Image.new("RGB", (40, 20), "red").save(picture)
    mistakes = [{"picture": str(picture), "true": {"cat" * number: 0.1}, "said": {}} for number in range(1, COLUMNS * ROWS + 9)]
    whole = sheet(mistakes, True)
    assert whole.width > COLUMNS * CELL and whole.height > ROWS * CELL
    red = (np.asarray(whole) == (255, 0, 0)).all(2)
    assert red.sum() == COLUMNS * ROWS * CELL * CELL // 2  # enlarged to the width of their cells
    few = sheet(mistakes[:3], True)
    assert few.width < whole.width / 2 and few.height < whole.height / 3


def test_the_command_writes_them(digits_store, tmp_path, capsys):
    archive, folder = digits_store / "digits.mar", by_class(tmp_path / "p")
    evaluated(tmp_path, archive, folder, "--plot", tmp_path / "plot.png", "--mistakes", tmp_path / "sheet.jpg")
    assert Image.open(tmp_path / "plot.png").format == "PNG" and Image.open(tmp_path / "sheet.jpg").format == "JPEG"


def test_without_mistakes_there_is_no_sheet(digits_store, tmp_path, capsys):
    (tmp_path / "p" / "7").mkdir(parents=True)
    (tmp_path / "p" / "7" / "a.png").write_bytes((DIGITS / "samples" / "7-a.png").read_bytes())
    assert main([str(digits_store / "digits.mar"), str(tmp_path / "p"), "--mistakes", str(tmp_path / "sheet.png")]) == 0
    assert "no mistakes: " in capsys.readouterr().out
    assert not (tmp_path / "sheet.png").exists()
