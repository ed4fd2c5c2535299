"""Inputs that nobody means: each command ends with one line that names what is wrong, and leaves nothing behind."""

import json
import os
import threading
import zipfile
from pathlib import Path

import pytest

from command_line import exit_status
from export.__main__ import main as export
from predict.__main__ import main as predict
from serve.client import Client
from serve.errors import ServeError
from serve.server import Server
from serve.settings import check_ports, free_ports, port_overrides, read
from tests.conftest import DIGITS, ROOT, export_to

PICTURE = str(sorted((DIGITS / "samples").glob("*.*g"))[0])
VIT = {"architectures": ["ViTForImageClassification"], "hidden_act": "gelu"}


def one_line(capsys, message: str) -> None:
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and not printed.out, printed.err


def test_what_the_system_refuses_is_one_line_whatever_the_file_is_called(tmp_path, capsys):
    assert exit_status("demo", lambda: Path("a" * 300).read_bytes() and None) == 1
    one_line(capsys, "demo: [Errno 36] File name too long")
    assert export([f"{tmp_path}/a\nb.py:build"]) == 1
    one_line(capsys, "timm has no model named")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("3", "timm could not create"),
        ("null", "timm could not create"),
        ('"architectures"', "timm could not create"),
        ("[" * 100_000, "timm could not create"),
        ('{"architectures": null}', "settings of another kind than transformers saves"),
        ('{"architectures": []}', "settings of another kind"),
        (json.dumps(VIT | {"id2label": 3}), "settings of another kind"),
        (json.dumps(VIT | {"id2label": {"a": "b"}}), "settings of another kind"),
    ],
)
def test_a_config_of_another_kind_is_one_line(config, message, tmp_path, capsys):
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").touch()
    assert export([f"local-dir:{tmp_path}", "--model-name", "odd", "--model-store", str(tmp_path / "store")]) == 1
    one_line(capsys, message)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("names", [3, {"0": "a", "1": "b", "2": "c"}, [["a"], ["b"], ["c"]]])
def test_label_names_that_are_no_list_of_labels_are_refused(names, tiny_model, tmp_path, capsys):
    config = json.loads((tiny_model / "config.json").read_text())
    (tiny_model / "config.json").write_text(json.dumps(config | {"label_names": names}))
    assert export([f"local-dir:{tiny_model}", "--model-store", str(tmp_path / "store")]) == 1
    one_line(capsys, "label_names that are no list of labels")


NET = """
from torch import nn
class build(nn.Module):
    def forward(self, pixels):
        """


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys\nsys.exit(3)", "failed with SystemExit: 3"),
        ("def build():\n    raise SystemExit", "failed with SystemExit"),
        (f"{NET}return pixels.flatten(1)[:, :0]", "gives 0 numbers of torch.float32"),
        (f"{NET}return pixels.flatten(1)[:, :3].long()", "gives 3 numbers of torch.int64"),
        (f"{NET}raise SystemExit(3)", "failed on an input"),
    ],
)
def test_a_module_that_ends_the_program_or_gives_no_logits_is_one_line(text, message, tmp_path, capsys):
    (tmp_path / "net.py").write_text(text)
    assert export([f"{tmp_path}/net.py:build", "--img-size", "8", "--model-store", str(tmp_path / "store")]) == 1
    one_line(capsys, message)


@pytest.mark.parametrize(
    "option",
    ["--version=a/b", "--version=", "--crop-pct=0.0001", "--crop-pct=nan", f"--batch-size={2**31}", "--batch-size=\u00b2"],
)
def test_an_option_out_of_bounds_exits_with_2(option, capsys):
    with pytest.raises(SystemExit) as caught:
        export(["m", option])
    assert caught.value.code == 2 and f"argument {option.partition('=')[0]}: expected" in capsys.readouterr().err


def test_a_std_that_is_zero_in_float32_is_refused(tiny_model, tmp_path, capsys):
    assert export([f"local-dir:{tiny_model}", "--std", "1e-46,1,1", "--model-store", str(tmp_path / "store")]) == 1
    one_line(capsys, "std is 1e-46, 1.0, 1.0: expected numbers above 0")


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return export_to(tmp_path_factory.mktemp("store"), f"local-dir:{DIGITS}", "--precision", "fp32")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("model-config.yaml", "flops: ", "flops: x", "have flops 'x"),
        ("model-config.yaml", "crop_pct: ", "crop_pct: 100", "crop_pct is 100"),
        ("model-config.yaml", "crop_pct: ", "crop_pct: x", "(preprocessing) have crop_pct 'x"),
        ("model-config.yaml", "max_pixels: ", "max_pixels: x", "(limits) have max_pixels 'x"),
        ("model-config.yaml", "top_k: 5", "top_k: 0", "top_k is 0: expected at least 1"),
        ("model-config.yaml", "batchSize: 8", "batchSize: x", "have batch_size 'x'"),
        ("model-config.yaml", "batchSize: 8", "batchSize: 0", "batchSize is 0"),
        ("model-config.yaml", "    - 3\n    - 48", "    - 3\n    - 0", "the input's size is 0"),
        ("model-config.yaml", "    - 3\n    - 48", "    - 3\n    - x", "have input_size (3, 'x', 48)"),
        ("index_to_name.json", '"9": ', '"11": ', "is no archive of this project: '9'"),
        ("index_to_name.json", ',\n "9": "9"', "", "has 9 labels in index_to_name.json, and record.json says 10"),
        ("index_to_name.json", '"9": "9"', '"9": 9', "expected texts in index_to_name.json"),
        ("record.json", "{", "[{", "is no archive of this project"),
    ],
)
def test_an_archive_that_somebody_has_edited_is_one_line(name, old, new, message, archive, tmp_path, capsys):
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(tmp_path / "odd.mar", "w") as odd:
        for each in whole.namelist():
            data = whole.read(each)
            assert each != name or old in data.decode()
            odd.writestr(each, data.decode().replace(old, new) if each == name else data)
    assert predict([str(tmp_path / "odd.mar"), PICTURE]) == 1
    one_line(capsys, message)


def test_a_pipe_is_no_archive_and_is_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.mar")
    assert predict([str(tmp_path / "pipe.mar"), PICTURE]) == 1
    one_line(capsys, "pipe.mar is no file")


def test_a_picture_that_cannot_be_read_has_its_error_in_its_row(archive, capsys):
    unreadable = "/proc/self/mem"  # also for root
    assert predict([str(archive), PICTURE, unreadable, PICTURE, "--json"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("error", {}).get("type") for row in rows] == [None, "UnreadableFile", None]


@pytest.mark.parametrize("device", ["x", "hpu", "meta", "cuda:-1"])
def test_a_device_that_is_none_exits_with_2(device, archive, capsys):
    with pytest.raises(SystemExit) as caught:
        predict([str(archive), PICTURE, "--device", device])
    assert caught.value.code == 2 and "expected cpu or cuda:0" in capsys.readouterr().err


def test_settings_that_torchserve_cannot_run_with_are_named(tmp_path):
    file, text = tmp_path / "config.properties", (ROOT / "config.properties").read_text()
    for content, message in ((b"a=b", "does not set inference_address"), (b"\xff\xfe", "could not be read from")):
        file.write_bytes(content)
        with pytest.raises(ServeError, match=message):
            read(file)
    file.write_text(text)
    settings = read(file)
    settings |= port_overrides(settings, free_ports())
    check_ports(settings)
    for key, value, message in (
        ("grpc_inference_port", "x", "grpc_inference_port=x: expected the number of a port"),
        ("grpc_inference_port", "0", "a client could not know"),
        ("inference_address", "http://\u00fc..x:1", "cannot be used"),
        ("management_address", settings["inference_address"], "each needs its own"),
    ):
        with pytest.raises(ServeError, match=message):
            check_ports(settings | {key: value})


@pytest.mark.parametrize("state", ["", "[]", '{"processes": 3}', '{"processes": [[1]]}', '{"processes": [[-1, 0]]}', b"\xff"])
def test_a_damaged_record_of_the_server_is_named(state, tmp_path):
    (tmp_path / "server.json").write_bytes(state if isinstance(state, bytes) else state.encode())
    for ask in (Server(tmp_path).stop, Server(tmp_path).client):
        with pytest.raises(ServeError, match=r"server\.json is damaged: end the server that has written it"):
            ask()


def test_the_reason_of_a_death_is_waited_for(tmp_path):
    """TorchServe notes that a worker has stopped before it passes on what the worker printed last."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "ts_log.log").write_text("state change WORKER_STARTED -> WORKER_STOPPED\n")
    printed = "... - MODEL_LOG - ValueError: crop_mood is no setting\n"
    late = threading.Timer(0.5, (logs / "model_log.log").write_text, [printed])
    late.start()
    try:
        assert Server(tmp_path).reason() == "ValueError: crop_mood is no setting"
    finally:
        late.join()


def test_a_frame_of_a_stack_is_no_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("serve.server.LATE_SECONDS", 0)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "ts_log.log").write_text("WORKER_STOPPED\n\tat java.base/java.lang.Thread.run\n\t... 10 more\n")
    assert Server(tmp_path).reason() == "WORKER_STOPPED"


@pytest.mark.parametrize(
    "keys",
    [
        "[]",
        "{}",
        '{"management": {"key": "x", "expiration time": "x"}}',
        '{"management": {"key": "\u2028", "expiration time": "T"}}',
    ],
)
def test_a_key_file_of_another_kind_is_named(keys, tmp_path):
    (tmp_path / "config.properties").write_text((ROOT / "config.properties").read_text())
    (tmp_path / "key_file.json").write_text(keys.replace('"T"', '"2099-01-01T00:00:00Z"'))
    with pytest.raises(ServeError, match=r"key_file\.json has no management token as TorchServe writes it"):
        Client(tmp_path).token("management")
