"""The export step from end to end: model → fold → trace → check → precisions → archive."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from export.archive import Contents, destination, write_archive
from export.flops import count_flops
from export.fold import fold
from export.head import choose_head
from export.labels import Labels, class_labels
from export.merge import merge_tokens
from export.options import Options
from export.outputs import check_embedding, check_head, check_weights, outputs
from export.pictures import pictures
from export.precision import Agreement, choose_precisions, compare
from export.quantized import Quantized, quantized
from export.record import make_record
from export.served import explanations, served
from export.sources.classifier import Classifier
from export.sources.create import create_classifier
from export.sources.name import Kind
from export.trace import Check, baked_devices, check_trace, trace
from vit_core.settings import Embedding, Explanations, Serving, Settings


@dataclass(frozen=True)
class Exported:
    """The result of an export: the archive, and the findings about it."""

    options: Options
    archive: Path
    classifier: Classifier
    labels: Labels
    settings: Settings
    serving: Serving
    check: Check
    agreement: dict[str, Agreement | str]  # by precision, or the reason why there is none
    merging: Agreement | None  # between the models with and without merged tokens, in fp32
    quantized: Quantized | None
    cpu_operators: list[str]  # operators in the trace that name the CPU, and so bind the trace to it
    warnings: list[str]


@contextlib.contextmanager
def _unfused() -> Iterator[None]:
    """Keeps oneDNN's fusion off, which a model that this process has loaded leaves on: int8 traces fail with it."""
    before = torch.jit.onednn_fusion_enabled()
    torch.jit.enable_onednn_fusion(False)
    try:
        yield
    finally:
        torch.jit.enable_onednn_fusion(before)


@_unfused()
def export(options: Options, step: Callable[[str], None] = lambda step: None) -> Exported:
    """Exports the archive that the options ask for. `step` receives progress messages. Raises ExportError.

    The first export of a process has the bytes that the command writes. TorchScript numbers the classes of everything that a
    process traces, so a later export differs in these names.
    """
    archive = destination(options)
    classifier = create_classifier(options)
    # Nothing is trained here, and the counter of operations fails if only some parameters have gradients.
    classifier.module.requires_grad_(False)
    check_weights(classifier.module)
    named = _labels(options, classifier)
    labels = named.names
    head = choose_head(options, classifier.problem_type, labels)
    input_size = classifier.preprocessing.input_size
    eager = served(classifier.module, options.tasks)
    step("running the model on pictures")
    shown = list(pictures(classifier.preprocessing))
    expected = outputs(eager, shown)
    logits, embedding = expected.tensor_split([len(labels)], dim=1)
    warnings = [*classifier.warnings, *(check_head(logits, head) if labels else [])]
    warnings += check_embedding(embedding) if embedding.shape[1] else []
    folded = served(fold(classifier.module, input_size), options.tasks)
    explained = explanations(folded, input_size)
    if not options.explain:
        explained = Explanations(unavailable="it was exported without explanations")
    merging = None
    if options.merge_tokens:
        eager = folded = served(merge_tokens(folded.model, options.merge_tokens), options.tasks)
        explained = Explanations(unavailable="its tokens are merged, and no longer those of patches")
        step("running the model with merged tokens")
        before, expected = expected, outputs(eager, shown)
        merging = compare(expected, before, len(labels), head)
    int8 = None
    if options.quantizes:
        int8 = quantized(folded, options, classifier.preprocessing, len(labels), head, step)
        warnings += int8.warnings
        # The judge is pictures that were kept from calibration.
        shown, expected = int8.others, int8.expected
    module = int8.module if int8 else folded
    step("tracing")
    traced = trace(module, input_size, explained.unavailable is None)
    step("running model and trace side by side")
    # int8 changes the outputs, by an amount that is measured separately. Its trace is compared with the int8 model.
    check = check_trace(module if int8 else eager, traced, input_size)
    precisions, agreement = choose_precisions(options.precision, traced, shown, expected, len(labels), head, step)
    settings = Settings(
        preprocessing=classifier.preprocessing,
        precisions=precisions,
        flops=count_flops(eager, input_size),
        explanations=explained,
        tasks=options.tasks,
        head=head,
        embedding=Embedding(options.normalize),
        limits=options.limits,
        fast_pixels=options.fast_pixels,
    )
    cpu_operators = baked_devices(traced)
    serving = Serving(
        min_workers=options.workers or Serving.min_workers,
        max_workers=options.workers or Serving.max_workers,
        batch_size=options.batch_size,
        max_batch_delay=options.max_batch_delay,
        response_timeout=options.response_timeout,
        startup_timeout=options.startup_timeout,
        device_type="cpu" if cpu_operators or int8 else None,
    )
    step("packing")
    record = make_record(options, classifier, settings, check, agreement, merging, int8 and int8.record)
    write_archive(archive, Contents(traced, labels, settings, serving, record), options.version)
    return Exported(
        options, archive, classifier, named, settings, serving, check, agreement, merging, int8, cpu_operators, warnings
    )


def _labels(options: Options, classifier: Classifier) -> Labels:
    if not options.classifies:
        return Labels([], "embeddings alone")
    # With random weights it is timm's model, too. A checkpoint, a folder or a repository is the user's own.
    timms = options.name.kind == Kind.TIMM and options.checkpoint is None
    return class_labels(classifier.pretrained_cfg, classifier.num_classes, options.labels, timms)
