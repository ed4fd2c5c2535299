"""Numbers below the least normal one are zero where a model runs: Intel's cores multiply them forty times slower."""

import json
import subprocess
import sys

from tests.conftest import ROOT, export_to

# Torch shares out a tensor of this size among its threads, half for each of two. They may start as soon as a model is prepared,
# and take over what is set before.
CODE = """
import json, sys
from pathlib import Path
import torch
from vit_core import model, predictor

def products():
    torch.set_num_threads(2)
    return torch.full((1 << 20,), 1e-30) * 1e-10

def with_threads(*arguments, take_way=model.take_way):
    products()
    return take_way(*arguments)

model.take_way = with_threads
predictor.Predictor.load(Path(sys.argv[1]), torch.device("cpu"))
print(json.dumps(products().view(2, -1).count_nonzero(1).tolist()))
"""


def test_no_thread_of_a_worker_computes_with_numbers_that_are_not_normal(tiny_model, tmp_path):
    archive = export_to(tmp_path, f"local-dir:{tiny_model}", "--precision", "fp32")
    command = [sys.executable, "-c", CODE, str(archive)]
    done = subprocess.run(command, cwd=ROOT / "handler", capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [0, 0]
