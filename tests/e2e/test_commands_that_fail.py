"""What `serve` cannot do is one line that says why, and leaves nothing running."""

import re
import socket

from serve import __main__ as commands
from tests.conftest import ROOT
from tests.e2e.conftest import altered


def test_a_port_in_use_is_named(home, ports, digits_store, capsys):
    for name in ("port", "grpc-management-port"):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            number = str(taken.getsockname()[1])
            arguments = ["start", "digits", "--model-store", str(digits_store), *ports, f"--{name}", number]
            assert commands.main(arguments) == 1
        variable = name.upper().replace("-", "_")
        assert re.search(rf"port {number} .* Address already in use.* {variable}=…", capsys.readouterr().err)


def test_a_port_that_cannot_be_is_named(home, digits_store, capsys):
    assert commands.main(["start", "digits", "--model-store", str(digits_store), "--port", "99999"]) == 1
    assert "port 99999 (inference_address) cannot be used" in capsys.readouterr().err


def test_a_server_that_does_not_come_up_says_why(home, ports, digits_store, capsys):
    (home / "no.pem").write_text("no certificate, and no key")
    broken = "inference_address=https://127.0.0.1:8443\nprivate_key_file=no.pem\ncertificate_file=no.pem\n"
    (home / "config.properties").write_text((ROOT / "config.properties").read_text() + broken)
    (home / "metrics.yaml").write_text((ROOT / "metrics.yaml").read_text())
    config = ["--config", str(home / "config.properties")]
    assert commands.main(["start", "digits", "--model-store", str(digits_store), *config, *ports]) == 1
    assert re.search(r"TorchServe ended while it started: .*(Invalid configuration|Exception|Error)", capsys.readouterr().err)


def test_a_file_that_the_settings_name_and_is_not_there_is_named(home, ports, digits_store, capsys):
    (home / "config.properties").write_text((ROOT / "config.properties").read_text() + "certificate_file=/nowhere.pem\n")
    config = ["--config", str(home / "config.properties")]
    (home / "metrics.yaml").write_text((ROOT / "metrics.yaml").read_text())
    assert commands.main(["start", "digits", "--model-store", str(digits_store), *config, *ports]) == 1
    assert "certificate_file=/nowhere.pem in " in capsys.readouterr().err


def test_a_worker_that_dies_while_loading_says_why(home, ports, digits_store, capsys):
    altered(digits_store, home / "digits.mar", {"model-config.yaml": (b"crop_mode", b"crop_mood")})
    assert commands.main(["start", "digits", "--model-store", str(home), *ports]) == 1
    error = capsys.readouterr().err
    assert "a worker of digits died while it loaded: vit_core.mapping.ArchiveError:" in error
    assert "'crop_mood'" in error
    assert error.count("\n") == 1


def test_an_archive_that_is_not_there_is_named(home, ports, digits_store, capsys):
    assert commands.main(["start", "nothing", "--model-store", str(digits_store), *ports]) == 1
    error = capsys.readouterr().err
    assert error == f"serve: there is no nothing.mar in {digits_store}: make archive builds one\n"
