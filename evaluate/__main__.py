"""`python -m evaluate ARCHIVE.mar SOURCE`: measures how good the archive is on labelled pictures."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path

from command_line import UserError, exit_status, relative, show_step
from evaluate.arguments import parse
from evaluate.checks import check_archive, check_beside, check_outputs, check_packages
from evaluate.sources import Example, read_source
from vit_core.archive import Archive, opened
from vit_core.settings import NONE, SIGMOID, ArchiveError


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return exit_status("evaluate", lambda: evaluate(options))


def evaluate(options: argparse.Namespace) -> int:
    """Prints the metrics, and writes the other outputs that the command line asks for.

    Returns 1 if a picture could not be read; such a picture counts in no metric.
    """
    check_outputs(options)
    check_packages("sklearn", *(["matplotlib"] if options.plot else []))
    with ExitStack() as folders:
        archives = {path: _opened(path, folders) for path in (options.archive, options.against) if path is not None}
        first = archives[options.archive]
        check_archive(first, options.archive, options.precisions, options.fit_temperature is not None)
        if options.against is not None:
            check_archive(archives[options.against], options.against, (), False)
            check_beside(first, archives[options.against], options.against)
        examples = read_source(options.source, first.labels, first.settings.head.activation == SIGMOID)
        runs = _runs(options, archives, examples)
    return _report(options, runs, examples)


def _opened(path: Path, folders: ExitStack) -> Archive:
    try:
        return folders.enter_context(opened(path))
    except ArchiveError as error:
        raise UserError(error) from error


def _runs(options: argparse.Namespace, archives: dict[Path, Archive], examples: list[Example]) -> list:
    """Runs the subjects one after the other, because the way in which a model runs is set for the whole process."""
    from evaluate.run import Subject, run

    names = {path: path.name for path in archives}
    if len(set(names.values())) < len(names):  # two versions of one model, in two folders
        names = {path: str(relative(path)) for path in archives}
    name = names[options.archive]
    several = len(options.precisions) > 1
    subjects = [
        Subject(f"{name} {precision}" if several else name, archives[options.archive].folder, precision)
        for precision in options.precisions
    ]
    if options.against is not None:
        subjects.append(Subject(names[options.against], archives[options.against].folder))
    labels = archives[options.archive].labels
    try:
        return [run(subject, labels, examples, options.device, show_step) for subject in subjects]
    finally:
        show_step("")


def _report(options: argparse.Namespace, runs: list, examples: list[Example]) -> int:
    from evaluate.compare import compare
    from evaluate.metrics import measure
    from evaluate.mistakes import mistakes
    from evaluate.table import comparison, table

    show_step("measuring")
    reports = [
        {
            "name": run.name,
            "precision": run.precision,
            "device": run.device,
            "head": run.head.activation,
            "pictures_sha256": run.sha256,
            "metrics": measure(run),
            "errors": [
                {"picture": str(examples[place].picture), "error": error.as_dict()} for place, error in run.errors.items()
            ],
            "mistakes": mistakes(run, examples),
        }
        for run in runs
    ]
    comparisons = [compare(runs[0], run, examples) for run in runs[1:]]
    show_step("")
    shares = runs[0].head.activation != NONE
    print(table(reports))
    for found in comparisons:
        print(f"\n{comparison(found, shares)}")
    written = {"source": str(options.source), "runs": reports, "comparisons": comparisons}
    if options.fit_temperature is not None:
        written["calibration"] = _calibrated(options, runs[0])
    if options.json is not None:
        options.json.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")
    if options.plot is not None:
        from evaluate.plots import plot

        plot(reports[0], options.plot)
    if options.mistakes is not None:
        _write_mistakes(options.mistakes, reports[0]["mistakes"], shares)
    return int(any(run.errors for run in runs))


def _calibrated(options: argparse.Namespace, run) -> dict:
    from evaluate.repack import with_temperature
    from evaluate.table import calibration
    from evaluate.temperature import effect, fit

    fitted = effect(run, fit(run))
    with_temperature(options.archive, options.fit_temperature, fitted, options.version)
    print(f"\n{calibration(fitted, run.head.temperature, relative(options.fit_temperature))}")
    return fitted


def _write_mistakes(file: Path, found: list[dict], shares: bool) -> None:
    from evaluate.mistakes import sheet

    if not found:
        print(f"\nno mistakes: {relative(file)} is not written")
        return
    sheet(found, shares).save(file, quality=90)


if __name__ == "__main__":
    sys.exit(main())
