"""`python -m export MODEL [options]`: the command line of the export step."""

from __future__ import annotations

import sys
from pathlib import Path

from command_line import exit_status, show_step
from export.arguments import parse
from export.options import Options
from export.record import show


def main(arguments: list[str] | None = None) -> int:
    asked = parse(arguments)
    return exit_status("export", lambda: print(show(asked) if isinstance(asked, Path) else export_and_say(asked)))


def export_and_say(options: Options) -> str:
    """Exports the archive and returns a summary of it. Raises ExportError."""
    show_step(f"creating {options.model}")
    # Not at the top: torch takes seconds to import, and --help or a wrong argument should be answered at once.
    from export.pipeline import export
    from export.summary import summary

    try:
        return summary(export(options, show_step))
    finally:
        show_step("")


if __name__ == "__main__":
    sys.exit(main())
