"""`python -m evaluate`: its numbers are those that scikit-learn makes of the answers of `python -m predict`."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from evaluate.__main__ import main
from evaluate.probabilities import bins, calibration_error
from predict.__main__ import main as predict
from tests.conftest import DIGITS, export_to
from tests.labelled import by_class, digits, evaluated, in_table, refused

LABELS = list("0123456789")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Folders of pictures, with two broken ones and a file that is none among them."""
    folder = by_class(tmp_path_factory.mktemp("pictures") / "p")
    (folder / "3" / "cut.jpg").write_bytes((DIGITS / "samples" / "3-a.png").read_bytes()[:200])
    (folder / "4" / "text.png").write_text("no picture")
    (folder / "4" / "notes.txt").write_text("not called as a picture")
    return folder


@pytest.fixture(scope="module")
def report(pictures, digits_store, tmp_path_factory) -> dict:
    return evaluated(tmp_path_factory.mktemp("report"), digits_store / "digits.mar", pictures, status=1)


@pytest.fixture
def answers(pictures, digits_store, capsys) -> tuple[np.ndarray, np.ndarray]:
    """What `predict` answers: true classes [N] and probabilities [N, 10]."""
    predict([str(digits_store / "digits.mar"), str(pictures), "--json", "--top-k", "10"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    good = [row for row in rows if "answer" in row]
    assert len(rows) - 2 == len(good) == len(digits())
    truth = np.array([int(Path(row["picture"]).parent.name) for row in good])
    return truth, np.array([[row["answer"][label] for label in LABELS] for row in good], np.float32)


def test_the_metrics_are_scikit_learns_of_the_raw_answers(report, answers):
    truth, scores = answers
    found, said = report["runs"][0]["metrics"], scores.argmax(1)
    assert 0.5 < found["top1"] < 0.95  # the wrong labels are seen
    assert found["top1"] == metrics.accuracy_score(truth, said)
    assert found["top5"] == metrics.top_k_accuracy_score(truth, scores, k=5)
    doubles = scores.astype(float) / scores.sum(1, keepdims=True, dtype=float)
    assert found["negative_log_likelihood"] == pytest.approx(metrics.log_loss(truth, doubles), rel=1e-4)
    each = metrics.classification_report(truth, said, target_names=LABELS, output_dict=True)
    for label in LABELS:
        expected = [each[label][name] for name in ("precision", "recall", "f1-score", "support")]
        assert [found["classes"][label][name] for name in ("precision", "recall", "f1", "pictures")] == pytest.approx(expected)
    assert found["macro_f1"] == pytest.approx(each["macro avg"]["f1-score"])
    assert found["macro_recall"] == pytest.approx(metrics.balanced_accuracy_score(truth, said))
    matrix = np.array([[found["confusion"].get(true, {}).get(said, 0) for said in LABELS] for true in LABELS])
    assert (matrix == metrics.confusion_matrix(truth, said)).all()
    low, high = found["top1_interval"]
    assert low < found["top1"] < high < low + 0.25


def test_the_calibration_error_is_that_of_its_definition(report, answers):
    truth, scores = answers
    confidence, right, expected = scores.max(1), scores.argmax(1) == truth, 0.0
    for low in range(15):
        own = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        expected += abs(right[own].sum() - confidence[own].sum()) / len(truth)
    found = report["runs"][0]["metrics"]
    assert found["calibration_error"] == pytest.approx(expected, rel=1e-5)
    assert sum(each["count"] for each in found["reliability"]) == len(truth)


def test_probabilities_at_the_ends_of_bins_are_counted_once():
    found = bins(np.array([0.0, 1 / 15, 0.5, 1.0]), np.array([False, True, True, True]))
    assert [(round(each.low * 15), each.count) for each in found] == [(0, 2), (7, 1), (14, 1)]
    assert calibration_error(found) == pytest.approx((2 * abs(1 / 30 - 0.5) + 0.5 + 0) / 4)


def test_a_broken_picture_is_an_error_row_and_in_no_metric(report, pictures, digits_store, capsys):
    (run,) = report["runs"]
    assert run["metrics"]["pictures"] == len(digits()) and run["metrics"]["errors"] == 2
    assert [Path(each["picture"]).name for each in run["errors"]] == ["cut.jpg", "text.png"]
    assert [each["error"]["type"] for each in run["errors"]] == ["BrokenImage", "UnsupportedImage"]
    assert main([str(digits_store / "digits.mar"), str(pictures)]) == 1
    printed = capsys.readouterr().out
    assert printed.count("refused: ") == 2 and "text.png  refused: not an image" in printed
    assert "notes.txt" not in printed


def test_mistakes_are_those_labelled_wrong_the_surest_first(report):
    (run,) = report["runs"]
    mistakes = run["mistakes"]
    assert len(mistakes) == round((1 - run["metrics"]["top1"]) * run["metrics"]["pictures"])
    true = [next(iter(each["true"].values())) for each in mistakes]
    assert true == sorted(true)
    assert all(each["true"].keys() != each["said"].keys() for each in mistakes)


def test_a_table_with_labels_or_indices_says_the_same_as_folders(report, pictures, digits_store, tmp_path):
    rows = [(file, file.parent.name) for file in sorted(pictures.rglob("*.[pj][np]g"))]
    for header in (("path", "label"), ("Image Path", "class_id")):
        table = in_table(tmp_path / "rows.csv", rows, header)
        again = evaluated(tmp_path, digits_store / "digits.mar", table, status=1)["runs"][0]
        for key in ("images_per_second",):
            assert again["metrics"].pop(key) > 0
        assert again["metrics"] == {k: v for k, v in report["runs"][0]["metrics"].items() if k != "images_per_second"}
        assert again["pictures_sha256"] == report["runs"][0]["pictures_sha256"]


def test_the_hash_is_of_pictures_and_labels(report, digits_store, tmp_path):
    moved = by_class(tmp_path / "moved")
    same = evaluated(tmp_path, digits_store / "digits.mar", moved)["runs"][0]["pictures_sha256"]
    assert same == report["runs"][0]["pictures_sha256"]  # other paths; the broken ones are not in it
    file = next((moved / "5").iterdir())
    file.rename(moved / "6" / "other.png")
    assert evaluated(tmp_path, digits_store / "digits.mar", moved)["runs"][0]["pictures_sha256"] != same


def test_a_class_without_pictures_is_left_out_of_the_means(digits_store, tmp_path, capsys):
    folder = by_class(tmp_path / "p")
    for file in (folder / "9").iterdir():
        file.unlink()
    found = evaluated(tmp_path, digits_store / "digits.mar", folder)["runs"][0]["metrics"]
    assert found["classes"]["9"]["pictures"] == 0
    assert found["classes"]["9"]["recall"] is found["classes"]["9"]["f1"] is None
    f1 = [each["f1"] for label, each in found["classes"].items() if label != "9"]
    assert found["macro_f1"] == pytest.approx(np.mean(f1))
    assert "1 of 10 classes have no pictures" in capsys.readouterr().out


def test_scores_that_are_no_probabilities_have_no_calibration(pictures, tmp_path):
    archive = export_to(tmp_path, f"local-dir:{DIGITS}", "--head", "none")
    found = evaluated(tmp_path, archive, pictures, status=1)["runs"][0]["metrics"]
    assert found["top1"] > 0.5 and "confusion" in found
    assert not {"calibration_error", "negative_log_likelihood", "reliability"} & found.keys()


def test_an_archive_without_classes_is_refused(pictures, tmp_path, capsys):
    archive = export_to(tmp_path, f"local-dir:{DIGITS}", "--task", "embed")
    assert "has no classes: it was exported to embed alone" in refused(capsys, archive, pictures)


def test_pictures_of_which_none_can_be_read_are_refused(digits_store, tmp_path, capsys):
    (tmp_path / "p" / "3").mkdir(parents=True)
    (tmp_path / "p" / "3" / "text.png").write_text("no picture")
    assert "answers none of the 1 pictures" in refused(capsys, digits_store / "digits.mar", tmp_path / "p")


@pytest.mark.parametrize("module", ["sklearn", "matplotlib"])
def test_a_package_that_is_missing_is_named_before_anything_runs(module, pictures, digits_store, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    line = refused(capsys, digits_store / "digits.mar", pictures, "--plot", tmp_path / "plot.png")
    assert f"needs {module}: " in line and "-r requirements-evaluate.txt" in line


def test_outputs_that_cannot_be_written_are_refused_first(pictures, digits_store, tmp_path, capsys):
    archive = digits_store / "digits.mar"
    for option, file, part in (
        ("--json", tmp_path / "no" / "report.json", f"there is no folder {tmp_path / 'no'}"),
        ("--plot", tmp_path / "plot.jpg", "should end with .png"),
        ("--mistakes", tmp_path / "mistakes.gif", "should end with .png or .jpg"),
        ("--fit-temperature", archive, "is there already"),
        ("--fit-temperature", tmp_path / "a b.mar", "cannot be a model's name"),
    ):
        assert part in refused(capsys, archive, pictures, option, file)
    assert list(tmp_path.iterdir()) == []
