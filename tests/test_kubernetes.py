"""The manifests are what Kubernetes and the operators' schemas allow, to the last field; and they fit together."""

import copy
import functools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml

from serve.__main__ import parse
from serve.settings import read
from tests.conftest import ROOT

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="requirements-deploy.txt is not installed")
KUBECTL = shutil.which("kubectl", path=Path(sys.executable).parent) or shutil.which("kubectl")
if not KUBECTL:
    pytest.skip("there is no kubectl: requirements-deploy.txt brings it", allow_module_level=True)

MANIFESTS = ROOT / "deploy" / "kubernetes"
RENDERED = ("base", "overlays/cpu", "overlays/gpu", "kserve")
CUSTOM = {file.stem: json.loads(file.read_text()) for file in (Path(__file__).parent / "crds").glob("*.json")}
VERSION = "1.31"  # the oldest that is still supported by the time of writing


@functools.cache
def rendered(folder: str) -> list[dict]:
    command = [KUBECTL, "kustomize", str(MANIFESTS / folder)]
    return list(yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def closed(schema):
    """The same schema, which refuses fields that it does not name, as `kubectl apply --validate=strict` does."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        found.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        found["type"] = ["integer", "string"]
    return found


@functools.cache
def custom_validator(kind: str) -> jsonschema.Draft7Validator:
    schema = closed(CUSTOM[kind]["schema"])
    schema["properties"]["metadata"] = True  # Kubernetes' own: validated with its kinds
    return jsonschema.Draft7Validator(schema)


def validate(manifest: dict) -> None:
    """Raises ValidationError."""
    custom = CUSTOM.get(manifest["kind"])
    if custom is None:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
        return
    assert manifest["apiVersion"] == custom["apiVersion"]
    metadata = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest["metadata"]}
    kubernetes_validate.validate(metadata, VERSION, strict=True)
    custom_validator(manifest["kind"]).validate(manifest)


INVALID = (jsonschema.ValidationError, kubernetes_validate.ValidationError)
KINDS = {manifest["kind"]: manifest for folder in RENDERED for manifest in rendered(folder)}


@pytest.mark.parametrize("folder", RENDERED)
def test_what_is_rendered_is_valid(folder):
    for manifest in rendered(folder):
        validate(manifest)


def fields(manifest, path: tuple = ()) -> Iterator[tuple]:
    """The path of every field whose name a schema knows; labels and their kin have any name."""
    free = ("metadata", "matchLabels", "labels", "selector", "limits", "requests")
    items = manifest.items() if isinstance(manifest, dict) else enumerate(manifest) if isinstance(manifest, list) else ()
    for key, value in items:
        if isinstance(key, str):
            yield (*path, key)
        if key not in free:
            yield from fields(value, (*path, key))


@pytest.mark.parametrize("kind", KINDS)
def test_a_typo_in_any_field_of_any_kind_is_found(kind):
    spec = KINDS[kind]["spec"]
    # What a trigger of KEDA's takes depends on the trigger: its schema leaves it open.
    paths = [path for path in fields(spec) if path[:1] != ("triggers",) or "metadata" not in path[:-1]]
    assert len(paths) > 2
    for *where, name in paths:
        manifest = copy.deepcopy(KINDS[kind])
        place = manifest["spec"]
        for key in where:
            place = place[key]
        place[name + "s"] = place.pop(name)
        with pytest.raises(INVALID):
            validate(manifest)


def test_every_kind_is_there():
    core = {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"}
    assert KINDS.keys() == core | CUSTOM.keys()


def pod(folder: str) -> dict:
    by_kind = {manifest["kind"]: manifest["spec"] for manifest in rendered(folder)}
    return by_kind["InferenceService"]["predictor"] if folder == "kserve" else by_kind["Deployment"]["template"]["spec"]


@pytest.mark.parametrize("folder", RENDERED)
def test_the_numbers_fit_together(folder):
    (container,) = pod(folder)["containers"]
    options = parse(container["args"])
    assert options.model_names == ["digits"]
    assert options.notice < options.grace < pod(folder)["terminationGracePeriodSeconds"]
    ports = {each.get("name"): each["containerPort"] for each in container["ports"]}
    config = read(ROOT / "deploy" / "container" / "config.properties")
    assert config["inference_address"] == "http://0.0.0.0:8080" and 8080 in ports.values()
    assert options.probes == ("0.0.0.0", 8083)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert ports.get(asked["port"], asked["port"]) == 8083
        assert asked["path"] == ("/live" if probe == "livenessProbe" else "/ready")
    # Nothing is reached from outside a pod but these two.
    assert {key for key in config if "address" in key and "127.0.0.1" not in config[key]} == {"inference_address"}


@pytest.mark.parametrize("folder", RENDERED)
def test_a_pod_may_do_no_more_than_serve(folder):
    (container,) = pod(folder)["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    dockerfile = (ROOT / "deploy" / "container" / "Dockerfile").read_text()
    user = int(re.search(r"^USER (\d+):\1$", dockerfile, re.MULTILINE)[1])
    context = pod(folder)["securityContext"]
    assert context["runAsNonRoot"] and {context[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {user}
    assert pod(folder)["automountServiceAccountToken"] is False
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert mounts == {"/app/model_store": True, "/app/.torchserve": False, "/tmp": False}


def test_kserve_runs_the_pod_that_the_deployment_runs():
    deployment, kserve = pod("overlays/cpu"), pod("kserve")
    ours, theirs = deployment["containers"][0], kserve["containers"][0]
    for key in ("args", "image", "resources", "securityContext", "volumeMounts"):
        assert ours[key] == theirs[key]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert {**ours[probe], "httpGet": None} == {**theirs[probe], "httpGet": None}
    for key in ("securityContext", "terminationGracePeriodSeconds", "volumes"):
        assert deployment[key] == kserve[key]
