"""One way to run the model without a server, in a process of its own, so that the threads of one never meet those of another.

    python -m benchmarks.bare_peers PEER FOLDER PRECISION DEVICE [TIMM_NAME]

FOLDER is the store of a `Subject`. The first line of stdout is JSON: what it `runs_in`, or why it is `left_out`. Then each line
"COUNT SECONDS" on stdin is answered with images per second in batches of COUNT, until stdin ends.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import timm
import torch

from benchmarks.machine import cpu_multiplies
from benchmarks.names import ALONE, COMPILED, ONNX, OPENVINO
from benchmarks.subject import UNPACKED, WEIGHTS
from vit_core.archive import TRACE, Archive
from vit_core.machine import threads_per_worker
from vit_core.model import Model
from vit_core.precision import PRECISIONS

THREADS = threads_per_worker(1)
CALIBRATED = 32  # pictures for NNCF

Run = Callable[[int], object]


class LeftOut(Exception):
    """Why this machine cannot run it."""


@dataclass(frozen=True)
class Given:
    """An archive that is unpacked in a store; `precision` is what its served worker runs in."""

    folder: Path
    precision: str
    device: str
    timm_name: str | None

    @cached_property
    def archive(self) -> Archive:
        return Archive.read(self.folder / UNPACKED)

    @property
    def input_size(self) -> tuple[int, int, int]:
        return self.archive.settings.preprocessing.input_size

    @property
    def batch_size(self) -> int:
        return self.archive.serving.batch_size

    def trace(self) -> torch.jit.ScriptModule:
        return torch.jit.load(self.archive.folder / TRACE, map_location=self.device)

    def eager(self) -> torch.nn.Module:
        module = timm.create_model(self.timm_name)
        module.load_state_dict(torch.load(self.folder / WEIGHTS, weights_only=True))
        return module.eval().to(self.device)

    def noise(self, count: int) -> np.ndarray:
        return np.random.default_rng(0).standard_normal((count, *self.input_size), np.float32)


def as_served(given: Given) -> tuple[Run, dict]:
    """The trace as the handler runs it, from the resized uint8 pixels to the probabilities."""
    archive, device = given.archive, torch.device(given.device)
    model = Model(given.trace(), archive.settings, len(archive.labels), device, given.batch_size, THREADS)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (given.batch_size, *given.input_size), np.uint8))
    return lambda count: model.outputs(pixels[:count]), {"precision": model.way.precision, "fused": model.way.fused}


def with_openvino(given: Given) -> tuple[Run, dict]:
    """OpenVINO from the trace, in the fastest of its two hints and of the precisions that archive and CPU allow.

    For an archive in int8 it is the eager model, quantized by NNCF as OpenVINO's documents have it for transformers.
    """
    import openvino

    allowed = [PRECISIONS[name] for name in given.archive.settings.precisions]
    stored = any(each.stored for each in allowed)
    converted = openvino.convert_model(
        given.eager() if stored else given.trace(),
        example_input=torch.from_numpy(given.noise(given.batch_size)),
        input=[-1, *given.input_size],
    )
    if stored:
        import nncf

        # The weights are random and the values cost no time: so few pictures, and of noise, do.
        pictures = nncf.Dataset([each[None] for each in given.noise(CALIBRATED)])
        converted = nncf.quantize(converted, pictures, model_type=nncf.ModelType.TRANSFORMER, subset_size=CALIBRATED)
    core, noise = openvino.Core(), given.noise(given.batch_size)
    if stored:  # what is not int8 may be in either
        allowed = [each for each in PRECISIONS.values() if not each.stored]
    types = {each.dtype for each in allowed if cpu_multiplies(each)} or {torch.float32}
    names = {"bf16": "bf16", "fp32": "f32"}  # ours → OpenVINO's
    usable = [name for name in names if PRECISIONS[name].dtype in types]
    tried = []
    for precision, hint in itertools.product(usable, ("LATENCY", "THROUGHPUT")):
        settings = {"INFERENCE_PRECISION_HINT": names[precision], "PERFORMANCE_HINT": hint}
        settings["INFERENCE_NUM_THREADS"] = str(THREADS)
        settings["NUM_STREAMS"] = "1"  # one call at a time has all threads
        model = core.compile_model(converted, "CPU", settings)
        rate = per_second(lambda count, model=model: model(noise[:count]), given.batch_size, 1)
        name = f"int8, {precision} between" if stored else precision
        tried.append((rate, model, {"precision": name, "hint": hint}))
    _, best, runs_in = max(tried, key=lambda each: each[0])
    return lambda count: best(noise[:count]), runs_in


def with_onnx_runtime(given: Given) -> tuple[Run, dict]:
    """ONNX Runtime in fp32: it multiplies nothing shorter on x86."""
    import onnxruntime

    file, noise = given.folder / "model.onnx", given.noise(given.batch_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, and of this exporter being the older one
        torch.onnx.export(
            given.eager(),
            (torch.from_numpy(noise),),
            file,
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_axes={"pixels": {0: "batch"}, "logits": {0: "batch"}},
            dynamo=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("session.set_denormal_as_zero", "1")  # as the handler does
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda count: session.run(None, {"pixels": noise[:count]}), {"precision": "fp32"}


def with_torch_compile(given: Given) -> tuple[Run, dict]:
    """torch.compile of the eager model, for each batch size by itself.

    On a GPU with "max-autotune", which tries out kernels for minutes. On a CPU what that found was as fast as what it had to
    begin with; there the weights are frozen, so that they are laid out for the processor.
    """
    if given.device == "cpu":
        _check_compiler()
        torch._inductor.config.freezing = True
        way = {"freezing": True}
    else:
        way = {"mode": "max-autotune"}
    dtype = PRECISIONS[given.precision].dtype
    module = given.eager().to(dtype)
    model = torch.compile(module, dynamic=False, mode=way.get("mode"))
    noise = torch.from_numpy(given.noise(given.batch_size)).to(given.device, dtype)

    @torch.inference_mode()
    def run(count: int) -> torch.Tensor:
        return model(noise[:count]).float().cpu()

    return run, {"precision": given.precision, **way}


PEERS: dict[str, Callable[[Given], tuple[Run, dict]]] = {
    ALONE: as_served,
    OPENVINO: with_openvino,
    ONNX: with_onnx_runtime,
    COMPILED: with_torch_compile,
}


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise LeftOut("needs a C++ compiler, and there is none here") from None


def per_second(run: Run, count: int, seconds: float) -> float:
    """Images a second in batches of `count`, after one that does not count."""
    run(count)
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        run(count)
        done += count
    return done / (time.perf_counter() - start)


def _reason(error: Exception) -> str:
    if isinstance(error, LeftOut):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def main() -> None:
    peer, folder, precision, device, *timm_name = sys.argv[1:]
    # Libraries print to stdout as well: what they say goes to stderr, and stdout is for the answers alone.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(THREADS)
    given = Given(Path(folder), precision, device, timm_name[0] if timm_name else None)
    try:
        run, runs_in = PEERS[peer](given)
        for count in (1, given.batch_size):
            run(count)
    except Exception as error:  # whatever fails in a library that is compared with is a line of the table, not the end of it
        traceback.print_exc()
        print(json.dumps({"left_out": _reason(error)}), file=answers)
        return
    print(json.dumps({"runs_in": runs_in}), file=answers)
    for line in sys.stdin:
        count, seconds = line.split()
        print(per_second(run, int(count), float(seconds)), file=answers)


if __name__ == "__main__":
    main()
