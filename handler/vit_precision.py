"""The number format that a device runs the model in."""

from __future__ import annotations

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}


def pick_precision(precisions: list[str], device: torch.device) -> str:
    """The first of `precisions` that `device` multiplies natively; the last one if it does none of them.

    `precisions` is the archive's: those that were found near enough to fp32, or the one that its maker asked for.
    """
    return next((precision for precision in precisions if _is_native(precision, device)), precisions[-1])


def cast(model: torch.jit.ScriptModule, precision: str) -> torch.jit.ScriptModule:
    """`model` (fp32, or int8 inside) with its weights in `precision`, and frozen: what is constant is computed once."""
    if precision == "fp32":  # TorchServe allows TF32 on GPUs, which has bf16's product of three decimal digits
        torch.set_float32_matmul_precision("highest")
    return torch.jit.freeze(model.to(DTYPES[precision]).eval())


def _is_native(precision: str, device: torch.device) -> bool:
    if device.type == "cuda":
        least = {"fp32": (0, 0), "fp16": (7, 0), "bf16": (8, 0)}  # compute capability
        return precision in least and torch.cuda.get_device_capability(device) >= least[precision]
    if precision == "bf16":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return precision in ("fp32", "int8")
