"""The commands of README.md, in order and as printed; and the links of the documents."""

import re
from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf

from tests.conftest import ROOT
from tests.e2e.documents import PRETRAINED, Shell, commands
from tests.e2e.documents import checkout as checkout
from tests.hub import hub

README = (ROOT / "README.md").read_text()
MOST_LINES = 150
TAG = "augreg_in21k_ft_in1k"
# What the README shows and this test does not run again: it would run itself; the demo has a test of its own.
ELSEWHERE = {"make test", "make demo"}


def test_every_command_works_as_printed(checkout, tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / "weights"
    save_for_hf(timm.create_model(PRETRAINED), weights, safe_serialization=True)
    shown = [command for command in commands(README) if command.partition("  #")[0] not in ELSEWHERE]
    assert len(shown) > 20
    environment = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": "."}
    with hub({f"timm/{PRETRAINED}.{TAG}": weights}) as endpoint:
        printed = Shell(checkout, checkout / "config.properties").run(shown, HF_ENDPOINT=endpoint, **environment)

    def output(part: str) -> str:
        return next(output for command, output in zip(shown, printed, strict=True) if part in command)

    assert "xray 2.0 is the default" in output("make roll")
    assert output("-T examples/digits/samples/7-a.png").startswith('{"7": 0.9')
    assert (checkout / "map.png").read_bytes().startswith(b"\x89PNG")
    assert "200 {'7': 0.9" in output("Client(")
    assert output("make stop") == "stopped\n"


def test_it_is_short():
    assert len(README.splitlines()) <= MOST_LINES


@pytest.mark.parametrize("file", ["README.md", *(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(file):
    document = ROOT / file
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    for link in links:
        path, _, section = link.partition("#")
        if not path.startswith("http"):
            target = document.parent / path if path else document
            assert target.exists(), link
            if section and target.suffix == ".md":
                heads = [re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in headings(target)]
                assert section in heads, link


def headings(document: Path) -> list[str]:
    return re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
