"""The command line of the export step: from its arguments to `Options`."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from command_line import Parser, positive
from export.argument_types import floats, fraction, model_name, probability, tasks
from export.options import AUTO, Options
from export.preprocessing import Overrides
from vit_core.precision import PRECISIONS
from vit_core.settings import ACTIVATIONS, CHANNELS, CROP_MODES, INTERPOLATIONS, Head, Limits, Serving

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


def parse(arguments: list[str] | None) -> Options | Path:
    """Returns what the command line asks for: the options of an export, or the path of an archive whose record it shows."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if (given.model is None) == (given.show is None):
        parser.error("give either MODEL or --show FILE.mar")
    if given.show:
        return given.show
    for group in (Overrides, Limits):  # options of a group are a field of `Options` together
        values = {each.name: given.__dict__.pop(each.name) for each in fields(group)}
        setattr(given, "preprocessing" if group is Overrides else "limits", group(**values))
    del given.show
    options = Options(**vars(given))
    if options.calibrate and not options.quantizes:
        parser.error("--calibrate is for --precision int8")
    try:
        if options.served_as:  # else MODEL is invalid, and its source raises the error
            model_name(options.served_as)
    except argparse.ArgumentTypeError:
        parser.error(f"{options.served_as!r} cannot be a model's name: give another one with --model-name")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m export",
        description="Trace a timm image classifier, check that the trace equals it, and pack it as a TorchServe archive.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="a timm model name, an hf-hub: name, a local-dir: folder, or path/to/file.py:callable, which returns a module",
    )
    parser.add_argument("--show", type=Path, metavar="FILE.mar", help="print the record of an archive, and do nothing else")
    _add_weights(parser)
    _add_preprocessing(parser)
    _add_archive(parser)
    _add_serving(parser)
    limits = parser.add_argument_group("limits", "the server refuses with 413 what exceeds them")
    for each in fields(Limits):
        text = f"{each.metadata['of']} (default: %(default)s)"
        limits.add_argument(f"--{each.name.replace('_', '-')}", type=positive, default=each.default, metavar="N", help=text)
    return parser


def _add_weights(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("weights and labels")
    group.add_argument("--checkpoint", type=Path, metavar="FILE", help="load these weights (default: the pretrained ones)")
    group.add_argument(
        "--checkpoint-key",
        metavar="KEY",
        help="its entry with the weights, or the prefix of their keys (default: those of an EMA first)",
    )
    group.add_argument(
        "--no-pretrained",
        dest="pretrained",
        action="store_false",
        help="random weights: to try a model out, or for speed tests",
    )
    group.add_argument("--num-classes", type=positive, metavar="N", help="size of the head (default: the model's own)")
    group.add_argument(
        "--labels",
        "--classes",
        type=Path,
        metavar="FILE",
        help="text with one label a line, JSON (list, index to label, id2label) or CSV with a header "
        "(default: the model's own, ImageNet's names, or the class indices)",
    )
    group.add_argument(
        "--head",
        choices=ACTIVATIONS,
        help="what the model's numbers mean: classes that exclude each other, each class by itself (multi-label), or scores as "
        "they are (default: by the source's problem_type, else softmax)",
    )
    group.add_argument(
        "--thresholds",
        metavar="T",
        help="for --head sigmoid: an answer has the labels that reach this probability, or that of their own in a JSON file of "
        "label to probability",
    )
    group.add_argument(
        "--abstain",
        type=probability,
        metavar="P",
        help="for --head softmax: the answer is 'unknown' where the most probable label has less than this probability",
    )
    group.add_argument(
        "--text-embeddings",
        type=Path,
        metavar="FILE",
        help="for CLIP and SigLIP models: the classes are texts, a row of this matrix (.npy, .safetensors, .pt) for each label",
    )
    group.add_argument(
        "--logit-scale", type=float, default=Options.logit_scale, metavar="S", help="of these (default: %(default)s)"
    )
    group.add_argument(
        "--logit-bias", type=float, default=Options.logit_bias, metavar="B", help="of these (default: %(default)s)"
    )
    group.add_argument(
        "--task",
        dest="tasks",
        type=tasks,
        default=Options.tasks,
        metavar="TASK",
        help="classify (default), embed, or classify,embed: label and probability; the features before the classifier; both "
        "from one pass, the first of them where a request does not say",
    )
    group.add_argument("--normalize", action="store_true", help="embeddings of length 1 (L2)")


def _add_preprocessing(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("preprocessing", "default: timm's evaluation preprocessing for the model")
    group.add_argument(
        "--train-size",
        action="store_true",
        help="use the size and crop of the training, where timm evaluates the model with others",
    )
    group.add_argument("--img-size", type=positive, metavar="N", help="square input of N pixels")
    group.add_argument("--in-chans", type=int, choices=CHANNELS, help="colours, or grey alone")
    group.add_argument("--interpolation", choices=INTERPOLATIONS)
    group.add_argument("--crop-pct", type=fraction, metavar="P", help="share of the resized edge that the crop keeps")
    group.add_argument(
        "--crop-mode",
        choices=CROP_MODES,
        help="cut the edges off, squash the picture, or add a border; center_floor and crop_first are transformers'",
    )
    group.add_argument("--mean", type=floats, metavar="R,G,B", help="of pixels in 0..1")
    group.add_argument("--std", type=floats, metavar="R,G,B")
    group.add_argument(
        "--fast-pixels",
        action="store_true",
        help="decode large JPEGs at a half to an eighth of their size and resize with torch: pixels may differ from "
        "timm's by some 255ths (default: equal to the bit)",
    )


def _add_archive(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("archive")
    group.add_argument("--model-name", type=model_name, metavar="NAME", help="name to serve it by (default: after MODEL)")
    group.add_argument(
        "--version", type=model_name, default=Options.version, help="version to serve it by (default: %(default)s)"
    )
    group.add_argument(
        "--model-store",
        type=Path,
        default=Options.model_store,
        metavar="FOLDER",
        help="where the archive goes (default: %(default)s)",
    )
    group.add_argument("--force", action="store_true", help="replace an archive of the same name")


def _add_serving(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "serving", "of these, a client of the management API can override the batch size, the delay and the workers"
    )
    for option, metavar, text in (
        ("batch_size", "N", "most images a call (default: %(default)s)"),
        (
            "max_batch_delay",
            "MS",
            "how long a request waits for others, at least 1 (default: %(default)s; a busy worker fills batches anyway)",
        ),
        (
            "workers",
            "N",
            f"processes (default: 1; make serve adds up to {Serving.max_workers} on GPUs, and for a small model on a CPU)",
        ),
        ("response_timeout", "S", "seconds to answer in (default: %(default)s)"),
        ("startup_timeout", "S", "seconds to load in (default: %(default)s)"),
        ("top_k", "K", f"labels in an answer (default: {Head.top_k}; all with --head none and with --thresholds)"),
    ):
        default = getattr(Options, option)
        group.add_argument(f"--{option.replace('_', '-')}", type=positive, default=default, metavar=metavar, help=text)
    group.add_argument(
        "--no-explain",
        dest="explain",
        action="store_false",
        help="an archive without explanations, for whose work the predictions of the same batch wait",
    )
    group.add_argument(
        "--precision",
        choices=(AUTO, *PRECISIONS),
        default=Options.precision,
        help="to multiply in (default: %(default)s, what the device multiplies fast of bf16 and fp16, as far as they stay near "
        "fp32, else fp32; int8 is for CPUs)",
    )
    group.add_argument(
        "--merge-tokens",
        type=positive,
        metavar="R",
        help="merge R pairs of tokens that are alike in each block: faster, and less accurate (default: none)",
    )
    group.add_argument(
        "--calibrate",
        type=Path,
        metavar="FOLDER",
        help="pictures of yours, from which --precision int8 takes its scales (default: crops of the shipped photographs)",
    )
