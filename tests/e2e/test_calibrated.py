"""A fitted temperature and a probability to abstain below, as a real TorchServe answers with them."""

from pathlib import Path

import pytest

from serve.client import Client
from tests.conftest import DIGITS, export_to
from tests.e2e.conftest import SAMPLES, serving
from tests.labelled import by_class, evaluated
from vit_core.predictor import Predictor
from vit_core.request import Request

ABSTAIN = 0.9
BODIES = [picture.read_bytes() for picture, _ in SAMPLES]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """The example as it is, with a fitted temperature, and as an archive that abstains; all in fp32."""
    store = tmp_path_factory.mktemp("store")
    plain = export_to(store, f"local-dir:{DIGITS}", "--precision", "fp32")
    export_to(store, f"local-dir:{DIGITS}", "--precision", "fp32", "--model-name", "cautious", "--abstain", str(ABSTAIN))
    pictures = by_class(tmp_path_factory.mktemp("pictures") / "p")
    evaluated(tmp_path_factory.mktemp("report"), plain, pictures, "--fit-temperature", store / "calibrated.mar")
    return store


def answers(client: Client, name: str) -> list[dict]:
    responses = [client.predict(name, body) for body in BODIES]
    assert [response.status_code for response in responses] == [200] * len(BODIES)
    return [response.json() for response in responses]


def test_the_server_answers_as_the_archives_do_in_process(store, tmp_path):
    with serving(store, tmp_path / "run", "digits.mar") as client:
        plain = answers(client, "digits")
        for name in ("cautious", "calibrated"):
            client.register(f"{name}.mar")
        found = {name: answers(client, name) for name in ("cautious", "calibrated")}
    for name, served in found.items():
        predictor = Predictor.load(store / f"{name}.mar")
        expected = [answer.body for answer in predictor.answer([Request([body]) for body in BODIES])]
        for answer, own in zip(served, expected, strict=True):
            assert list(answer) == list(own) and answer == pytest.approx(own, abs=1e-6)
    unsure = [max(answer.values()) < ABSTAIN for answer in plain]
    assert [list(answer) == ["unknown"] for answer in found["cautious"]] == unsure and 0 < sum(unsure) < len(BODIES)
    # The fit found the model too sure: the same labels, less probable.
    for answer, cooler in zip(plain, found["calibrated"], strict=True):
        assert next(iter(answer)) == next(iter(cooler)) and max(cooler.values()) < max(answer.values())
