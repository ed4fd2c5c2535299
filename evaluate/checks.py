"""Refuses bad arguments before anything runs: an evaluation takes minutes, and a mistake should not show at its end."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from command_line import UserError
from export.argument_types import model_name
from vit_core.archive import Archive
from vit_core.settings import CLASSIFY, SIGMOID, ArchiveError

SHEETS = (".png", ".jpg", ".jpeg")


def check_packages(*modules: str) -> None:
    """Raises UserError if a package is missing that only this command needs."""
    if missing := [module for module in modules if importlib.util.find_spec(module) is None]:
        raise UserError(
            f"this needs {missing[0]}: {Path(sys.executable).parent}/python -m pip install -r requirements-evaluate.txt -c "
            "constraints.txt"
        )


def check_outputs(options: argparse.Namespace) -> None:
    """Raises UserError for an output that cannot be written, or whose suffix does not fit its format."""
    for file, suffixes in ((options.json, ()), (options.plot, (".png",)), (options.mistakes, SHEETS)):
        if file is not None:
            _check_output(file, suffixes)
    output = options.fit_temperature
    if output is None:
        return
    _check_output(output, (".mar",))
    if output.exists():
        raise UserError(f"{output} is there already: give the archive another name, or remove that one")
    if options.archive.is_dir():
        raise UserError(f"{options.archive} is a folder: --fit-temperature needs the .mar file that it was unpacked from")
    try:
        model_name(output.stem)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{output.stem!r} cannot be a model's name: {error}") from error


def _check_output(file: Path, suffixes: tuple[str, ...]) -> None:
    if suffixes and file.suffix.lower() not in suffixes:
        raise UserError(f"{file} should end with {' or '.join(suffixes)}")
    if file.is_dir() or not file.parent.is_dir():
        raise UserError(f"{file} cannot be written: {file if file.is_dir() else f'there is no folder {file.parent}'}")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UserError(f"{file} cannot be written: permission denied")


def check_archive(archive: Archive, named: Path, precisions: Sequence[str | None], calibrates: bool) -> None:
    """Raises UserError for an archive that cannot be evaluated as asked."""
    head = archive.settings.head
    if CLASSIFY not in archive.settings.tasks:
        raise UserError(f"{named} has no classes: it was exported to embed alone")
    if len(archive.labels) == 1 and head.activation != SIGMOID:
        raise UserError(f"{named} gives one number and no classes: there is no label to compare it with")
    if calibrates and not head.gives_probabilities:
        raise UserError(f"{named} has no probabilities to calibrate: its head is {head.activation}")
    for precision in precisions:
        if precision is not None:
            try:
                archive.settings.run_in(precision)
            except ArchiveError as error:
                raise UserError(f"{named}: {error}") from error


def check_beside(first: Archive, second: Archive, named: Path) -> None:
    """Raises UserError for an archive whose answers have another meaning than those of the first one."""
    if apart := sorted(set(first.labels) ^ set(second.labels)):
        whose = "the other archive" if apart[0] in first.labels else str(named)
        raise UserError(f"{named} has other labels: {apart[0]!r} is a label of {whose} alone")
    activations = [archive.settings.head.activation for archive in (first, second)]
    if activations[0] != activations[1]:
        raise UserError(f"{named} has the head {activations[1]}, and the other archive {activations[0]}: they do not compare")
