"""Two archives side by side, or one in several precisions: what differs, and whether that is more than chance."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluate.compare import compare, mcnemar
from evaluate.run import Run
from evaluate.sources import Example
from evaluate.table import comparison
from tests.conftest import DIGITS, export_to
from tests.labelled import by_class, evaluated, refused
from vit_core.settings import Head

LABELS = ("cat", "dog")
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
MODULE = """
import timm

def build():
    return timm.create_model("local-dir:{digits}", pretrained=True)

def other():
    model = build()
    head = model.head
    for tensor in (head.weight, head.bias):
        tensor.data = tensor.data.flip(0)
    return model
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return by_class(tmp_path_factory.mktemp("pictures") / "p")


@pytest.fixture(scope="module")
def named_pictures(tmp_path_factory) -> Path:
    return by_class(tmp_path_factory.mktemp("pictures") / "named", NAMES)


def test_mcnemars_test_is_that_of_a_hand_count():
    # Of 10 pictures that one alone gets right, 2 or fewer for either of both: 2 * (1 + 10 + 45) of 1024.
    assert mcnemar(8, 2) == mcnemar(2, 8) == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert mcnemar(0, 6) == pytest.approx(2 / 2**6)
    assert mcnemar(20, 5) == pytest.approx(2 * sum(math.comb(25, count) for count in range(6)) / 2**25)
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1


def made(name: str, said: list[int], places: list[int]) -> Run:
    """A run that says these classes of pictures which are all cats."""
    scores = np.where(np.arange(2) == np.array(said)[:, None], 0.75, 0.25).astype(np.float32)
    truth = np.tile([True, False], (len(said), 1))
    first = np.array(said)
    return Run(name, LABELS, Head(), "fp32", "cpu", np.array(places), truth, np.log(scores), scores, first, {}, "", 1.0)


def test_a_comparison_counts_the_pictures_that_both_could_read():
    examples = [Example(Path(f"{index}.png"), (0,)) for index in range(6)]
    first, second = made("a.mar", [0, 0, 1, 1, 0], [0, 1, 2, 3, 4]), made("b.mar", [0, 1, 0, 1, 0], [1, 2, 3, 4, 5])
    found = compare(first, second, examples)  # on the pictures 1 to 4: 0, 1, 1, 0 and 0, 1, 0, 1
    assert [found[f"{which}_right"] for which in ("both", "neither", "only_first", "only_second")] == [1, 1, 1, 1]
    assert found["pictures"] == 4 and found["p_value"] == 1
    assert [each["picture"] for each in found["differ"]] == ["3.png", "4.png"]
    assert found["differ"][0] == {"picture": "3.png", "true": ["cat"], "first": {"dog": 0.75}, "second": {"cat": 0.75}}
    assert found["largest_score_difference"] == 0.5 and found["mean_score_difference"] == 0.25


def test_what_is_more_than_chance_is_said():
    examples = [Example(Path(f"{index}.png"), (0,)) for index in range(9)]
    places = list(range(9))
    worse, better = made("a.mar", [1] * 9, places), made("b.mar", [0] * 6 + [1] * 3, places)
    printed = comparison(compare(worse, better, examples), True)
    assert "only a.mar 0, only b.mar 6" in printed
    assert "+66.67%, which is more than chance (McNemar's exact test: p = 0.0312)" in printed
    assert "0.png  is cat  dog 75.0%  cat 75.0%" in printed
    smaller = replace(better, first=np.array([0] * 5 + [1] * 4))
    assert "+55.56%, which is no more than chance" in comparison(compare(worse, smaller, examples), True)


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> Path:
    """The digits archive in int8; with its classes in the opposite order, and with other labels and heads."""
    folder = tmp_path_factory.mktemp("others")
    (folder / "net.py").write_text(MODULE.format(digits=DIGITS))
    (folder / "named.txt").write_text("\n".join(NAMES))
    (folder / "reversed.txt").write_text("\n".join(reversed(NAMES)))
    pixels = ("--img-size", "48", "--interpolation", "bicubic", "--crop-pct", "1", "--crop-mode", "border")
    pixels += ("--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5")
    export_to(folder, f"{folder}/net.py:other", "--model-name", "reversed", "--labels", str(folder / "reversed.txt"), *pixels)
    for name, *options in (
        ("int8", "--precision", "int8"),
        ("named", "--labels", str(folder / "named.txt")),
        ("sigmoid", "--head", "sigmoid"),
    ):
        export_to(folder, f"local-dir:{DIGITS}", "--model-name", name, *options)
    return folder


def test_labels_in_another_order_are_matched_by_their_text(named_pictures, others, tmp_path):
    report = evaluated(tmp_path, others / "named.mar", named_pictures, "--against", others / "reversed.mar")
    first, second = (run["metrics"] for run in report["runs"])
    (found,) = report["comparisons"]
    assert found["differ"] == [] and found["largest_score_difference"] < 0.02
    assert first["confusion"] == second["confusion"] and list(first["classes"]) == list(second["classes"])


def test_an_archive_is_run_in_several_precisions(pictures, digits_store, others, tmp_path, capsys):
    arguments = (digits_store / "digits.mar", pictures, "--precisions", "fp32,bf16,fp16", "--against", others / "int8.mar")
    report = evaluated(tmp_path, *arguments)
    assert [run["precision"] for run in report["runs"]] == ["fp32", "bf16", "fp16", "int8"]
    assert [run["name"] for run in report["runs"]] == ["digits.mar fp32", "digits.mar bf16", "digits.mar fp16", "int8.mar"]
    apart = [each["largest_score_difference"] for each in report["comparisons"]]
    assert 0 < apart[1] < apart[0] < 0.1 and 0 < apart[2] < 0.1
    printed = capsys.readouterr().out
    assert printed.count(" beside digits.mar fp32, on 80 pictures") == 3


@pytest.mark.parametrize(
    ("archive", "options", "message"),
    [
        ("digits", ("--precisions", "fp32,int8"), "cannot be run in int8: export it with --precision int8"),
        ("int8", ("--precisions", "fp32"), "cannot be run in fp32: its trace is stored in int8"),
        ("digits", ("--against", "named"), "has other labels: '0' is a label of the other archive alone"),
        ("digits", ("--against", "sigmoid"), "has the head sigmoid, and the other archive softmax"),
        ("digits", ("--against", "nothing"), "nothing.mar cannot be read: No such file"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(archive, options, message, pictures, digits_store, others, capsys):
    paths = {name: others / f"{name}.mar" for name in ("int8", "named", "sigmoid", "nothing")}
    paths["digits"] = digits_store / "digits.mar"
    assert message in refused(capsys, paths[archive], pictures, *(paths.get(option, option) for option in options))
