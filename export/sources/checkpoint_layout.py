"""Which keys of a checkpoint are the model's, where they have a prefix, others are beside them, or an older timm wrote them."""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn

from export.errors import ExportError
from export.sources.checkpoint_file import Checkpoint

NAMED = 3  # the most keys that a message names; it counts the others
# First parts of keys of losses, metrics, and other models of the training. No answer depends on them.
OF_TRAINING = re.compile(
    r"criteri(on|a)|loss|metric|(^|_)(acc(uracy)?\d*|f1|ema)(_|$)|auroc|precision|recall|confusion|teacher|student",
    re.IGNORECASE,
)
AVERAGED = "n_averaged"  # torch's count of the weights that an AveragedModel is the mean of


@dataclass(frozen=True)
class Fitting:
    """Weights by the model's keys as far as they have them, and the keys of the file that are not among them."""

    prefix: str
    weights: dict[str, torch.Tensor]
    beside: frozenset[str] = frozenset()


def fitting(module: nn.Module, checkpoint: Checkpoint) -> Fitting:
    """The weights of the model among those of the checkpoint; where none fit, those that come nearest.

    Raises ExportError where several fit, and where keys beside those that fit may be a part of the model too.
    """
    expected = {key: tensor.shape for key, tensor in module.state_dict().items()}
    common = _common(checkpoint.state_dict, expected)
    nearest = max(common, key=lambda prefix: (common[prefix], -len(prefix)))
    # With less than half of the model's keys, a name may match by chance.
    tried = [prefix for prefix in common if prefix in ("", nearest) or 2 * common[prefix] >= len(expected)]
    found = [each for prefix in tried if (each := _as_it_is(prefix, checkpoint.state_dict, expected))]
    if not found:  # timm's own code removes some prefixes
        whole = _converted("", module, checkpoint.state_dict, expected)
        under = [_converted(prefix, module, checkpoint.state_dict, expected) for prefix in tried if prefix and not whole]
        found = [each for each in (whole, *under) if each]
    if len(found) > 1:
        # Models of several sizes have the same keys. The first dimension of a head's weight is the number of classes.
        same = [each for each in found if all(each.weights[key].shape[1:] == expected[key][1:] for key in expected)]
        found = same or found
    if len(found) > 1:
        prefixes = " and ".join(each.prefix or "no prefix" for each in found)
        key = next(each.prefix for each in found if each.prefix).rstrip(".")
        raise ExportError(
            f"{checkpoint.file} has weights that fit the model under {prefixes}: choose with --checkpoint-key, {key} say"
        )
    if not found:
        return Fitting(nearest, *_split(nearest, checkpoint.state_dict))
    if unknown := _unknown(found[0].beside):
        raise ExportError(
            f"{checkpoint.file} has weights that fit the model under {found[0].prefix} and, beside them, "
            f"{named(unknown)} that may be a part of it: --checkpoint-key {found[0].prefix.rstrip('.')} leaves them out, and a "
            "model that has them can be given as path/to/file.py:callable"
        )
    return found[0]


def named(keys: set[str] | frozenset[str], kind: str = "") -> str:
    """How many keys there are, and the first of them."""
    few = ", ".join(sorted(keys)[:NAMED])
    return f"{len(keys)} keys{kind}" + (f" ({few}{', …' if len(keys) > NAMED else ''})" if keys else "")


def _unknown(keys: frozenset[str]) -> set[str]:
    """Those of the keys that might be a part of the model."""
    return {key for key in keys if key != AVERAGED and not OF_TRAINING.search(key.split(".")[0])}


def _common(state_dict: dict[str, torch.Tensor], expected: dict) -> Counter[str]:
    """By prefix, how many keys are the model's without it."""
    found = Counter({"": 0})
    for key in state_dict:
        starts = [0, *(match.end() for match in re.finditer(r"\.", key))]
        found.update(key[:start] for start in starts if key[start:] in expected)
    return found


def _split(prefix: str, state_dict: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], frozenset[str]]:
    """The weights under a prefix, without it, and the other keys."""
    within = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    return within, frozenset(key for key in state_dict if not key.startswith(prefix))


def _as_it_is(prefix: str, state_dict: dict[str, torch.Tensor], expected: dict) -> Fitting | None:
    """The model's weights under a prefix, if all are there and nothing else is."""
    within, beside = _split(prefix, state_dict)
    if within.keys() == expected.keys() | {AVERAGED}:
        beside |= {AVERAGED}
        del within[AVERAGED]
    if within.keys() == expected.keys():
        return Fitting(prefix, within, beside)
    # A backbone under a prefix, with its head beside it, and nothing else that an answer could depend on.
    parent = re.sub(r"[^.]+\.$", "", prefix)
    head = {key.removeprefix(parent): key for key in beside if key.startswith(parent)}
    head = {key: whole for key, whole in head.items() if key in expected and key not in within}
    rest = beside - {*head.values()}
    if head and head.keys() | within.keys() == expected.keys() and not _unknown(rest):
        return Fitting(prefix, within | {key: state_dict[whole] for key, whole in head.items()}, rest)
    return None


def _converted(prefix: str, module: nn.Module, state_dict: dict[str, torch.Tensor], expected: dict) -> Fitting | None:
    """The weights under a prefix as timm converts those of an older layout, if it can."""
    within, beside = _split(prefix, state_dict)
    convert = getattr(sys.modules.get(type(module).__module__), "checkpoint_filter_fn", None)
    try:
        converted = convert(within, module) if convert else None
    except Exception:  # timm's own code, for keys that it does not know
        return None
    return Fitting(prefix, converted, beside) if isinstance(converted, dict) and converted.keys() == expected.keys() else None
