"""The command line of the evaluation."""

from __future__ import annotations

import argparse
from pathlib import Path

from command_line import Parser
from export.argument_types import model_name
from predict.loading import add_archive
from vit_core.precision import PRECISIONS

EXAMPLES = """examples:
  python -m evaluate model_store/xray.mar scans/
      scans/ has a folder of pictures for each class, of the class's name
  python -m evaluate model_store/xray.mar scans.csv --json xray.json --plot xray.png --mistakes mistakes.jpg
      the CSV has a column of paths and one of labels; a report, a confusion matrix and the worst mistakes besides
  python -m evaluate model_store/xray.mar scans/ --against model_store/xray-int8.mar
      which pictures the two answer differently, and whether that is more than chance
  python -m evaluate model_store/xray.mar scans/ --fit-temperature model_store/xray-calibrated.mar
      an archive whose probabilities are nearer to how often it is right
"""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m evaluate",
        description="Measure how accurate an archive is on labelled pictures, by the answers that a server would give.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_archive(parser)
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="a folder with a folder of pictures for each class, or a .csv or .tsv with a column of paths and one of labels",
    )
    reports = parser.add_argument_group("reports")
    reports.add_argument("--json", type=Path, metavar="FILE", help="all figures, errors and mistakes")
    reports.add_argument("--plot", type=Path, metavar="FILE.png", help="the confusion matrix and the reliability diagram")
    reports.add_argument("--mistakes", type=Path, metavar="FILE.png", help="the worst mistakes as a contact sheet; .jpg too")
    beside = parser.add_argument_group("side by side", "compare the first archive with the others")
    beside.add_argument("--against", type=Path, metavar="OTHER.mar", help="another archive with the same labels, in any order")
    beside.add_argument(
        "--precisions",
        type=_precisions,
        default=(None,),
        metavar="LIST",
        help=f"run the archive in each of {', '.join(PRECISIONS)}, with commas between them (default: as it is served)",
    )
    calibration = parser.add_argument_group("calibration")
    calibration.add_argument(
        "--fit-temperature",
        type=Path,
        metavar="OUT.mar",
        help="write an archive that divides the model's numbers by the temperature that fits these pictures best",
    )
    calibration.add_argument("--version", type=model_name, help="of that archive (default: the same as of ARCHIVE)")
    options = parser.parse_args(arguments)
    if options.fit_temperature and (options.against or len(options.precisions) > 1):
        parser.error("--fit-temperature is for one archive in one precision: leave --against and --precisions out")
    if options.version and not options.fit_temperature:
        parser.error("--version names the archive that --fit-temperature writes")
    return options


def _precisions(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if len(set(names)) != len(names) or not set(names) <= set(PRECISIONS):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(PRECISIONS)} with commas between them, not {text!r}")
    return names
