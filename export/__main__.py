"""`python -m export MODEL [options]`: the command line of the export step."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from export.errors import ExportError
from export.preprocessing import CHANNELS, CROP_MODES, INTERPOLATIONS
from export.record import make_record, show, weights_source

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
PREPROCESSING = ("img_size", "in_chans", "interpolation", "crop_pct", "crop_mode", "mean", "std")
MOST_WORKERS = 24  # that are started without being asked for: three for each of eight GPUs
LIMITS = ("max_bytes", "max_pixels", "max_images", "max_decode_seconds")
EXAMPLES = """examples:
  python -m export vit_base_patch16_224
      pretrained weights from the Hugging Face hub, ImageNet's thousand classes
  python -m export vit_small_patch16_224 --checkpoint best.pth --num-classes 2 --labels labels.txt --model-name xray
      your fine-tuned weights and your labels
  python -m export path/to/net.py:build --checkpoint best.pth --img-size 384
      a module of your own: build() returns it
  python -m export local-dir:examples/digits --force
      a folder that timm saved: config.json and model.safetensors
"""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Trace a timm image classifier, prove the trace equal to it, and pack it as a TorchServe archive.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="a timm model name, an hf-hub: name, a local-dir: folder, or path/to/file.py:callable that returns a module",
    )
    parser.add_argument(
        "--show", type=Path, metavar="FILE.mar", help="print what an archive says of itself, and do nothing else"
    )

    weights = parser.add_argument_group("weights and labels")
    weights.add_argument("--checkpoint", type=Path, metavar="FILE", help="load these weights (default: the pretrained ones)")
    weights.add_argument("--no-pretrained", action="store_true", help="random weights: to try a model out, or for speed tests")
    weights.add_argument("--num-classes", type=_positive, metavar="N", help="size of the head (default: the model's own)")
    weights.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="text with one label a line, JSON (list, index to label, id2label) or CSV with a header "
        "(default: the model's own, ImageNet's names, or the class indices)",
    )

    weights.add_argument(
        "--task",
        type=_tasks,
        default=["classify"],
        metavar="TASK",
        help="classify (default), embed, or classify,embed: label and probability; the features before the classifier; both "
        "from one pass, the first of them where a request does not say",
    )
    weights.add_argument("--normalize", action="store_true", help="embeddings of length 1 (L2)")

    pixels = parser.add_argument_group("preprocessing", "default: timm's evaluation preprocessing for the model")
    pixels.add_argument("--img-size", type=_positive, metavar="N", help="square input of N pixels")
    pixels.add_argument("--in-chans", type=int, choices=CHANNELS, help="colours, or grey alone")
    pixels.add_argument("--interpolation", choices=INTERPOLATIONS)
    pixels.add_argument("--crop-pct", type=_fraction, metavar="P", help="share of the resized edge that the crop keeps")
    pixels.add_argument("--crop-mode", choices=CROP_MODES, help="cut the edges off, squash the picture, or add a border")
    pixels.add_argument("--mean", type=_floats, metavar="R,G,B", help="of pixels in 0..1")
    pixels.add_argument("--std", type=_floats, metavar="R,G,B")

    pixels.add_argument(
        "--fast-pixels",
        action="store_true",
        help="decode large JPEGs at a half to an eighth of their size and resize with torch: pixels may differ from "
        "timm's by some 255ths (default: equal to the bit)",
    )

    archive = parser.add_argument_group("archive")
    archive.add_argument("--model-name", type=_model_name, metavar="NAME", help="name to serve it by (default: after MODEL)")
    archive.add_argument("--version", default="1.0", help="version to serve it by (default: %(default)s)")
    archive.add_argument(
        "--model-store",
        type=Path,
        default=Path("model_store"),
        metavar="FOLDER",
        help="where the archive goes (default: %(default)s)",
    )
    archive.add_argument("--force", action="store_true", help="replace an archive of the same name")

    serving = parser.add_argument_group("serving", "defaults of the archive; a client of the management API can override them")
    serving.add_argument(
        "--batch-size", type=_positive, default=8, metavar="N", help="most images a call (default: %(default)s)"
    )
    serving.add_argument(
        "--max-batch-delay",
        type=_positive,
        default=1,
        metavar="MS",
        help="how long a request waits for others, at least 1 (default: %(default)s; a busy worker fills batches anyway)",
    )
    serving.add_argument(
        "--workers",
        type=_positive,
        metavar="N",
        help=f"processes (default: 1; make serve adds others, up to {MOST_WORKERS}, on GPUs, and for a small model on a CPU)",
    )
    serving.add_argument(
        "--response-timeout", type=_positive, default=120, metavar="S", help="seconds to answer in (default: %(default)s)"
    )
    serving.add_argument(
        "--startup-timeout", type=_positive, default=120, metavar="S", help="seconds to load in (default: %(default)s)"
    )
    serving.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="to multiply in (default: %(default)s, what the device does natively and fastest of fp32 and those of bf16 and "
        "fp16 that stay near it; int8 is for CPUs)",
    )
    serving.add_argument("--top-k", type=_positive, default=5, metavar="K", help="labels in an answer (default: %(default)s)")

    limits = parser.add_argument_group("limits", "what goes beyond them is refused with 413")
    limits.add_argument(
        "--max-bytes", type=_positive, default=20_000_000, metavar="N", help="of an image file (default: %(default)s)"
    )
    limits.add_argument(
        "--max-pixels", type=_positive, default=50_000_000, metavar="N", help="of an image (default: %(default)s)"
    )
    limits.add_argument("--max-images", type=_positive, default=32, metavar="N", help="in one request (default: %(default)s)")
    limits.add_argument(
        "--max-decode-seconds",
        type=_positive,
        default=5,
        metavar="S",
        help="for the images of one request together (default: %(default)s)",
    )

    options = parser.parse_args(arguments)
    if (options.model is None) == (options.show is None):
        parser.error("give either MODEL or --show FILE.mar")
    if options.model and options.model_name is None:
        # The last part: digits of local-dir:examples/digits, vit-x of hf-hub:org/vit-x
        last = re.split(r"[:/]", options.model.rstrip("/"))[-1]
        try:
            options.model_name = _model_name(last)
        except argparse.ArgumentTypeError:
            parser.error(f"{last!r} cannot be a model's name: give another one with --model-name")
    return options


def export(options: argparse.Namespace) -> str:
    """Makes the archive and returns a summary of it. Raises ExportError."""
    _show_step(f"creating {options.model}")
    # Not at the top: torch takes seconds to import, and --help or a wrong argument should be answered at once.
    from export.archive import destination, write_archive
    from export.fold import fold
    from export.int8 import quantize
    from export.labels import class_labels
    from export.model import create_classifier
    from export.precision import choose_precisions
    from export.served import explanation_settings, served
    from export.trace import baked_devices, prove, trace

    archive = destination(options.model_store, options.model_name, options.force)
    preprocessing = {key: getattr(options, key) for key in PREPROCESSING}
    classifies = "classify" in options.task
    classifier = create_classifier(
        options.model, not options.no_pretrained, options.num_classes, options.checkpoint, preprocessing, classifies
    )
    labels = class_labels(classifier.pretrained_cfg, classifier.num_classes, options.labels) if classifies else []
    input_size = classifier.preprocessing["input_size"]
    int8 = options.precision == "int8"
    _show_step("quantizing" if int8 else "tracing")
    eager = served(classifier.module, options.task)
    folded = served(fold(classifier.module), options.task)
    if int8:
        folded = quantize(folded, input_size)
    explanation = explanation_settings(folded, input_size)
    if int8:
        explanation = {"unavailable": "int8 has no gradients"}
    traced = trace(folded, input_size, "unavailable" not in explanation)
    _show_step("running model and trace side by side")
    proof = prove(folded if int8 else eager, traced, input_size)
    precisions, agreement = choose_precisions(
        options.precision, eager, traced, len(labels), classifier.preprocessing, _show_step
    )
    limits = {name: getattr(options, name) for name in LIMITS}
    config = {
        "minWorkers": options.workers or 1,
        "maxWorkers": options.workers or MOST_WORKERS,
        "batchSize": options.batch_size,
        "maxBatchDelay": options.max_batch_delay,
        "responseTimeout": options.response_timeout,
        "startupTimeout": options.startup_timeout,
        "handler": {
            **classifier.preprocessing,
            "fast_pixels": options.fast_pixels,
            "precision": precisions,
            "limits": limits,
            "top_k": options.top_k,
            "tasks": options.task,
            "normalize": options.normalize,
            "explain": explanation,
        },
    }
    baked = baked_devices(traced)
    if baked or int8:
        config["deviceType"] = "cpu"  # TorchServe gives its workers no GPU then
    pretrained = not options.no_pretrained
    source = weights_source(options.model, options.checkpoint, pretrained, classifier.pretrained_cfg)
    record = make_record(source, classifier, options.task, proof, agreement, explanation)
    _show_step("packing")
    write_archive(archive, traced, labels, config, record, options.version)
    prepared = classifier.preprocessing
    rows = {
        "model": f"{options.model} ({classifier.parameters / 1e6:.1f} M parameters)",
        "input": f"{' x '.join(map(str, input_size))}, {prepared['interpolation']}, {prepared['crop_mode']} crop "
        f"{prepared['crop_pct']}",
        "classes": f"{len(labels)}: {'; '.join(labels[:3])}{'; …' if len(labels) > 3 else ''}"
        if labels
        else "none: embeddings",
        "proof": f"trace equals eager at batch {', '.join(map(str, proof.batch_sizes))}: "
        f"largest {'logit ' if labels else ''}difference "
        f"{proof.largest_difference:.1e}{f', top-1 agreement {proof.top1_agreement:.0%}' if labels else ''}",
        **{name: _agreement_row(found, name in precisions) for name, found in agreement.items()},
        "explain": explanation.get("unavailable") or " and ".join(explanation["methods"]),
        "device": _device_row(int8, baked),
        "archive": f"{archive} ({archive.stat().st_size / 1e6:.1f} MB)",
    }
    return "\n".join(f"{key:8} {value}" for key, value in rows.items())


def _agreement_row(found: dict, chosen: bool) -> str:
    if "error" in found:
        return f"not used: {found['error']}"
    said = []
    if "top1_agreement" in found:
        said.append(f"top-1 as fp32's for {found['top1_agreement']:.0%} of {found['images']} images")
        said.append(f"largest probability difference {found['largest_probability_difference']:.4f}")
    if "least_cosine" in found:
        said.append(f"least cosine between embeddings {found['least_cosine']:.4f}")
    return f"{'' if chosen else 'not used: '}{', '.join(said)}"


def _device_row(int8: bool, baked: list[str]) -> str:
    if int8:
        return "CPU alone, also where there is a GPU: int8 is for CPUs"
    return f"CPU alone, also where there is a GPU: the trace has it baked in ({', '.join(baked)})" if baked else "any"


def _show_step(step: str) -> None:
    """Says on a terminal what is being done, each step in place of the one before."""
    if sys.stderr.isatty():
        print(f"\r\033[K{step}{' …' if step else ''}", end="", file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text!r}")
    return int(text)


def _tasks(text: str) -> list[str]:
    tasks = text.split(",")
    if len(set(tasks)) != len(tasks) or not set(tasks) <= {"classify", "embed"}:
        raise argparse.ArgumentTypeError(f"expected classify, embed or both with a comma between them, not {text!r}")
    return tasks


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 2:
        raise argparse.ArgumentTypeError(f"expected a number above 0, 1 for no crop, not {text!r}")
    return value


def _floats(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected numbers with commas between them, not {text!r}") from error


def _model_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text):
        raise argparse.ArgumentTypeError(f"expected letters, digits, '_', '-' and '.', not {text!r}")
    return text


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        printed = show(options.show) if options.show else export(options)
    except ExportError as error:
        _show_step("")
        print(f"export: {error}", file=sys.stderr)
        return 1
    _show_step("")
    print(printed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
