"""What a user may have meant by a MODEL that is no name of timm's."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

WEIGHTS = {".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".tar"}


def meant(given: str, known: list[str]) -> str:
    """The end of a refusal: how to name the folder, the file or the repository, else the names of `known` that are near."""
    path = Path(given).expanduser()
    if page := re.match(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)", given):
        return f": hf-hub:{page[1]} is the repository of that page"
    if re.match(r"\w+://", given):
        return ": nothing is loaded from addresses; hf-hub:OWNER/NAME is a repository of the Hugging Face hub"
    if given.endswith(".py:"):
        return f": {given}NAME is the module that the callable NAME of that file returns"
    if path.is_dir():
        return f": local-dir:{given} is the model in that folder"
    if path.suffix == ".py":
        return f": {given}:NAME is the module that the callable NAME of that file returns"
    if path.suffix in WEIGHTS:
        return ": a file of weights goes behind --checkpoint, and MODEL is their architecture, vit_base_patch16_224 say"
    if path.suffix == ".mar":
        return f": that is an archive already; --show {given} says what is in it, and make serve serves it"
    if path.suffix == ".onnx":
        return ": an ONNX model cannot be traced; MODEL is what it was made from"
    if near := difflib.get_close_matches(given.rpartition("/")[2], known, n=3):
        hint = f"; did you mean {', '.join(near)}?"
    else:
        hint = ": see timm.list_models()"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", given):
        return f": hf-hub:{given} is the repository of that name{hint if near else ''}"
    return hint
