"""Formats the command's report about an export."""

from __future__ import annotations

from export.labels import INDICES
from export.pipeline import Exported
from export.precision import Agreement
from export.quantized import Quantized


def summary(exported: Exported) -> str:
    """Returns a row for each thing that a user wants to check."""
    classifier, settings = exported.classifier, exported.settings
    pixels = settings.preprocessing
    rows = {
        "model": f"{exported.options.model} ({classifier.parameters / 1e6:.1f} M parameters, "
        f"{settings.flops / 1e9:.3g} billion operations an image)",
        "weights": classifier.weights,
        "input": f"{' x '.join(map(str, pixels.input_size))}, {pixels.interpolation}, {pixels.crop_mode} crop "
        f"{pixels.crop_pct}",
        "mean": f"{_numbers(pixels.mean)}; std {_numbers(pixels.std)}",
        "classes": _classes(exported),
        "check": _check(exported),
        **(
            {"merging": f"{exported.options.merge_tokens} pairs in each block: {_agreement(exported.merging, True)}"}
            if exported.merging
            else {}
        ),
        **{name: _agreement(found, name in settings.precisions) for name, found in exported.agreement.items()},
        **(_int8(exported.quantized) if exported.quantized else {}),
        "explain": settings.explanations.unavailable or " and ".join(settings.explanations.methods),
        "device": _device(exported),
        "archive": f"{exported.archive} ({exported.archive.stat().st_size / 1e6:.1f} MB)",
    }
    lines = [f"{key:8} {value}" for key, value in rows.items()]
    return "\n".join([*lines, *(f"warning  {warning}" for warning in exported.warnings)])


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def _classes(exported: Exported) -> str:
    labels, head = exported.labels.names, exported.settings.head
    if not labels:
        return "none: embeddings"
    hint = "; by index, as --labels FILE is not given" if exported.labels.source == INDICES else ""
    unknown = f", unknown below {head.abstain:g}" if head.abstain is not None else ""
    return f"{len(labels)}: {'; '.join(labels[:3])}{'; …' if len(labels) > 3 else ''} ({head.activation}{unknown}{hint})"


def _check(exported: Exported) -> str:
    check = exported.check
    what = "logit difference" if exported.labels.names else "difference"
    top1 = f", top-1 agreement {check.top1_agreement:.0%}" if exported.labels.names else ""
    sizes = ", ".join(map(str, check.batch_sizes))
    return f"trace equals eager at batch {sizes}: largest {what} {check.largest_difference:.1e}{top1}"


def _agreement(found: Agreement | str, chosen: bool) -> str:
    if isinstance(found, str):
        return f"not used: {found}"
    said = []
    if found.top1_agreement is not None:
        said.append(f"top-1 as fp32's for {found.top1_agreement:.0%} of {found.images} images")
        said.append(f"largest score difference {found.largest_score_difference:.4f}")
    if found.least_cosine is not None:
        said.append(f"least cosine between embeddings {found.least_cosine:.4f}")
    return f"{'' if chosen else 'not used: '}{', '.join(said)}"


def _int8(quantized: Quantized) -> dict[str, str]:
    pictures, found = quantized.pictures, quantized.on_calibration
    left = f", {len(quantized.left)} left as they are, since they lose most" if quantized.left else ""
    own = "" if pictures.is_users else "; --calibrate FOLDER takes pictures like those that it will see"
    return {
        "layers": f"{quantized.layers} layers in int8{left}",
        "scales": f"from {pictures.images} {pictures.source}{own}; for these {_agreement(found, True)}",
    }


def _device(exported: Exported) -> str:
    if exported.serving.device_type is None:
        return "any"
    why = f"the trace has it baked in ({', '.join(exported.cpu_operators)})" if exported.cpu_operators else ""
    return f"CPU alone, also where there is a GPU: {why or f'{exported.options.precision} is for CPUs'}"
