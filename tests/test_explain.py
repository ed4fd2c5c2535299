"""Explanations: what their relevance means, and for which models there are any."""

import io
import json
import zipfile

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from tests.conftest import DIGITS, TINY, export_to
from tests.in_process import handle, jpeg, load, statuses
from vit_core.pixels import resize_and_crop

PATCH = 8  # pixels of the digits example's patches, of which it has 6 x 6


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return load(export_to(folder, f"local-dir:{DIGITS}", "--precision", "fp32"), folder / "unpacked")


def digit(index: int, x: int, y: int) -> Image.Image:
    """One of scikit-learn's handwritten digits, 32 x 32, on a white page of 48 x 48."""
    ink = Image.fromarray((255 - load_digits().images[index] * 15.9).astype("uint8"))
    page = Image.new("RGB", (48, 48), "white")
    page.paste(ink.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB"), (x, y))
    return page


def png(image: Image.Image) -> bytearray:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return bytearray(buffer.getvalue())


def explained(loaded, rows: list[dict], **headers: str) -> list:
    handler, context = loaded
    return handle(handler, context, rows, {"explain": "True", **headers})


# --- that they mean something ---


def without(pixels: torch.Tensor, patches: list[int]) -> torch.Tensor:
    """`pixels` with these patches white."""
    changed = pixels.clone()
    for patch in patches:
        row, column = (PATCH * place for place in divmod(patch, 6))
        changed[:, row : row + PATCH, column : column + PATCH] = 255
    return changed


@pytest.mark.parametrize("method", ["gradient", "rollout"])
def test_without_its_most_relevant_patches_a_digit_is_lost_and_with_them_alone_it_is_found(digits, method):
    """Deletion and insertion (Petsiuk et al., RISE, 2018), by the mean probability of the class over sixty digits.

    Measured: without six of 36 patches, random ones cost 0.25, the most relevant 0.68 (gradient) and 0.65 (rollout); with
    nine alone a digit has 0.22 by random ones, 0.70 and 0.68 by the most relevant.
    """
    handler, _ = digits
    rng = np.random.default_rng(0)
    pages = [digit(index, *rng.integers(0, 17, 2)) for index in range(0, 1797, 30)]
    pixels = [resize_and_crop(page, handler.predictor.archive.settings.preprocessing) for page in pages]
    explanations = [handler.predictor._explainer.explain(each, None, method) for each in pixels]
    orders = [explanation.relevance.flatten().argsort(descending=True).tolist() for explanation in explanations]
    shuffled = [rng.permutation(36).tolist() for _ in pixels]

    def probability(changed: list[torch.Tensor]) -> float:
        outputs = handler.predictor.model.outputs(torch.stack(changed)).scores
        return sum(row[each.target].item() for row, each in zip(outputs, explanations, strict=True)) / len(outputs)

    whole = probability(pixels)
    lost = {
        name: whole - probability([without(each, order[:6]) for each, order in zip(pixels, chosen, strict=True)])
        for name, chosen in {"relevant": orders, "random": shuffled}.items()
    }
    found = {
        name: probability([without(each, order[9:]) for each, order in zip(pixels, chosen, strict=True)])
        for name, chosen in {"relevant": orders, "random": shuffled}.items()
    }
    assert lost["relevant"] > lost["random"] + 0.3
    assert found["relevant"] > found["random"] + 0.3


def test_the_map_follows_a_digit_that_moves(digits):
    handler, _ = digits
    centers = []
    for x, y in ((0, 0), (16, 0), (0, 16), (16, 16)):
        found = []
        for index in range(10):
            pixels = resize_and_crop(digit(index, x, y), handler.predictor.archive.settings.preprocessing)
            relevance = handler.predictor._explainer.explain(pixels, index, "gradient").relevance
            rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
            found.append([float((relevance * axis).sum() / relevance.sum()) for axis in (columns, rows)])
        centers.append(np.mean(found, axis=0))  # x, y in patches: a digit moves by two
    (left, top), (right, _), (_, bottom), (far_right, far_bottom) = centers
    for near, far in ((left, right), (top, bottom), (left, far_right), (top, far_bottom)):
        assert far > near + 0.7


def test_another_class_has_another_map(digits):
    body = png(digit(8, 8, 8))
    maps = [explained(digits, [{"body": body, "target": target.encode()}])[0] for target in ("8", "3")]
    assert [each["class"] for each in maps] == ["8", "3"]
    assert maps[0]["probability"] > maps[1]["probability"]
    difference = np.subtract(*(np.array(each["relevance"]) for each in maps))
    assert np.abs(difference).max() > 0.1


# --- what a request gets ---


def test_an_explanation_is_a_grid_with_the_class_and_its_probability(digits):
    handler, context = digits
    (answer,) = explained(digits, [{"body": png(digit(3, 8, 8))}])
    (labelled,) = handle(handler, context, [{"body": png(digit(3, 8, 8))}])
    assert (answer["class"], answer["method"]) == ("3", "gradient") and next(iter(labelled)) == "3"
    assert answer["probability"] == pytest.approx(labelled["3"], abs=1e-3)
    relevance = np.array(answer["relevance"])
    assert relevance.shape == (6, 6) and relevance.min() >= 0 and relevance.max() == 1


def test_predictions_explanations_and_mistakes_share_a_batch(digits):
    handler, context = digits
    body = png(digit(5, 8, 8))
    rows = [{"body": body}, {"body": body}, {"body": b"no image"}, {"a": body, "b": body}, {"body": body, "method": b"rollout"}]
    context.request_ids = {index: f"request-{index}" for index in range(5)}
    answers = handle(handler, context, rows)
    assert next(iter(answers[0])) == "5" and statuses(context) == [200, 200, 415, 200, 200]
    explanations = explained(digits, rows)
    assert statuses(context) == [200, 200, 415, 200, 200]
    assert explanations[0] == explanations[1] == explanations[3][0] == explanations[3][1]
    assert explanations[4]["method"] == "rollout"


@pytest.mark.parametrize(
    ("fields", "status", "part"),
    [
        ({"target": b"cat"}, 400, "target should be a label, or an index below 10, not 'cat'"),
        ({"target": b"10"}, 400, "an index below 10"),
        ({"method": b"shap"}, 400, "method should be gradient or rollout"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(fields, status, part, digits):
    (answer,) = explained(digits, [{"body": png(digit(5, 8, 8)), **fields}])
    assert answer["code"] == status and part in answer["message"]


def test_a_picture_is_the_image_with_its_map_over_it_and_a_caption(digits):
    _, context = digits
    (answer,) = explained(digits, [{"body": png(digit(3, 16, 16))}], Accept="image/png;q=0.9, application/json;q=0.5")
    assert context.get_response_headers(0)["content-type"] == "image/png"
    picture = Image.open(io.BytesIO(answer))
    assert picture.format == "PNG" and picture.width == 288 and picture.height > 288
    colours = np.asarray(picture.crop((0, 0, 288, 288)).convert("RGB")).astype(int)
    yellow = colours[..., 0] - colours[..., 2]  # viridis' bright end is yellow, its dark end violet
    assert yellow[96:, 96:].max() > yellow[:96, :96].max() + 50  # the digit is at the lower right
    caption = np.asarray(picture.crop((0, 288, 288, picture.height)).convert("L"))
    assert (caption < 100).any() and (caption == 255).mean() > 0.5
    (several,) = explained(digits, [{"a": png(digit(3, 0, 0)), "b": png(digit(3, 0, 0))}], Accept="image/png")
    assert several["code"] == 406 and "one image" in several["message"]


# --- for which models ---


@pytest.mark.parametrize(
    ("name", "options", "grid", "methods"),
    [
        ("vit_tiny_patch16_224", TINY, [2, 2], ["gradient", "rollout"]),
        ("vit_tiny_patch16_224", {**TINY, "class_token": False, "global_pool": "map"}, [2, 2], ["gradient", "rollout"]),
        ("beit_base_patch16_224", {**TINY, "img_size": 64}, [4, 4], ["gradient", "rollout"]),
        ("swin_tiny_patch4_window7_224", {"img_size": 56, "embed_dim": 24, "depths": (1, 1, 1, 1)}, [2, 2], ["gradient"]),
        ("convnext_atto", {}, [2, 2], ["gradient"]),
        ("resnet18", {}, [2, 2], ["gradient"]),
    ],
)
def test_every_family_that_can_is_explained(name, options, grid, methods, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **options)
    folder = tmp_path / "model"
    timm.models.save_for_hf(model, folder, model_config={"model_args": options}, safe_serialization=True)
    size = [] if "img_size" in options else ["--img-size", "64"]
    loaded = load(export_to(tmp_path, f"local-dir:{folder}", "--precision", "fp32", *size), tmp_path / "unpacked")
    for method in methods:
        (answer,) = explained(loaded, [{"body": jpeg(1)}], **{"X-Method": method, "X-Target": "2"})
        assert (answer["class"], answer["method"]) == ("2", method)
        assert list(np.array(answer["relevance"]).shape) == grid
        assert np.isfinite(answer["relevance"]).all()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--no-explain"], "it was exported without explanations"),
        (["--task", "embed"], "it has no classes to explain"),
    ],
)
def test_an_archive_that_cannot_explain_says_why(options, reason, tiny_model, tmp_path):
    loaded = load(export_to(tmp_path, f"local-dir:{tiny_model}", *options), tmp_path / "unpacked")
    (answer,) = explained(loaded, [{"body": jpeg(1)}])
    assert answer["code"] == 501 and answer["type"] == "NotExplainable" and reason in answer["message"]
    (answer,) = handle(*loaded, [{"body": jpeg(1)}])
    assert "code" not in answer  # a prediction is answered


def test_int8_is_explained_by_its_weights_as_fp32_is(digits, tmp_path):
    """Rounded activations have no gradients: an explanation goes through the same weights with activations as they are."""
    archive = export_to(tmp_path, f"local-dir:{DIGITS}", "--precision", "int8")
    in_int8 = load(archive, tmp_path / "unpacked")
    for picture in sorted((DIGITS / "samples").glob("*-a.*"))[:4]:
        rows = [{"body": picture.read_bytes()}]
        for method in ("gradient", "rollout"):
            (found,), (expected,) = (explained(loaded, rows, **{"X-Method": method}) for loaded in (in_int8, digits))
            maps = [np.array(each["relevance"]).ravel() for each in (found, expected)]
            assert found["class"] == expected["class"] and np.corrcoef(*maps)[0, 1] > 0.95


def test_a_module_that_is_not_timms_is_exported_and_answers_501(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))\n"
    )
    archive = export_to(tmp_path, f"{tmp_path / 'net.py'}:build", "--model-name", "net", "--img-size", "32")
    (answer,) = explained(load(archive, tmp_path / "unpacked"), [{"body": jpeg(1)}])
    assert answer["code"] == 501 and "none of timm's" in answer["message"]


def test_predicting_costs_nothing_for_what_explains(digits):
    """The frozen trace that predicts has no second output, and what explains is loaded when it is first asked for."""
    handler, context = digits
    assert not hasattr(handler.predictor.model._trace, "explain")
    handler.predictor._explainer._trace = None
    handle(handler, context, [{"body": png(digit(1, 0, 0))}])
    assert handler.predictor._explainer._trace is None


def test_the_archive_says_how_it_explains(tiny_model, tmp_path):
    archive = export_to(tmp_path, f"local-dir:{tiny_model}")
    with zipfile.ZipFile(archive) as file:
        config = yaml.safe_load(file.read("model-config.yaml"))
        assert json.loads(file.read("record.json"))["explanations"] == config["handler"]["explanations"]
    assert config["handler"]["explanations"]["methods"] == ["gradient", "rollout"]
