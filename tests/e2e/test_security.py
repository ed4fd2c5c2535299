"""What config.properties defends, tried on a real server; and the production example with TLS."""

import datetime
import ipaddress
import re
import shutil
import time
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from serve import settings
from serve.client import Client
from serve.server import Server
from serve.settings import free_ports
from tests.conftest import ROOT
from tests.e2e.conftest import SAMPLES, assert_same_answer, serving

PICTURE = SAMPLES[0][0]


@pytest.mark.parametrize("authorization", [{}, {"Authorization": "Bearer wrong"}, "management"], ids=["none", "wrong", "other"])
def test_predictions_are_refused_without_the_inference_token(client, authorization):
    headers = authorization
    if authorization == "management":
        headers = {"Authorization": f"Bearer {client.token('management')}"}
    url = f"{client.inference}/predictions/digits"
    response = requests.post(url, data=PICTURE.read_bytes(), headers=headers, timeout=10)
    assert (response.status_code, response.json()["type"]) == (400, "InvalidKeyException")


def test_management_is_refused_without_the_management_token(client):
    for headers in ({}, {"Authorization": f"Bearer {client.token('inference')}"}):
        for method, path in (("GET", "models"), ("DELETE", "models/digits"), ("POST", "models?url=digits.mar")):
            response = requests.request(method, f"{client.management}/{path}", headers=headers, timeout=10)
            assert (response.status_code, response.json()["type"]) == (400, "InvalidKeyException")
    assert client.models() == ["digits"]


def test_an_expired_token_is_refused_and_the_client_gets_a_new_one(digits_store, tmp_path):
    with serving(digits_store, tmp_path / "run", "digits.mar", "token_expiration_min=0.05") as client:
        old = client.token("inference")
        time.sleep(4)
        refused = requests.get(f"{client.inference}/ping", headers={"Authorization": f"Bearer {old}"}, timeout=10)
        assert (refused.status_code, refused.json()["type"]) == (400, "InvalidKeyException")
        assert client.request("GET", f"{client.inference}/ping", "inference").json() == {"status": "Healthy"}


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/evil.mar", "https://127.0.0.1:9/evil.mar", "file:///etc/evil.mar", "../evil.mar"]
)
def test_archives_from_elsewhere_are_refused(client, url):
    refused = client.request("POST", f"{client.management}/models", "management", params={"url": url})
    assert not refused.ok
    assert re.search(r"does not match any allowed URL|Relative path is not allowed", refused.json()["message"])


def test_another_sites_page_may_not_call_the_server(client):
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    response = requests.options(f"{client.inference}/predictions/digits", headers=headers, timeout=10)
    assert not [name for name in response.headers if name.lower().startswith("access-control")]


def test_it_listens_on_loopback_alone():
    for config in (ROOT / "config.properties", ROOT / "examples" / "production" / "config.properties"):
        configured = settings.read(config)
        for key in ("inference", "management", "metrics", "grpc_inference", "grpc_management"):
            assert configured[f"{key}_address"].removeprefix("http://").removeprefix("https://").split(":")[0] == "127.0.0.1"


# --- the production example ---


def self_signed(folder: Path) -> None:
    """certificate.pem and key.pem for 127.0.0.1."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*pem))


@pytest.fixture
def production(digits_store, tmp_path, monkeypatch) -> Client:
    monkeypatch.chdir(tmp_path)
    self_signed(tmp_path)
    shutil.copyfile(ROOT / "metrics.yaml", "metrics.yaml")
    server = Server(tmp_path / "run")
    client = server.start(ROOT / "examples" / "production" / "config.properties", digits_store, free_ports())
    deadline = time.monotonic() + 60  # it answers before the models of load_models have their workers
    while client.predict("digits", PICTURE.read_bytes()).status_code == 503 and time.monotonic() < deadline:
        time.sleep(0.2)
    yield client
    server.stop()


def test_the_production_example_answers_over_tls_alone(production, expected):
    assert production.inference.startswith("https://127.0.0.1:")
    assert_same_answer(production.predict("digits", PICTURE.read_bytes()).json(), expected[PICTURE.name])
    with pytest.raises(requests.exceptions.SSLError):  # to who does not know the certificate
        requests.get(f"{production.inference}/ping", timeout=10)
    plain = production.inference.replace("https:", "http:")
    token = {"Authorization": f"Bearer {production.token('inference')}"}
    refused = requests.post(f"{plain}/predictions/digits", data=PICTURE.read_bytes(), headers=token, timeout=10)
    assert (refused.status_code, refused.json()) == (403, {"status": "This TorchServe instance only accepts HTTPS requests"})


def test_nobody_can_register_a_model_in_production(production, digits_store, tmp_path):
    unpacked = tmp_path / "unpacked"
    shutil.unpack_archive(digits_store / "digits.mar", unpacked, "zip")
    for url in ("digits.mar", str(unpacked)):
        parameters = {"url": url, "model_name": "other"}
        refused = production.request("POST", f"{production.management}/models", "management", params=parameters)
        assert (refused.status_code, refused.json()["type"]) == (405, "MethodNotAllowedException")
    assert production.models() == ["digits"]
