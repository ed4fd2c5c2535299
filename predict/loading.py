"""Loads an archive that a command line names."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from command_line import UserError
from vit_core.settings import TASKS, ArchiveError

if TYPE_CHECKING:
    from vit_core.predictor import Predictor


def add_archive(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that `load` takes."""
    parser.add_argument("archive", type=Path, metavar="ARCHIVE", help="a .mar file, or the folder that it was unpacked into")
    parser.add_argument(
        "--device", type=_device_name, metavar="DEVICE", help="cpu or cuda:0 (default: a GPU if there is one for this archive)"
    )


def _device_name(text: str) -> str:
    """Reads a device from an option, for argparse."""
    if not re.fullmatch(r"(cpu|cuda)(:\d{1,3})?", text):
        raise argparse.ArgumentTypeError(f"expected cpu or cuda:0, not {text!r}")
    return text


def tasks(text: str) -> tuple[str, ...]:
    """Reads comma-separated tasks from an option, for argparse."""
    found = tuple(text.split(","))
    if len(set(found)) != len(found) or not set(found) <= set(TASKS):
        raise argparse.ArgumentTypeError(f"expected {', '.join(TASKS)} or {','.join(TASKS)}, not {text!r}")
    return found


def load(archive: Path, device: str | None, precision: str | None = None) -> Predictor:
    """Calls `Predictor.load`. Raises UserError if the file is no archive, or the device does not exist."""
    import torch  # importing torch takes seconds: --help and a wrong path are answered before

    from vit_core.predictor import Predictor

    try:
        return Predictor.load(archive, device and torch.device(device), precision=precision)
    except ArchiveError as error:
        raise UserError(error) from error
    except RuntimeError as error:  # errors of torch for a device that does not exist
        raise UserError(f"{archive} could not be loaded: {str(error).splitlines()[0]}") from error
