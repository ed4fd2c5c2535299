"""Pictures of several labels, for archives whose classes are each by themselves."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from predict.__main__ import main as predict
from tests.conftest import DIGITS, export_to
from tests.labelled import by_class, evaluated, in_table

LABELS = list("0123456789")
THRESHOLDS = np.array([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.5, 0.5, 0.5, 0.97], np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("store")
    (store / "thresholds.json").write_text(json.dumps(dict(zip(LABELS, THRESHOLDS.tolist(), strict=True))))
    thresholds = ("--thresholds", str(store / "thresholds.json"))
    export_to(store, f"local-dir:{DIGITS}", "--head", "sigmoid", "--model-name", "strict", *thresholds)
    export_to(store, f"local-dir:{DIGITS}", "--head", "sigmoid", "--model-name", "plain")
    return store


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Rows of no label, of one and of two; the digit 9 is in none of them."""
    folder = tmp_path_factory.mktemp("several")
    by_class(folder / "p")
    rows = []
    for number, file in enumerate(sorted((folder / "p").rglob("*.png"))):
        digit = int(file.parent.name)
        labels = [] if digit == 9 else [digit] if number % 3 else [digit, (digit + 1) % 9]
        rows.append((file.relative_to(folder), "|".join(map(str, labels))))
    return in_table(folder / "several.csv", rows, ("path", "labels"))


def answers(archive: Path, table: Path, capsys) -> tuple[np.ndarray, np.ndarray]:
    """True labels [N, 10] of the table, and the probabilities that `predict` answers."""
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    truth = np.array([[label in labels.split("|") for label in LABELS] for _, labels in rows])
    predict([str(archive), *(str(table.parent / path) for path, _ in rows), "--json", "--top-k", "10"])
    found = [json.loads(line)["answer"] for line in capsys.readouterr().out.splitlines()]
    return truth, np.array([[answer[label] for label in LABELS] for answer in found], np.float32)


@pytest.mark.parametrize(("name", "thresholds"), [("strict", THRESHOLDS), ("plain", np.full(10, 0.5, np.float32))])
def test_the_metrics_are_scikit_learns_of_the_raw_answers(name, thresholds, store, table, tmp_path, capsys):
    found = evaluated(tmp_path, store / f"{name}.mar", table)["runs"][0]["metrics"]
    capsys.readouterr()
    truth, scores = answers(store / "plain.mar", table, capsys)
    said = scores >= thresholds
    assert found["exact_match"] == pytest.approx((said == truth).all(1).mean())
    assert found["micro_f1"] == pytest.approx(metrics.f1_score(truth, said, average="micro"))
    for index, label in enumerate(LABELS[:9]):
        expected = metrics.classification_report(truth[:, index], said[:, index], output_dict=True, zero_division=np.nan)[
            "True"
        ]
        of_class = found["classes"][label]
        assert of_class["pictures"] == expected["support"]
        assert of_class["recall"] == pytest.approx(expected["recall"])
        assert of_class["precision"] == pytest.approx(expected["precision"])
        assert of_class["f1"] == pytest.approx(expected["f1-score"])
        average = metrics.average_precision_score(truth[:, index], scores[:, index])
        assert of_class["average_precision"] == pytest.approx(average, rel=1e-5)
    nine = found["classes"]["9"]
    assert nine["pictures"] == 0 and nine["average_precision"] is nine["recall"] is nine["f1"] is None
    mean = metrics.average_precision_score(truth[:, :9], scores[:, :9], average="macro")
    assert found["mean_average_precision"] == pytest.approx(mean, rel=1e-5)
    flat = scores.ravel().astype(float)
    assert found["negative_log_likelihood"] == pytest.approx(metrics.log_loss(truth.ravel(), flat), rel=1e-4)
    assert sum(each["count"] for each in found["reliability"]) == truth.size


def test_the_table_and_the_pictures_show_them(store, table, tmp_path, capsys):
    found = evaluated(tmp_path, store / "strict.mar", table, "--plot", tmp_path / "p.png", "--mistakes", tmp_path / "m.png")
    printed = capsys.readouterr().out
    assert "mean average precision" in printed and "average precision\n" in printed and "exact match" in printed
    assert (tmp_path / "p.png").stat().st_size > 10_000 and (tmp_path / "m.png").stat().st_size > 10_000
    mistakes = found["runs"][0]["mistakes"]
    assert {"none" if not each["true"] else len(each["true"]) for each in mistakes} == {"none", 1, 2}
