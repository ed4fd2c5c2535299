"""The contract between the export step and the handler: kept through a file, and a breach of it is one line."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import DIGITS, ROOT
from vit_core.archive import CONFIG, Archive
from vit_core.settings import (
    ACTIVATIONS,
    CROP_MODES,
    FORMAT,
    INTERPOLATIONS,
    LEAST_CROP,
    METHODS,
    MOST_CROP,
    NONE,
    SOFTMAX,
    TASKS,
    ArchiveError,
    Embedding,
    Explanations,
    Head,
    Limits,
    Preprocessing,
    Serving,
    Settings,
)

# --- what is written is what is read ---

counts = st.integers(1, 10**12)


def several(of: tuple) -> st.SearchStrategy:
    return st.lists(st.sampled_from(of), unique=True, max_size=len(of)).map(tuple)


@st.composite
def preprocessings(draw) -> Preprocessing:
    channels = draw(st.sampled_from([1, 3]))
    return Preprocessing(
        input_size=(channels, draw(counts), draw(counts)),
        interpolation=draw(st.sampled_from(INTERPOLATIONS)),
        crop_pct=draw(st.floats(LEAST_CROP, MOST_CROP)),
        crop_mode=draw(st.sampled_from(CROP_MODES)),
        mean=tuple(draw(st.floats(-10, 10)) for _ in range(channels)),
        std=tuple(draw(st.floats(1e-6, 10)) for _ in range(channels)),
    )


@st.composite
def heads(draw) -> Head:
    activation = draw(st.sampled_from(ACTIVATIONS))
    return Head(
        activation,
        draw(counts),
        draw(st.none() | st.lists(st.floats(0, 1)).map(tuple)),
        1.0 if activation == NONE else draw(st.just(1.0) | st.floats(0.01, 100)),
        draw(st.none() | st.floats(0.01, 1)) if activation == SOFTMAX else None,
    )


explanations = st.builds(
    Explanations,
    methods=several(METHODS),
    grid=st.none() | st.tuples(counts, counts),
    prefix_tokens=st.integers(0, 9),
    answer_tokens=st.lists(st.integers(0, 3), unique=True).map(tuple),
    unavailable=st.none() | st.text(),
)
all_settings = st.builds(
    Settings,
    preprocessing=preprocessings(),
    precisions=st.lists(st.sampled_from(["bf16", "fp16", "fp32", "int8"]), unique=True, min_size=1).map(tuple),
    flops=counts,
    explanations=explanations,
    tasks=st.lists(st.sampled_from(TASKS), unique=True, min_size=1).map(tuple),
    head=heads(),
    embedding=st.builds(Embedding, normalize=st.booleans()),
    limits=st.builds(Limits, max_bytes=counts, max_pixels=counts, max_images=counts, max_decode_seconds=counts),
    fast_pixels=st.booleans(),
)
servings = st.builds(
    Serving,
    min_workers=counts,
    max_workers=counts,
    batch_size=counts,
    max_batch_delay=counts,
    response_timeout=counts,
    startup_timeout=counts,
    device_type=st.none() | st.just("cpu"),
)


@given(all_settings)
def test_settings_come_back_from_yaml_and_json_as_they_were(settings):
    data = settings.to_dict()
    assert Settings.from_dict(data) == settings
    assert Settings.from_dict(yaml.safe_load(yaml.safe_dump(data))) == settings
    assert Settings.from_dict(json.loads(json.dumps(data))) == settings


def test_a_later_setting_at_its_default_is_not_written():
    """Older handlers refuse settings that they do not know."""
    assert Head().temperature == 1 and not {"temperature", "abstain"} & Settings.to_dict(SETTINGS)["head"].keys()
    assert replace(SETTINGS, head=Head(temperature=2.0)).to_dict()["head"]["temperature"] == 2


@given(servings)
def test_torchserves_settings_come_back_under_torchserves_names(serving):
    data = yaml.safe_load(yaml.safe_dump(serving.to_dict()))
    names = {"minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout"}
    assert data.keys() == names | ({"deviceType"} if serving.device_type else set())
    assert Serving.from_dict(data) == serving
    # What a user has added is TorchServe's business.
    assert Serving.from_dict(data | {"jobQueueSize": 100, "handler": {}}) == serving


# --- what cannot be followed is said in one line ---

PREPROCESSING = Preprocessing((3, 32, 32), "bicubic", 0.9, "center", (0.5,) * 3, (0.5,) * 3)
SETTINGS = Settings(PREPROCESSING, ("fp32",), 1000, Explanations(("gradient",), (2, 2)))


@pytest.mark.parametrize(
    ("found", "what_to_do"),
    [
        (FORMAT + 1, "use the handler of the version that exported it, or a newer one"),
        (FORMAT - 1, "export the model again"),
        (None, "export the model again"),  # archives from before the format was counted do not say theirs
        ("two", "use the handler of the version that exported it, or a newer one"),
    ],
)
def test_settings_of_another_format_say_what_to_do(found, what_to_do):
    data = SETTINGS.to_dict()
    del data["format"]
    data |= {"a setting of that format": 1} | ({} if found is None else {"format": found})
    with pytest.raises(ArchiveError) as caught:
        Settings.from_dict(data)
    message = str(caught.value)
    assert message.endswith(what_to_do) and f"this handler reads format {FORMAT}" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("path", "value", "parts"),
    [
        (["flops"], None, ["flops"]),
        (["preprocessing"], None, ["preprocessing"]),
        (["preprocessing", "crop_pct"], None, ["(preprocessing)", "crop_pct"]),
        (["flips"], 3, ["'flips'"]),
        (["limits", "max_bites"], 3, ["(limits)", "'max_bites'"]),
        (["limits"], 3, ["(limits)", "mapping", "int"]),
        (["preprocessing"], ["bicubic"], ["(preprocessing)", "mapping", "list"]),
        (["preprocessing", "interpolation"], "nearest", ["interpolation", "'nearest'", *INTERPOLATIONS]),
        (["preprocessing", "crop_mode"], "tile", ["crop_mode", "'tile'", *CROP_MODES]),
        (["preprocessing", "input_size"], [4, 32, 32], ["channels", "4", "1, 3"]),
        (["preprocessing", "mean"], [0.5], ["mean", "1 values", "3 channels"]),
        (["preprocessing", "std"], [0.5] * 4, ["std", "4 values", "3 channels"]),
        (["tasks"], ["classify", "detect"], ["task", "'detect'", *TASKS]),
        (["head", "activation"], "argmax", ["activation", "'argmax'", *ACTIVATIONS]),
        (["head", "temperature"], 0.0, ["temperature is 0.0", "above 0"]),
        (["head", "temperature"], float("inf"), ["temperature is inf", "finite"]),
        (["head", "temperature"], float("nan"), ["temperature is nan", "finite"]),
        (["head", "abstain"], 1.5, ["abstain is 1.5", "probability"]),
        (["preprocessing", "std"], [0.5, 0.0, 0.5], ["std is 0.5, 0.0, 0.5", "above 0"]),
        (["explanations", "methods"], ["shap"], ["method", "'shap'", *METHODS]),
    ],
)
def test_a_setting_that_is_missing_or_unknown_is_named(path, value, parts):
    """None stands for a setting that is not there."""
    data = SETTINGS.to_dict()
    *groups, name = path
    changed = data
    for group in groups:
        changed = changed[group]
    if value is None:
        del changed[name]
    else:
        changed[name] = value
    with pytest.raises(ArchiveError) as caught:
        Settings.from_dict(data)
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("handler: {format: 1}", "export the model again"),
        ("minWorkers: 1", "no archive of this project: 'handler'"),
        ("minWorkers: [", "no archive of this project: "),
        ("", "no archive of this project: "),
    ],
)
def test_an_archive_with_other_settings_is_said_to_be_none(text, part, digits_store, tmp_path):
    shutil.unpack_archive(digits_store / "digits.mar", tmp_path, "zip")
    assert Archive.read(tmp_path).labels == tuple("0123456789")
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(ArchiveError) as caught:
        Archive.read(tmp_path)
    assert part in str(caught.value) and "\n" not in str(caught.value)


# --- who needs what ---


def run_without(blocked: tuple[str, ...], script: str, folder) -> str:
    """What `script` prints where importing any of `blocked` fails, in a process of its own; it imports from `folder`."""
    command = [sys.executable, "-c", f"import sys\nsys.modules.update(dict.fromkeys({blocked!r}))\n{script}"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_contract_can_be_read_without_torch(digits_store, tmp_path):
    shutil.unpack_archive(digits_store / "digits.mar", tmp_path, "zip")
    script = "from pathlib import Path\nfrom vit_core.archive import Archive\nprint(Archive.read(Path()).settings.format)"
    assert run_without(("torch", "ts", "timm", "torchvision"), script, tmp_path) == f"{FORMAT}\n"


def test_an_archive_answers_with_its_own_code_where_there_is_no_torchserve_and_no_timm(digits_store, tmp_path):
    shutil.unpack_archive(digits_store / "digits.mar", tmp_path, "zip")
    picture = next((DIGITS / "samples").glob("3-*.*g"))
    script = (
        "import importlib, pkgutil\n"
        "from pathlib import Path\n"
        "import vit_core\n"
        "for module in pkgutil.iter_modules(vit_core.__path__, 'vit_core.'):\n"
        "    importlib.import_module(module.name)\n"
        "from vit_core.predictor import Predictor\n"
        "from vit_core.request import Sent\n"
        f"picture = {{'body': Path({str(picture)!r}).read_bytes()}}\n"
        "answered, explained = Predictor.load(Path()).answer([Sent(picture), Sent(picture, explains=True)])\n"
        "print(next(iter(answered.body)), explained.body['class'], vit_core.__file__)\n"
    )
    printed = run_without(("ts", "timm", "torchvision", "export", "serve"), script, tmp_path)
    assert printed == f"3 3 {tmp_path / 'vit_core' / '__init__.py'}\n"
    assert str(ROOT) not in printed
