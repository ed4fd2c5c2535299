"""The commands of docs/ and of the examples, in order and as printed, for a reader who has run those that come before."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from tests.conftest import DIGITS, ROOT
from tests.e2e.documents import Shell, commands
from tests.e2e.documents import checkout as checkout

SERVED = ("make archive", "make serve")
HELDOUT = "train.py --heldout"  # draws for minutes: tests/test_digits.py; here `readers_checkout` has a few pictures instead


@dataclass(frozen=True)
class Document:
    file: str
    before: tuple[str, ...]  # what the reader has run
    says: dict[str, str]  # part of a command → of what it prints
    elsewhere: tuple[str, ...] = ()  # parts of commands that are not run here
    until: str | None = None  # where the part begins that is not run here
    settings: str = "config.properties"


DOCUMENTS = (
    Document(
        "docs/bulk.md",
        ("make archive",),
        {"examples/digits/samples": "20 pictures; 20 answered in "},
        elsewhere=("requirements-ray.txt", "s3://scans"),  # a bucket and a cluster, which tests/test_bulk_*.py have
    ),
    Document(
        "docs/evaluate.md",
        ("make archive", "make archive NAME=digits-int8 ARGS='--precision int8'"),
        {
            "--plot": "pictures                          22",
            "--precisions": "McNemar's exact test",
            "--fit-temperature": "archive  model_store/digits-calibrated.mar",
        },
        elsewhere=(HELDOUT,),
    ),
    Document(
        "docs/operations.md",
        SERVED,
        {"make status": "digits  1.0      default", "make roll": "digits 2.0 is the default"},
        elsewhere=("serve run",),  # it stays: tests/e2e/test_run.py
    ),
    Document(
        "docs/requests.md",
        (
            "make archive NAME=NAME ARGS='--task classify,embed'",
            "make serve NAME=NAME",
            "TOKEN=$(.venv/bin/python -m serve token)",
        ),
        {"X-Task": "[", "/explanations/NAME\n": '"relevance"'},
    ),
    Document("examples/digits/README.md", ("make archive",), {"evaluate": "runs in                  fp32 on cpu"}, (HELDOUT,)),
    Document(
        "examples/search/README.md",
        (),
        {"search find examples": "digits/train/7/"},
        # tests/e2e/test_search.py, minutes of drawing; tests/e2e/test_ui.py; scikit-image's, a package of 30 MB.
        elsewhere=("make search", "make ui", "photographs"),
    ),
    Document(
        "examples/production/README.md",
        (),
        {"/predictions/": '{"0": 0.9'},
        until="## Behind HAProxy",  # tests/e2e/test_proxy.py
        settings="examples/production/config.properties",
    ),
)


@pytest.fixture
def readers_checkout(checkout) -> Path:
    """With a photograph, and pictures in a folder for each digit, of which two are in another one's."""
    Image.fromarray(load_sample_image("china.jpg")).save(checkout / "cat.jpg")
    pictures = checkout / "heldout" / "pictures"
    for file in (DIGITS / "samples").glob("*-*"):
        for digit in (file.name[0], "8") if file.name in ("0-a.jpg", "1-a.png") else file.name[0]:
            (pictures / digit).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, pictures / digit)
    shutil.copytree(pictures, checkout / "digits" / "train")
    return checkout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.file)
def test_every_command_works_as_printed(document, readers_checkout):
    text = (ROOT / document.file).read_text()
    shown = commands(text.partition(document.until)[0] if document.until else text)
    shown = [command for command in shown if not any(part in command for part in document.elsewhere)]
    shell = Shell(readers_checkout, readers_checkout / document.settings)
    printed = shell.run([*document.before, *shown])[len(document.before) :]
    for part, said in document.says.items():
        assert said in next(output for command, output in zip(shown, printed, strict=True) if part in f"{command}\n"), part


def test_every_document_with_commands_is_run():
    """But the tuning guide's, which takes a ViT-B, and those for containers, clusters and Ray, which have their own tests."""
    files = [*ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md"), *ROOT.glob("deploy/**/README.md")]
    have = {str(file.relative_to(ROOT)) for file in files if commands(file.read_text())}
    assert have - {document.file for document in DOCUMENTS} == {"docs/tuning.md", "deploy/README.md", "deploy/ray/README.md"}
