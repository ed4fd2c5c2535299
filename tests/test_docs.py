"""What the documents say is what the code has."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
import ts
import yaml

from evaluate import arguments as evaluate
from serve.server import ENVIRONMENT
from tests.conftest import ROOT
from vit_core.request import IMAGE_KEYS, OPTIONS
from vit_core.settings import Limits

METRICS = yaml.safe_load((ROOT / "metrics.yaml").read_text())


def names(metrics: dict, *groups: str) -> dict[str, list]:
    return {metric["name"]: metric["dimensions"] for group in groups for kind in metrics[group].values() for metric in kind}


def test_the_dashboard_shows_metrics_that_there_are():
    dashboard = json.loads((ROOT / "examples" / "production" / "grafana.json").read_text())
    expressions = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    used = set(re.findall(r"(?:rate|avg|avg by \(\w+\)) ?\((\w+)", expressions)) - {"rate"}
    known = names(METRICS, "ts_metrics", "model_metrics")
    assert len(used) > 10
    assert {re.sub(r"_(sum|count|bucket)$", "", name) for name in used} <= known.keys()
    assert {"RefusedRequests", "BatchSize"} <= {re.sub(r"_(sum|count|bucket)$", "", name) for name in used}


def test_torchserves_own_metrics_are_all_there():
    theirs = yaml.safe_load((Path(ts.__file__).parent / "configs" / "metrics.yaml").read_text())
    assert names(theirs, "ts_metrics").items() <= names(METRICS, "ts_metrics").items()


def test_the_handlers_metrics_are_all_there():
    source = "".join(file.read_text() for file in (ROOT / "handler").rglob("*.py"))
    emitted = set(re.findall(r'(?:timed|_observe|add_counter|add_metric)\("(\w+)"', source))
    assert emitted == names(METRICS, "model_metrics").keys() - {"PredictionTime"}


def test_the_openapi_description_has_the_keys_that_are_read():
    document = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())
    schemas = document["components"]["schemas"]
    assert set(schemas["Images"]["properties"]) <= {*IMAGE_KEYS, *OPTIONS, "instances"}
    assert set(OPTIONS) < set(schemas["Images"]["properties"])
    paths = [document["paths"][f"/{path}/{{model}}"]["post"] for path in ("predictions", "explanations")]
    parameters = {each["name"].lower() for path in paths for each in path["parameters"]}
    assert {f"x-{option.replace('_', '-')}" for option in OPTIONS} < parameters
    references = re.findall(r"#/components/(\w+)/(\w+)", json.dumps(document))
    assert references and all(name in document["components"][kind] for kind, name in references)


def test_each_limit_is_documented():
    text = (ROOT / "docs" / "requests.md").read_text()
    for limit in fields(Limits):
        assert f"--{limit.name.replace('_', '-')}" in text


def test_each_option_of_the_evaluation_is_documented(capsys):
    with pytest.raises(SystemExit):
        evaluate.parse(["--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert len(options) > 7
    text = (ROOT / "docs" / "evaluate.md").read_text()
    assert {option for option in options if option not in text} == set()


def test_who_starts_torchserve_by_hand_is_told_what_to_set():
    for file in ("README.md", "examples/production/README.md"):
        exported = set(re.findall(r"export (\w+=\w+)", (ROOT / file).read_text()))
        assert {f"{name}={value}" for name, value in ENVIRONMENT.items()} <= exported
