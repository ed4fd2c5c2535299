"""The precisions that a model can run in, one row for each, and the rule that picks one for a device.

torch is imported only where it is needed: the command line of the export step needs the names alone.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def _never() -> bool:
    return False


def _always() -> bool:
    return True


def _cpu_has_fast_bf16() -> bool:
    import torch

    cpu = torch.cpu.get_capabilities()
    if cpu.get("amx_tile"):
        return True
    # Intel's cores since Sapphire Rapids, which have AVX512-FP16, multiply bf16 with AMX, and a virtual machine may hide that.
    # Their AVX512-BF16 has half the rate of their fp32, while that of AMD's cores has twice the rate.
    slow = cpu.get("avx512_fp16") and cpu["cpu_name"].startswith("Intel")
    return bool(cpu.get("avx512_bf16") and not slow)


@dataclass(frozen=True)
class Precision:
    """One number format for the weights and activations of a model."""

    name: str
    type_name: str  # torch's name of the type that the model takes and gives
    gpu: tuple[int, int] | None = None  # the least compute capability that multiplies it fast; None: it is for CPUs
    on_cpu: Callable[[], bool] = _never  # whether this CPU multiplies it natively, and no slower than fp32
    stored: bool = False  # whether the trace is stored in it, with fp32 at its ends; else a worker casts the fp32 trace

    @property
    def dtype(self) -> torch.dtype:
        import torch

        return getattr(torch, self.type_name)

    def is_fast(self, device: torch.device) -> bool:
        """Whether `device` multiplies this precision natively, and no slower than fp32."""
        if device.type == "cpu":
            return self.on_cpu()
        import torch

        return self.gpu is not None and torch.cuda.get_device_capability(device) >= self.gpu

    def cast(self, trace: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
        """Returns a copy of `trace` in this precision, or `trace` itself if it has it already."""
        import torch

        if self.dtype == torch.float32:
            return trace
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning about gradients, which this trace does not have
            return copy.deepcopy(trace).to(self.dtype)


_ROWS = (
    Precision("bf16", "bfloat16", gpu=(8, 0), on_cpu=_cpu_has_fast_bf16),
    Precision("fp16", "float16", gpu=(7, 0)),
    Precision("fp32", "float32", gpu=(0, 0), on_cpu=_always),
    Precision("int8", "float32", on_cpu=_always, stored=True),
)
PRECISIONS = {row.name: row for row in _ROWS}
# The precisions of `--precision auto`, the preferred one first. The export step leaves out those that are too far from fp32,
# which is always the last.
FALLBACK = "fp32"
AUTO = tuple(row.name for row in _ROWS if not row.stored and row.name != FALLBACK)


def choose(allowed: Sequence[str], device: torch.device) -> tuple[Precision, str]:
    """Returns the precision for `device` among those that the archive allows, and the rule that picked it, as a clause.

    The rule takes the first one that the device multiplies fast, or the last one if there is none. It does not depend on
    how busy the machine is, so every start of an archive on machines of one kind picks the same.
    """
    kind = "CPU" if device.type == "cpu" else "GPU"
    if len(allowed) == 1:
        precision = PRECISIONS[allowed[0]]
        slow = "" if precision.is_fast(device) else f", though this {kind} is slow at it"
        return precision, f"{precision.name}, as no other precision is allowed{slow}"
    for number, name in enumerate(allowed):
        if PRECISIONS[name].is_fast(device):
            passed = f", and not {' or '.join(allowed[:number])}" if number else ""
            return PRECISIONS[name], f"{name}, as this {kind} multiplies it fast{passed}"
    return PRECISIONS[allowed[-1]], f"{allowed[-1]}, as this {kind} multiplies none of the archive's precisions fast"
